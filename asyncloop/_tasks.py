"""Tasks that nobody holds, where tasks come from, and what they cost.

asyncio's loop does not hold its tasks: one that waits for something that only itself refers to is
taken by the collector, with the message "Task was destroyed but it is pending!". `strong_tasks` of
a loop keeps each until it is done; `lost_tasks()` names those that would be gone without it.
"""

import asyncio
import contextlib
import gc
import math
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType, ModuleType
from typing import Any

from . import _core, _dump
from ._loop import Loop
from ._say import one_line, printable, says_yes

__all__ = [
    "Census",
    "TaskPlace",
    "TaskStats",
    "TransportSize",
    "census",
    "lost_tasks",
    "task_stats",
]

_MOST_OBJECTS = 2_000_000  # that are looked at for one question

_first_seen: dict[int, tuple["weakref.ref[Any]", float]] = {}


@dataclass(frozen=True)
class TaskPlace:
    """Pending tasks that were made at one place.

    where: `file:line in function()`; of the coroutine where nobody has written down who made them
    count: how many there are
    oldest: seconds since the oldest was made, or first seen
    """

    where: str
    count: int
    oldest: float

    def __str__(self) -> str:
        return f"{self.count} task(s), the oldest {self.oldest:.1f} s old, made at {self.where}"


@dataclass(frozen=True)
class TransportSize:
    """A transport, and what it has not sent yet.

    buffered: bytes, as its get_write_buffer_size() says
    peer: the other end's address, or None
    """

    transport: Any
    buffered: int
    peer: Any

    def __str__(self) -> str:
        return f"{self.buffered} bytes buffered, peer {self.peer!r}: {self.transport!r}"


@dataclass(frozen=True)
class Census:
    """What the loops have.

    tasks: the pending ones by the place at which they were made, the most first
    transports: those that are open, the most buffered bytes first
    """

    tasks: tuple[TaskPlace, ...]
    transports: tuple[TransportSize, ...]

    def __str__(self) -> str:
        lines = map(_dump.safely_str, [*self.tasks, *self.transports])
        return printable("\n".join(map(one_line, lines)))


@dataclass(frozen=True)
class TaskStats:
    """What a pending task has cost so far; times in seconds.

    state: "running", "ready" (it waits for its turn) or "waiting"
    ran, ready: how long its steps took, and how long it waited for its turn
    steps, wakeups: how often it went on, and how often something made it ready
    age: since it was made
    made: where, as `file:line in function()`, or None
    """

    name: str
    state: str
    ran: float
    ready: float
    steps: int
    wakeups: int
    age: float
    made: str | None


# -- all tasks -------------------------------------------------------------------------


def _pending() -> list[Any]:
    return [task for _, _, loop in _core._running_loops() for task in asyncio.all_tasks(loop)]


def _records() -> dict[int, Any]:
    """What is written down, by the id of the task."""
    found: dict[int, Any] = {}
    for _, _, loop in _core._running_loops():
        found.update(loop._task_records())
    return found


def _age(task: Any, records: dict[int, Any]) -> float:
    """Seconds since it was made; without a record: since it was first seen here."""
    now, key = time.monotonic(), id(task)
    record = records.get(key)
    if record is not None:
        return now - float(record.made_ns) * 1e-9
    known = _first_seen.get(key)
    if known is None or known[0]() is not task:
        known = weakref.ref(task, lambda _: _first_seen.pop(key, None)), now
        _first_seen[key] = known
    return now - known[1]


def _place_of(code: CodeType, line: int) -> str:
    return f"{code.co_filename}:{line} in {getattr(code, 'co_qualname', code.co_name)}()"


def _where(task: Any, records: dict[int, Any]) -> str:
    record = records.get(id(task))
    if record is not None and record.code is not None:
        return _place_of(record.code, record.line)
    for frame in reversed(getattr(task, "_source_traceback", None) or ()):
        if "asyncio" not in frame.filename.replace("\\", "/").split("/")[:-1]:
            return f"{frame.filename}:{frame.lineno} in {frame.name}()"
    coro = _dump.coro_of(task)
    for name in ("cr_code", "gi_code", "ag_code"):
        code = None
        with contextlib.suppress(Exception, SystemExit):  # it may be anything
            code = getattr(coro, name, None)
        if isinstance(code, CodeType):
            return f"an unknown place, to run {_place_of(code, code.co_firstlineno)}"
    return f"an unknown place, to run {type(coro).__name__}"


def census() -> Census:
    """Return how many pending tasks were made where, and the transports by buffered bytes.

    About the running loops of this interpreter, from any thread. The place of a task is known with
    `strong_tasks`, `task_accounting` or the debug mode; else tasks are told apart by the coroutine
    that they run.
    """
    records = _records()
    places: dict[str, list[float]] = {}
    for task in _pending():
        places.setdefault(_where(task, records), []).append(_age(task, records))
    tasks = [TaskPlace(where, len(ages), max(ages)) for where, ages in places.items()]
    tasks.sort(key=lambda place: (-place.count, place.where))
    transports = [
        TransportSize(transport, buffered, _peer(transport))
        for _, _, loop in _core._running_loops()
        for buffered, transport in _dump.all_transports(loop) or ()
    ]
    transports.sort(key=lambda size: -size.buffered)
    return Census(tuple(tasks), tuple(transports))


def _peer(transport: Any) -> Any:
    try:
        return transport.get_extra_info("peername")
    except Exception:
        return None


def cost_of(record: Any, now: int) -> dict[str, Any]:
    """What is written down of a task, until `now`: time.monotonic_ns()."""
    waits = now - record.ready_ns if record.ready_ns else 0
    return {
        "ran": record.ran_ns * 1e-9,
        "ready": (record.waited_ns + waits) * 1e-9,
        "steps": record.steps,
        "wakeups": record.wakeups,
    }


def task_stats() -> list[TaskStats]:
    """Return what each pending task has cost: of the loops whose `task_accounting` is True.

    The task that has run for longest comes first.
    """
    records, now = _records(), time.monotonic_ns()
    found = []
    for _, _, loop in _core._running_loops():
        if not loop.task_accounting:
            continue
        for task in asyncio.all_tasks(loop):
            record = records.get(id(task))
            if record is None:
                continue
            running = getattr(_dump.coro_of(task), "cr_running", False)
            state = "running" if running else "ready" if record.ready_ns else "waiting"
            code = record.code
            found.append(
                TaskStats(
                    name=_dump.name_of(task),
                    state=state,
                    **cost_of(record, now),
                    age=(now - record.made_ns) * 1e-9,
                    made=None if code is None else _place_of(code, record.line),
                )
            )
    found.sort(key=lambda stats: -stats.ran)
    return found


# -- lost tasks --------------------------------------------------------------------------


def lost_tasks(older_than: float = 60.0) -> list[Any]:
    """Return the pending tasks that nothing but their loop refers to.

    Nothing can wake such a task: what it waits for is known to itself alone, or to others of the
    kind. Without `strong_tasks` the next collection takes it. A task that sleeps, waits for a
    socket or for a thread is not lost, although nobody has kept it.

    `older_than`: seconds. Age counts from the making of the task with `strong_tasks` or
    `task_accounting`, else from the first time that this function or `census()` has seen it.
    Takes some times as long as a collection of the same objects.

    Raises ValueError if `older_than` is no finite number, or negative.
    """
    if (
        isinstance(older_than, bool)
        or not isinstance(older_than, (int, float))
        or not 0 <= older_than < math.inf
    ):
        raise ValueError(f"older_than has to be a finite number, 0 or more, not {older_than!r}")
    records = _records()
    old = [task for task in _pending() if _age(task, records) >= older_than]
    held = {key for key, record in records.items() if record.task is not None}
    records.clear()
    return _unreachable(old, held)


def _is_boundary(thing: Any) -> bool:
    """Is what this refers to of no interest? What only such a thing leads to counts as in use."""
    if isinstance(thing, (ModuleType, type, asyncio.AbstractEventLoop, CodeType)):
        return True
    return type(thing) is dict and "__builtins__" in thing


def _unreachable(tasks: list[Any], held: set[int]) -> list[Any]:
    """Those of the tasks that only lead to themselves: a collection of what they reach.

    Each reference that is not accounted for by another object of these comes from outside.
    """
    sample = [object()]
    own = sys.getrefcount(sample[0])
    things = [task for task in tasks if not _runs(task)]
    count = len(things)
    tasks.clear()
    index = {id(thing): position for position, thing in enumerate(things)}
    inside = [0] * count
    links: list[list[int]] = []
    position = 0
    while position < len(things):
        found: list[int] = []
        links.append(found)
        if position < count or not _is_boundary(things[position]):
            for other in gc.get_referents(things[position]):
                at = index.get(id(other))
                if at is None and gc.is_tracked(other) and len(things) < _MOST_OBJECTS:
                    at = index[id(other)] = len(things)
                    things.append(other)
                    inside.append(0)
                if at is not None:
                    inside[at] += 1
                    found.append(at)
            other = None
        position += 1
    alive = [False] * len(things)
    stack = []
    for position in range(len(things)):
        outside = sys.getrefcount(things[position]) - own - inside[position]
        if outside > (id(things[position]) in held):
            alive[position] = True
            stack.append(position)
    while stack:
        for at in links[stack.pop()]:
            if not alive[at]:
                alive[at] = True
                stack.append(at)
    return [things[position] for position in range(count) if not alive[position]]


def _runs(task: Any) -> bool:
    coro = _dump.coro_of(task)
    if isinstance(coro, CoroutineType):
        return coro.cr_running
    if isinstance(coro, GeneratorType):
        return coro.gi_running
    return isinstance(coro, AsyncGeneratorType) or task.done()


# -- what the environment asks for ---------------------------------------------------------


def start_from_environment(environ: Mapping[str, str]) -> None:
    """What ASYNCLOOP_STRONG_TASKS and ASYNCLOOP_TASK_ACCOUNTING ask for."""
    Loop._strong_by_default = says_yes("ASYNCLOOP_STRONG_TASKS", environ)
    Loop._accounting_by_default = says_yes("ASYNCLOOP_TASK_ACCOUNTING", environ)
