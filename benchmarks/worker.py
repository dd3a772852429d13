"""Child side of the in-process rows: ``python -m benchmarks.worker KEY LOOPS ROUNDS SECONDS``.

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

from . import loops, tasks


@dataclass(frozen=True)
class Sample:
    """Time that n operations took, in seconds."""

    n: int
    cpu: float
    wall: float

    def per_op(self) -> dict[str, float]:
        """Return ns per operation."""
        return {"cpu": self.cpu / self.n * 1e9, "wall": self.wall / self.n * 1e9}


def sample(body: tasks.Body, name: str, n: int) -> Sample:
    """Run n operations on a fresh loop (or none, for the floor) and time them alone."""
    clock = time.process_time if body.threads else time.thread_time

    async def timed() -> Sample:
        gc.collect()
        wall, cpu = time.perf_counter(), clock()
        await body.run(n)
        return Sample(n, clock() - cpu, time.perf_counter() - wall)

    if body.floor:
        result: list[Sample] = []

        async def keep() -> None:
            result.append(await timed())

        deque(keep().__await__(), maxlen=0)
        return result[0]
    loop = loops.kind_of(name).new()
    try:
        return loop.run_until_complete(timed())
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


def calibrate(body: tasks.Body, name: str, seconds: float) -> int:
    """Return the n whose sample takes about so long."""
    if body.fixed is not None:
        return body.fixed
    n = max(body.step, 200 // body.step * body.step)
    while True:
        trial = sample(body, name, n)
        if trial.cpu >= seconds / 5:
            wanted = int(n * seconds / trial.cpu)
            return max(body.step, wanted // body.step * body.step)
        n *= 4


def say(loop: str, **values: object) -> None:
    """Tell the parent."""
    print(json.dumps({"loop": loop, **values}), flush=True)


def main(key: str, names: list[str], rounds: int, seconds: float) -> None:
    """Measure: calibration first, then the loops in turn, round by round."""
    loops.prefer_built()
    body = tasks.body(key)
    sizes: dict[str, int] = {}
    for turn in range(rounds + 1):
        for name in names:
            if turn > 0 and name not in sizes:
                continue
            say(name)
            try:
                if turn == 0:
                    sizes[name] = calibrate(body, name, seconds)
                else:
                    say(name, values=sample(body, name, sizes[name]).per_op())
            except Exception as exc:
                sizes.pop(name, None)
                say(name, error=f"{type(exc).__name__}: {exc}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), float(sys.argv[4]))
