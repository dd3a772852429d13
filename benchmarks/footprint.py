"""The measured processes of the memory rows: ``python -m benchmarks.footprint KIND LOOP N``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import socket
import sys
import time
from pathlib import Path

from . import loops
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


def main(kind: str, name: str, count: int) -> None:
    """Measure and print a line of JSON."""
    loops.prefer_built()
    loop = loops.kind_of(name).new()

    async def run() -> dict[str, object]:
        if kind == "idle":
            return await idle(count)
        return await timers(count, 1000 if kind == "timers-turns" else 0)

    print(json.dumps(loop.run_until_complete(run())), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
