"""Memory rows: what an idle connection costs, and what a million cancelled timers leave.

Each is measured in a process of its own per loop (footprint.py), because memory that one loop
has given back to the allocator would hide what the next one takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from .child import Child, ChildError
from .compare import Metric, Options, Outcome, Row

PATIENCE = 60.0

IDLE = (
    Metric("bytes", "user space", "bytes/connection"),
    Metric("blocks", "Python's memory blocks", "blocks/connection", digits=1, ratio=False),
)
TIMERS = (
    Metric("peak", "peak above start", "KiB", ratio=False),
    Metric("left", "left at the end", "KiB", ratio=False),
    Metric("cpu", "CPU", "ns/timer"),
)


def _row(kind: str, title: str, metrics: tuple[Metric, ...]) -> Row:
    def run(options: Options, loops: Sequence[str]) -> Outcome:
        count = options.idle_connections if kind == "idle" else options.timers
        outcome = Outcome()
        for name in loops:
            arguments = [kind, name, str(count)]
            with Child.python("footprint", *arguments, core=options.server_core) as child:
                try:
                    values = child.report(PATIENCE)
                    if values is None:
                        raise ChildError("ended without an answer")
                    outcome.notes = values.pop("notes", [])
                    outcome.add(name, values)
                except ChildError as exc:
                    outcome.fail(name, exc)
        return outcome

    return Row(f"memory-{kind}", "memory", title, metrics, run)


def rows(options: Options) -> list[Row]:
    """Return the rows for the counts that the options give."""
    timers = f"{options.timers:,} call_later(3600), cancelled"
    return [
        _row("idle", "idle Protocol connection", IDLE),
        _row("timers", f"{timers} in one callback", TIMERS),
        _row("timers-turns", f"{timers}, a turn after each 1,000", TIMERS),
    ]
