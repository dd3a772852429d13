"""The context that goes with what a transport asks of a loop whose methods are a program's.

Each test runs a small program on the standard loop and on asyncloop, and compares what it was told.
"""

import asyncio
import contextvars
import os
import socket

import pytest

from tests.compare import same
from tests.support import PY, turns

pytestmark = pytest.mark.our_loop("each test runs both loops itself")

where = contextvars.ContextVar("where", default="outside")


def replace(log, loop):
    """Methods that tell how they were called, and pass on everything."""
    for name in ("_add_reader", "_add_writer", "call_soon"):
        theirs = getattr(loop, name)

        def mine(*args, name=name, theirs=theirs, **keywords):
            if name != "call_soon":
                log(name, {key: value is None for key, value in keywords.items()})
            return theirs(*args, **keywords)

        setattr(loop, name, mine)


class Tells(asyncio.Protocol):
    """Sets a variable in its first call, and tells it in all others."""

    def __init__(self, log):
        self.log = log

    def connection_made(self, transport):
        where.set("inside")
        self.log("made", where.get())

    def data_received(self, data):
        self.log("data", where.get())
        where.set(f"after {len(data)}")

    def datagram_received(self, data, address):
        self.data_received(data)

    def eof_received(self):
        self.log("eof", where.get())

    def connection_lost(self, exc):
        self.log("lost", where.get())


async def stream(log, loop):
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        transport, _ = await loop.create_connection(lambda: Tells(log), sock=ours)
        for size in (1, 2):
            await loop.sock_sendall(theirs, b"x" * size)
            await asyncio.sleep(0.01)
        transport.pause_reading()
        transport.resume_reading()
        transport.write(bytes(1 << 22))
        await turns(2)
        transport.abort()
        await turns(2)
    log("outside", where.get())


async def datagrams(log, loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Tells(log), local_addr=("127.0.0.1", 0)
        )
        theirs.sendto(b"xyz", transport.get_extra_info("sockname"))
        await turns(3)
        transport.close()
        await turns(2)


async def pipes(log, loop):
    reads, writes = os.pipe()
    with open(writes, "wb", buffering=0) as file:
        await loop.connect_read_pipe(lambda: Tells(log), open(reads, "rb", buffering=0))
        file.write(b"abc")
        await turns(3)
    await turns(4)


@pytest.mark.parametrize("kind", [stream, datagrams, pipes])
def test_methods_of_a_program(kind):
    """From 3.15 on sockets pass their context on; what is set in that of a stream stays."""

    async def program(log, loop):
        replace(log, loop)
        await kind(log, loop)

    # Where asyncio passes on none, each watching has a new copy: docs/differences.md.
    all_lines = PY >= (3, 15) and kind is stream
    same(program, only=None if all_lines else lambda line: line.startswith("_add"))


async def own_context(log, loop):
    ours, theirs = socket.socketpair()
    seen = []
    context = contextvars.copy_context()
    context.run(where.set, "given")

    def tells(*args):
        seen.append((where.get(), args))

    with ours, theirs:
        for add, number in ((loop._add_reader, ours), (loop._add_writer, theirs)):
            for given in (context, None):
                log.call("add", add, number.fileno(), tells, 1, context=given)
                theirs.send(b"x")
                await asyncio.sleep(0.01)
                log("seen", seen[-1:])
        log.call("by name", loop._add_reader, fd=ours.fileno(), callback=print, context=context)
        loop.remove_reader(ours)
        loop.remove_writer(theirs)


def test_context_by_name():
    """The methods behind add_reader() and add_writer() take one from 3.15 on."""
    same(own_context, only=lambda line: line.startswith("seen"))
