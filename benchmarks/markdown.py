"""The results as Markdown: one table per group, as the README and docs/benchmarks.md show them.

Each row has the quantity that counts most there; the best of the loops is bold.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from .compare import Metric, Result
from .loops import ordered
from .report import where
from .table import number

GROUPS = {
    "tasks": ("cpu", "Tasks and scheduling, CPU ns per operation"),
    "timers": ("median", "How late `asyncio.sleep` wakes up, median in µs"),
    "echo": ("cpu", "Echo, server's CPU µs per message, kernel included"),
    "tls": ("cpu", "TLS echo, server's CPU µs per message, kernel included"),
    "write": ("cpu", "Writing, CPU µs per call, kernel included"),
    "connect": ("cpu", "Connections and names, CPU µs each, kernel included"),
    "process": ("wall", "Subprocesses, µs until the end is known"),
    "http": ("cpu", "HTTP, server's CPU µs per request, kernel included"),
    "apps": ("cpu", "Clients, CPU µs per request, kernel included"),
    "suites": ("cpu", "pyperformance's own programs, CPU ms"),
    "memory": ("bytes", "Memory, bytes each"),
    "growth": ("cpu", "Growth, CPU per operation (µs per message, ns per task and timer)"),
}
"""Group -> the quantity, and the heading."""

NAMES = {
    "asyncloop-portable": "asyncloop, portable TLS",
    "aiofastnet": "aiofastnet on asyncio",
    "aiofastnet-uvloop": "aiofastnet on uvloop",
    "C": "C, the limit",
}

OUTSIDE = ("C", "floor", "subprocess.run")
"""Columns that are no event loop."""

DETAILS = ("echo", "tls", "connect")
"""Groups that have a second table: throughput, user CPU and the 99th percentile."""


def text(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Return all tables, with machine, versions and command."""
    parts = [_head(about)]
    for group, (key, heading) in GROUPS.items():
        rows = [result for result in results if result.row.group == group]
        lines = _lines(rows, group, key)
        if lines:
            parts.append("\n".join([f"**{heading}**", "", *lines]))
    for result in results:
        for name, error in result.outcome.errors.items():
            parts.append(f"- {result.row.title}: {NAMES.get(name, name)} failed: {error}")
        parts += [
            f"- {result.row.title}: {note}" for note in result.outcome.notes if "left out" in note
        ]
    return "\n\n".join(parts) + "\n"


def details(results: Sequence[Result]) -> str:
    """Return the table of the rows that drive servers, with all that was measured."""
    lines = []
    for result in results:
        if result.row.group in DETAILS and any(m.key == "rate" for m in result.row.metrics):
            shown = [metric for metric in result.row.metrics if metric.shown]
            names = ordered(list(result.outcome.samples))
            lines += [
                "",
                f"**{result.row.title}**",
                "",
                "| | " + " | ".join(f"{metric.label}, {metric.unit}" for metric in shown) + " |",
            ]
            lines.append("|---|" + "---:|" * len(shown))
            for name in names:
                cells = [_plain(result, metric, name) for metric in shown]
                lines.append(f"| {NAMES.get(name, name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plain(result: Result, metric: Metric, name: str) -> str:
    cell = result.cell(metric, name)
    return number(cell.value, metric.digits) if cell else ""


def _head(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{NAMES.get(n, n)} {v}" for n, v in about["loops"].items())
    command = shlex.join(shlex.split(about["command"]))
    return (
        f"{where(about)}. {versions}. {str(about['date'])[:10]}, commit {about['commit']}, "
        f"`{command}`, {about.get('seconds', 0) / 60:.0f} minutes."
    )


def _lines(rows: Sequence[Result], group: str, key: str) -> list[str]:
    shown = [
        (result, metric)
        for result in rows
        for metric in result.row.metrics
        if metric.key == key and result.outcome.samples
    ]
    names = ordered([name for result, _ in shown for name in result.contestants])
    if not names:
        return []
    lines = ["| | " + " | ".join(NAMES.get(name, name) for name in names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for result, metric in shown:
        values = {n: cell.value for n in names if (cell := result.cell(metric, n))}
        # Below zero is the lateness of timers that are early, which is no virtue.
        racing = [v for n, v in values.items() if n not in OUTSIDE and v >= 0]
        best = (min if metric.better == "lower" else max)(racing, default=None)
        cells = []
        for name in names:
            if name not in values:
                cells.append("failed" if name in result.outcome.errors else "")
                continue
            shown_value = number(values[name], metric.digits)
            if name not in OUTSIDE and values[name] == best:
                shown_value = f"**{shown_value}**"
            elif group == "timers" and values[name] < 0:
                shown_value = f"early by {number(-values[name], metric.digits)}"
            cells.append(shown_value)
        lines.append(f"| {result.row.title} | " + " | ".join(cells) + " |")
    return lines
