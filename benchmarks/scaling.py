"""What a loop in each of several threads makes of the cores: ``python -m benchmarks.scaling``.

    python -m benchmarks.scaling [ROW...] [--threads 1,2,8] [--loops asyncloop,asyncio] [--rounds N]

For a Python without a GIL. Of each row so many loops do the same at once, each in a thread of its
own: CPU time per operation, and how many times as much all of them do in a second as one alone. A
sample is a process of its own; loops and numbers of threads take turns, and medians count. The row
``http`` is a server by streams in each thread, with wrk beside it, which takes its share of the
cores: there the CPU time is what tells. ``threadsafe`` is one loop that eight threads call: calls
in a second, what was lost, and the longest time that its timer of a millisecond was late by.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import loops, serve, tls
from .child import Child, ChildError
from .compare import Options
from .guard import paths
from .load import has_wrk, wrk
from .machine import cpu_time

PATIENCE = 100.0
"""Seconds that a sample may take."""

ROWS = (
    *("call-soon", "sleep-one", "sleep-100", "future", "gather-100", "taskgroup-100", "timeout"),
    *("lock-10", "protocol", "streams", "sock", "datagram", "tls-direct"),
)
"""Guarded paths, of which each thread runs one."""
HTTP = "http"
THREADSAFE = "threadsafe"


@dataclass
class Cell:
    """All samples of a row, a loop and a number of threads."""

    cpu: list[float] = field(default_factory=list)
    """Nanoseconds of CPU time per operation."""
    rate: list[float] = field(default_factory=list)
    """Operations in a second, of all threads."""
    notes: list[str] = field(default_factory=list)

    def middle(self) -> tuple[float, float]:
        """Return the medians of both."""
        return statistics.median(self.cpu), statistics.median(self.rate)


# -- the measured process -------------------------------------------------------------------


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run it in so many threads and wait for all."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def path_in_threads(key: str, name: str, count: int, seconds: float) -> dict[str, float]:
    """Do a guarded path in so many threads for about so long, a loop in each."""
    path = next(path for path in paths.PATHS if path.key == key)
    begin = threading.Barrier(count)
    turns = [1]
    done: list[tuple[float, float, float]] = []  # of each thread: begin, end, its CPU time

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            run = path.run
            if run is None:
                assert path.prepared is not None
                run = await stack.enter_async_context(path.prepared())
            moment = time.perf_counter()
            for _ in range(3):
                await run(path.n)
            begin.wait()
            turns[0] = max(1, int(seconds * 3 / (time.perf_counter() - moment)))
            begin.wait()
            wall, cpu = time.perf_counter(), time.thread_time()
            for _ in range(turns[0]):
                await run(path.n)
            done.append((wall, time.perf_counter(), time.thread_time() - cpu))

    def thread() -> None:
        loop = loops.kind_of(name).new()
        try:
            loop.run_until_complete(work())
        finally:
            loop.close()

    in_threads(count, thread)
    n = turns[0] * path.n
    wall = max(end for _, end, _ in done) - min(start for start, _, _ in done)
    cpu = sum(cpu for _, _, cpu in done)
    return {"cpu": cpu / (n * count) * 1e9, "rate": n * count / wall}


def calls_from_threads(name: str, count: int, seconds: float) -> dict[str, float]:
    """Call one loop from so many threads for so long, then wait until all calls have run."""
    loop = loops.kind_of(name).new()
    over = threading.Event()
    sent = [0] * count
    left = count
    ran = 0
    late = 0.0

    def arrive() -> None:
        nonlocal ran
        ran += 1

    def last() -> None:
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    def send(index: int) -> None:
        while not over.is_set():
            for _ in range(100):
                loop.call_soon_threadsafe(arrive)
            sent[index] += 100
            # Else what waits takes gigabytes, and the allocator is what is measured.
            while sum(sent) - ran > 100_000:
                time.sleep(0.001)
        loop.call_soon_threadsafe(last)

    def tick(due: float) -> None:
        nonlocal late
        now = loop.time()
        late = max(late, now - due)
        if not over.is_set():
            loop.call_at(now + 0.001, tick, now + 0.001)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(count)]
    loop.call_soon(lambda: [thread.start() for thread in threads])
    loop.call_later(0.001, tick, loop.time() + 0.001)
    loop.call_later(seconds, over.set)
    wall, cpu = time.perf_counter(), time.process_time()
    loop.run_forever()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for thread in threads:
        thread.join()
    loop.close()
    calls = sum(sent)
    return {"cpu": cpu / calls * 1e9, "rate": ran / wall, "lost": calls - ran, "late": late}


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a connection: the head of a request, an answer, until the peer has enough."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER)
            await writer.drain()
    writer.close()


def serve_in_threads(name: str, count: int) -> None:
    """Serve HTTP in so many threads on one port, until the process is ended."""
    first = socket.socket()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind(("127.0.0.1", 0))
    address = first.getsockname()
    ready = threading.Barrier(count)

    async def main() -> None:
        host, port = address
        server = await asyncio.start_server(
            answer, host, port, reuse_port=True, backlog=serve.BACKLOG
        )
        if ready.wait() == 0:
            serve.announce(server.sockets[0])
        await serve.forever()

    in_threads(count, lambda: loops.kind_of(name).new().run_until_complete(main()))


# -- the comparison ---------------------------------------------------------------------------


def sample(row: str, name: str, count: int, seconds: float) -> dict[str, float]:
    """Take one sample. Raises ChildError."""
    with Child.python("scaling", "--one", row, name, str(count), str(seconds)) as child:
        told = child.report(PATIENCE)
        if told is None:
            raise ChildError(child.failure())
        if row != HTTP:
            return told
        before = cpu_time(child.pid)
        load = wrk("/")(told["port"], Options(connections=64, load_seconds=max(1.0, seconds)))
        after = cpu_time(child.pid)
        assert before is not None and after is not None
        return {"cpu": (after - before).total / load.requests * 1e9, "rate": load.rate}


def measure(row: str, names: list[str], counts: list[int], rounds: int, seconds: float) -> None:
    """Measure a row and print it."""
    cells = {(name, count): Cell() for name in names for count in counts}
    for _ in range(rounds):
        for (name, count), cell in list(cells.items()):
            try:
                told = sample(row, name, count, seconds)
            except ChildError as exc:
                print(f"{row:14} {name:10} {count} threads: {exc}", flush=True)
                del cells[name, count]
                continue
            cell.cpu.append(told["cpu"])
            cell.rate.append(told["rate"])
            if "late" in told:
                cell.notes.append(f"lost {told['lost']}, late by {told['late'] * 1e3:.1f} ms")
    for name in names:
        base = cells.get((name, counts[0]))
        for count in counts:
            cell = cells.get((name, count))
            if cell is None or base is None:
                continue
            cpu, rate = cell.middle()
            first_cpu, first_rate = base.middle()
            print(
                f"{row:14} {name:10} {count} threads: {cpu:9.0f} ns CPU ({cpu / first_cpu:4.2f}),"
                f" {rate:11,.0f} in a second ({rate / first_rate:4.2f})  {'; '.join(cell.notes)}",
                flush=True,
            )


def one(row: str, name: str, count: int, seconds: float) -> None:
    """Be the measured process."""
    loops.kind_of(name).new().close()  # what it imports belongs to the main thread, as usual
    if row == HTTP:
        return serve_in_threads(name, count)
    if row == THREADSAFE:
        print(json.dumps(calls_from_threads(name, count, seconds)), flush=True)
    else:
        print(json.dumps(path_in_threads(row, name, count, seconds)), flush=True)
    return None


def main(arguments: list[str]) -> None:
    """Measure the rows that are asked for."""
    loops.prefer_built()
    if arguments[:1] == ["--one"]:
        return one(arguments[1], arguments[2], int(arguments[3]), float(arguments[4]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", default=[*ROWS, HTTP, THREADSAFE])
    parser.add_argument("--threads", default="1,2,8")
    parser.add_argument("--loops", default="asyncloop,asyncio")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args(arguments)
    certificate = tls.certificate()
    os.environ["BENCHMARKS_CERTIFICATE"] = os.pathsep.join(certificate)
    enabled: Callable[[], Any] = getattr(sys, "_is_gil_enabled", lambda: True)
    print(f"CPython {sys.version.split()[0]}, {'with' if enabled() else 'without'} a GIL")
    for row in options.rows:
        if row == HTTP and not has_wrk():
            print("http: left out, there is no wrk")
            continue
        counts = [8] if row == THREADSAFE else [int(count) for count in options.threads.split(",")]
        measure(row, options.loops.split(","), counts, options.rounds, options.seconds)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
