"""The results as a picture: how many times better than asyncio each loop is, and curves of growth.

One line per row of the tables, one mark per loop, on a logarithmic axis: asyncio is the line at 1x,
what is to the right of it is better. The number at the end of a line is asyncloop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .compare import REFERENCE, Metric, Result
from .growth import AXES
from .loops import ordered
from .markdown import GROUPS, NAMES

OURS = "asyncloop"

STYLES = {
    OURS: ("o", "#0b7a53", 46),
    "asyncloop-portable": ("o", "#7cc4a4", 26),
    "uvloop": ("s", "#e08e1b", 22),
    "rloop": ("^", "#7a5195", 26),
    "zuvloop": ("D", "#2a6f97", 20),
    "aiofastnet": ("v", "#c44536", 24),
    "aiofastnet-uvloop": ("P", "#e5989b", 26),
    "C": ("|", "#222222", 70),
    "subprocess.run": ("|", "#8a8a8a", 70),
}
"""Mark, colour and area of each contestant."""
SPARE = (("X", "#5c4d3c", 24), ("*", "#b5838d", 34))
AHEAD, BEHIND = "#0b7a53", "#b03a2e"
CURVE_OF_REFERENCE = "#8a8a8a"

COLUMNS = (
    ("tasks", "timers", "suites", "memory", "process"),
    ("echo", "tls", "write", "connect", "http", "apps"),
)

TITLES = {
    "tasks": "Tasks and scheduling: CPU",
    "timers": "Lateness of timers, median",
    "suites": "pyperformance: CPU",
    "process": "Subprocesses: time to the end",
    "echo": "Echo: the server's CPU, kernel included",
    "tls": "TLS echo: the server's CPU, kernel included",
    "write": "Writing: CPU, kernel included",
    "connect": "Connections and names: CPU, kernel included",
    "http": "HTTP: the server's CPU, kernel included",
    "apps": "Clients: CPU, kernel included",
    "memory": "Memory: bytes each",
}

TICKS = (0.5, 1, 2, 3, 5, 10, 20)
LEAST, MOST = 0.42, 40.0
"""Marks beyond are put there; the number at the end of the line is the true one."""

LINE = 0.205
"""Height of a row, and of a panel's head, in inches."""
HEAD = 0.42
CURVES = 2.6

Rows = list[tuple[str, dict[str, float]]]
"""Title of each row, and the ratio of each contestant."""


def draw(path: Path, results: Sequence[Result], about: dict[str, Any]) -> str | None:
    """Write the picture (its format by the file's name); return why not, or None."""
    try:
        import matplotlib
    except ImportError:
        return "no picture: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import lines, pyplot

    columns = [[p for group in column if (p := _panel(group, results))] for column in COLUMNS]
    columns = [column for column in columns if column]
    curves = [curve for series in AXES if (curve := _curve(series, results))]
    if not columns and not curves:
        return "no picture: there is no row with a number for asyncio to compare with"
    panels = [rows for column in columns for _, rows in column]
    styles = _styles([name for rows in panels for _, marks in rows for name in marks])
    for _, points in curves:
        styles |= _styles([name for name in points if name not in styles and name != REFERENCE])
    tallest = max([_height(column) for column in columns], default=0.0)
    below = CURVES if curves else 0.0
    height = tallest + below + 0.95
    figure = pyplot.figure(figsize=(12.4, height), facecolor="white")
    _heading(figure, height, styles, lines, about)
    width = 1 / max(1, len(columns))
    for i, column in enumerate(columns):
        top = height - 0.72
        for title, rows in column:
            tall = len(rows) * LINE
            place = ((i + 0.405) * width, (top - HEAD - tall) / height, 0.51 * width, tall / height)
            axis = figure.add_axes(place)
            _marks(axis, title, rows, styles)
            top -= HEAD + tall
    for i, (series, points) in enumerate(curves):
        axis = figure.add_axes((0.05 + i * 0.33, 0.5 / height, 0.265, (CURVES - 1.0) / height))
        _lines(axis, AXES[series], points, styles)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return None


def _height(column: list[tuple[str, Rows]]) -> float:
    return sum(len(rows) * LINE + HEAD for _, rows in column)


def _styles(names: list[str]) -> dict[str, tuple[str, str, int]]:
    spare = iter(SPARE * len(names))
    return {name: STYLES.get(name) or next(spare) for name in ordered(names)}


def _heading(
    figure: Any,
    height: float,
    styles: dict[str, tuple[str, str, int]],
    lines: Any,
    about: dict[str, Any],
) -> None:
    where = about["machine"]
    figure.text(
        0.012,
        1 - 0.26 / height,
        "Times better than asyncio",
        fontsize=15,
        weight="bold",
        va="center",
    )
    figure.text(
        0.988,
        1 - 0.26 / height,
        f"CPython {where['python']}, {where['processor']}, {where['cores']} cores, "
        f"{where['distribution']}, {str(about['date'])[:10]}\n"
        + ", ".join(
            f"{name} {version.partition(' on ')[0]}"
            for name, version in about["loops"].items()
            if name not in (REFERENCE, "asyncloop-portable", "aiofastnet-uvloop")
        )
        + "\nNumbers: asyncloop's; red where another loop is more than 3 % ahead",
        fontsize=7.5,
        color="#555555",
        ha="right",
        va="center",
    )
    handles = [
        lines.Line2D(
            [], [], linestyle="", marker=mark, color=colour, markersize=area**0.5, label=_name(name)
        )
        for name, (mark, colour, area) in styles.items()
    ]
    handles.append(lines.Line2D([], [], color=CURVE_OF_REFERENCE, linewidth=1.6, label="asyncio"))
    figure.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 0.47 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.4,
    )


def _name(name: str) -> str:
    return NAMES.get(name, name)


def _panel(group: str, results: Sequence[Result]) -> tuple[str, Rows] | None:
    key, _ = GROUPS[group]
    rows: Rows = []
    for result in results:
        metric = next((m for m in result.row.metrics if m.key == key), None)
        if result.row.group != group or metric is None:
            continue
        marks = _ratios(result, metric)
        if marks:
            rows.append((result.row.title, marks))
    return (TITLES[group], rows) if rows else None


def _ratios(result: Result, metric: Metric) -> dict[str, float]:
    found = {}
    for name in result.contestants:
        ratio = result.ratio(metric, name)
        if ratio is not None and name != REFERENCE:
            found[name] = ratio
    return found


def _marks(axis: Any, title: str, rows: Rows, styles: dict[str, tuple[str, str, int]]) -> None:
    """Draw a panel; asyncloop comes last, over the others."""
    axis.axvline(1, color=CURVE_OF_REFERENCE, linewidth=1.4, zorder=1)
    for place, (_, marks) in enumerate(rows):
        if OURS in marks:
            ends = sorted((1.0, min(max(marks[OURS], LEAST), MOST)))
            axis.hlines(place, *ends, color="#0b7a53", alpha=0.28, linewidth=4.2, zorder=1)
            axis.text(
                1.015,
                place,
                _ratio(marks[OURS]),
                transform=axis.get_yaxis_transform(),
                va="center",
                fontsize=8.5,
                weight="bold",
                color=AHEAD if marks[OURS] * 1.03 >= max(_others(marks), default=0) else BEHIND,
            )
        for name in sorted(marks, key=lambda name: name == OURS):
            mark, colour, area = styles[name]
            axis.scatter(
                min(max(marks[name], LEAST), MOST),
                place,
                marker=mark,
                s=area,
                color=colour,
                linewidths=1.6 if mark == "|" else 0,
                zorder=3 if name == OURS else 2,
                clip_on=False,
            )
    axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.set_xlim(LEAST / 1.05, MOST * 1.05)
    axis.set_xticks(TICKS, [f"{tick:g}x" for tick in TICKS], fontsize=7, color="#777777")
    axis.minorticks_off()
    axis.set_title(title, fontsize=9.5, loc="left", weight="bold", pad=3)
    axis.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, pad=2)
    axis.spines[:].set_visible(False)


def _others(marks: dict[str, float]) -> list[float]:
    return [
        ratio
        for name, ratio in marks.items()
        if name not in (OURS, "asyncloop-portable", "C", "subprocess.run")
    ]


def _ratio(value: float) -> str:
    return f"{value:.1f}x" if value < 10 else f"{value:.0f}x"


def _short(value: float) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


Points = dict[str, list[tuple[int, float]]]


def _curve(series: str, results: Sequence[Result]) -> tuple[str, Points] | None:
    points: Points = {}
    for result in results:
        if result.row.series != series:
            continue
        metric = result.row.metrics[0]
        for name in result.contestants:
            cell = result.cell(metric, name)
            if cell is not None:
                points.setdefault(name, []).append((result.row.x, cell.value))
    return (series, points) if points else None


def _lines(axis: Any, title: str, points: Points, styles: dict[str, tuple[str, str, int]]) -> None:
    for name in sorted(points, key=lambda name: name == OURS):
        mark, colour, _ = styles.get(name, ("", CURVE_OF_REFERENCE, 0))
        line = sorted(points[name])
        axis.plot(
            [x for x, _ in line],
            [y for _, y in line],
            marker="" if mark == "|" else mark,
            markersize=5 if name == OURS else 4,
            color=colour,
            linewidth=2.2 if name == OURS else 1.3,
            linestyle="--" if name == "C" else "-",
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    what, _, unit = title.partition(": ")
    axis.set_title(f"{unit[0].upper()}{unit[1:]}", fontsize=9, loc="left", weight="bold", pad=4)
    axis.set_xlabel(what, fontsize=8, color="#555555", labelpad=2)
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7, colors="#777777", length=0, which="both")
    for which in (axis.xaxis, axis.yaxis):
        which.set_major_formatter(lambda value, place: _short(value))
    # Between the powers of ten where there is only one or two of them.
    low, high = axis.get_ylim()
    ticks = [m * 10**e for e in range(-3, 9) for m in (1, 2, 5) if low <= m * 10**e <= high]
    axis.set_yticks(ticks if len(ticks) < 7 else ticks[::2])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#bbbbbb")
