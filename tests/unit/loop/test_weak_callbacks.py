"""Callbacks of weak references look at all tasks and all transports while some of them die."""

import asyncio
import gc
import os
import socket
import warnings
import weakref

import pytest

from tests.support import turns


class Looks:
    """Keeps weak references whose callbacks look around, and keep what they find."""

    def __init__(self, loop):
        self.loop = loop
        self.references = []
        self.found = []
        self.calls = 0

    def watch(self, thing):
        self.references.append(weakref.ref(thing, self.look))

    def look(self, reference):
        self.calls += 1
        loop = self.loop
        self.found += asyncio.all_tasks(loop)
        self.found += dict(loop._transports).values()
        for fd in range(3, 40):
            try:
                loop._ensure_fd_no_transport(fd)
            except RuntimeError as exc:
                self.found.append(str(exc))


class Garbage:
    pass


@pytest.mark.parametrize("by_collector", [False, True])
def test_tasks(run, by_collector):
    async def waits(future, garbage):
        await future

    async def main():
        loop = asyncio.get_running_loop()
        looks = Looks(loop)
        loop.set_exception_handler(lambda loop, context: None)  # destroyed, but pending
        for _ in range(20):
            garbage = Garbage()
            if by_collector:
                garbage.itself = garbage
            garbage.future = loop.create_future()
            kept = garbage if by_collector else None
            garbage.task = loop.create_task(waits(garbage.future, kept))
            del kept
            for thing in garbage, garbage.future, garbage.task, garbage.task.get_coro():
                looks.watch(thing)
            await asyncio.sleep(0)
            del garbage, thing
        gc.collect()
        assert looks.calls
        for thing in looks.found:
            repr(thing)
            if isinstance(thing, asyncio.Task) and thing is not asyncio.current_task():
                thing.cancel()
        await turns(5)
        looks.found.clear()
        looks.references.clear()
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


class Protocol(asyncio.Protocol, asyncio.DatagramProtocol):
    pass


async def stream(loop):
    one, other = socket.socketpair()
    transport, _ = await loop.create_connection(Protocol, sock=one)
    transport.pause_reading()
    return transport, other


async def datagrams(loop):
    transport, _ = await loop.create_datagram_endpoint(Protocol, ("127.0.0.1", 0))
    if hasattr(transport, "pause_reading"):
        transport.pause_reading()
    return transport, None


async def read_pipe(loop):
    reading, writing = os.pipe()
    transport, _ = await loop.connect_read_pipe(Protocol, os.fdopen(reading, "rb", 0))
    transport.pause_reading()
    return transport, os.fdopen(writing, "wb", 0)


async def read_pipe_taken(loop):
    """Its file is somebody else's again."""
    transport, other = await read_pipe(loop)
    file = transport._pipe
    transport._pipe = None
    file.close()
    return transport, other


@pytest.mark.parametrize("by_collector", [False, True])
@pytest.mark.parametrize("make", [stream, datagrams, read_pipe, read_pipe_taken])
def test_transports(impl, make, by_collector):
    async def main():
        loop = asyncio.get_running_loop()
        looks = Looks(loop)
        others = []
        for _ in range(5):
            transport, other = await make(loop)
            others.append(other)
            await turns(3)
            protocol = transport.get_protocol()
            if by_collector:
                protocol.transport = transport
            looks.watch(transport)
            looks.watch(protocol)
            del transport, protocol
        await turns(3)
        gc.collect()
        found, looks.found = looks.found, []
        looks.references.clear()
        for thing in found:
            repr(thing)
            if isinstance(thing, asyncio.BaseTransport):
                thing.is_closing()
                thing.close()
        await turns(5)
        for other in others:
            if other is not None:
                other.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = impl.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
        gc.collect()
