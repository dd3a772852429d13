"""Rows of how late timers are: what `asyncio.sleep` takes beyond what it was asked to."""

from __future__ import annotations

import asyncio
import statistics
import time

from .body import Body, Run
from .compare import Metric
from .inprocess import row_of

DELAYS = (0.0002, 0.0005, 0.001, 0.002, 0.005)
"""Seconds."""

LATENESS = (
    Metric("median", "median", "µs", digits=1),
    Metric("p99", "99th percentile", "µs", digits=1, ratio=False),
    Metric("early", "early", "timers", ratio=False, total=True),
)


def lateness(delay: float) -> Run:
    """Return a body that sleeps n times and tells how late it woke up, in µs."""

    async def run(n: int) -> dict[str, float]:
        clock = time.monotonic
        late = []
        for _ in range(n):
            due = clock() + delay
            await asyncio.sleep(delay)
            late.append(clock() - due)
        return {
            "median": statistics.median(late) * 1e6,
            "p99": statistics.quantiles(late, n=100, method="inclusive")[98] * 1e6,
            "early": sum(value < 0 for value in late),
        }

    return run


BODIES = tuple(
    Body(
        f"late-{delay * 1e6:.0f}",
        f"lateness of sleep({delay:g})",
        lateness(delay),
        fixed=min(400, int(0.25 / delay)),
        group="timers",
        metrics=LATENESS,
        tells=True,
    )
    for delay in DELAYS
)

ROWS = [row_of(code) for code in BODIES]
