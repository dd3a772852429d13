"""Rows of pyperformance's asyncio benchmarks: its own programs, untouched, on each loop."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from .child import Child, ChildError
from .compare import Metric, Options, Outcome, Row
from .loops import NETWORK, TLS

PATIENCE = 30.0
"""Seconds that one run of a program may take."""

TREE_ROUNDS, PROGRAM_ROUNDS = 3, 2

ENOUGH = 10_000.0
"""Milliseconds: what takes longer is not repeated."""

MILLISECONDS = (
    Metric("cpu", "CPU", "ms", digits=1),
    Metric("wall", "wall", "ms", digits=1),
)

TREES = {
    "none": "async_tree_none",
    "io": "async_tree_io",
    "memoization": "async_tree_memoization",
    "cpu_io_mixed": "async_tree_cpu_io_mixed",
    "none --task-groups": "async_tree_none_tg",
    "io --task-groups": "async_tree_io_tg",
    "eager": "async_tree_eager",
    "eager_io": "async_tree_eager_io",
}
"""Arguments and names of the variants; the others differ from these as these do from each other."""

PROGRAMS = (
    ("asyncio_tcp", "", "asyncio_tcp", frozenset({NETWORK})),
    ("asyncio_tcp", "--ssl", "asyncio_tcp_ssl", frozenset({NETWORK, TLS})),
    ("asyncio_websockets", "", "asyncio_websockets", frozenset({NETWORK})),
)


def program(name: str) -> Path | None:
    """Return the file of one of pyperformance's programs, or None where it is not installed."""
    found = importlib.util.find_spec("pyperformance")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "data-files" / "benchmarks" / f"bm_{name}"
    return path / "run_benchmark.py" if path.is_dir() else None


def _row(name: str, arguments: str, title: str, traits: frozenset[str]) -> Row:
    def run(options: Options, loops: Sequence[str]) -> Outcome:
        script = program(name)
        if script is None:
            return Outcome(notes=["left out: pyperformance is not installed"])
        if title.startswith("async_tree_eager") and sys.version_info < (3, 12):
            return Outcome(notes=["left out: eager tasks came with Python 3.12"])
        outcome = Outcome()
        left = list(loops)
        most = TREE_ROUNDS if name == "async_tree" else PROGRAM_ROUNDS
        for _ in range(min(most, max(1, options.load_rounds - 1))):
            for loop in list(left):
                # The programs of the network take seconds: the first of them counts little. Else as
                # pyperf does it; a single value would show which part of an incremental collection
                # falls into it.
                warm, values = ("1", "3") if name == "async_tree" else ("0", "1")
                command = [loop, warm, values, str(script), *arguments.split()]
                with Child.python("foreign", *command, core=options.server_core) as child:
                    try:
                        values = child.report(PATIENCE)
                        if values is None:
                            raise ChildError("ended without a result")
                        outcome.add(loop, values)
                        if values["wall"] > ENOUGH:
                            left.remove(loop)
                    except ChildError as exc:
                        left.remove(loop)
                        outcome.fail(loop, exc)
        return outcome

    return Row(f"pyperf-{title}", "suites", title, MILLISECONDS, run, traits=traits)


ROWS = [
    *[_row("async_tree", arguments, title, frozenset()) for arguments, title in TREES.items()],
    *[_row(*arguments) for arguments in PROGRAMS],
]
