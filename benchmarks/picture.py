"""The results as a picture: how many times better than asyncio each loop is, by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .compare import REFERENCE, Metric, Result
from .loops import ordered

COLOURS = {
    "asyncloop": "#0b6e4f",
    "uvloop": "#e08e1b",
    "rloop": "#7a5195",
    "C": "#8a8a8a",
}
SPARE = ("#c44536", "#2a6f97", "#5c4d3c")

PANELS = {
    "tasks": ("cpu", "Tasks and scheduling: CPU time per operation"),
    "echo": ("cpu", "Echo over loopback: the server's CPU time per request, kernel included"),
    "http": ("cpu", "HTTP over loopback: the server's CPU time per request, kernel included"),
    "memory": ("bytes", "Memory per idle connection"),
}


TICKS = (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200)

Rows = list[tuple[str, dict[str, float]]]
"""Title of each row, and the ratio of each contestant."""


def draw(path: Path, results: Sequence[Result], about: dict[str, Any]) -> str | None:
    """Write the picture (its format by the file's name); return why not, or None."""
    try:
        import matplotlib
    except ImportError:
        return "no picture: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    panels = [panel for group in PANELS if (panel := _panel(group, results))]
    if not panels:
        return "no picture: there is no row with a number for asyncio to compare with"
    names = _names([row for _, rows in panels for row in rows])
    spare = iter(SPARE * len(names))
    colours = {name: COLOURS.get(name) or next(spare) for name in names}
    heights = [len(rows) * (0.13 * len(_names(rows)) + 0.1) + 0.5 for _, rows in panels]
    figure, axes = pyplot.subplots(
        len(panels),
        figsize=(10, sum(heights) + 1.1),
        height_ratios=heights,
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axis, (title, rows) in zip(axes[:, 0], panels, strict=True):
        _bars(axis, title, rows, {name: colours[name] for name in _names(rows)})
    _scale(axes[-1, 0], [r for _, rows in panels for _, bars in rows for r in bars.values()])
    boxes = [patches.Patch(color=colour) for colour in colours.values()]
    figure.legend(
        boxes,
        colours,
        title="Times better than asyncio (1x: as asyncio)",
        title_fontsize=13,
        loc="outside upper center",
        ncols=len(boxes),
        frameon=False,
    )
    figure.supxlabel(_caption(about), fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return None


def _names(rows: Rows) -> list[str]:
    return ordered([name for _, bars in rows for name in bars])


def _caption(about: dict[str, Any]) -> str:
    where = about["machine"]
    return (
        f"CPython {where['python']}, {where['processor']}, {where['distribution']}, "
        f"{str(about['date'])[:10]}\n"
        + ", ".join(f"{name} {version}" for name, version in about["loops"].items())
    )


def _panel(group: str, results: Sequence[Result]) -> tuple[str, Rows] | None:
    key, title = PANELS[group]
    rows: Rows = []
    for result in results:
        metric = next((m for m in result.row.metrics if m.key == key), None)
        if result.row.group != group or metric is None:
            continue
        bars = _ratios(result, metric)
        if bars:
            rows.append((result.row.title, bars))
    return (title, rows) if rows else None


def _ratios(result: Result, metric: Metric) -> dict[str, float]:
    found = {}
    for name in result.contestants:
        ratio = result.ratio(metric, name)
        if ratio is not None and name != REFERENCE:
            found[name] = ratio
    return found


def _bars(axis: Any, title: str, rows: Rows, colours: dict[str, str]) -> None:
    """Draw a panel: bars begin at 1, so that what is slower points to the left."""
    width = 0.84 / len(colours)
    for i, (name, colour) in enumerate(colours.items()):
        shift = (i - (len(colours) - 1) / 2) * width
        points = [(row + shift, bars[name]) for row, (_, bars) in enumerate(rows) if name in bars]
        for place, ratio in points:
            axis.barh(place, ratio - 1, height=width * 0.9, left=1, color=colour)
            axis.annotate(
                f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}",
                (ratio, place),
                xytext=(3 if ratio >= 1 else -3, 0),
                textcoords="offset points",
                va="center",
                ha="left" if ratio >= 1 else "right",
                fontsize=6.5,
                color="#333333",
            )
    axis.axvline(1, color="#333333", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_title(title, fontsize=10, loc="left")
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelbottom=True, labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _scale(axis: Any, ratios: list[float]) -> None:
    """Give the shared axis its logarithmic scale around all ratios."""
    low, high = min([*ratios, 1]), max([*ratios, 1])
    left, right = (low / 1.2 if low < 1 else 0.95), high * 1.25
    axis.set_xscale("log")
    axis.set_xlim(left, right)
    ticks = [tick for tick in TICKS if left <= tick <= right]
    axis.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axis.minorticks_off()
