"""The process under valgrind: ``python -m benchmarks.guard.measured LOOP KEYS``.

Prints a line of JSON per path, with an error if it has one; the counts go into callgrind's
files, under the names "KEY 1" and "KEY 2" for n and 2n operations.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys

from .. import loops
from .paths import PATHS, Path, Run


def measure(path: Path, loop_name: str, marks: ctypes.CDLL) -> None:
    """Run a path three times on one loop: unmeasured to warm up, with n, and with 2n."""
    loop = loops.kind_of(loop_name).new()

    async def measured(run: Run, times: int) -> None:
        gc.collect()
        marks.guard_begin()
        try:
            await run(path.n * times)
        finally:
            marks.guard_end(f"{path.key} {times}".encode())

    async def prepared() -> None:
        assert path.prepared is not None
        async with path.prepared() as run:
            await run(path.n)
            await measured(run, 1)
            await measured(run, 2)

    try:
        if path.run is None:
            loop.run_until_complete(prepared())
            return
        loop.run_until_complete(path.run(path.n))  # type: ignore[arg-type]
        loop.run_until_complete(measured(path.run, 1))
        loop.run_until_complete(measured(path.run, 2))
    finally:
        loop.close()


def main(loop_name: str, keys: list[str]) -> None:
    """Measure the paths one after the other."""
    loops.prefer_built()
    marks = ctypes.CDLL(None)
    # Collections come by the number of allocations since start: they would blur the difference.
    gc.disable()
    for path in PATHS:
        if path.key in keys:
            # What earlier paths left in the allocator's free lists is gone before this one.
            gc.collect()
            error = None
            try:
                measure(path, loop_name, marks)
            except Exception as exc:
                error = f"{type(exc).__name__}: {exc}"
            print(json.dumps({"path": path.key, "error": error}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","))
