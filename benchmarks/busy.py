"""Says when the machine was not ours alone, because then throughput means little."""

from __future__ import annotations

import time
from collections.abc import Iterable

from .machine import all_cpu_time, cpu_time, own_cpu_time

TOLERATED = 0.05
"""Share of one core that others may use before a note is made."""


class OtherWork:
    """Watches from its creation on how much CPU time others use."""

    def __init__(self, servers: Iterable[int]) -> None:
        """servers: the process ids whose CPU time is ours, besides that of ended children."""
        self._servers = list(servers)
        self._start = self._read()

    def _read(self) -> tuple[float, float, float] | None:
        try:
            everything, stolen = all_cpu_time()
        except (OSError, ValueError):
            return None
        ours = own_cpu_time()
        for pid in self._servers:
            used = cpu_time(pid)
            ours += used.total if used else 0.0
        return time.monotonic(), everything - ours, stolen

    def note(self) -> str | None:
        """Return a sentence if others were busy since the start, else None."""
        end = self._read()
        if self._start is None or end is None:
            return None
        elapsed, others, stolen = (b - a for a, b in zip(self._start, end, strict=True))
        if not elapsed or max(others, stolen) / elapsed <= TOLERATED:
            return None
        return (
            f"other processes used {100 * others / elapsed:.0f} % of a core and the host took "
            f"{100 * stolen / elapsed:.0f} %: rely on CPU per request, not on throughput"
        )
