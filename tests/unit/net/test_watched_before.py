"""A descriptor that is watched by hand, or waited for, before it gets a transport.

As in asyncio's selector, a descriptor has one reader and one writer: those of the transport take
the place of those that were there.
"""

import asyncio
import contextlib
import socket

import pytest

from tests.compare import same
from tests.support import tcp_pair, turns, until
from tests.transports import Tells


async def connected(log, loop, near, kind=Tells):
    transport, _ = await loop.create_connection(lambda: kind(log), sock=near)
    return transport


def pair():
    near, far = tcp_pair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def test_reader_loses_its_place():
    async def program(log, loop):
        near, far = pair()
        loop.add_reader(near, log, "by hand")
        transport = await connected(log, loop, near)
        for data in (b"1", b"2"):
            far.send(data)
            await until(lambda data=data: any(repr(data) in line for line in log.lines))
            transport.pause_reading()
            transport.resume_reading()
        transport.close()
        await turns(3)
        far.close()

    same(program)


class Pauses(Tells):
    def connection_made(self, transport):
        transport.pause_reading()


def test_reader_of_a_transport_that_begins_paused():
    async def program(log, loop):
        near, far = pair()
        loop.add_reader(near, lambda: log("by hand", near.recv(10)))
        transport = await connected(log, loop, near, Pauses)
        far.send(b"1")
        await turns(20)
        transport.resume_reading()
        await until(lambda: log.lines)
        transport.close()
        await turns(3)
        far.close()

    same(program)


def test_datagram_reader_loses_its_place():
    async def program(log, loop):
        near = socket.socket(type=socket.SOCK_DGRAM)
        near.bind(("127.0.0.1", 0))
        near.setblocking(False)
        loop.add_reader(near, log, "by hand")
        transport, _ = await loop.create_datagram_endpoint(lambda: Tells(log), sock=near)
        with socket.socket(type=socket.SOCK_DGRAM) as far:
            far.sendto(b"1", near.getsockname())
            await until(lambda: "datagram b'1'" in log.lines)
        transport.close()
        await turns(3)

    same(program)


def test_waiting_sock_recv_gets_nothing():
    async def program(log, loop):
        near, far = pair()
        waits = loop.create_task(loop.sock_recv(near, 3))
        await turns(3)
        transport = await connected(log, loop, near)
        far.send(b"123456")
        await until(lambda: "data b'123456'" in log.lines)
        log(waits.done())
        waits.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waits
        far.send(b"7")
        await until(lambda: "data b'7'" in log.lines)
        transport.close()
        await turns(3)
        far.close()

    same(program)


@pytest.mark.parametrize("how", ["output waits", "close"])
def test_writer_loses_its_place(how):
    """When output begins to wait, and when the transport is closed; not before."""

    async def program(log, loop):
        near, far = pair()
        count = 0

        def by_hand():
            nonlocal count
            count += 1

        async def still_called():
            before = count
            await turns(50)
            await asyncio.sleep(0.001)
            await turns(50)
            return count > before

        loop.add_writer(near, by_hand)
        transport = await connected(log, loop, near)
        log("before", await still_called())
        if how == "close":
            transport.close()
            log("closed", await still_called())
        else:
            transport.write(bytes(1 << 23))
            log("waits", await still_called())
            while transport.get_write_buffer_size() > 0:
                with contextlib.suppress(BlockingIOError):
                    far.recv(1 << 20)
                await asyncio.sleep(0)
            log("gone", await still_called())
            transport.abort()
        await turns(3)
        far.close()

    same(program)
