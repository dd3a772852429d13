"""Runs a program that is written for pyperf on a loop.

Called as ``python -m benchmarks.foreign LOOP WARM-UPS VALUES FILE ARGS``. The program is untouched;
what it gets from asyncio.new_event_loop() is the loop. After the warm-ups so many values are
measured in this process, and their means printed as a line of JSON: ``wall`` and ``cpu``, in ms.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import loops


def time_coroutines(used: list[float]) -> None:
    """Let pyperf note the CPU time (s) of each coroutine that it measures."""
    import pyperf

    bench = pyperf.Runner.bench_async_func

    def noted(self: Any, name: str, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        async def timed(*arguments: Any) -> Any:
            before = time.process_time()
            result = await function(*arguments)
            used.append(time.process_time() - before)
            return result

        return bench(self, name, timed, *args, **more)

    pyperf.Runner.bench_async_func = noted


def main(name: str, warm: str, values: str, script: str, arguments: list[str]) -> None:
    """Run the program and print what it measured."""
    loops.prefer_built()
    kind = loops.kind_of(name)
    kind.new().close()
    if kind.module != "asyncio" or kind.patched:
        asyncio.new_event_loop = asyncio.events.new_event_loop = kind.new  # type: ignore[assignment]
    used: list[float] = []
    time_coroutines(used)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        measure = ["--worker", "--loops=1", f"--warmups={warm}", f"--values={values}"]
        sys.argv = [script, *arguments, *measure, f"--output={out}"]
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
        runs = json.loads(out.read_text())["benchmarks"][0]["runs"]
    wall = [value for run in runs for value in run["values"]]
    means = {"wall": statistics.mean(wall), "cpu": statistics.mean(used[-int(values) :])}
    print(json.dumps({key: value * 1e3 for key, value in means.items()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5], sys.argv[5:])
