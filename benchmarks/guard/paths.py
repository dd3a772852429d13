"""The guarded hot paths: coroutine functions that do n operations, most of them as in tasks.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .. import tasks


@dataclass(frozen=True)
class Path:
    """A guarded path. It is run with n and with 2n operations; the difference counts."""

    key: str
    run: Callable[[int], Awaitable[None]]
    n: int = 1000


async def call_soon_arguments(n: int) -> None:
    """call_soon with two arguments, a hundred per turn of the loop."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        for i in range(100):
            loop.call_soon(tasks.nothing, i, None)
        await asyncio.sleep(0)


async def timers_fire(n: int) -> None:
    """Timers that are due at once, a hundred per turn of the loop."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        done = loop.create_future()
        for _ in range(99):
            loop.call_later(0, tasks.nothing)
        loop.call_later(0, done.set_result, None)
        await done


async def reader_switch(n: int) -> None:
    """add_reader and remove_reader on a quiet descriptor, with a turn of the loop in between."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    with one, other:
        for _ in range(n):
            loop.add_reader(one.fileno(), tasks.nothing)
            await asyncio.sleep(0)
            loop.remove_reader(one.fileno())


class Player(asyncio.Protocol):
    """One side of a ping-pong: answers each ball until it has none left."""

    transport: asyncio.Transport

    def __init__(self, balls: int) -> None:
        self.left = balls
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.left:
            self.left -= 1
            self.transport.write(data)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


async def protocol_pair(n: int) -> None:
    """Messages of 1 KiB from transport to transport and back: n messages in all."""
    loop = asyncio.get_running_loop()
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    one, other = Player(n // 2), Player(n // 2)
    await loop.create_connection(lambda: one, sock=ends[0])
    await loop.create_connection(lambda: other, sock=ends[1])
    one.transport.write(bytes(1024))
    await one.lost
    await other.lost


async def stream_pair(n: int) -> None:
    """The same by streams: readexactly, write, drain on both sides."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)

    async def play(end: socket.socket, begins: bool) -> None:
        reader, writer = await asyncio.open_connection(sock=end)
        for turn in range(n):
            if begins == (turn % 2 == 0):
                writer.write(bytes(1024))
                await writer.drain()
            else:
                await reader.readexactly(1024)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(play(ends[0], True), play(ends[1], False))


async def sock_pair(n: int) -> None:
    """The same by sock_recv and sock_sendall."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    for end in (one, other):
        end.setblocking(False)

    async def play(end: socket.socket) -> None:
        for _ in range(n // 2):
            await loop.sock_sendall(end, await loop.sock_recv(end, 4096))

    with one, other:
        one.sendall(bytes(1024))
        await asyncio.gather(play(one), play(other))


def _task(key: str, n: int = 1000) -> Path:
    return Path(key, tasks.body(key).run, n)


PATHS = (
    _task("call-soon"),
    Path("call-soon-arguments", call_soon_arguments),
    _task("call-later"),
    Path("timers-fire", timers_fire),
    _task("threadsafe"),
    _task("sleep-one"),
    _task("sleep-100"),
    _task("future"),
    _task("gather-100"),
    _task("await-task"),
    _task("taskgroup-100"),
    _task("timeout", 500),
    _task("queue", 500),
    _task("lock-10", 500),
    Path("reader", reader_switch, 500),
    Path("protocol", protocol_pair),
    Path("streams", stream_pair, 500),
    Path("sock", sock_pair, 500),
)
