"""What a row consists of that runs in the loop's own process.

worker.py measures bodies; inprocess.py starts it for each row; bodies.py finds them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from .compare import Metric

NS_PER_OP = (
    Metric("cpu", "CPU", "ns"),
    Metric("wall", "wall", "ns", shown=False),
)
US_PER_OP = (
    Metric("cpu", "CPU", "µs", digits=2),
    Metric("wall", "wall", "µs", digits=2, shown=False),
)
US_CPU_AND_WALL = (
    Metric("cpu", "CPU", "µs", digits=1),
    Metric("wall", "wall", "µs", digits=1),
)

Run = Callable[[int], Awaitable[object]]
Session = Callable[[str], contextlib.AbstractAsyncContextManager[Run]]
"""Opens what a row needs, unmeasured, and gives what is measured. Its argument is the address of
the row's helper."""


@dataclass(frozen=True)
class Body:
    """The code of a row."""

    key: str
    title: str
    run: Run | None = None
    step: int = 1
    """n is a multiple of this."""
    fixed: int | None = None
    """This n instead of one that fills the sample time."""
    threads: bool = False
    """Whether other threads work too, so that the CPU time of the whole process counts."""
    floor: bool = False
    """Whether it is run without a loop."""
    group: str = "tasks"
    session: Session | None = None
    """In place of `run`."""
    needs: str = ""
    """The helper, of helpers.py, that it talks to."""
    traits: frozenset[str] = frozenset()
    """See Row."""
    metrics: tuple[Metric, ...] = NS_PER_OP
    unit: Literal["ns", "µs"] = "ns"
    """Unit of the metrics cpu and wall, which worker.py takes."""
    tells: bool = False
    """Whether `run` returns its values itself, as a dict, and is not timed."""
    rounds: int | None = None
    """At most so many rounds, for what takes long."""
    plain: tuple[str, Callable[[int], None]] | None = None
    """A contestant without a loop: its name, and its code."""
    series: str = ""
    """The curve of which the row is a point."""
    x: int = 0
