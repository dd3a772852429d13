"""A TLS transport, and the protocol that it is for the transport below, when all is over.

Each test runs a small program on the standard loop and on asyncloop, and compares what it was told.
"""

import asyncio
import socket

import pytest

from tests.compare import same, shown_error
from tests.support import PY, turns, until

pytestmark = [
    pytest.mark.our_loop("each test runs both loops itself"),
    pytest.mark.usefixtures("engine"),
]


class Tells(asyncio.Protocol):
    def __init__(self, log):
        self.log = log
        self.got = b""
        self.lost = False

    def data_received(self, data):
        self.got += data

    def eof_received(self):
        self.log("eof")

    def connection_lost(self, exc):
        self.lost = True
        self.log("lost", exc and shown_error(exc))


async def connected(log, loop, contexts):
    """Both ends; what the other one is told does not count."""
    near, far = socket.socketpair()
    theirs = Tells(lambda *items: None)
    accepting = loop.create_task(loop.connect_accepted_socket(lambda: theirs, far, ssl=contexts[0]))
    transport, _ = await loop.create_connection(
        lambda: Tells(log), sock=near, ssl=contexts[1], server_hostname="localhost"
    )
    other, _ = await accepting
    return transport, other, theirs


class Part:
    """Data that nobody can write."""

    def __len__(self):
        return 3


CALLS = [
    ("write", b"x"),
    ("write", "x"),
    ("writelines", 5),
    ("writelines", [b"x"]),
    ("write_eof",),
    ("set_read_buffer_limits", 0),
    ("set_read_buffer_limits", 0, 0),
    ("set_read_buffer_limits", 5),
    ("set_write_buffer_limits", 0),
    ("set_write_buffer_limits", 9),
    ("get_read_buffer_size",),
    ("get_write_buffer_size",),
    ("_test__append_write_backlog", b"ab"),
    ("_test__append_write_backlog", Part()),
    ("get_write_buffer_size",),
    *[("write", b"x")] * 6,
    ("get_protocol",),
    ("is_closing",),
    ("close",),
    ("abort",),
]
BELOW = [
    ("connection_lost", None),
    ("connection_lost", ValueError("once more")),
    ("eof_received",),
    ("buffer_updated", 0),
    ("buffer_updated", 5),
    ("buffer_updated", "x"),
    ("pause_writing",),
    ("pause_writing",),
    ("resume_writing",),
]


@pytest.mark.parametrize("closes", range(3))
@pytest.mark.parametrize("end", ["abort", "close", "peer"])
def test_after_the_end(contexts, end, closes):
    async def program(log, loop):
        transport, other, _ = await connected(log, loop, contexts)
        below = transport._ssl_protocol
        if end == "peer":
            other.close()
        else:
            getattr(transport, end)()
        await until(lambda: below._conn_lost)
        await turns(3)
        for _ in range(closes):
            transport.close()
        for name, *args in CALLS:
            log.call(name, getattr(transport, name), *args)
        if closes == 2 or PY >= (3, 13):  # before, asyncio's has the wrong number of arguments
            log.call("force", transport._force_close, None)
            log.call("force", transport._force_close, ValueError("x"))
        for name, *args in BELOW:
            log.call(name, getattr(below, name), *args)
            log(below._conn_lost, below._app_state.name, below._eof_received)
        other.abort()
        await turns(3)

    same(program)


def test_connection_is_lost_twice_in_the_handshake(contexts):
    async def program(log, loop):
        near, far = socket.socketpair()
        transport, _ = await loop.create_connection(lambda: Tells(log), sock=near)
        task = loop.create_task(
            loop.start_tls(transport, Tells(log), contexts[1], server_hostname="localhost")
        )
        await turns(3)
        below = transport.get_protocol()
        log(below._state.name, below._app_state.name)
        log.call("lost", below.connection_lost, OSError("no"))
        log.call("lost", below.connection_lost, None)
        log(below._state.name, below._app_state.name)
        await log.wait("start_tls", lambda: task)
        transport.abort()
        far.close()
        await turns(3)

    same(program)


def test_transport_below_cannot_end(contexts):
    """What it raises comes out, and who waits for the handshake is not told of another reason."""

    def broken(exc):
        raise ZeroDivisionError

    async def program(log, loop):
        near, far = socket.socketpair()
        transport, _ = await loop.create_connection(lambda: Tells(log), sock=near)
        task = loop.create_task(
            loop.start_tls(transport, Tells(log), contexts[1], server_hostname="localhost")
        )
        await turns(3)
        below = transport.get_protocol()
        transport._force_close = broken
        log.call("eof", below.eof_received)
        await turns(3)
        log(task.done(), transport.is_closing())
        del transport._force_close
        transport.abort()
        await log.wait("start_tls", lambda: task)
        far.close()
        await turns(3)

    same(program)


PARTS = [b"abc", bytearray(b"de"), memoryview(b"fgh"), b"", Part(), "text", 5, None, [1, 2]]


@pytest.mark.parametrize(
    "part", PARTS, ids=lambda part: type(part).__name__ + str(PARTS.index(part))
)
def test_part_is_put_into_the_backlog(contexts, part):
    async def program(log, loop):
        transport, other, theirs = await connected(log, loop, contexts)
        log.call("append", transport._test__append_write_backlog, part)
        log(transport.get_write_buffer_size())
        log.call("write", transport.write, b"1")
        await until(lambda: theirs.got or theirs.lost)
        log(theirs.got, transport.get_write_buffer_size(), transport.is_closing())
        transport.abort()
        other.abort()
        await turns(3)

    same(program)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ended_by_the_generator_of_parts(contexts, end):
    async def program(log, loop):
        transport, other, theirs = await connected(log, loop, contexts)

        def parts():
            yield b"a"
            getattr(transport, end)()
            yield b"bc"

        log.call("writelines", transport.writelines, parts())
        log(transport.get_write_buffer_size())
        await until(lambda: theirs.lost)
        log(theirs.got, transport.get_write_buffer_size())
        other.abort()
        await turns(3)

    same(program)
