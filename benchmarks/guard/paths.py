"""The guarded hot paths: coroutine functions that do n operations, most of them as in tasks.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .. import bodies, tasks

Run = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Path:
    """A guarded path. It is run with n and with 2n operations; the difference counts."""

    key: str
    run: Run | None
    n: int = 1000
    prepared: Callable[[], contextlib.AbstractAsyncContextManager[Run]] | None = None
    """In place of `run`: opens what one run after the other uses, uncounted, and gives them."""
    tls: str = ""
    """The TLS engine, which is chosen once in a process: such paths have one of their own."""


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


class _Side(asyncio.BaseProtocol):
    """One side of a ping-pong: answers each ball until it has none left."""

    transport: asyncio.Transport

    def __init__(self, balls: int) -> None:
        self.left = balls
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


class Player(_Side, asyncio.Protocol):
    """By data_received()."""

    def data_received(self, data: bytes) -> None:
        if self.left:
            self.left -= 1
            self.transport.write(data)
        else:
            self.transport.close()


async def _pair(one: _Side, other: _Side) -> None:
    loop = asyncio.get_running_loop()
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    await loop.create_connection(lambda: one, sock=ends[0])
    await loop.create_connection(lambda: other, sock=ends[1])
    one.transport.write(bytes(1024))
    await one.lost
    await other.lost


async def protocol_pair(n: int) -> None:
    """Messages of 1 KiB from transport to transport and back: n messages in all."""
    await _pair(Player(n // 2), Player(n // 2))


class BufferedPlayer(_Side, asyncio.BufferedProtocol):
    """A player that gives its own memory to receive into."""

    def __init__(self, balls: int) -> None:
        super().__init__(balls)
        self.buffer = memoryview(bytearray(65536))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.left:
            self.left -= 1
            self.transport.write(bytes(self.buffer[:nbytes]))
        else:
            self.transport.close()


async def buffered_pair(n: int) -> None:
    """The same by BufferedProtocol."""
    await _pair(BufferedPlayer(n // 2), BufferedPlayer(n // 2))


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


class DatagramPlayer(asyncio.DatagramProtocol):
    """A player of datagrams."""

    transport: asyncio.DatagramTransport

    def __init__(self, balls: int) -> None:
        self.left = balls
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.left:
            self.left -= 1
            self.transport.sendto(data, addr)
        elif not self.lost.done():
            self.lost.set_result(None)


async def datagram_pair(n: int) -> None:
    """Datagrams of 1 KiB to and fro: n in all."""
    loop = asyncio.get_running_loop()
    players = []
    for _ in range(2):
        _, player = await loop.create_datagram_endpoint(
            lambda: DatagramPlayer(n // 2), local_addr=("127.0.0.1", 0)
        )
        players.append(player)
    address = players[1].transport.get_extra_info("sockname")
    players[0].transport.sendto(bytes(1024), address)
    await asyncio.wait([p.lost for p in players], return_when=asyncio.FIRST_COMPLETED)
    for player in players:
        player.transport.close()
    await asyncio.sleep(0)


class Rally(asyncio.Protocol):
    """One side of a ping-pong over a connection that stays: messages come back whole."""

    transport: asyncio.Transport

    def __init__(self, size: int) -> None:
        self.size = size
        self.got = 0
        self.left = 0
        self.over: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got < self.size:
            return
        self.got = 0
        if self.left:
            self.left -= 1
            self.transport.write(bytes(self.size))
        elif self.over is not None:
            self.over.set_result(None)


async def rally(one: Rally, other: Rally, n: int) -> None:
    """Play n messages in all."""
    other.left = n // 2
    one.left = n // 2 - 1
    one.over = asyncio.get_running_loop().create_future()
    one.transport.write(bytes(one.size))
    await one.over


@contextlib.asynccontextmanager
async def tls_pair() -> AsyncIterator[Run]:
    """Messages of 1 KiB over TLS, both ends on the loop: the handshake does not count."""
    certificate, key = os.environ["BENCHMARKS_CERTIFICATE"].split(os.pathsep)
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate, key)
    of_client = ssl.create_default_context(cafile=certificate)
    loop = asyncio.get_running_loop()
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    one, other = Rally(1024), Rally(1024)
    await asyncio.gather(
        loop.connect_accepted_socket(lambda: other, ends[1], ssl=of_server),
        loop.create_connection(
            lambda: one, sock=ends[0], ssl=of_client, server_hostname="localhost"
        ),
    )

    async def run(n: int) -> None:
        await rally(one, other, n)

    yield run
    one.transport.abort()
    other.transport.abort()
    await asyncio.sleep(0)


class Sink(asyncio.Protocol):
    """Takes all bytes, and says when it has so many."""

    def __init__(self) -> None:
        self.wanted = 0
        self.done: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self.wanted -= len(data)
        if self.wanted == 0 and self.done is not None:
            self.done.set_result(None)


@contextlib.asynccontextmanager
async def write_burst() -> AsyncIterator[Run]:
    """A hundred writes of 64 bytes in one turn of the loop, and their way to the other end."""
    loop = asyncio.get_running_loop()
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ends[0])
    _, sink = await loop.create_connection(Sink, sock=ends[1])

    async def run(n: int) -> None:
        data = bytes(64)
        for _ in range(n // 100):
            sink.wanted = 6400
            sink.done = loop.create_future()
            for _ in range(100):
                transport.write(data)
            await sink.done

    yield run
    transport.close()
    await asyncio.sleep(0)


class Greeter(asyncio.Protocol):
    """Sends one byte and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"x")  # type: ignore[attr-defined]
        transport.close()


class Guest(asyncio.Protocol):
    """Waits until the other side has closed."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


@contextlib.asynccontextmanager
async def connections() -> AsyncIterator[Run]:
    """A connection over TCP from connect() to both ends' end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greeter, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()

    async def run(n: int) -> None:
        for _ in range(n):
            _, guest = await loop.create_connection(Guest, host, port)
            await guest.lost

    yield run
    server.close()
    await asyncio.sleep(0)


def _task(key: str, n: int = 1000) -> Path:
    return Path(key, bodies.find(key).run, n)


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
    Path("buffered", buffered_pair),
    Path("streams", stream_pair, 500),
    Path("sock", sock_pair, 500),
    Path("datagram", datagram_pair, 500),
    Path("write-burst", None, 1000, write_burst),
    Path("connection", None, 50, connections),
    Path("tls-direct", None, 200, tls_pair, tls="direct"),
    Path("tls-portable", None, 200, tls_pair, tls="portable"),
)
