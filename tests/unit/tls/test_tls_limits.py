"""The limits of flow control: over a socket and over TLS any numbers that can be compared."""

import asyncio
import math
import socket
from decimal import Decimal
from fractions import Fraction

import pytest

from tests.support import until


class Meters:
    """A number only to those who compare, multiply, divide, or want a float."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return float(self.value)

    def __ge__(self, other):
        return self.value >= float(other)

    def __gt__(self, other):
        return self.value > float(other)

    def __le__(self, other):
        return self.value <= float(other)

    def __lt__(self, other):
        return self.value < float(other)


class Paused(asyncio.Protocol):
    def __init__(self):
        self.told = []

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")

    def connection_lost(self, exc):
        self.told.append("lost")


class Deaf(asyncio.Protocol):
    lost = False

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()

    def connection_lost(self, exc):
        self.lost = True


async def end(protocol, deaf):
    protocol.transport.abort()
    deaf.transport.abort()
    await until(lambda: deaf.lost and protocol.told[-1:] == ["lost"])


@pytest.fixture(params=["tcp", "tls"])
def connect(request, loop, contexts):
    """A coroutine function: the protocol of a connection, and that of its other end."""

    async def connection():
        tls = request.param == "tls"
        deaf = Deaf()
        server = await loop.create_server(
            lambda: deaf, "127.0.0.1", 0, ssl=contexts[0] if tls else None
        )
        _, protocol = await loop.create_connection(
            Paused,
            *server.sockets[0].getsockname(),
            ssl=contexts[1] if tls else None,
            server_hostname="localhost" if tls else None,
        )
        await until(lambda: hasattr(deaf, "transport"))
        server.close()
        return protocol, deaf

    return connection


def test_limits_are_kept_as_they_were_given(connect, run):
    async def main():
        protocol, deaf = await connect()
        limits = protocol.transport.set_write_buffer_limits
        kept = []
        for high, low in [
            (1000, None), (None, 50), (Fraction(41, 2), None), (Decimal(10), Decimal("2.5")),
            (math.inf, 5.5), (None, math.inf), (2**80, 0), (True, False), (Meters(3), 1),
        ]:  # fmt: skip
            limits(high=high, low=low)
            kept.append(protocol.transport.get_write_buffer_limits())
        for high, low, error in [
            (1, 2, ValueError), (-1, -2, ValueError), (math.nan, None, ValueError),
            ("1", 1, TypeError), (1, "1", TypeError), (1, object(), TypeError),
        ]:  # fmt: skip
            with pytest.raises(error):
                limits(high=high, low=low)
        assert protocol.transport.get_write_buffer_limits() == kept[-1]
        await end(protocol, deaf)
        return kept

    kept = run(main())
    assert kept[:-1] == [
        (250, 1000), (50, 200), (5, Fraction(41, 2)), (Decimal("2.5"), 10), (5.5, math.inf),
        (math.inf, math.inf), (0, 2**80), (False, True),
    ]  # fmt: skip
    assert [type(low) for low, _ in kept[2:4]] == [int, Decimal] and kept[7][1] is True
    assert kept[-1][0] == 1 and isinstance(kept[-1][1], Meters)


@pytest.mark.parametrize("high", [Decimal(100), Fraction(100), 100.0, Meters(100)])
def test_limits_that_are_no_ints_pause_and_resume(connect, run, high):
    async def main():
        protocol, deaf = await connect()
        protocol.transport.set_write_buffer_limits(high=math.inf, low=0)
        while protocol.transport.get_write_buffer_size() < 1000:
            protocol.transport.write(bytes(1 << 20))
        assert protocol.told == []
        protocol.transport.set_write_buffer_limits(high=high, low=0)
        assert protocol.told == ["pause"]
        deaf.transport.resume_reading()
        await until(lambda: len(protocol.told) > 1)
        await end(protocol, deaf)
        return protocol.told

    assert run(main()) == ["pause", "resume", "lost"]


@pytest.mark.parametrize("value", [2.5, math.inf, Fraction(7, 2)])
def test_private_limits_are_any_numbers(run, loop, value):
    async def main():
        near, far = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        transport._high_water = value
        transport._low_water = 1.5
        assert transport.get_write_buffer_limits() == (1.5, value)
        transport.abort()
        far.close()

    run(main())
