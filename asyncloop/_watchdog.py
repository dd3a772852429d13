"""The watchdog: what holds up a loop, said while it does.

The core looks, in a thread without the GIL (`_core.Watchdog`); here what it has seen becomes a
report: a thread of Python's waits for events, looks at the stack of the loop's thread, and logs.
"""

import asyncio
import atexit
import contextlib
import gc
import inspect
import logging
import math
import os
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, NamedTuple

from . import _core, _page
from ._dump import frame_of, text_of_task
from ._say import descriptor_of_stderr, one_line, printable, say, says_no, write_with_patience
from ._spin import Detector, Spin
from ._stacks import (
    OWN_FILES,
    StackSignal,
    is_in_a_debugger,
    other_threads,
    stack_of_dump,
    stack_of_frame,
)

__all__ = ["BlockedError", "Stall", "Watchdog", "watchdog"]

logger = logging.getLogger("asyncio")

_KEPT = 1000  # stalls that a watchdog remembers
_LATE = 0.15  # seconds: who waits longer for the GIL does not only wait for the processor


class BlockedError(RuntimeError):
    """A loop was blocked under `watchdog(on_stall="raise")`. `stalls` has what was seen."""

    def __init__(self, stalls: "list[Stall]") -> None:
        super().__init__("the event loop was blocked: " + "; ".join(map(str, stalls)))
        self.stalls = stalls


@dataclass(frozen=True)
class Stall:
    """One time that a loop did not go on for longer than the threshold.

    loop: the number of the loop in its interpreter, as in what is logged
    thread: threading.get_ident() of the thread that runs it
    duration: seconds, so far or in all
    still_running: is it blocked still?
    task: the repr() of the task that runs, or None: a callback does; without a GIL the names of
        task and coroutine
    stack: what runs, outermost frame first; the last entry has the blocking line
    gil_held: the stack is what faulthandler wrote, since a call held the GIL: that of the loop, or
        one of another thread
    gc_seconds: time that the garbage collector took of it
    other_threads: with gil_held, where threads were that did not just wait, as soon as somebody
        could look: the end of such a call gives the GIL away
    """

    loop: int
    thread: int
    duration: float
    still_running: bool
    task: str | None
    stack: tuple[traceback.FrameSummary, ...]
    gil_held: bool
    gc_seconds: float
    other_threads: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The blocking line, as `file:line in function`."""
        if not self.stack:
            return "an unknown place"
        frame = self.stack[-1]
        if frame.filename in OWN_FILES:
            where = "a function in C that the loop has called"
            return f"{where}, or that another thread runs" if self.gil_held else where
        return f"{frame.filename}:{frame.lineno} in {frame.name}()"

    def __str__(self) -> str:
        so_far = " so far" if self.still_running else ""
        return f"{self.duration:.3f} s{so_far} at {self.where}"


class _Collector:
    """How long the collector runs, by thread: what counts for a stall began after it."""

    def __init__(self) -> None:
        self._users = 0
        self._began: dict[int, float] = {}
        self._runs: deque[tuple[float, float]] = deque(maxlen=64)

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        thread = threading.get_ident()
        if phase == "start":
            self._began[thread] = time.monotonic()
        else:
            began = self._began.pop(thread, None)
            if began is not None:
                self._runs.append((began, time.monotonic()))

    def use(self) -> None:
        self._users += 1
        if self._users == 1:
            gc.callbacks.append(self)

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            with contextlib.suppress(ValueError):
                gc.callbacks.remove(self)

    def forget(self) -> None:
        """In a child of fork(), which has none of the users."""
        self._began.clear()
        if self._users > 0:
            self._users = 1
            self.leave()

    def seconds(self, since: float) -> float:
        """Of any thread: all others wait for it."""
        total = sum(max(0.0, end - max(began, since)) for began, end in list(self._runs))
        for began in list(self._began.values()):
            total += time.monotonic() - max(began, since)
        return total


_collector = _Collector()


def _seconds(value: Any, name: str, *, zero: bool = False) -> float:
    number = float("nan")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero) or number >= 1e9:
        kind = "a finite number of seconds, 0 or more" if zero else "a finite number of seconds > 0"
        raise ValueError(f"{name} has to be {kind}, not {value!r}")
    return number


class _Event(NamedTuple):
    """What the core's wait() gives."""

    kind: str  # "stall", "still", "end", "busy" or "calm"
    number: int  # of the loop
    thread: int
    lasted: float  # seconds so far; turns per second with "busy"
    dump: str | None  # what faulthandler wrote
    waited: float  # seconds that the event has waited
    held: bool  # whether that was for the GIL
    over: bool  # whether the stall is


class Watchdog:
    """What `watchdog()` gives: a context manager.

    stalls, spins: the last ones, each as it was when it was last told, in a deque
    failures: how often on_stall, on_spin or the logging has raised
    """

    def __init__(
        self,
        threshold: float,
        repeat: float,
        on_stall: "Callable[[Stall], object] | Literal['raise'] | None",
        on_spin: "Callable[[Spin], object] | None" = None,
    ) -> None:
        self.threshold = _seconds(threshold, "threshold")
        self.repeat = _seconds(repeat, "repeat", zero=True)
        if on_stall is not None and on_stall != "raise" and not callable(on_stall):
            raise ValueError(f"on_stall has to be callable, 'raise' or None, not {on_stall!r}")
        for name, function in (("on_stall", on_stall), ("on_spin", on_spin)):
            if inspect.iscoroutinefunction(function):
                raise ValueError(f"{name} is called in a thread, and may be no coroutine function")
        if on_spin is not None and not callable(on_spin):
            raise ValueError(f"on_spin has to be callable or None, not {on_spin!r}")
        self.on_stall = on_stall
        self.on_spin = on_spin
        #: the last stalls, each once, as it was when it was last told
        self.stalls: deque[Stall] = deque(maxlen=_KEPT)
        #: the last loops that were found to spin
        self.spins: deque[Spin] = deque(maxlen=_KEPT)
        #: what on_stall, on_spin or the logging has raised: how often
        self.failures = 0
        self._core: _core.Watchdog | None = None
        self._thread: threading.Thread | None = None
        self._open: dict[int, Stall] = {}
        self._detector = Detector()
        self._dump: StackSignal | None = None
        self._has_page = False
        self._pid = 0

    def start(self) -> None:
        """Begin to watch. RuntimeError if it does already."""
        if self._core is not None and self._pid == os.getpid():
            raise RuntimeError("this watchdog is started already")
        self._pid = os.getpid()
        self._open.clear()
        self._detector = Detector()
        with contextlib.ExitStack() as undo:
            self._dump = StackSignal()
            number, descriptor = self._dump.acquire()
            undo.callback(self._dump.release)
            core = _core.Watchdog(
                self.threshold, self.repeat, number, descriptor, descriptor_of_stderr()
            )
            undo.callback(core.stop)
            self._thread = self._start_thread(core)
            undo.pop_all()
        self._core = core
        self._has_page = False
        if not says_no("ASYNCLOOP_PAGE", os.environ):
            with contextlib.suppress(OSError, MemoryError):
                self._has_page = _page.acquire()
        _collector.use()
        _running.add(self)

    def _start_thread(self, core: "_core.Watchdog") -> threading.Thread:
        name = "asyncloop-watchdog"
        try:
            thread = threading.Thread(target=self._report, args=(core,), name=name, daemon=True)
            thread.start()
        except RuntimeError:  # an interpreter beside the main one that has no daemon threads
            thread = threading.Thread(target=self._report, args=(core,), name=name, daemon=False)
            thread.start()
        return thread

    def stop(self) -> None:
        """End it. What is noted by then is still told."""
        core, self._core = self._core, None
        if core is None:
            return
        _running.discard(self)
        core.stop()
        if self._pid != os.getpid():
            return  # the threads were the parent's
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)
        self._detector.stop()
        if self._has_page:
            _page.release()
        _collector.leave()
        if self._dump is not None:
            self._dump.release()

    def __enter__(self) -> "Watchdog":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()
        if self.on_stall == "raise" and self.stalls and error is None:
            raise BlockedError(list(self.stalls))

    # -- in the thread ---------------------------------------------------------------

    def _report(self, core: "_core.Watchdog") -> None:
        while True:
            event = core.wait()
            if event is None:
                return
            try:
                self._tell(core, _Event(*event))
            except BaseException:  # SystemExit as well: the thread is not the program's to end
                self.failures += 1

    def _tell(self, core: "_core.Watchdog", event: "_Event") -> None:
        kind, number, lasted = event.kind, event.number, event.lasted
        if kind == "busy":
            self._tell_spin(self._detector.busy(number, event.thread, lasted))
            return
        if kind == "calm":
            self._detector.calm(number)
            return
        before = self._open.pop(number, None)
        if kind == "end":
            if before is None:
                return
            collected = _collector.seconds(time.monotonic() - lasted)
            stall = replace(
                before, duration=lasted, still_running=False, gc_seconds=min(collected, lasted)
            )
            if self.stalls and before in self.stalls:
                self.stalls.remove(before)
        else:
            stall = self._look(event)
            if is_in_a_debugger(stall.stack):
                return  # somebody is looking at it already
            if before is not None and before in self.stalls:
                self.stalls.remove(before)
            self._open[number] = stall
        self.stalls.append(stall)
        _core._page_note(number, lasted, stall.still_running, _text_of(stall))
        core.noted()
        if callable(self.on_stall):
            self.on_stall(stall)
        elif self.on_stall is None:
            _log(stall)

    def _tell_spin(self, spin: Spin | None) -> None:
        if spin is None:
            return
        self.spins.append(spin)
        _core._count_spin(spin.loop)
        if self.on_spin is not None:
            self.on_spin(spin)
        else:
            logger.warning("event loop %d spins: %s", spin.loop, printable(str(spin)))

    def _look(self, event: "_Event") -> Stall:
        # What is over when this thread comes to it, was not where the loop is now.
        stack = () if event.over else stack_of_frame(frame_of(event.thread))
        dump = event.dump
        if dump is not None:
            dumped = stack_of_dump(dump)
            # On a busy machine this thread may come late to a GIL that was free at times: then the
            # thread of the loop still is where it was.
            if (
                event.over
                or not event.held
                or event.waited > _LATE
                or _last(stack) != _last(dumped)
            ):
                stack = dumped
            else:
                dump = None
        return Stall(
            loop=event.number,
            thread=event.thread,
            duration=event.lasted,
            still_running=True,
            task=None if event.over else _current_task(event.number),
            stack=stack,
            gil_held=dump is not None and event.held,
            gc_seconds=min(_collector.seconds(time.monotonic() - event.lasted), event.lasted),
            other_threads=other_threads(event.thread) if dump is not None and event.held else (),
        )


def _last(stack: tuple[traceback.FrameSummary, ...]) -> tuple[str, int | None] | None:
    return (stack[-1].filename, stack[-1].lineno) if stack else None


def _current_task(number: int) -> str | None:
    loop = _core._loop_by_number(number)
    if loop is None:
        return None
    try:
        task = asyncio.current_task(loop)
        return None if task is None else text_of_task(task)
    except BaseException as error:
        return f"<a task whose repr() raised {type(error).__name__}>"


def _text_of(stall: Stall) -> str:
    return printable(f"{one_line(stall.where)}\n{_stack_of(stall)}")


def _stack_of(stall: Stall) -> str:
    stack = "".join(traceback.StackSummary.from_list(list(stall.stack)).format()).rstrip()
    if not stall.other_threads:
        return stack
    others = "".join(f"\n  {each}" for each in stall.other_threads)
    return f"{stack}\nIf it was none of these, a thread has held the GIL:{others}"


def _log(stall: Stall) -> None:
    notes = [f", {stall.gc_seconds:.3f} s of it in the collector"] if stall.gc_seconds else []
    if not stall.still_running:
        logger.warning(
            "event loop %d was blocked for %.3f s%s%sat %s",
            stall.loop,
            stall.duration,
            "".join(notes),
            ", " if notes else " ",
            printable(one_line(stall.where)),
        )
        return
    if stall.gil_held:
        notes.append(", while a call holds the GIL")
    running = f"task: {stall.task}\n" if stall.task else ""
    stack = _stack_of(stall)
    if any(frame.filename == logging.__file__ for frame in stall.stack):
        # What blocks may hold a lock that the logger needs: this one comes at once.
        with contextlib.suppress(OSError):
            if (descriptor := descriptor_of_stderr()) >= 0:
                text = f"asyncloop: loop {stall.loop} blocked in the log, for {stall}\n{stack}\n"
                write_with_patience(descriptor, text)
    logger.warning(
        "event loop %d is blocked, for %.3f s so far%s, at %s\n"
        "%sStack (most recent call last):\n%s",
        stall.loop,
        stall.duration,
        "".join(notes),
        printable(one_line(stall.where)),
        printable(running),
        printable(stack),
    )


# -- life ------------------------------------------------------------------------------------


_running: "weakref.WeakSet[Watchdog]" = weakref.WeakSet()


def _stop_all() -> None:
    for dog in list(_running):
        dog.stop()


def _after_fork() -> None:
    """The child has none of the threads: those that are to watch there begin anew."""
    _collector.forget()
    for dog in list(_running):
        _running.discard(dog)
        if dog is _of_environment:
            dog._core = None
            try:
                dog.start()
            except (OSError, RuntimeError, MemoryError) as error:
                say(f"ASYNCLOOP_WATCHDOG: {error}")


# The threads of an interpreter that may have none but those that it waits for are waited for before
# what atexit has runs. As concurrent.futures does it.
getattr(threading, "_register_atexit", atexit.register)(_stop_all)
atexit.register(_stop_all)
os.register_at_fork(after_in_child=_after_fork)


def watchdog(
    threshold: float = 0.1,
    *,
    repeat: float = 10.0,
    on_stall: "Callable[[Stall], object] | Literal['raise'] | None" = None,
    on_spin: "Callable[[Spin], object] | None" = None,
) -> Watchdog:
    """Return a watchdog that says what blocks the loops of this process, while it blocks them.

    threshold: seconds that one turn of a loop may take before it is told of
    repeat: seconds after which a stall that goes on is told of again; 0: never
    on_stall: None logs to the logger `asyncio`; a callable gets a `Stall` instead, in the
        watchdog's own thread, when a stall is seen, each `repeat` seconds, and at its end; "raise"
        makes the end of the `with` block raise BlockedError, for tests
    on_spin: a loop that turns all the time without sleep, input or output, always with the same
        few callbacks, is logged once while that lasts; a callable gets a `Spin` instead

    Use it as a context manager, or call `start()` and `stop()`. A stall is seen within a fifth of
    the threshold; if the blocking call holds the GIL, the stack is written to standard error at
    once and told as usual afterwards. Exceptions of on_stall and on_spin are counted in `failures`.

    Raises ValueError for a threshold that is not a finite number above zero, and alike.
    """
    return Watchdog(threshold, repeat, on_stall, on_spin)


_of_environment: Watchdog | None = None


def start_from_environment(environ: Mapping[str, str]) -> None:
    """What ASYNCLOOP_WATCHDOG asks for. One line where it is no threshold."""
    global _of_environment
    if not _core._is_main_interpreter:
        return  # of another one nobody knows when it ends; its threads would be in the way
    value = environ["ASYNCLOOP_WATCHDOG"]
    try:
        dog = watchdog(float(value))
    except ValueError:
        say(f"ASYNCLOOP_WATCHDOG={value!r} is no time in seconds above zero: no watchdog")
        return
    dog.start()
    _of_environment = dog
