"""Methods of transports that are called by hand, or when all is over: asyncio's answers.

Each test runs a small program on the standard loop and on asyncloop, and compares what it was told.
"""

import asyncio
import socket

import pytest

from tests.compare import same, shown_error
from tests.support import turns, until
from tests.transports import write_pipe


class Stays(asyncio.Protocol):
    """Keeps the connection when the peer has ended."""

    def __init__(self, log):
        self.log = log
        self.events = 0

    def connection_made(self, transport):
        self.log("made")

    def data_received(self, data):
        self.events += 1
        self.log("data", bytes(data))

    def eof_received(self):
        self.events += 1
        self.log("eof")
        return True

    def connection_lost(self, exc):
        self.log("lost", exc and shown_error(exc))


class StaysWithBuffer(Stays, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.room = bytearray(100)
        return self.room

    def buffer_updated(self, size):
        self.data_received(self.room[:size])


async def connected(log, loop, kind):
    near, far = socket.socketpair()
    transport, protocol = await loop.create_connection(lambda: kind(log), sock=near)
    return transport, protocol, far


@pytest.mark.parametrize("kind", [Stays, StaysWithBuffer])
def test_reading_by_hand(kind):
    """_read_ready() asks only whether the connection is lost."""

    async def program(log, loop):
        transport, protocol, far = await connected(log, loop, kind)
        transport.pause_reading()
        far.send(b"paused")
        log.call("read", transport._read_ready)
        log.call("read", transport._read_ready)
        far.shutdown(socket.SHUT_WR)
        log.call("read", transport._read_ready)
        transport.resume_reading()
        await until(lambda: protocol.events == 3)
        for _ in range(3):
            log.call("read", transport._read_ready)
        log.call("on eof", transport._read_ready__on_eof)
        transport.set_protocol(Stays(log))
        log.call("read", transport._read_ready)
        transport.abort()
        log.call("read", transport._read_ready)
        await turns(3)
        log.call("read", transport._read_ready)
        log.call("on eof", transport._read_ready__on_eof)
        log.call("empty waiter", transport._make_empty_waiter)
        far.close()

    same(program)


class Receives(asyncio.DatagramProtocol):
    def __init__(self, log):
        self.log = log
        self.count = 0

    def datagram_received(self, data, address):
        self.count += 1
        self.log("datagram", data)

    def error_received(self, exc):
        self.log("error", shown_error(exc))

    def connection_lost(self, exc):
        self.log("lost", exc)


def test_datagrams_are_read_by_hand_one_by_one():
    async def program(log, loop):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Receives(log), local_addr=("127.0.0.1", 0)
        )
        loop._remove_reader(transport.get_extra_info("socket").fileno())
        with socket.socket(type=socket.SOCK_DGRAM) as far:
            far.connect(transport.get_extra_info("sockname"))
            for data in (b"1", b"22", b"333"):
                far.send(data)
            for _ in range(4):
                log.call("read", transport._read_ready)
                log(protocol.count)
        transport.abort()
        await turns(3)
        log.call("read", transport._read_ready)

    same(program)


@pytest.mark.parametrize("target", [False, True], ids=["free", "fixed target"])
def test_datagram_is_sent_after_the_end(target):
    """Without a fixed target it goes on until the socket is closed, and then fails."""

    async def program(log, loop):
        with socket.socket(type=socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            far.settimeout(5)
            address = far.getsockname()
            where = {"remote_addr": address} if target else {"local_addr": ("127.0.0.1", 0)}
            transport, _ = await loop.create_datagram_endpoint(lambda: Receives(log), **where)
            transport.close()
            log.call("send", transport.sendto, b"closing", address)
            if not target:
                log(far.recv(100))
            await turns(3)
            for data in (b"closed", b"", bytearray(b"closed"), "text"):
                log.call("send", transport.sendto, data, address)
            log.call("send", transport.sendto, b"closed")
            log.call("send", transport.sendto, b"closed", 5)

    same(program)


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_reader_of_a_pipe_goes_while_the_rest_is_sent(end):
    """The writing end is told by its own descriptor, not by a write that fails."""

    async def program(log, loop):
        transport, _, other = await write_pipe(log, loop)
        with other:
            transport.write(bytes(1 << 20))
            getattr(transport, end)()
            await turns(3)
        await until(lambda: any(line.startswith("lost") for line in log.lines))
        log.call("write", transport.write, b"late")

    same(program)
