"""What it costs to look at a loop, and how right it is what is seen.

    python -m benchmarks.observe [cost] [counters] [delay] [spin]

cost: CPU per operation with a watchdog, and with a watchdog, the page and a scrape of all metrics
each second, against the same without, taken in turns; the medians of the ratios. counters:
instructions per operation, by callgrind, against a build that counts nothing. delay: the 99th
percentile of the delay by the statistics, against a probe from outside, for blocks of 1, 10 and
100 ms, in several windows: the one counts in which the machine was least somebody else's. spin: how
long it takes until each kind of spin is named.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncloop

ROUNDS = 9
SECONDS = 1.0  # of each measurement
WINDOWS = 5


# -- what it costs ---------------------------------------------------------------------------


@contextlib.contextmanager
def observed() -> Iterator[None]:
    """Everything on: what a service would have."""
    import prometheus_client

    from asyncloop import metrics

    registry = prometheus_client.CollectorRegistry()
    metrics.prometheus(registry)
    stop = threading.Event()

    def scrapes() -> None:
        while not stop.wait(1):
            prometheus_client.generate_latest(registry)

    thread = threading.Thread(target=scrapes)
    with asyncloop.watchdog(0.1):
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


MODES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "nothing": contextlib.nullcontext,
    "a watchdog": lambda: asyncloop.watchdog(0.1),
    "everything": observed,
}


async def call_soon_chain(seconds: float) -> int:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    deadline = time.monotonic() + seconds
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        if count % 1000 or time.monotonic() < deadline:
            loop.call_soon(again)
        else:
            done.set_result(None)

    again()
    await done
    return count


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.count += 1
        self.transport.write(data)


CLIENT = """
import socket, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline:
    for _ in range(100):
        sock.sendall(b"x" * 1000)
        left = 1000
        while left:
            left -= len(sock.recv(left))
"""


async def echo(seconds: float) -> int:
    loop = asyncio.get_running_loop()
    protocol = Echo()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(port), str(seconds)
    )
    await client.wait()
    server.close()
    return protocol.count


BODIES: dict[str, Callable[[float], Any]] = {"call_soon chain": call_soon_chain, "echo": echo}


def measure(name: str, mode: str) -> float:
    """Nanoseconds of this process's CPU for each operation, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.observe", "one", name, mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def one(name: str, mode: str) -> None:
    async def main() -> int:
        await BODIES[name](0.2)
        nonlocal began
        began = time.process_time_ns()
        return await BODIES[name](SECONDS)

    began = 0
    with MODES[mode]():
        count = asyncloop.run(main())
        print((time.process_time_ns() - began) / count)


def cost() -> None:
    for name in BODIES:
        taken: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(ROUNDS):
            # Each mode comes first, second and last as often as any other.
            for place in range(len(MODES)):
                mode = list(MODES)[(number + place) % len(MODES)]
                taken[mode].append(measure(name, mode))
        print(f"{name}: {statistics.median(taken['nothing']):.0f} ns of CPU")
        for mode in list(MODES)[1:]:
            ratios = [a / b for a, b in zip(taken["nothing"], taken[mode], strict=True)]
            print(
                f"    with {mode} {statistics.median(taken[mode]):.0f} ns, rate "
                f"{statistics.median(ratios):.3f} "
                f"({', '.join(f'{each:.3f}' for each in sorted(ratios))})"
            )


# -- what counting costs -----------------------------------------------------------------------

COUNT_PATHS = """
import json, sys
from benchmarks.guard.callgrind import count
from benchmarks.guard.paths import PATHS
counts, errors = count("asyncloop", [path.key for path in PATHS])
if errors:
    print(errors, file=sys.stderr)
print(json.dumps({key: (each.total, each.own) for key, each in counts.items()}))
"""


def counted(folder: Path) -> dict[str, tuple[float, float]]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_PATHS],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return found


def counters() -> None:
    root = Path(__file__).parent.parent
    counts = []
    for name, flags in (("counted", ""), ("uncounted", "-DASYNCLOOP_UNCOUNTED")):
        folder = root / "build" / name
        env = {**os.environ, "CFLAGS": flags, "PY": sys.executable}
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["tools/copy-and-build", str(folder)], cwd=root, env=env, check=True)
        shutil.copytree(root / "benchmarks", folder / "benchmarks", dirs_exist_ok=True)
        counts.append(counted(folder))
    print(f"{'path':20} {'all':>8} {'own':>8} {'counting':>9}   of all")
    for key, (total, own) in counts[0].items():
        more = own - counts[1][key][1]
        print(f"{key:20} {total:8.0f} {own:8.0f} {more:9.1f} {100 * more / total:7.2f} %")


# -- how right the delay is ----------------------------------------------------------------


def delay() -> None:
    for block in (0.001, 0.01, 0.1):
        print(f"blocks of {block * 1e3:.0f} ms, p99 in ms; the blocks' time without a processor:")
        windows = [asyncloop.run(blocked(block)) for _ in range(WINDOWS)]
        for window in windows:
            print(f"    {window}")
        print(f"    the quietest: {min(windows, key=lambda window: window.stolen).error:+.1f} %")


@dataclasses.dataclass
class Window:
    seen: float  # p99 by the statistics, in seconds
    probed: float
    probes: int
    stolen: float  # the share of the time of the blocks in which others had the processor

    @property
    def error(self) -> float:
        return 100 * (self.seen / self.probed - 1)

    def __str__(self) -> str:
        return (
            f"statistics {self.seen * 1e3:8.3f}, probe {self.probed * 1e3:8.3f} of {self.probes}: "
            f"{self.error:+5.1f} %; {100 * self.stolen:.1f} % stolen"
        )


# It does not wait for answers: a probe that does asks seldom while there is most to see.
PROBE = """
import random, socket, struct, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline:
    sock.sendall(struct.pack("q", time.monotonic_ns()))
    time.sleep(random.expovariate(1 / float(sys.argv[3])))
"""


class Late(asyncio.Protocol):
    """How late the loop has told of what a probe has sent, in nanoseconds: both have one clock."""

    def __init__(self) -> None:
        self.delays: list[int] = []

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.delays += [now - sent for (sent,) in struct.iter_unpack("q", data)]


async def blocked(block: float) -> Window:
    """Half of the time it is blocked, by a loop of Python's."""
    loop = asyncio.get_running_loop()
    late = Late()
    server = await loop.create_server(lambda: late, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    probe = await asyncio.create_subprocess_exec(
        sys.executable, *("-c", PROBE, str(port), str(4 + 60 * block), str(block / 2))
    )
    await asyncio.sleep(0.5)
    late.delays.clear()
    before, wall, cpu = loop.stats(), 0, 0
    ended = asyncio.ensure_future(probe.wait())
    while not ended.done():
        began, began_cpu = time.monotonic_ns(), time.thread_time_ns()
        while time.monotonic_ns() - began < block * 1e9:
            pass
        wall += time.monotonic_ns() - began
        cpu += time.thread_time_ns() - began_cpu
        await asyncio.sleep(block)
    seen = (loop.stats().delay - before.delay).percentile(99)
    server.close()
    delays = sorted(late.delays)
    probed = delays[int(len(delays) * 0.99)] * 1e-9
    return Window(seen, probed, len(delays), max(0.0, 1 - cpu / wall))


# -- spins --------------------------------------------------------------------------------


def spin() -> None:
    for name, start in SPINS.items():
        print(f"{name}: {asyncloop.run(until_told(start))}")


async def until_told(start: Callable[[asyncio.AbstractEventLoop], object]) -> str:
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell(spin: asyncloop.Spin) -> None:
        moment = time.monotonic()
        loop.call_soon_threadsafe(lambda: told.done() or told.set_result((moment, spin)))

    with asyncloop.watchdog(1, on_spin=tell):
        await asyncio.sleep(0.3)
        began = time.monotonic()
        kept = start(loop)
        moment, found = await asyncio.wait_for(told, 20)
        if isinstance(kept, asyncio.Task):
            kept.cancel()
    return f"after {moment - began:.2f} s, {found.turns_per_second:,.0f} turns per second: " + (
        ", ".join(each.partition(" at ")[0] for each in found.callbacks)
    )


def spins_alone(loop: asyncio.AbstractEventLoop) -> None:
    def again() -> None:
        loop.call_soon(again)

    again()


def spins_in_pairs(loop: asyncio.AbstractEventLoop) -> None:
    def left() -> None:
        loop.call_soon(right)

    def right() -> None:
        loop.call_soon(left)

    left()


def sleeps_zero(loop: asyncio.AbstractEventLoop) -> object:
    async def polls() -> None:
        while True:
            await asyncio.sleep(0)

    return loop.create_task(polls())


def never_reads(loop: asyncio.AbstractEventLoop) -> object:
    left, right = socket.socketpair()
    right.send(b"x")
    loop.add_reader(left, int)
    loop.call_later(20, lambda: (left, right))
    return None


def timer_of_zero(loop: asyncio.AbstractEventLoop) -> None:
    def again() -> None:
        loop.call_later(0, again)

    again()


SPINS: dict[str, Callable[[asyncio.AbstractEventLoop], object]] = {
    "a callback that schedules itself": spins_alone,
    "two that schedule each other": spins_in_pairs,
    "sleep(0) for ever": sleeps_zero,
    "a descriptor that is never read": never_reads,
    "a timer without delay": timer_of_zero,
}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["one"]:
        one(arguments[1], arguments[2])
        return
    parts = {"cost": cost, "counters": counters, "delay": delay, "spin": spin}
    for name in arguments or list(parts):
        parts[name]()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main(sys.argv[1:])
