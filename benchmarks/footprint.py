"""The measured processes of the memory rows.

Called as ``python -m benchmarks.footprint KIND LOOP N [FILES]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from . import build, loops
from .machine import memory

WARM = 100
"""Connections that are opened before counting, so that nothing lazy is counted."""


class Idle(asyncio.Protocol):
    """A protocol that costs next to nothing itself: one object with one slot."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


def settled() -> int:
    """Return the resident set after a collection, in bytes."""
    gc.collect()
    return memory()["rss"]


def reset_peak() -> None:
    """Let the kernel forget the highest resident set so far (imports may have had more)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


async def idle(count: int) -> dict[str, object]:
    """Hold idle connections; both ends' kernel memory is not part of a resident set.

    The clients are plain sockets, made before the count starts, so that only the servers'
    side is counted.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    notes = []
    if hard != resource.RLIM_INFINITY and 2 * count + WARM * 2 + 50 > hard:
        count = (hard - WARM * 2 - 50) // 2
        notes.append(f"only {count} connections: the limit of descriptors is {hard}")
    loop = asyncio.get_running_loop()
    made: list[Idle] = []

    def factory() -> Idle:
        protocol = Idle()
        made.append(protocol)
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0, backlog=1024)
    address = server.sockets[0].getsockname()
    clients = [socket.socket() for _ in range(count + WARM)]

    async def connect(part: list[socket.socket], wanted: int) -> None:
        for i, client in enumerate(part):
            client.connect(address)
            if i % 100 == 99:
                await asyncio.sleep(0.001)
        while sum(hasattr(p, "transport") for p in made) < wanted:
            await asyncio.sleep(0.001)

    await connect(clients[:WARM], WARM)
    made += [None] * count  # type: ignore[list-item]
    del made[WARM:]
    before, blocks = settled(), sys.getallocatedblocks()
    await connect(clients[WARM:], WARM + count)
    after = settled()
    return {
        "bytes": (after - before) / count,
        "blocks": (sys.getallocatedblocks() - blocks) / count,
        "notes": notes,
    }


class Line:
    """What is read from a program without keeping the loop from its work."""

    def __init__(self, command: list[str]) -> None:
        self.program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def read(self) -> str:
        """Return its next line."""
        assert self.program.stdout is not None
        line = await asyncio.to_thread(self.program.stdout.readline)
        if '"connections"' not in line:
            raise RuntimeError(f"load generator: {line.strip()}")
        return line

    def end(self) -> None:
        """Let it end."""
        assert self.program.stdin is not None
        self.program.stdin.close()
        self.program.wait(10)


async def idle_tls(count: int, certificate: str, key: str) -> dict[str, object]:
    """Hold idle connections over TLS; the clients are another process."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    made: list[Idle] = []

    def factory() -> Idle:
        protocol = Idle()
        made.append(protocol)
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    program = [str(build.tls_load_generator()), "--port", str(port), "--idle", "1"]

    async def connect(more: int) -> Line:
        line = Line([*program, "--connections", str(more)])
        wanted = len(made) + more
        await line.read()
        while len(made) < wanted or not all(hasattr(p, "transport") for p in made):
            await asyncio.sleep(0.001)
        return line

    lines = [await connect(WARM)]
    before, blocks = settled(), sys.getallocatedblocks()
    lines.append(await connect(count))
    after = settled()
    values = {
        "bytes": (after - before) / count,
        "blocks": (sys.getallocatedblocks() - blocks) / count,
    }
    for line in lines:
        line.end()
    return values


async def tasks(count: int) -> dict[str, object]:
    """Hold tasks that wait, all for one future."""
    loop = asyncio.get_running_loop()
    gate = loop.create_future()

    async def wait() -> None:
        await gate

    warm = [loop.create_task(wait()) for _ in range(WARM)]
    await asyncio.sleep(0)
    running: list[asyncio.Task[None] | None] = [None] * count
    before, blocks = settled(), sys.getallocatedblocks()
    for i in range(count):
        running[i] = loop.create_task(wait())
    await asyncio.sleep(0)
    values = {
        "bytes": (settled() - before) / count,
        "blocks": (sys.getallocatedblocks() - blocks) / count,
    }
    gate.set_result(None)
    await asyncio.gather(*warm, *filter(None, running))
    return values


async def pending(count: int) -> dict[str, object]:
    """Hold timers that are not due for an hour."""
    loop = asyncio.get_running_loop()
    warm = [loop.call_later(3600, print) for _ in range(WARM)]
    made: list[asyncio.TimerHandle | None] = [None] * count
    before, blocks = settled(), sys.getallocatedblocks()
    for i in range(count):
        made[i] = loop.call_later(3600 + i * 7919 % count, print)
    await asyncio.sleep(0)
    values = {
        "bytes": (settled() - before) / count,
        "blocks": (sys.getallocatedblocks() - blocks) / count,
    }
    for timer in (*warm, *filter(None, made)):
        timer.cancel()
    return values


async def timers(count: int, batch: int) -> dict[str, object]:
    """Make and cancel timers; batch: how many between two turns of the loop, 0 for never."""
    loop = asyncio.get_running_loop()

    async def work(n: int) -> None:
        call_later = loop.call_later
        for i in range(n):
            call_later(3600, print).cancel()
            if batch and i % batch == batch - 1:
                await asyncio.sleep(0)

    await work(1000)
    before = settled()
    reset_peak()
    start = time.thread_time()
    await work(count)
    used = time.thread_time() - start
    peak = memory()["peak"]
    await asyncio.sleep(0.01)
    return {
        "peak": max(0, peak - before) / 1024,
        "left": max(0, settled() - before) / 1024,
        "cpu": used / count * 1e9,
    }


def main(kind: str, name: str, count: int, files: list[str]) -> None:
    """Measure and print a line of JSON; files: a certificate and its key, for TLS."""
    loops.prefer_built()
    loop = loops.kind_of(name).new()

    async def run() -> dict[str, object]:
        if kind == "idle":
            return await idle(count)
        if kind == "idle-tls":
            return await idle_tls(count, *files)
        if kind == "task":
            return await tasks(count)
        if kind == "timer":
            return await pending(count)
        return await timers(count, 1000 if kind == "timers-turns" else 0)

    print(json.dumps(loop.run_until_complete(run())), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
