"""What a loop has counted, as a value that does not change: `asyncloop.Loop.stats()`."""

import bisect
from dataclasses import dataclass, replace
from typing import Any

from . import _core

__all__ = ["Delay", "LoopStats"]

_BOUNDS = tuple(bound * 1e-9 for bound in _core._delay_bounds())


@dataclass(frozen=True, slots=True)
class Delay:
    """How late what came due has run: for how much time it would have been how late.

    As if something came due at each moment that the loop has run for. While it sleeps, that runs at
    once; while a callback runs, it waits for the end of it, and for what was ready before.

    bounds: lower ends of the buckets, in seconds: 0, and from 65.536 µs on eight to an octave; what
        is in one is at least that late, and earlier than the next bound
    seconds: time in each of them
    max: the longest delay so far, in seconds
    """

    bounds: tuple[float, ...]
    seconds: tuple[float, ...]
    max: float

    @property
    def total(self) -> float:
        """The time that this is about, in seconds."""
        return sum(self.seconds)

    @property
    def mean(self) -> float:
        """Seconds; 0.0 where no time has passed."""
        total = self.total
        return sum(map(self._moment, range(len(self.seconds)))) / total if total > 0 else 0.0

    def _moment(self, index: int) -> float:
        # The lowest bucket is as good as on time.
        low, high = self._ends(index)
        return self.seconds[index] * (low + high) / 2 if index > 0 else 0.0

    def _ends(self, index: int) -> tuple[float, float]:
        low = self.bounds[index]
        high = self.bounds[index + 1] if index + 1 < len(self.bounds) else max(low, self.max)
        return low, min(high, self.max) if self.max > low else high

    def percentile(self, percent: float) -> float:
        """The delay that is not exceeded in so much of the time: `percentile(99)`, in seconds.

        Exact to a sixteenth; below 65.536 µs it is 0.0. ValueError unless 0 <= percent <= 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent has to be from 0 to 100, not {percent!r}")
        wanted = self.total * percent / 100
        passed = longest = 0.0
        for index, seconds in enumerate(self.seconds):
            if seconds <= 0:
                continue
            low, high = self._ends(index) if index > 0 else (0.0, 0.0)
            if passed + seconds >= wanted:
                return low + (high - low) * max(0.0, wanted - passed) / seconds
            passed += seconds
            longest = high
        return longest  # rounding has made of 100 percent a little more than there is

    def at_most(self, seconds: float) -> float:
        """For how long nothing would have been later than that, in seconds."""
        index = bisect.bisect_right(self.bounds, seconds) - 1
        if index < 0:
            return 0.0
        low, high = self._ends(index)
        part = min(1.0, (seconds - low) / (high - low)) if high > low else 1.0
        return sum(self.seconds[:index]) + self.seconds[index] * (part if index > 0 else 1.0)

    def __sub__(self, earlier: "Delay") -> "Delay":
        """What was added since an earlier Delay of the same loop; `max` is then of a bucket."""
        if not isinstance(earlier, Delay):
            return NotImplemented
        pairs = zip(self.seconds, earlier.seconds, strict=True)
        seconds = tuple(max(0.0, now - then) for now, then in pairs)
        used = [index for index, each in enumerate(seconds) if each > 0 and index > 0]
        longest = self._ends(used[-1])[1] if used else 0.0
        return replace(self, seconds=seconds, max=min(longest, self.max))


@dataclass(frozen=True, slots=True)
class LoopStats:
    """What a loop has counted so far. Times are in seconds; what is there now is marked so.

    loop: its number in the interpreter, as in what the watchdog logs
    time: when this was read, by time.monotonic()
    running: is it inside run_forever() or the like now?
    asleep: does it wait for the kernel now?
    turns: iterations
    callbacks: of call_soon(), timers and descriptors, and events told to transports
    task_steps: how often a task went on
    busy, idle: time inside of runs in which it did something, and waited for the kernel;
        to wait for the GIL is not to be idle
    ready: calls and tasks that wait for their turn now
    timers: scheduled now; cancelled ones are not there any more
    descriptors: watched now
    transports: open now: sockets and pipes; TLS does not count again
    tasks: not done now
    bytes_in, bytes_out: of transports, `sock_recv()` and its kin
    calls_from_threads: by call_soon_threadsafe() from another thread, and names looked up
    stalls, spins: how often a watchdog has seen it blocked, and turning for nothing; 0 without one
    delay: how late what came due has run
    """

    loop: int
    time: float
    running: bool
    asleep: bool
    turns: int
    callbacks: int
    task_steps: int
    busy: float
    idle: float
    ready: int
    timers: int
    descriptors: int
    transports: int
    tasks: int
    bytes_in: int
    bytes_out: int
    calls_from_threads: int
    stalls: int
    spins: int
    delay: Delay

    @property
    def utilization(self) -> float:
        """The share of its time that the loop was busy, from 0.0 to 1.0."""
        total = self.busy + self.idle
        return self.busy / total if total > 0 else 0.0


def stats_of(counters: dict[str, Any]) -> LoopStats:
    """Of what the core, or another process's page, says."""
    run, idle = max(0, counters["run"]), max(0, counters["idle"])
    late = counters["delay"]
    on_time = max(0, run - sum(late))
    return LoopStats(
        loop=counters["number"],
        time=counters["now"] * 1e-9,
        running=counters["running"],
        asleep=counters["asleep"],
        turns=counters["turns"],
        callbacks=counters["callbacks"],
        task_steps=counters["task_steps"],
        busy=max(0, run - idle) * 1e-9,
        idle=idle * 1e-9,
        ready=counters["ready"],
        timers=counters["timers"],
        descriptors=counters["descriptors"],
        transports=counters["transports"],
        tasks=counters["tasks"],
        bytes_in=counters["bytes_in"],
        bytes_out=counters["bytes_out"],
        calls_from_threads=counters["from_threads"],
        stalls=counters["stalls"],
        spins=counters["spins"],
        delay=Delay(
            bounds=(0.0, *_BOUNDS),
            seconds=(on_time * 1e-9, *(ns * 1e-9 for ns in late)),
            max=counters["delay_max"] * 1e-9,
        ),
    )


def utilization(now: LoopStats, since: LoopStats | None) -> float:
    """What `Loop.utilization(since)` gives."""
    if since is None:
        return now.utilization
    if not isinstance(since, LoopStats):
        raise TypeError(f"since has to be what stats() gave, not {type(since).__name__}")
    if since.loop != now.loop:
        raise ValueError(f"since is of loop {since.loop}, and this is loop {now.loop}")
    busy = max(0.0, now.busy - since.busy)
    total = busy + max(0.0, now.idle - since.idle)
    return busy / total if total > 0 else 0.0
