"""The core of the benchmarks: what a row is, how it is run, and what it yields.

A row names one thing that is measured for several contestants (event loops, and sometimes a
C program as the limit). How it measures is its own affair: its ``run`` gets the options and
the contestants, interleaves them in rounds and hands back an `Outcome`. Adding a row means
adding a `Row` to one of the lists in rows.py and nothing else.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .loops import ordered

REFERENCE = "asyncio"
"""The contestant that ratios are given against."""


@dataclass(frozen=True)
class Options:
    """Settings of one run, shared by all rows."""

    rounds: int = 7
    """Rounds of an in-process row."""
    sample_seconds: float = 0.05
    """CPU time that one sample of an in-process row should take."""
    load_rounds: int = 3
    """Rounds of a row that drives a server."""
    load_seconds: float = 2.0
    """Duration of one load on one server."""
    connections: int = 50
    sizes: tuple[int, ...] = (1024,)
    """Message sizes of the echo rows, in bytes."""
    idle_connections: int = 2000
    timers: int = 1_000_000
    http_load: Literal["auto", "wrk", "own"] = "auto"
    server_core: int | None = None
    """Core of the measured process; None leaves it to the kernel."""
    load_core: int | None = None
    """Core of the load generator."""


@dataclass(frozen=True)
class Metric:
    """One quantity of a row."""

    key: str
    label: str
    unit: str
    better: Literal["lower", "higher"] = "lower"
    digits: int = 0
    """Decimals in the text table."""
    shown: bool = True
    """Whether the text table has a line for it; the JSON always has it."""
    ratio: bool = True
    """Whether the table adds how many times better than the reference it is."""
    weight: str | None = None
    """None: the value is the median of the rounds. Else the key of the metric by which the
    rounds are weighted in a mean: for quantities that the kernel samples by ticks, where only
    the sum over all rounds is precise."""


@dataclass
class Outcome:
    """What a row measured: per contestant and metric one number per round, or an error."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, contestant: str, values: dict[str, float]) -> None:
        """Record one round of a contestant."""
        metrics = self.samples.setdefault(contestant, {})
        for key, value in values.items():
            metrics.setdefault(key, []).append(value)

    def fail(self, contestant: str, error: object) -> None:
        """Record that a contestant could not be measured, and drop its rounds so far."""
        self.samples.pop(contestant, None)
        self.errors[contestant] = str(error) or type(error).__name__


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    key: str
    group: str
    title: str
    metrics: tuple[Metric, ...]
    run: Callable[[Options, Sequence[str]], Outcome]
    solo: bool = False
    """True for a row without event loops, as the interpreter's own work."""


@dataclass(frozen=True)
class Cell:
    """One number of the table with the spread behind it."""

    value: float
    minimum: float
    maximum: float
    rounds: list[float]

    @classmethod
    def of(cls, rounds: list[float], weights: list[float] | None = None) -> Cell:
        """Summarize the rounds: by their median, or by their mean with weights."""
        middle = statistics.fmean(rounds, weights) if weights else statistics.median(rounds)
        return cls(middle, min(rounds), max(rounds), rounds)


@dataclass(frozen=True)
class Result:
    """A row with its outcome."""

    row: Row
    outcome: Outcome

    def cell(self, metric: Metric, contestant: str) -> Cell | None:
        """Return the number of a contestant, or None where there is none."""
        samples = self.outcome.samples.get(contestant, {})
        rounds = samples.get(metric.key)
        weights = samples[metric.weight] if metric.weight and rounds else None
        return Cell.of(rounds, weights) if rounds else None

    def ratio(self, metric: Metric, contestant: str) -> float | None:
        """Return how many times better than the reference a contestant is (2.0: twice)."""
        mine, base = self.cell(metric, contestant), self.cell(metric, REFERENCE)
        if mine is None or base is None or not mine.value or not base.value:
            return None
        ratio = mine.value / base.value
        return ratio if metric.better == "higher" else 1 / ratio

    @property
    def contestants(self) -> list[str]:
        """All contestants of the row, failed ones included."""
        return ordered([*self.outcome.samples, *self.outcome.errors])


def run_rows(rows: Iterable[Row], options: Options, loops: Sequence[str]) -> list[Result]:
    """Run the rows one after the other; a row that breaks is one failed row."""
    results = []
    for row in rows:
        print(f"  {row.group}: {row.title}", file=sys.stderr, flush=True)
        try:
            outcome = row.run(options, loops)
        except Exception as exc:
            outcome = Outcome()
            for name in ["floor"] if row.solo else loops:
                outcome.fail(name, f"{type(exc).__name__}: {exc}")
        for name, error in outcome.errors.items():
            print(f"    {name}: {error}", file=sys.stderr, flush=True)
        results.append(Result(row, outcome))
    return results
