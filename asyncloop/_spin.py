"""A loop that spins: it turns all the time, and nothing comes of it.

The core's watchdog tells of a loop that turns thousands of times a second and hardly sleeps. Then
some hundred of its callbacks are noted down (`_core.Loop._trace_begin`), and again a moment later.
What tells a spin from work:

- the same few callbacks and tasks are all that runs, in each turn again;
- each of them is done at once: what computes takes longer;
- no bytes move, neither in the loop's own transports nor in the descriptors of what is told;
- no task is woken by a result that another one has made: to pass work on is work. A timer's
  result does not count, nor does a cancellation.
"""

import asyncio
import contextlib
import functools
import gc
import os
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

from . import _core
from ._dump import text_of_task

__all__ = ["Spin"]

_FEW = 4  # callbacks and tasks that are a spin
_MOSTLY = 0.95  # so much of what runs is theirs
_RARELY = 0.05  # so much of it may move bytes, or be woken by others
_LEAST_TURNS = 50  # in a trace
_AT_ONCE_NS = 50_000  # half of them take no longer than this
_AT_ONCE_DEBUG_NS = 500_000  # in debug mode, which notes down where each was scheduled
_ASYNCIO = os.path.dirname(asyncio.__file__)


@dataclass(frozen=True)
class Spin:
    """A loop that turns all the time without sleep, input or output, with the same few callbacks.

    loop: the number of the loop in its interpreter, as in what is logged
    thread: threading.get_ident() of the thread that runs it
    turns_per_second: how often it turned, just before this was told
    callbacks: what runs, the most frequent first, as `function() at file:line`
    tasks: the tasks among them, or that they belong to, as repr() has them (without a GIL by name)
    descriptor: that is ready all the time, or None
    """

    loop: int
    thread: int
    turns_per_second: float
    callbacks: tuple[str, ...]
    tasks: tuple[str, ...]
    descriptor: int | None

    def __str__(self) -> str:
        text = f"{self.turns_per_second:,.0f} turns per second without sleep, input or output, "
        text += f"always with {', '.join(self.callbacks) or 'an event that nobody takes'}"
        if self.descriptor is not None:
            text += f", descriptor {self.descriptor}"
        for task in self.tasks:
            text += f"\ntask: {task}"
        return text


@dataclass(frozen=True)
class _Verdict:
    keys: frozenset[int]
    callbacks: tuple[str, ...]
    tasks: "tuple[weakref.ref[Any], ...]"
    descriptor: int | None


class _Seen:
    """What is known of a loop that seems to spin."""

    def __init__(self) -> None:
        self.verdicts: deque[_Verdict | None] = deque(maxlen=4)  # written by the loop's thread
        self.last: _Verdict | None = None
        self.told = False


class Detector:
    """For the thread of a watchdog."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def busy(self, number: int, thread: int, turns: float) -> Spin | None:
        """Called in each window of time in which the loop hardly slept."""
        seen = self._seen.setdefault(number, _Seen())
        if seen.told:
            return None
        spin = None
        while seen.verdicts:
            verdict = seen.verdicts.popleft()
            if verdict is not None and seen.last is not None and verdict.keys & seen.last.keys:
                spin = Spin(
                    number,
                    thread,
                    turns,
                    verdict.callbacks,
                    # Here, and not in the loop's thread: a repr() may do anything.
                    tuple(
                        text_of_task(task) for ref in verdict.tasks if (task := ref()) is not None
                    ),
                    verdict.descriptor,
                )
            seen.last = verdict
        if spin is not None:
            seen.told = True
            self._post(number, _end_trace)
        else:
            self._post(number, _next_trace, seen)
        return spin

    def calm(self, number: int) -> None:
        """Called when it sleeps again."""
        if self._seen.pop(number, None) is not None:
            self._post(number, _end_trace)

    def stop(self) -> None:
        for number in list(self._seen):
            self.calm(number)

    def _post(self, number: int, function: Any, *args: Any) -> None:
        loop = _core._loop_by_number(number)
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                _core.Loop.call_soon_threadsafe(loop, function, loop, *args)


# -- in the thread of the loop ------------------------------------------------------------


def _next_trace(loop: Any, seen: _Seen) -> None:
    trace = loop._trace_end()
    if trace is not None:
        try:
            at_once = _AT_ONCE_DEBUG_NS if loop.get_debug() else _AT_ONCE_NS
            seen.verdicts.append(_judge(trace, at_once))
        except (Exception, SystemExit):  # of a name, or the like
            seen.verdicts.append(None)
    with contextlib.suppress(RuntimeError, MemoryError):
        loop._trace_begin()


def _end_trace(loop: Any) -> None:
    loop._trace_end()


def _judge(trace: dict[str, Any], at_once: int) -> _Verdict | None:
    """What spins, or None: it is work. `at_once` in nanoseconds."""
    items = trace["items"]
    progress = trace["moved"] + max(0, trace["woken"] - trace["timers"])
    found = sorted(trace["found"], key=lambda entry: -entry[1])[:_FEW]
    if (
        trace["turns"] < _LEAST_TURNS
        or trace["median_ns"] > at_once
        or progress > items * _RARELY
        or sum(count for _, count, _ in found) < items * _MOSTLY
    ):
        return None
    # What is only there now and then is not it.
    found = [entry for entry in found if entry[1] >= items * _RARELY]
    spinning = [what for what, _, _ in found]
    tasks = {id(task): task for what, _, args in found for task in _tasks_of(what, args)}
    descriptor = trace["event_fd"]
    return _Verdict(
        frozenset(map(_key, spinning)) or frozenset([-1]),
        tuple(map(_name, spinning)),
        tuple(map(weakref.ref, tasks.values())),
        descriptor if descriptor >= 0 else None,
    )


def _key(what: Any) -> int:
    return id(_code(what) or _function(what))


def _function(what: Any) -> Any:
    while isinstance(what, functools.partial):
        what = what.func
    return getattr(what, "__func__", what)


def _code(what: Any) -> CodeType | None:
    """What a callback runs, or a task that is done; None for one that lasts, and for what is C."""
    if _is_task(what):
        return getattr(what.get_coro(), "cr_code", None) if what.done() else None
    function = _function(what)
    # An object that is called, or a transport or the like.
    call = getattr(type(function), "__call__", None)  # noqa: B004
    for each in (function, call):
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def _place(code: CodeType, line: int) -> str:
    return f"{getattr(code, 'co_qualname', code.co_name)}() at {code.co_filename}:{line}"


def _is_task(what: Any) -> bool:
    return issubclass(type(what), asyncio.Task)  # isinstance() might ask the object


def _name(what: Any) -> str:
    code = _code(what)
    if _is_task(what) and code is None:
        places = list(_places(what))
        # asyncio.sleep(0) and the like are not where the trouble is.
        own = [place for file, place in places if os.path.dirname(file) != _ASYNCIO]
        return own[-1] if own else places[-1][1] if places else str(what.get_name())
    if code is not None:
        return _place(code, code.co_firstlineno)
    name = getattr(_function(what), "__qualname__", None)
    return f"{name}()" if isinstance(name, str) else type(what).__name__


def _places(task: Any) -> Iterator[tuple[str, str]]:
    """File and place of its coroutines, outermost first."""
    coro = task.get_coro()
    for _ in range(1000):
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            return
        yield frame.f_code.co_filename, _place(frame.f_code, frame.f_lineno)
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)


def _tasks_of(what: Any, args: tuple[Any, ...]) -> list[Any]:
    """The task that this is, or those that it leads to: its object's fields and its arguments."""
    if _is_task(what):
        return [what]
    level = [what, *args]
    seen = set(map(id, level))
    tasks = [each for each in args if _is_task(each)]
    for _ in range(4):  # a bound method, its object, that one's dict, a set in it
        level = [each for one in level if _leads_on(one) for each in gc.get_referents(one)[:100]]
        level = [each for each in level if id(each) not in seen][:1000]
        seen.update(map(id, level))
        tasks += [each for each in level if _is_task(each)]
    return tasks[:_FEW]


def _leads_on(value: Any) -> bool:
    kinds = (asyncio.Future, asyncio.AbstractEventLoop, CodeType, ModuleType, type)
    if issubclass(type(value), kinds):
        return False
    return not (type(value) is dict and "__builtins__" in value)
