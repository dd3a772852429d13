"""A loop that is run inside of a run, for those who ask for it: `allow_nested()`.

The inner run takes the outer one's place: what asyncio knows of it (the running loop, the current
task, the hooks of async generators, the flag of `stop()`) is put aside, and put back at its end. A
task is not made to go on while it waits for an inner run of its own: it is in the middle of a step.
"""

import asyncio
import sys
import threading
from asyncio import base_events, events, futures, tasks
from asyncio.base_events import BaseEventLoop
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

_T = TypeVar("_T")

_allowed = False
_END = base_events._run_until_complete_cb.__code__  # type: ignore[attr-defined]


def allow_nested(allowed: bool = True, /) -> None:
    """Allow `run_until_complete()` and `run_forever()` of asyncloop's loops inside of a run.

    Off by default: asyncio refuses it, with RuntimeError. Meant for synchronous code that has to
    call something asynchronous although a loop runs already further up, as in notebooks. The inner
    run serves everything that the loop has to do, not just what it was called for; an outer one
    goes on when the inner one has ended. It counts for all loops of asyncloop in this interpreter,
    from now on; `nest_asyncio.apply()` has the same effect.

    Raises TypeError for anything else than True and False.
    """
    global _allowed
    if not isinstance(allowed, bool):
        raise TypeError(f"allow_nested() takes True or False, not {allowed!r}")
    _allowed = allowed


class _Run:
    """A run inside of another one. `future`: what it ends with; None for run_forever()."""

    def __init__(self, loop: "NestedHooks", future: Any) -> None:
        self.loop = loop
        self.future = future
        self.stopped = False  # somebody has called stop()

    def is_over(self) -> bool:
        return self.stopped or (self.future is not None and self.future.done())

    def done(self, future: Any) -> None:
        # If another run is inside of this one, it goes on, and this one ends after it.
        runs = self.loop._nested_runs
        if runs and runs[-1] is self:
            self.loop._stopping = True


class NestedHooks(_Base):
    """The part of `asyncloop.Loop` that is about runs inside of runs."""

    _shutdown: Any = None  # _shutdown.py, if ASYNCLOOP_SHUTDOWN asks for it
    _shutdown_watch: Any = None
    _nested_runs: tuple[_Run, ...] = ()  # innermost last
    _outermost_over = False  # its future is done, or somebody has called stop() for it

    if TYPE_CHECKING:
        _coroutine_origin_tracking_enabled: bool

        def _run_turns(self) -> None: ...

    # What nest_asyncio looks for: its own methods would run the loop through views of what is
    # inside. What it does to asyncio allows nesting.
    _nest_patched = True

    def _nests(self) -> bool:
        """Is this to be a run inside of another one?"""
        return (
            events._get_running_loop() is not None
            and (_allowed or hasattr(asyncio, "_nest_patched"))
            and self._thread_id in (None, threading.get_ident())
        )

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done and return its result, or raise its exception.

        Follows asyncio.loop.run_until_complete. Inside of a run: see asyncloop.allow_nested().
        """
        if self._shutdown is not None:
            self._shutdown.look(self)
        if not self._nests():
            try:
                return BaseEventLoop.run_until_complete(self, future)
            except BaseException as error:
                # Without the line of this call: the traceback is asyncio's. Not by the attribute:
                # an exception may be a frozen dataclass.
                trace = sys.exc_info()[2]
                BaseException.with_traceback(error, trace and trace.tb_next)
                del future, trace  # traceback.clear_frames() does not come here
                raise
        self._check_closed()
        new_task = not futures.isfuture(future)
        future = tasks.ensure_future(future, loop=self)
        if new_task:
            future._log_destroy_pending = False
        run = _Run(self, future)
        future.add_done_callback(run.done)
        try:
            self._run_nested(run)
        except:
            if new_task and future.done() and not future.cancelled():
                future.exception()
            raise
        finally:
            future.remove_done_callback(run.done)
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    def stop(self) -> None:
        """End the innermost run after the current iteration. Follows asyncio.loop.stop."""
        runs = self._nested_runs
        if runs:
            if _called_by_the_end_of_a_run():
                self._outermost_over = True  # of the outermost: those inside of it go on
                return
            runs[-1].stopped = True
        self._stopping = True

    def _run_nested(self, run: _Run) -> None:
        """A run inside of one of this loop, or of another one in this thread."""
        outer_loop = events._get_running_loop()
        task = _swap_current_task(outer_loop, None)
        runs, stopping = self._nested_runs, self._stopping
        thread, hooks = self._thread_id, sys.get_asyncgen_hooks()
        tracking = self._coroutine_origin_tracking_enabled
        try:
            self._nested_runs = (*runs, run)
            self._stopping = False
            self._thread_id = threading.get_ident()
            self._set_coroutine_origin_tracking(self._debug)
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)
            self._enter_nested()
            try:
                while True:
                    self._run_turns()
                    self._stopping = False
                    if run.is_over():
                        break
            finally:
                self._leave_nested()
        finally:
            events._set_running_loop(outer_loop)
            sys.set_asyncgen_hooks(*hooks)
            self._set_coroutine_origin_tracking(tracking)
            self._thread_id = thread
            self._nested_runs = runs
            _swap_current_task(outer_loop, task)
            # stop() ends the innermost run_forever(), and all that is inside of that.
            goes_out = run.stopped and run.future is not None
            if runs:
                runs[-1].stopped |= goes_out
                self._stopping = runs[-1].is_over()
            elif thread is not None:
                self._stopping = stopping or goes_out or self._outermost_over
                self._outermost_over = False


def _called_by_the_end_of_a_run() -> bool:
    """By asyncio's callback of the future that the outermost run waits for?"""
    frame = sys._getframe(2)
    for _ in range(3):  # a subclass may have a stop() of its own
        if frame.f_code is _END:
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


# That of 3.12 raises KeyError where no task is the current one.
if sys.version_info >= (3, 13):
    _c_swap = tasks._swap_current_task

    def _swap_current_task(loop: Any, task: Any) -> Any:
        return _c_swap(loop, task)

else:

    def _swap_current_task(loop: Any, task: Any) -> Any:
        current = tasks._current_tasks  # type: ignore[attr-defined]
        before = current.pop(loop, None)
        if task is not None:
            current[loop] = task
        return before
