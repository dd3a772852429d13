"""What holds up the end of a program: `ASYNCLOOP_SHUTDOWN=seconds`.

`asyncloop.run`, `asyncio.run` and `asyncio.Runner` end by cancelling what is left, and by waiting
for it, for the asynchronous generators and for the default executor. If that takes longer than
the bound, counted from the Ctrl-C that asks for it or else from the end of `main()`, one record
says what is still there. It is made by a thread, so it comes although the loop is blocked, unless
the call that blocks holds the GIL.
"""

import asyncio
import contextlib
import math
import sys
import threading
import time
from asyncio import runners
from asyncio.log import logger
from collections.abc import Mapping
from types import FrameType
from typing import Any

from . import _core, _dump
from ._loop import Loop
from ._say import one_line, printable, say

_MOST = 20  # of each kind that are written out
_MOST_PLACES = 8  # of the chain of coroutines of a task, from its inner end
# Who calls run_until_complete() at the end of a program.
_ENDS = {
    runners._cancel_all_tasks.__code__,  # type: ignore[attr-defined]
    runners.Runner.close.__code__,
}


class _Watch(threading.Thread):
    """Waits for the end of a loop, for the bound and no longer."""

    def __init__(self, loop: Any, bound: float, main: Any) -> None:
        super().__init__(name="asyncloop-shutdown", daemon=True)
        self.loop: Any = loop
        self.main: Any = main  # the task that Ctrl-C has cancelled
        self.of_main = main is not None
        self.bound = bound
        self.over = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        loop, main = self.loop, self.main
        if self.over.wait(self.bound) or loop is None:
            return
        try:
            # Who takes his cancellation back has said that he goes on.
            if main is None or main.done() or main.cancelling():
                logger.warning("%s", printable(report(loop, time.monotonic() - began)))
        except BaseException:  # SystemExit as well: this thread is not the program
            logger.warning("asyncloop: no report of the shutdown", exc_info=True)
        finally:
            self.end()

    def end(self) -> None:
        self.loop = self.main = None
        self.over.set()


class Shutdown:
    """Notices that a program ends. Set on the class of the loops by start_from_environment()."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def look(self, loop: Any) -> None:
        """Called by the loop's run_until_complete(), whose caller tells."""
        frame: FrameType | None = sys._getframe(2)
        for _ in range(3):  # a subclass may have a run_until_complete() of its own
            if frame is None or frame.f_code in _ENDS:
                break
            frame = frame.f_back
        if frame is not None and frame.f_code in _ENDS:
            self.begin(loop, None)

    def begin(self, loop: Any, main: Any) -> None:
        """The loop is to end: `main` was interrupted, or (None) is done."""
        watch = loop._shutdown_watch
        # One that has told of a main() that goes on is done with: that one's end is another matter.
        if watch is not None and not (watch.of_main and watch.over.is_set()):
            return
        # No thread is to be had, as in some interpreters beside the main one: no report.
        with contextlib.suppress(RuntimeError):
            loop._shutdown_watch = watch = _Watch(loop, self.bound, main)
            watch.start()

    def ended(self, loop: Any) -> None:
        """The loop is closed."""
        if loop._shutdown_watch is not None:
            loop._shutdown_watch.end()


def report(loop: Any, seconds: float) -> str:
    """One text about all that keeps the loop from its end."""
    tasks, count = _dump.tasks_of(loop, _MOST + 1)
    places = _dump.places_of_tasks(loop, tasks)
    parts = [
        _part("task(s)", [_of_task(task, places(task)) for task in tasks], count),
        _part("connection(s)", *_dump.transports_of(loop)),
        _part("call(s) in the default executor", _dump.calls_of(loop)),
        _part("async generator(s)", _dump.generators_of(loop)),
    ]
    heads = [head for head, _ in parts if head] or ["nothing that is known"]
    lines = [line for _, lines in parts for line in lines]
    head = f"the end of the program takes {seconds:.1f} s so far: {', '.join(heads)}"
    return "\n".join([head, *lines])


def _part(kind: str, found: list[str], count: int | None = None) -> tuple[str, list[str]]:
    """count: how many there are, where not all is known of them."""
    if count is None:
        count = len(found)
    if not count:
        return "", []
    lines = [f"  {line}" for line in found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"  ... and {count - _MOST} more")
    return f"{count} {kind}", lines


def _of_task(task: "asyncio.Task[Any]", places: list[str]) -> str:
    times = _dump.times_cancelled(task)
    if times:
        note = f"was cancelled {times} time(s) and goes on"
    else:
        note = "was not cancelled, or goes on after it"
    where = "\n    ".join(places[-_MOST_PLACES:]) if places else "an unknown place"
    return f"task {one_line(_dump.name_of(task))} {note}:\n    {where}"


def start_from_environment(environ: Mapping[str, str]) -> None:
    """What ASYNCLOOP_SHUTDOWN asks for. One line where it is no time."""
    value = environ["ASYNCLOOP_SHUTDOWN"]
    try:
        bound = float(value)
    except ValueError:
        bound = math.nan
    if not 0 < bound < 1e9:
        say(
            f"ASYNCLOOP_SHUTDOWN={value!r} is no time in seconds above zero: "
            "no report of the shutdown"
        )
        return
    if _core._is_main_interpreter:  # of another one a thread would be in the way of its end
        Loop._shutdown = Shutdown(bound)
        _see_interrupts(Loop._shutdown)


def _see_interrupts(shutdown: Shutdown) -> None:
    """Have the Runner, whose handler of SIGINT cancels main(), tell when it does."""
    inner = getattr(runners.Runner, "_on_sigint", None)
    if inner is None:
        return

    def _on_sigint(self: Any, signum: int, frame: Any, main_task: Any) -> None:
        loop = getattr(self, "_loop", None)
        if isinstance(loop, Loop) and not main_task.done():
            shutdown.begin(loop, main_task)
        inner(self, signum, frame, main_task)

    runners.Runner._on_sigint = _on_sigint  # type: ignore[attr-defined]
