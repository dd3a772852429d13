"""What holds up the end of a program: `ASYNCLOOP_SHUTDOWN=seconds`.

`asyncloop.run`, `asyncio.run` and `asyncio.Runner` end by cancelling what is left, and by waiting
for it, for the asynchronous generators and for the default executor. If that takes longer than
the bound, one record says what is still there. It is made by a thread, so it comes although the
loop is blocked, unless the call that blocks holds the GIL.
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
from ._say import say

_MOST = 20  # of each kind that are written out
_MOST_PLACES = 8  # of the chain of coroutines of a task, from its inner end
# Who calls run_until_complete() at the end of a program.
_ENDS = {
    runners._cancel_all_tasks.__code__,  # type: ignore[attr-defined]
    runners.Runner.close.__code__,
}


class _Watch(threading.Thread):
    """Waits for the end of a loop, for the bound and no longer."""

    def __init__(self, loop: Any, bound: float) -> None:
        super().__init__(name="asyncloop-shutdown", daemon=True)
        self.loop: Any = loop
        self.bound = bound
        self.over = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        loop = self.loop
        if self.over.wait(self.bound) or loop is None:
            return
        try:
            logger.warning("%s", report(loop, time.monotonic() - began))
        except BaseException:  # SystemExit as well: this thread is not the program
            logger.warning("asyncloop: no report of the shutdown", exc_info=True)
        finally:
            self.loop = None

    def end(self) -> None:
        self.loop = None
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
        if frame is None or frame.f_code not in _ENDS or loop._shutdown_watch is not None:
            return
        # No thread is to be had, as in some interpreters beside the main one: no report.
        with contextlib.suppress(RuntimeError):
            loop._shutdown_watch = watch = _Watch(loop, self.bound)
            watch.start()

    def ended(self, loop: Any) -> None:
        """The loop is closed."""
        if loop._shutdown_watch is not None:
            loop._shutdown_watch.end()


def report(loop: Any, seconds: float) -> str:
    """One text about all that keeps the loop from its end."""
    parts = [
        _part("task(s)", [_of_task(task) for task in _dump.tasks_of(loop)]),
        _part("connection(s)", _dump.transports_of(loop)),
        _part("call(s) in the default executor", _dump.calls_of(loop)),
        _part("async generator(s)", _dump.generators_of(loop)),
    ]
    heads = [head for head, _ in parts if head] or ["nothing that is known"]
    lines = [line for _, lines in parts for line in lines]
    head = f"the end of the program takes {seconds:.1f} s so far: {', '.join(heads)}"
    return "\n".join([head, *lines])


def _part(kind: str, found: list[str]) -> tuple[str, list[str]]:
    if not found:
        return "", []
    lines = [f"  {line}" for line in found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"  ... and {len(found) - _MOST} more")
    return f"{len(found)} {kind}", lines


def _of_task(task: "asyncio.Task[Any]") -> str:
    times = _dump.times_cancelled(task)
    if times:
        note = f"was cancelled {times} time(s) and goes on"
    else:
        note = "was not cancelled, or goes on after it"
    places = _dump.places_of(task)
    where = "\n    ".join(places[-_MOST_PLACES:]) if places else "an unknown place"
    return f"task {_dump.name_of(task)} {note}:\n    {where}"


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
