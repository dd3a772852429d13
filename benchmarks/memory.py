"""Memory rows: what connections, tasks and timers cost, and what cancelled timers leave.

Each is measured in a process of its own per loop (footprint.py), because memory that one loop
has given back to the allocator would hide what the next one takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from .build import tls_load_generator
from .child import Child, ChildError
from .compare import Metric, Options, Outcome, Row
from .loops import NETWORK, TLS
from .tls import certificate

PATIENCE = 60.0

TLS_CONNECTIONS = 500

EACH = (
    Metric("bytes", "user space", "bytes"),
    Metric("blocks", "Python's memory blocks", "blocks", digits=1, shown=False, ratio=False),
)
TIMERS = (
    Metric("peak", "peak above start", "KiB", ratio=False),
    Metric("left", "left at the end", "KiB", ratio=False),
    Metric("cpu", "CPU", "ns/timer"),
)


def _row(kind: str, title: str, metrics: tuple[Metric, ...], count: int, trait: str = "") -> Row:
    def run(options: Options, loops: Sequence[str]) -> Outcome:
        files = certificate() if kind == "idle-tls" else ()
        if files:
            tls_load_generator()
        outcome = Outcome()
        for name in loops:
            arguments = [kind, name, str(count), *files]
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

    traits = frozenset({trait} if trait else ())
    return Row(f"memory-{kind}", "memory", title, metrics, run, traits=traits)


def rows(options: Options) -> list[Row]:
    """Return the rows for the counts that the options give."""
    many = max(1000, options.timers // 10)
    timers = f"{options.timers:,} call_later(3600), cancelled"
    return [
        _row("idle", "idle connection", EACH, options.idle_connections, NETWORK),
        _row("idle-tls", "idle TLS connection", EACH, TLS_CONNECTIONS, TLS),
        _row("task", "waiting task", EACH, many),
        _row("timer", "pending timer", EACH, many),
        _row("timers", f"{timers} in one callback", TIMERS, options.timers),
        _row("timers-turns", f"{timers}, a turn after each 1,000", TIMERS, options.timers),
    ]
