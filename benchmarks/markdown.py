"""The results as Markdown: one table per group, as the README and docs/benchmarks.md show them.

Each row has the quantity that counts most there; the best of the loops is bold.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .compare import Result
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

FURTHER = (
    ("echo", "user", "Echo, user CPU µs per message (sampled by the kernel, see below)"),
    ("echo", "rate", "Echo, messages per second"),
    ("echo", "p99", "Echo, 99th percentile of the time to the answer, µs"),
    ("tls", "user", "TLS echo, user CPU µs per message (sampled by the kernel, see below)"),
    ("tls", "rate", "TLS echo, messages per second"),
    ("tls", "p99", "TLS echo, 99th percentile of the time to the answer, µs"),
    ("timers", "p99", "How late `asyncio.sleep` wakes up, 99th percentile in µs"),
    ("timers", "early", "Timers that woke up early"),
    ("connect", "rate", "Connections per second"),
    ("http", "rate", "HTTP, requests per second"),
    ("suites", "wall", "pyperformance's own programs, wall ms"),
    ("memory", "peak", "Memory of cancelled timers at its peak, KiB"),
    ("memory", "left", "Memory of cancelled timers at the end, KiB"),
)
"""What `everything` adds: group, quantity, heading."""


def text(results: Sequence[Result], about: dict[str, Any], everything: bool = False) -> str:
    """Return the tables, with machine, versions and command; with everything, those of FURTHER."""
    parts = [_head(about)]
    tables = [(group, key, heading) for group, (key, heading) in GROUPS.items()]
    for group, key, heading in [*tables, *(FURTHER if everything else ())]:
        rows = [result for result in results if result.row.group == group]
        lines = _lines(rows, group, key)
        if lines:
            parts.append("\n".join([f"**{heading}**", "", *lines]))
    failures: dict[str, list[str]] = {}
    for result in results:
        for name, error in result.outcome.errors.items():
            told = f"{NAMES.get(name, name)} failed: {error}"
            failures.setdefault(told, []).append(result.row.title)
        for note in result.outcome.notes:
            if note.startswith("left out"):
                failures.setdefault(note, []).append(result.row.title)
    if failures:
        parts.append("\n".join(f"- {told} ({'; '.join(rows)})" for told, rows in failures.items()))
    return "\n\n".join(parts) + "\n"


def put_into(path: Path, part: str, about: dict[str, Any]) -> str | None:
    """Replace what a file has between the marks for the run's Python version; or say why not."""
    version = ".".join(str(about["machine"]["python"]).split(".")[:2])
    begin, end = f"<!-- results: {version} -->", f"<!-- end of results: {version} -->"
    content = path.read_text()
    before, found, rest = content.partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        return f"{path} has no lines {begin} and {end}"
    path.write_text(f"{before}{begin}\n\n{part}\n{end}{after}")
    return None


def _head(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{NAMES.get(n, n)} {v}" for n, v in about["loops"].items())
    command = shlex.join(shlex.split(about["command"]))
    commit = f"commit {about['commit']}, " if about["commit"] else ""
    return (
        f"{where(about)}. {versions}. {str(about['date'])[:10]}, {commit}"
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
    if not names or not any(result.cell(metric, n) for result, metric in shown for n in names):
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
