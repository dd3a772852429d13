"""Rows of what one process does with the network: writing, connecting, names, and subprocesses.

The other side is a C program on another core (helpers.py), so that CPU time is the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator

from .body import US_CPU_AND_WALL, US_PER_OP, Body, Run, Session
from .inprocess import row_of
from .loops import NETWORK, TLS

HOST = "127.0.0.1"

# --- writing ---------------------------------------------------------------------------


class Sender(asyncio.Protocol):
    """Keeps to the transport's flow control."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.resumed: asyncio.Future[None] | None = None
        self.lost = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def pause_writing(self) -> None:
        self.resumed = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.resumed is not None:
            self.resumed.set_result(None)
            self.resumed = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


@contextlib.asynccontextmanager
async def sender(port: str) -> AsyncIterator[Sender]:
    """A connection to the sink."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(Sender, HOST, int(port))
    yield protocol
    protocol.transport.abort()
    await protocol.lost


def writes(size: int, pieces: int = 0) -> Session:
    """Write so many bytes, or so many pieces of them by writelines(), and wait as the transport
    asks for; at least one turn of the loop.
    """

    @contextlib.asynccontextmanager
    async def session(port: str) -> AsyncIterator[Run]:
        data = [bytes(size)] * pieces if pieces else bytes(size)
        async with sender(port) as protocol:
            write = getattr(protocol.transport, "writelines" if pieces else "write")

            async def run(n: int) -> None:
                for _ in range(n):
                    write(data)
                    if protocol.resumed is None:
                        await asyncio.sleep(0)
                    else:
                        await protocol.resumed

            yield run

    return session


def bursts(size: int) -> Session:
    """A hundred writes in one turn of the loop."""

    @contextlib.asynccontextmanager
    async def session(port: str) -> AsyncIterator[Run]:
        data = bytes(size)
        async with sender(port) as protocol:
            write = protocol.transport.write

            async def run(n: int) -> None:
                for _ in range(n // 100):
                    for _ in range(100):
                        write(data)
                    if protocol.resumed is None:
                        await asyncio.sleep(0)
                    else:
                        await protocol.resumed

            yield run

    return session


def tls_echoed(size: int, pieces: int) -> Session:
    """Pieces by writelines over TLS, and all of them back."""

    @contextlib.asynccontextmanager
    async def session(port: str) -> AsyncIterator[Run]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(HOST, int(port), ssl=context)
        data = [bytes(size)] * pieces

        async def run(n: int) -> None:
            for _ in range(n):
                writer.transport.writelines(data)
                await reader.readexactly(size * pieces)

        yield run
        writer.transport.abort()

    return session


# --- connecting ------------------------------------------------------------------------


class Guest(asyncio.Protocol):
    """Waits for a byte and closes."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


@contextlib.asynccontextmanager
async def connect_protocol(port: str) -> AsyncIterator[Run]:
    """create_connection, the server's first byte, close."""
    loop = asyncio.get_running_loop()
    number = int(port)

    async def run(n: int) -> None:
        for _ in range(n):
            _, guest = await loop.create_connection(Guest, HOST, number)
            await guest.lost

    yield run


@contextlib.asynccontextmanager
async def connect_streams(port: str) -> AsyncIterator[Run]:
    """The same by open_connection."""
    number = int(port)

    async def run(n: int) -> None:
        for _ in range(n):
            reader, writer = await asyncio.open_connection(HOST, number)
            await reader.readexactly(1)
            writer.close()
            await writer.wait_closed()

    yield run


@contextlib.asynccontextmanager
async def connect_sock(port: str) -> AsyncIterator[Run]:
    """The same by sock_connect and sock_recv."""
    loop = asyncio.get_running_loop()
    address = HOST, int(port)

    async def run(n: int) -> None:
        for _ in range(n):
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                await loop.sock_recv(sock, 1)

    yield run


# --- names and subprocesses ------------------------------------------------------------


async def resolve_number(n: int) -> None:
    """getaddrinfo of what needs no resolver."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        await loop.getaddrinfo(HOST, 80, type=socket.SOCK_STREAM)


async def resolve_name(n: int) -> None:
    """getaddrinfo of localhost, which asks the system in a thread."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


TRUE = shutil.which("true") or "true"


async def start_process(n: int) -> None:
    """Start /bin/true and wait for its end."""
    for _ in range(n):
        process = await asyncio.create_subprocess_exec(TRUE)
        await process.wait()


def plain_process(n: int) -> None:
    """The same by subprocess.run."""
    for _ in range(n):
        subprocess.run([TRUE])


async def process_output(n: int) -> None:
    """Start echo and read what it prints."""
    for _ in range(n):
        process = await asyncio.create_subprocess_exec(
            "echo", "hello", stdout=asyncio.subprocess.PIPE
        )
        await process.communicate()


def plain_output(n: int) -> None:
    """The same by subprocess.run."""
    for _ in range(n):
        subprocess.run(["echo", "hello"], stdout=subprocess.PIPE)


def _write(
    key: str,
    title: str,
    session: Session,
    step: int = 1,
    needs: str = "sink",
    trait: str = NETWORK,
) -> Body:
    return Body(
        key,
        title,
        step=step,
        group="write",
        session=session,
        needs=needs,
        traits=frozenset({trait}),
        metrics=US_PER_OP,
        unit="µs",
    )


def _connect(key: str, title: str, session: Session) -> Body:
    return Body(
        key,
        title,
        group="connect",
        session=session,
        needs="greet",
        traits=frozenset({NETWORK}),
        metrics=US_CPU_AND_WALL,
        unit="µs",
    )


BODIES = (
    _write("write-16", "write 16 bytes and a turn of the loop", writes(16)),
    _write("write-1024", "write 1 KiB and a turn of the loop", writes(1024)),
    _write("write-65536", "write 64 KiB with flow control", writes(65536)),
    _write("write-1048576", "write 1 MiB with flow control", writes(1 << 20)),
    _write("write-burst", "100 writes of 64 bytes in a turn, per write", bursts(64), step=100),
    _write("writelines-64", "writelines, 16 pieces of 64 bytes", writes(64, pieces=16)),
    _write("writelines-4096", "writelines, 16 pieces of 4 KiB", writes(4096, pieces=16)),
    _write(
        "tls-writelines-64",
        "TLS: writelines, 16 pieces of 64 bytes, echoed",
        tls_echoed(64, pieces=16),
        needs="tls-echo",
        trait=TLS,
    ),
    _connect("connect-protocol", "create_connection, first byte, close", connect_protocol),
    _connect("connect-streams", "open_connection, first byte, close", connect_streams),
    _connect("connect-sock", "sock_connect, first byte, close", connect_sock),
    Body(
        "getaddrinfo-number",
        "getaddrinfo, numeric host",
        resolve_number,
        group="connect",
        threads=True,
        metrics=US_CPU_AND_WALL,
        unit="µs",
    ),
    Body(
        "getaddrinfo-name",
        "getaddrinfo, localhost",
        resolve_name,
        group="connect",
        threads=True,
        metrics=US_CPU_AND_WALL,
        unit="µs",
    ),
    Body(
        "subprocess-true",
        "subprocess: start, exit",
        start_process,
        group="process",
        threads=True,
        metrics=US_CPU_AND_WALL,
        unit="µs",
        plain=("subprocess.run", plain_process),
    ),
    Body(
        "subprocess-output",
        "subprocess: start, read a line, exit",
        process_output,
        group="process",
        threads=True,
        metrics=US_CPU_AND_WALL,
        unit="µs",
        plain=("subprocess.run", plain_output),
    ),
)

ROWS = [row_of(code) for code in BODIES]
