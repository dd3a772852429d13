"""Runs a program that is written for pyperf on a loop: ``python -m benchmarks.foreign LOOP
WARM-UPS FILE ARGS``.

The program is untouched; what it gets from asyncio.new_event_loop() is the loop. After the warm-ups
one value is measured in this process and printed as a line of JSON with ``wall``, in ms.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import statistics
import sys
import tempfile
from pathlib import Path

from . import loops


def main(name: str, warm: str, script: str, arguments: list[str]) -> None:
    """Run the program and print what it measured."""
    loops.prefer_built()
    kind = loops.kind_of(name)
    kind.new().close()
    if kind.module != "asyncio" or kind.patched:
        asyncio.new_event_loop = asyncio.events.new_event_loop = kind.new  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        measure = ["--worker", "--loops=1", f"--warmups={warm}", "--values=1", f"--output={out}"]
        sys.argv = [script, *arguments, *measure]
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
        runs = json.loads(out.read_text())["benchmarks"][0]["runs"]
    values = [value for run in runs for value in run["values"]]
    print(json.dumps({"wall": statistics.median(values) * 1e3}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
