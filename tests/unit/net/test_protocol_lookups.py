"""A protocol is asked for its methods when they are called, and as often."""

import asyncio
import contextlib
import functools
import os
import socket

import pytest

from tests.support import until


@contextlib.asynccontextmanager
async def over_socket(loop, protocol):
    end, other = socket.socketpair()
    transport, _ = await loop.create_connection(lambda: protocol, sock=end)
    with other:
        yield other.send
        transport.abort()


@contextlib.asynccontextmanager
async def over_pipe(loop, protocol):
    end, other = os.pipe()
    transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(end, "rb", 0))
    yield functools.partial(os.write, other)
    transport.close()
    os.close(other)


async def three_packets(loop, protocol, connect, seen):
    async with connect(loop, protocol) as send:
        for count, data in enumerate((b"1", b"2", b"3"), 1):
            send(data)
            await until(lambda: len(seen) == count)


@pytest.mark.parametrize("connect", [over_socket, over_pipe])
def test_property_is_asked_once_for_each_packet(run, loop, connect):
    seen = []

    class Counted(asyncio.Protocol):
        looks = 0

        @property
        def data_received(self):
            self.looks += 1
            return functools.partial(self.take, self.looks)

        def take(self, look, data):
            seen.append((look, data))

    run(three_packets(loop, Counted(), connect, seen))
    assert seen == [(1, b"1"), (2, b"2"), (3, b"3")]


@pytest.mark.parametrize("connect", [over_socket, over_pipe])
def test_each_look_up_is_seen(run, loop, connect):
    looks, seen = [], []

    class Watched(asyncio.Protocol):
        def __getattribute__(self, name):
            looks.append(name)
            return super().__getattribute__(name)

        def data_received(self, data):
            seen.append(data)

    run(three_packets(loop, Watched(), connect, seen))
    assert [name for name in looks if "received" in name] == ["data_received"] * 3


def test_properties_of_a_buffered_protocol(run, loop):
    looks, seen = [], []

    class Buffered(asyncio.BufferedProtocol):
        buffer = bytearray(10)

        @property
        def get_buffer(self):
            looks.append("get_buffer")
            return lambda _: self.buffer

        @property
        def buffer_updated(self):
            looks.append("buffer_updated")
            return seen.append

    run(three_packets(loop, Buffered(), over_socket, seen))
    assert looks == ["get_buffer", "buffer_updated"] * 3
