"""`run_threads()`: a loop in each of several threads, and `ThreadQueue`: a queue between loops.

On a free-threaded Python the threads run side by side, a loop on each core; with a GIL they take
turns, and processes serve better.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from ._core import _ThreadQueue
from ._loop import Loop

_T = TypeVar("_T")
_Waiter: TypeAlias = "asyncio.Future[None]"
_Wait: TypeAlias = "Callable[[_Waiter], bool]"
_Forget: TypeAlias = "Callable[[_Waiter | None], _Waiter | None]"
_Main = Callable[["Worker"], Coroutine[Any, Any, _T]]


class Worker:
    """What a worker's `main` is given: which worker of how many it is, and its loop.

    `index` counts from 0, `count` is the number of workers, `name` is the name of the thread, and
    `loop` is the worker's event loop.
    """

    def __init__(self, index: int, count: int, name: str) -> None:
        self.index = index
        self.count = count
        self.name = name
        self.loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stop_all: Callable[[], None] = lambda: None
        # Guards `_task` and `_stopping`: an end that is asked for before there is a task counts.
        # A signal handler or a finalizer may ask for it while its thread holds the lock.
        self._lock = threading.RLock()
        self._stopping = False
        self._result: Any = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<asyncloop.Worker {self.index} of {self.count}, thread {self.name!r}>"

    def stop_all(self) -> None:
        """End all workers: each `main` is cancelled. From any thread; returns at once."""
        self._stop_all()

    def _cancel(self, again: bool) -> None:
        with self._lock:
            if self._stopping and not again:
                return
            self._stopping = True
            task = self._task
        if task is not None:
            _call_in_loop(task.get_loop(), task.cancel)

    async def _run(self, main: "_Main[Any]") -> Any:
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            self._task = task
            stopping = self._stopping
        try:
            if stopping:
                task.cancel()
            return await main(self)
        finally:
            with self._lock:
                self._task = None

    def _thread(
        self,
        main: "_Main[Any]",
        debug: bool | None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        ended: "Callable[[Worker], None]",
    ) -> None:
        try:
            with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
                self.loop = runner.get_loop()
                self._result = runner.run(self._run(main))
        except asyncio.CancelledError as exc:
            if not self._stopping:  # nobody has asked for it: a main that cancelled itself
                self._error = exc
        except BaseException as exc:
            self._error = exc
        finally:
            self.loop = None
            ended(self)


def _call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> bool:
    """Have `loop` call `function`, from any thread. False if the loop is closed by now."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


def _cores() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Group:
    """The workers of one run_threads(), and the loop of the thread that waits for them."""

    def __init__(self, workers: list[Worker], stop_on: str) -> None:
        self.workers = workers
        self.running = 0
        self.stop_on = stop_on
        self.terminated = False
        self.loop = asyncio.get_running_loop()
        self.all_ended = self.loop.create_future()
        for worker in workers:
            worker._stop_all = self.stop

    def start(self, *args: Any) -> None:
        for worker in self.workers:
            # Daemons: a second Ctrl-C ends the program whatever the workers do.
            thread = threading.Thread(
                target=worker._thread,
                args=(*args, self.ended_in_thread),
                name=worker.name,
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as exc:  # the system gives no more threads
                worker._error = exc
                self.stop()
                break
            self.running += 1
        if not self.running:
            self.all_ended.set_result(None)

    def stop(self) -> None:
        self.end(again=True)

    def end(self, again: bool) -> None:
        """Cancel all workers; `again`: those that were cancelled before, too."""
        for worker in self.workers:
            worker._cancel(again)

    def terminate(self) -> None:
        self.terminated = True
        self.stop()

    def ended_in_thread(self, worker: Worker) -> None:
        _call_in_loop(self.loop, lambda: self.ended(worker))

    def ended(self, worker: Worker) -> None:
        self.running -= 1
        fatal = isinstance(worker._error, (SystemExit, KeyboardInterrupt))
        failed = worker._error is not None and self.stop_on == "error"
        if fatal or failed or self.stop_on == "first":
            self.end(again=False)  # not in the middle of what the others do at their end
        if not self.running and not self.all_ended.done():
            self.all_ended.set_result(None)

    async def wait(self) -> None:
        """Until the last worker has ended. A cancellation ends them; a second does not wait."""
        try:
            await asyncio.shield(self.all_ended)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.shield(self.all_ended)
            raise


async def _supervise(
    workers: list[Worker],
    main: "_Main[Any]",
    stop_on: str,
    debug: bool | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> bool:
    group = _Group(workers, stop_on)
    handles_sigterm = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if handles_sigterm:
        group.loop.add_signal_handler(signal.SIGTERM, group.terminate)
    try:
        group.start(main, debug, loop_factory)
        await group.wait()
    finally:
        if handles_sigterm:
            group.loop.remove_signal_handler(signal.SIGTERM)
    return group.terminated


def run_threads(
    main: "Callable[[Worker], Coroutine[Any, Any, _T]]",
    n: int | None = None,
    *,
    name: str = "asyncloop",
    stop_on: Literal["error", "first", "never"] = "error",
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = Loop,
) -> list[_T | None]:
    """Run `main(worker)` in `n` threads, each with a loop of its own, and return the results.

    `n` defaults to the number of cores that the process may use, `name` begins the threads' names.
    The calling thread waits. `stop_on` says when one worker's end is the end of all, which are then
    cancelled: ``"error"``, when its `main` raises; ``"first"``, when it ends in any way;
    ``"never"``, not at all: the others go on, and what was raised is raised at the end.

    The results stand in the order of the workers, None for one that was cancelled. What workers
    raise comes as an ExceptionGroup; SystemExit and KeyboardInterrupt come alone. Called in the
    main thread, the first Ctrl-C cancels all workers, KeyboardInterrupt follows when they have
    ended, and a second one does not wait for them. SIGTERM, where nobody else handles it, cancels
    them as well, and SystemExit(143) follows.

    Raises RuntimeError if a loop is running in this thread, and TypeError or ValueError for
    arguments of no use.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("run_threads() cannot be called from a running event loop")
    if not callable(main):
        raise TypeError(f"main must be a function that takes a Worker, not {main!r}")
    if n is None:
        n = _cores()
    elif isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer, the number of threads, not {n!r}")
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    if stop_on not in ("error", "first", "never"):
        raise ValueError(f"stop_on must be 'error', 'first' or 'never', not {stop_on!r}")
    workers = [Worker(index, n, f"{name}-{index}") for index in range(n)]
    with asyncio.Runner(debug=debug, loop_factory=Loop) as runner:
        terminated = runner.run(_supervise(workers, main, stop_on, debug, loop_factory))
    errors = [worker._error for worker in workers if worker._error is not None]
    for error in errors:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
    if errors:
        raise BaseExceptionGroup(f"{len(errors)} of {n} workers failed", errors)
    if terminated:
        raise SystemExit(128 + signal.SIGTERM)
    return [worker._result for worker in workers]


if sys.version_info >= (3, 13):
    QueueShutDown = asyncio.QueueShutDown
else:

    class QueueShutDown(Exception):
        """Raised by put() and get() of a `ThreadQueue` that was shut down."""


class ThreadQueue(Generic[_T]):
    """A first-in, first-out queue whose ends may be on different event loops and threads.

    The methods are those of `asyncio.Queue`, and each may be called in any thread, in a finalizer
    and in a signal handler too. `maxsize` bounds the number of items that wait (0 or less: no
    bound). What one loop puts, exactly one loop gets; items of one producer are got in the order in
    which it put them. No lock is held while Python code runs.

    Raises TypeError for a `maxsize` that is no integer.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._inside: _ThreadQueue[_T] = _ThreadQueue(maxsize, QueueShutDown)

    def __repr__(self) -> str:
        items, getters, putters, shut_down = self._inside.counts()
        state = f"maxsize={self._maxsize} items={items} getters={getters} putters={putters}"
        return f"<{type(self).__name__} {state}{' shutdown' if shut_down else ''}>"

    @property
    def maxsize(self) -> int:
        """How many items may wait; 0 or less for no bound."""
        return self._maxsize

    def qsize(self) -> int:
        """How many items wait. Others may have changed that by the time it is looked at."""
        return self._inside.counts()[0]

    def empty(self) -> bool:
        """Whether no item waits, with the same reserve."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether `maxsize` items wait, with the same reserve."""
        return 0 < self._maxsize <= self.qsize()

    def put_nowait(self, item: _T) -> None:
        """Put an item in.

        Raises asyncio.QueueFull if there is no room, and QueueShutDown after shutdown().
        """
        getter = self._inside.put(item)
        if getter is None:
            raise asyncio.QueueFull
        if getter:
            _wake(getter, self._inside.forget_getter)

    def get_nowait(self) -> _T:
        """Take the oldest item out and return it.

        Raises asyncio.QueueEmpty if there is none, and QueueShutDown if there will be none either.
        """
        got = self._inside.get()
        if got is None:
            raise asyncio.QueueEmpty
        item, putter = got
        if putter is not None:
            _wake(putter, self._inside.forget_putter)
        return item

    async def put(self, item: _T) -> None:
        """Put an item in, as soon as there is room. Raises QueueShutDown after shutdown()."""
        while True:
            try:
                return self.put_nowait(item)
            except asyncio.QueueFull:
                pass
            await self._wait(self._inside.wait_to_put, self._inside.forget_putter)

    async def get(self) -> _T:
        """Take the oldest item out, as soon as there is one, and return it.

        Raises QueueShutDown when the queue was shut down and has no item left.
        """
        while True:
            try:
                return self.get_nowait()
            except asyncio.QueueEmpty:
                pass
            await self._wait(self._inside.wait_to_get, self._inside.forget_getter)

    def __aiter__(self) -> AsyncIterator[_T]:
        """The items as they come, until the queue is shut down and empty."""
        return self._each()

    async def _each(self) -> AsyncIterator[_T]:
        while True:
            try:
                item = await self.get()
            except QueueShutDown:
                return
            yield item

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue: put() raises QueueShutDown from now on, get() when no item is left.

        `immediate` drops the items that wait.
        """
        self._inside.shutdown(immediate)
        for forget in (self._inside.forget_getter, self._inside.forget_putter):
            while (waiter := forget(None)) is not None:
                _wake(waiter, forget)

    async def _wait(self, wait: "_Wait", forget: "_Forget") -> None:
        waiter = asyncio.get_running_loop().create_future()
        try:
            if wait(waiter):  # else another thread was faster
                await waiter
        except BaseException:
            # Out of the queue; if it had been woken already, another one goes in its place.
            _wake(forget(waiter), forget)
            raise


def _wake(waiter: "_Waiter | None", forget: "_Forget") -> None:
    """Wake the waiter, if it is one, or the next one where its loop is closed. In any thread."""
    while waiter is not None:
        wake = _Wake(waiter, forget)
        loop = waiter.get_loop()
        if loop is asyncio._get_running_loop():
            wake()
            return
        if _call_in_loop(loop, wake):
            return
        wake.dropped()
        waiter = forget(None)


class _Wake:
    """Wakes a waiter in the thread of its loop; the next one, if that closes instead."""

    __slots__ = ("_forget", "_waiter")

    def __init__(self, waiter: "_Waiter", forget: "_Forget") -> None:
        self._waiter: _Waiter | None = waiter
        self._forget = forget

    def dropped(self) -> "_Waiter | None":
        waiter, self._waiter = self._waiter, None
        return waiter

    def __call__(self) -> None:
        waiter = self.dropped()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def __del__(self) -> None:
        if self._waiter is not None:
            _wake(self._forget(None), self._forget)
