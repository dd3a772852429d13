"""Child side of the in-process rows.

Called as ``python -m benchmarks.worker KEY LOOPS ROUNDS SECONDS ADDRESS``.

Prints a line of JSON before each sample, so that the parent knows whom to blame for a crash,
and one with the result after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections import deque
from dataclasses import dataclass

from . import loops
from .bodies import find
from .body import Body, Run


@dataclass(frozen=True)
class Sample:
    """Time that n operations took, in seconds."""

    n: int
    cpu: float
    wall: float

    told: dict[str, float] | None = None
    """What the body has said itself."""

    def values(self, unit: str) -> dict[str, float]:
        """Return the time per operation, or what the body has said."""
        if self.told is not None:
            return self.told
        scale = {"ns": 1e9, "µs": 1e6}[unit] / self.n
        return {"cpu": self.cpu * scale, "wall": self.wall * scale}


def sample(body: Body, name: str, n: int, address: str) -> Sample:
    """Run n operations on a fresh loop (or none, for the floor) and time them alone."""
    clock = time.process_time if body.threads else time.thread_time

    async def timed(run: Run) -> Sample:
        gc.collect()
        wall, cpu = time.perf_counter(), clock()
        told = await run(n)
        return Sample(
            n,
            clock() - cpu,
            time.perf_counter() - wall,
            told if body.tells else None,  # type: ignore[arg-type]
        )

    async def whole() -> Sample:
        if body.session is None:
            assert body.run is not None
            return await timed(body.run)
        async with body.session(address) as run:
            return await timed(run)

    if body.plain and name == body.plain[0]:
        wall, cpu = time.perf_counter(), clock()
        body.plain[1](n)
        return Sample(n, clock() - cpu, time.perf_counter() - wall)
    if body.floor:
        result: list[Sample] = []

        async def keep() -> None:
            result.append(await whole())

        deque(keep().__await__(), maxlen=0)
        return result[0]
    loop = loops.kind_of(name).new()
    try:
        # Subprocesses of the standard loop, and some libraries, ask for the current one.
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(whole())
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        with contextlib.suppress(NotImplementedError):
            loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


def calibrate(body: Body, name: str, seconds: float, address: str) -> int:
    """Return the n whose sample takes about so long."""
    if body.fixed is not None:
        return body.fixed
    n = max(body.step, (200 if body.unit == "ns" else 1) // body.step * body.step)
    while True:
        trial = sample(body, name, n, address)
        took = max(trial.cpu, trial.wall / 4)
        if took >= seconds / 5:
            wanted = int(n * seconds / took)
            return max(body.step, wanted // body.step * body.step)
        n *= 4


def say(loop: str, **values: object) -> None:
    """Tell the parent."""
    print(json.dumps({"loop": loop, **values}), flush=True)


def main(key: str, names: list[str], rounds: int, seconds: float, address: str) -> None:
    """Measure: calibration first, then the loops in turn, round by round."""
    loops.prefer_built()
    body = find(key)
    sizes: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name in names:
            if turn > 0 and name not in sizes:
                continue
            say(name)
            try:
                if turn == 0:
                    sizes[name] = calibrate(body, name, seconds, address)
                else:
                    done = sample(body, name, sizes[name], address)
                    say(name, values=done.values(body.unit))
            except Exception as exc:
                sizes.pop(name, None)
                say(name, error=f"{type(exc).__name__}: {exc}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
