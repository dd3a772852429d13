"""Private methods and attributes of asyncio's transports, which libraries use: as there."""

import asyncio
import errno
import os
import socket
import sys

import pytest

from tests.compare import same, told
from tests.support import PY, turns, until
from tests.transports import Tells, read_pipe, stream, write_pipe


async def unix_datagrams(log, loop):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.bind("")  # Linux finds a name
    one.connect(other.getsockname())
    one.setblocking(False)
    other.setblocking(False)
    transport, protocol = await loop.create_datagram_endpoint(lambda: Tells(log), sock=one)
    return transport, protocol, other


# Names that the kernel finds are Linux's.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="datagrams of the Unix domain")

MAKERS = [stream, read_pipe, write_pipe, unix_datagrams]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("error", [ConnectionResetError("gone"), ZeroDivisionError("bad")])
@pytest.mark.parametrize("message", [(), ("It is over",)])
def test_fatal_error(make, error, message):
    async def program(log, loop):
        transport, _, other = await make(log, loop)
        log.call("_fatal_error", transport._fatal_error, error, *message)
        await turns(3)
        log.call("is_closing", transport.is_closing)
        other.close()

    same(program)


def test_a_fatal_error_of_its_own():
    """What asyncio calls by name is what a program has put on the transport."""

    async def program(log, loop):
        transport, protocol, other = await stream(log, loop)
        protocol.data_received = lambda data: 1 / 0
        transport._fatal_error = lambda exc, message: log("fatal", repr(exc), message)
        other.send(b"x")
        await until(lambda: len(log.lines) > 1)
        log.call("is_closing", transport.is_closing)
        transport.close()
        await turns(3)
        other.close()

    same(program)


@pytest.mark.parametrize("make", [read_pipe, write_pipe])
@pytest.mark.parametrize("exc", [None, ZeroDivisionError("bad")])
def test_close_of_a_pipe(make, exc):
    async def program(log, loop):
        transport, _, other = await make(log, loop)
        log.call("_close", transport._close, exc)
        await turns(3)
        log.call("is_closing", transport.is_closing)
        other.close()

    same(program)


def test_force_close():
    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        log.call("_force_close", transport._force_close, ZeroDivisionError("bad"))
        await turns(3)
        other.close()

    same(program)


@pytest.mark.parametrize("make", MAKERS)
def test_protocol_by_attribute(make):
    async def program(log, loop):
        transport, protocol, other = await make(log, loop)
        other_protocol = Tells(lambda *items: log("other:", *items))
        transport._protocol = other_protocol
        log(transport.get_protocol() is other_protocol, transport._protocol is other_protocol)
        transport.close()
        await turns(3)
        other.close()

    same(program)


def test_end_of_file_by_hand():
    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        log.call("_read_ready__on_eof", transport._read_ready__on_eof)
        await turns(3)
        log.call("is_closing", transport.is_closing)
        transport.close()
        await turns(3)
        other.close()

    same(program)


def test_datagrams_that_wait():
    """A socket of the Unix domain refuses them while nobody reads."""

    async def program(log, loop):
        transport, _, other = await unix_datagrams(log, loop)
        sent = 0
        while not transport.get_write_buffer_size() and sent < 10_000:
            transport.sendto(b"%d" % sent)
            sent += 1
        transport.sendto(b"more")
        log([item[0] for item in transport._buffer], [item[1] for item in transport._buffer])
        got = 0
        while got < sent + 1:
            try:
                other.recv(100)
                got += 1
            except BlockingIOError:
                log.call("_sendto_ready", transport._sendto_ready)
        log(list(transport._buffer))
        if not (3, 12) <= PY < (3, 14):  # asyncio's forgets the headers' bytes there
            log(transport.get_write_buffer_size())
        transport.close()
        await turns(3)
        other.close()

    # how many the kernel takes is the same for both
    same(program)


def test_whoever_waits_for_the_end_of_the_output_learns_of_the_end():
    """As sendfile() does."""

    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        transport.write(b"x" * 3_000_000)
        waiter = transport._make_empty_waiter()
        log.call("again", transport._make_empty_waiter)
        transport.abort()
        await turns(3)
        log(repr(waiter.exception()))
        other.close()

    same(program)


def test_output_fails_while_somebody_waits_for_its_end():
    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        transport.write(b"x" * 3_000_000)
        waiter = transport._make_empty_waiter()
        other.close()
        while not waiter.done():
            await turns(1)
        log(repr(waiter.exception()))
        await turns(3)

    same(program, only=lambda line: not line.startswith("lost"))


def test_what_has_a_socket_closed_twice():
    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        for value in (None, transport.get_extra_info("socket")):
            try:
                transport._sock = value
            except AttributeError:
                log("refused")
        transport._sock = None if transport._sock is None else transport._sock
        transport.abort()
        await turns(3)
        other.close()

    # asyncio's lets anything in, and breaks later: ours has to end well
    told(program, "asyncloop")


def test_a_server_whose_protocol_cannot_be_made():
    async def program(log, loop, debug):
        loop.set_debug(debug)

        asked = asyncio.Event()

        def factory():
            asked.set()
            raise ZeroDivisionError("no protocol")

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await asked.wait()
        server.close()
        await server.wait_closed()

    # asyncio leaves the socket to the garbage collector
    for debug in (False, True):
        same(program, debug, only=lambda line: not line.startswith("warned"))


def test_an_accept_of_a_programs_own_fails():
    """Of the kinds that accept() may end with: the connection's end, no descriptors, any other."""

    class Listening(socket.socket):
        errors = []

        def accept(self):
            if self.errors:
                raise self.errors.pop(0)
            return super().accept()

    async def program(log, loop, error, debug):
        loop.set_debug(debug)
        with Listening() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            Listening.errors = [error]
            made = loop.create_future()

            class Made(asyncio.Protocol):
                def connection_made(self, transport):
                    transport.close()
                    made.done() or made.set_result(1)

            server = await loop.create_server(Made, sock=listening)
            with socket.create_connection(listening.getsockname()):
                log(await asyncio.wait_for(made, 30))
            server.close()
            if PY < (3, 12):
                await server.wait_closed()

    many = OSError(errno.EMFILE, "many")
    errors = ConnectionAbortedError(), InterruptedError(), BlockingIOError(), many
    for error in (*errors, PermissionError(1, "no"), ZeroDivisionError("bad")):
        for debug in (False, True):
            same(program, error, debug)


@pytest.mark.parametrize("make", [stream, write_pipe])
def test_output_that_waits_is_seen(make):
    async def program(log, loop):
        transport, _, other = await make(log, loop)
        log(bool(transport._buffer))
        transport.write(b"x" * 3_000_000)
        transport.write(b"y")
        log(bool(transport._buffer))
        transport.abort()
        await turns(3)
        other.close()

    same(program)


def test_a_pipe_is_written_by_functions_of_a_programs_own(monkeypatch):
    own, calls = os.write, []

    def write(fd, data):
        calls.append(len(data))
        return own(fd, data)

    async def program(log, loop):
        transport, _, other = await write_pipe(log, loop)
        calls.clear()
        transport.write(b"x" * 200_000)
        transport.write(b"y" * 200_000)
        os.set_blocking(other.fileno(), False)
        got = 0
        while got < 400_000:
            got += len(other.read(50_000) or b"")
            await turns(1)
        log(got, sum(calls) >= 400_000)
        log.call("can_write_eof", transport.can_write_eof)
        transport.write_eof()
        await turns(3)
        other.close()

    monkeypatch.setattr(os, "write", write)
    same(program)


def test_datagrams_by_a_send_of_a_programs_own():
    class Socket(socket.socket):
        def send(self, data):
            return super().send(data)

    async def program(log, loop):
        one = Socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        other.bind("")
        one.connect(other.getsockname())
        one.setblocking(False)
        transport, _ = await loop.create_datagram_endpoint(lambda: Tells(log), sock=one)
        transport.sendto(b"first")
        log(other.recv(100))
        transport.close()
        await turns(3)
        other.close()

    same(program)


@pytest.mark.parametrize("buffer", [b"", bytearray(), b"constant", None])
def test_a_buffer_that_nothing_can_be_read_into(buffer):
    class Bad(asyncio.BufferedProtocol):
        def __init__(self, log):
            self.log = log

        def get_buffer(self, hint):
            return buffer

        def buffer_updated(self, n):
            self.log("updated", n)

        def connection_lost(self, exc):
            self.log("lost", repr(exc))

    async def program(log, loop):
        one, other = socket.socketpair()
        one.setblocking(False)
        await loop.create_connection(lambda: Bad(log), sock=one)
        other.send(b"data")
        for _ in range(10):
            await asyncio.sleep(0.001)
        other.close()

    same(program)
