"""What it costs to look at a loop, and how right it is what is seen.

    python -m benchmarks.observe [cost] [delay] [spin]

cost: CPU per operation with a watchdog, the page and a scrape of all metrics each second, against
the same without; medians of five, taken in turns. delay: the 99th percentile of the delay by the
statistics, against a probe from outside, a socket that is answered, for blocks of 1, 10 and 100 ms.
spin: how long it takes until each kind of spin is named.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncloop

ROUNDS = 5
SECONDS = 1.5  # of each measurement


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


def measure(name: str, on: bool) -> float:
    """Nanoseconds of this process's CPU for each operation, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.observe", "one", name, str(int(on))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def one(name: str, on: bool) -> None:
    async def main() -> int:
        await BODIES[name](0.2)
        nonlocal began
        began = time.process_time_ns()
        return await BODIES[name](SECONDS)

    began = 0
    with observed() if on else contextlib.nullcontext():
        count = asyncloop.run(main())
        print((time.process_time_ns() - began) / count)


def cost() -> None:
    for name in BODIES:
        off, on = [], []
        for _ in range(ROUNDS):
            off.append(measure(name, False))
            on.append(measure(name, True))
        ratios = [a / b for a, b in zip(off, on, strict=True)]
        print(
            f"{name}: {statistics.median(off):.0f} ns of CPU without, {statistics.median(on):.0f} "
            f"with everything; rate {statistics.median(ratios):.3f} "
            f"({', '.join(f'{each:.3f}' for each in sorted(ratios))})"
        )


# -- how right the delay is ----------------------------------------------------------------


def delay() -> None:
    for block in (0.001, 0.01, 0.1):
        seen, probed = asyncloop.run(blocked(block))
        print(
            f"blocks of {block * 1e3:.0f} ms: p99 {seen * 1e3:.2f} ms by the statistics, "
            f"{probed * 1e3:.2f} ms by the probe, {100 * (seen / probed - 1):+.1f} %"
        )


PROBE = """
import json, random, socket, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
took = []
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline:
    began = time.monotonic()
    sock.sendall(b"x")
    sock.recv(1)
    took.append(time.monotonic() - began)
    time.sleep(random.random() * float(sys.argv[3]))
print(json.dumps(took))
"""


async def blocked(block: float) -> tuple[float, float]:
    """Half of the time it is blocked."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    seconds = 4 + 60 * block
    probe = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PROBE, str(port), str(seconds), str(2 * block)),
        stdout=subprocess.PIPE,
    )
    await asyncio.sleep(0.5)
    before = loop.stats()
    output = asyncio.ensure_future(probe.communicate())
    while not output.done():
        time.sleep(block)
        await asyncio.sleep(block)
    seen = (loop.stats().delay - before.delay).percentile(99)
    server.close()
    took = sorted(json.loads(output.result()[0]))
    return seen, took[int(len(took) * 0.99)]


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
        one(arguments[1], arguments[2] == "1")
        return
    parts = {"cost": cost, "delay": delay, "spin": spin}
    for name in arguments or list(parts):
        parts[name]()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main(sys.argv[1:])
