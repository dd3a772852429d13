"""The results as text: rows by contestants, with how many times better than asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from .compare import REFERENCE, Metric, Result
from .loops import ordered

GAP = "  "

HEADINGS = {
    "tasks": "Tasks and scheduling: CPU ns per operation (times better than asyncio)",
    "floor": "The floor: the interpreter's own work without a loop, CPU ns per operation",
    "echo": "Echo over loopback, server alone on one core",
    "timers": "Timers: how late asyncio.sleep wakes up",
    "tls": "TLS echo over loopback, server alone on one core",
    "write": "Writing to a C program over loopback, kernel included",
    "connect": "Connections and names",
    "process": "Subprocesses: until the end is known",
    "http": "HTTP over loopback, server alone on one core",
    "apps": "Clients, per request, with the other side on another core",
    "suites": "pyperformance's own programs",
    "growth": "Growth: what an operation costs with more and more of a kind",
    "memory": "Memory",
}


def number(value: float, digits: int) -> str:
    """Write a number with its decimals and a comma between thousands."""
    return f"{value:,.{digits}f}"


def text(results: Sequence[Result]) -> str:
    """Return all results as one text."""
    parts = []
    # A run with --rows may have groups in pieces: they come together at their first place.
    places: dict[str, int] = {}
    for result in results:
        places.setdefault(result.row.group, len(places))
    results = sorted(results, key=lambda r: places[r.row.group])
    for group, members in groupby(results, key=lambda r: r.row.group):
        rows = list(members)
        parts.append(f"{HEADINGS.get(group, group)}\n\n{_group(rows)}")
    return "\n\n".join(parts) + "\n"


def _group(results: list[Result]) -> str:
    contestants = ordered([name for result in results for name in result.contestants])
    lines = [["", *contestants]]
    notes: list[str] = []
    for result in results:
        shown = [metric for metric in result.row.metrics if metric.shown]
        if len(shown) == 1:
            lines.append(_line(result.row.title, result, shown[0], contestants))
        else:
            lines.append([result.row.title])
            for metric in shown:
                label = f"  {metric.label}, {metric.unit}"
                lines.append(_line(label, result, metric, contestants))
        for name, error in result.outcome.errors.items():
            notes.append(f"- {result.row.title}: {name} failed: {error}")
        notes += [f"- {result.row.title}: {note}" for note in result.outcome.notes]
    return "\n".join([*_aligned(lines), *notes])


def _line(label: str, result: Result, metric: Metric, contestants: list[str]) -> list[str]:
    cells = [label]
    for name in contestants:
        cell = result.cell(metric, name)
        if cell is None:
            cells.append("failed" if name in result.outcome.errors else "-")
            continue
        shown = number(cell.value, metric.digits)
        ratio = result.ratio(metric, name) if metric.ratio and name != REFERENCE else None
        cells.append(f"{shown} ({ratio:.2f}x)" if ratio is not None else shown)
    return cells


def _aligned(lines: list[list[str]]) -> list[str]:
    columns = max(map(len, lines))
    padded = [line + [""] * (columns - len(line)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*padded, strict=True)]
    written = []
    for line in padded:
        first, *rest = line
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        written.append(GAP.join(cells).rstrip())
    return written
