"""The core of the benchmarks: what a row is, how it is run, and what it yields.

A row names one thing that is measured for several contestants (event loops, and sometimes a
C program as the limit). How it measures is its own affair: its ``run`` gets the options and
the contestants, interleaves them in rounds and hands back an `Outcome`. Adding a row means
adding a `Row` to one of the lists in rows.py and nothing else.
"""

from __future__ import annotations

import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from .loops import ordered, suited

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
    sizes: tuple[int, ...] = ()
    """Message sizes of the echo rows, in bytes; none: those that each row is for."""
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
    total: bool = False
    """Whether the value is the sum over the rounds in place of their median: for counts of what
    should not happen at all."""
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
    traits: frozenset[str] = frozenset()
    """What it is about, for contestants that are only of use for some rows (see loops.py)."""
    series: str = ""
    """The curve of which the row is a point, and where on its axis the point is."""
    x: int = 0


@dataclass(frozen=True)
class Cell:
    """One number of the table with the spread behind it."""

    value: float
    minimum: float
    maximum: float
    rounds: list[float]

    @classmethod
    def of(
        cls, rounds: list[float], weights: list[float] | None = None, total: bool = False
    ) -> Cell:
        """Summarize the rounds: by their median, by their mean with weights, or by their sum."""
        if total:
            value = math.fsum(rounds)
        else:
            value = statistics.fmean(rounds, weights) if weights else statistics.median(rounds)
        return cls(value, min(rounds), max(rounds), rounds)


@dataclass(frozen=True)
class Result:
    """A row with its outcome."""

    row: Row
    outcome: Outcome
    seconds: float = 0.0
    """How long the row took."""

    def cell(self, metric: Metric, contestant: str) -> Cell | None:
        """Return the number of a contestant, or None where there is none."""
        samples = self.outcome.samples.get(contestant, {})
        rounds = samples.get(metric.key)
        weights = samples[metric.weight] if metric.weight and rounds else None
        return Cell.of(rounds, weights, metric.total) if rounds else None

    def ratio(self, metric: Metric, contestant: str) -> float | None:
        """Return how many times better than the reference a contestant is (2.0: twice)."""
        mine, base = self.cell(metric, contestant), self.cell(metric, REFERENCE)
        # A timer that is early has a lateness below zero: that is not many times better.
        if mine is None or base is None or mine.value <= 0 or base.value <= 0:
            return None
        ratio = mine.value / base.value
        return ratio if metric.better == "higher" else 1 / ratio

    @property
    def contestants(self) -> list[str]:
        """All contestants of the row, failed ones included."""
        return ordered([*self.outcome.samples, *self.outcome.errors])


ROW_SECONDS = 300
"""Seconds after which a row is given up. Each child has a limit of its own, far below."""


class RowTimeout(BaseException):
    """A row took longer than ROW_SECONDS; no Exception, which a row may take for a cell's."""


def _late(number: int, frame: object) -> NoReturn:
    raise RowTimeout(f"the row took longer than {ROW_SECONDS} s")


def run_rows(
    rows: Sequence[Row],
    options: Options,
    loops: Sequence[str],
    after: Callable[[list[Result]], None] = lambda results: None,
) -> list[Result]:
    """Run the rows one after the other; a row that breaks or hangs is one failed row.

    `after` gets all results so far after each row.
    """
    results: list[Result] = []
    begin = time.monotonic()
    for number, row in enumerate(rows, 1):
        started = time.monotonic()
        minutes = (started - begin) / 60
        print(
            f"{number}/{len(rows)} {minutes:.1f} min  {row.group}: {row.title}",
            file=sys.stderr,
            flush=True,
        )
        takers = suited(loops, row.traits)
        before = signal.signal(signal.SIGALRM, _late)
        signal.alarm(ROW_SECONDS)
        try:
            outcome = row.run(options, takers)
        except (Exception, RowTimeout) as exc:
            outcome = Outcome()
            for name in ["floor"] if row.solo else takers:
                outcome.fail(name, f"{type(exc).__name__}: {exc}")
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        for name, error in outcome.errors.items():
            print(f"    {name}: {error}", file=sys.stderr, flush=True)
        for note in outcome.notes:
            print(f"    {note}", file=sys.stderr, flush=True)
        results.append(Result(row, outcome, time.monotonic() - started))
        after(results)
    return results
