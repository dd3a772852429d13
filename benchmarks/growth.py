"""Rows of what an operation costs with more and more of a kind: the points of curves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from . import build, traffic
from .body import NS_PER_OP, Body, Run
from .child import Child
from .compare import Options, Outcome, Row
from .inprocess import row_of
from .load import own
from .traffic import CPU, P50, P99, RATE

COUNTS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
"""Tasks, and timers."""

CONNECTIONS = (10, 100, 1000, 10_000)

AXES = {
    "connections": "connections, all busy: server's CPU per message, µs",
    "tasks": "tasks that wait at the same time: CPU per task, ns",
    "timers": "timers at the same time: CPU per timer, ns",
}
"""The curves: what is on their axes."""


def many_tasks(count: int) -> Run:
    """Return a body that makes so many tasks, lets all wait for one future, and wakes them."""

    async def batch() -> None:
        loop = asyncio.get_running_loop()
        gate, done = loop.create_future(), loop.create_future()
        left = count

        async def wait() -> None:
            nonlocal left
            await gate
            left -= 1
            if not left:
                done.set_result(None)

        running = [loop.create_task(wait()) for _ in range(count)]
        await asyncio.sleep(0)
        gate.set_result(None)
        await done
        del running

    return _batches(batch, count)


def many_timers(count: int) -> Run:
    """Return a body that makes so many timers, in no order, which are all due at once."""

    async def batch() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        left = count

        def fire() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)

        for i in range(count):
            loop.call_later(1e-9 * (i * 7919 % count), fire)
        await done

    return _batches(batch, count)


def _batches(batch: Callable[[], Awaitable[None]], count: int) -> Run:
    async def run(n: int) -> None:
        for _ in range(n // count):
            await batch()

    return run


def _body(series: str, run: Run, count: int) -> Body:
    return Body(
        f"growth-{series}-{count}",
        f"{count:,} {series if count > 1 else series[:-1]}",
        run,
        step=count,
        fixed=count if count >= 100_000 else None,
        group="growth",
        metrics=NS_PER_OP,
        # A million tasks take seconds, and what a run of them disturbs is little.
        rounds=1 if count >= 1_000_000 else None,
        series=series,
        x=count,
    )


BODIES = tuple(
    _body(series, make(count), count)
    for series, make in (("tasks", many_tasks), ("timers", many_timers))
    for count in COUNTS
)


def _connections(count: int) -> Row:
    def start(name: str, options: Options) -> Child:
        if name == traffic.LIMIT:
            return Child([str(build.echo_server())], options.server_core)
        return traffic.serve_python("echo-protocol", name, options)

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        generator = own(build.load_generator(), "--size", "64")
        few = replace(options, connections=count, load_rounds=min(options.load_rounds, 2))
        return traffic.drive_servers(few, [*loops, traffic.LIMIT], start, generator)

    return Row(
        f"growth-connections-{count}",
        "growth",
        f"{count:,} connections, 64 bytes",
        (CPU, RATE, P99, P50),
        run,
        series="connections",
        x=count,
    )


ROWS = [*[_connections(count) for count in CONNECTIONS], *[row_of(code) for code in BODIES]]
