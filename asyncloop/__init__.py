"""asyncloop: a native event loop, Future and Task for asyncio, built on libev.

Programs stay as they are; only the loop beneath them changes. Any of these switches it on::

    asyncloop.run(main())                                     # in place of asyncio.run
    asyncio.run(main(), loop_factory=asyncloop.new_event_loop)    # Python 3.12 and later
    uvicorn app:app --loop asyncloop:new_event_loop           # servers that take a factory
    python -m asyncloop script.py ARGS                        # a program that stays untouched
    asyncloop-run COMMAND ARGS                                # any command, and what it starts

`Loop`, `Future` and `Task` pass for asyncio's own: they are instances of
`asyncio.AbstractEventLoop`, `asyncio.Future` and `asyncio.Task`.
"""

import sys

if sys.platform == "win32":
    raise ImportError(
        "asyncloop runs on Linux and macOS. On Windows use asyncio's own event loop "
        "(nothing has to be installed or switched on for it), or the package winloop."
    )

import asyncio
import os
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from ._core import Future, Task
    from ._core import build_info as _core_build_info
except ModuleNotFoundError as error:
    if error.name != "asyncloop._core":
        raise
    from ._missing import not_built

    raise ImportError(not_built()) from None

from ._loop import Loop

if TYPE_CHECKING:
    from ._dump import dump
    from ._listen import inherited_sockets, listen_sockets
    from ._policy import EventLoopPolicy, install
    from ._spin import Spin
    from ._stats import Delay, LoopStats
    from ._threads import QueueShutDown, ThreadQueue, Worker, run_threads
    from ._watchdog import BlockedError, Stall, Watchdog, watchdog

__version__ = "0.1.0"

__all__ = ["Future", "Loop", "Task", "build_info", "new_event_loop", "run"]
# Imported on first use: most programs need none of it.
_LATE_NAMES = {
    "BlockedError": "_watchdog",
    "Delay": "_stats",
    "LoopStats": "_stats",
    "QueueShutDown": "_threads",
    "Spin": "_spin",
    "Stall": "_watchdog",
    "ThreadQueue": "_threads",
    "Watchdog": "_watchdog",
    "Worker": "_threads",
    "dump": "_dump",
    "inherited_sockets": "_listen",
    "listen_sockets": "_listen",
    "run_threads": "_threads",
    "watchdog": "_watchdog",
}
__all__ += ["QueueShutDown", "ThreadQueue", "Worker", "run_threads"]
__all__ += ["inherited_sockets", "listen_sockets"]
__all__ += ["BlockedError", "Stall", "Watchdog", "dump", "watchdog"]
__all__ += ["Delay", "LoopStats", "Spin"]

# Python 3.16 has no event loop policies any more, and there these two do not exist.
_POLICY_NAMES = ("EventLoopPolicy", "install")
if hasattr(asyncio, "set_event_loop_policy"):
    __all__ += ["EventLoopPolicy", "install"]

# What is about tasks and runs.
if TYPE_CHECKING:
    from ._liveness import Liveness, liveness
    from ._nested import allow_nested
    from ._tasks import Census, TaskPlace, TaskStats, TransportSize, census, lost_tasks, task_stats

_LATE_NAMES["allow_nested"] = "_nested"
__all__ += ["Liveness", "allow_nested", "liveness"]
_LATE_NAMES |= {
    "Liveness": "_liveness",
    "liveness": "_liveness",
    "Census": "_tasks",
    "TaskPlace": "_tasks",
    "TaskStats": "_tasks",
    "TransportSize": "_tasks",
    "census": "_tasks",
    "lost_tasks": "_tasks",
    "task_stats": "_tasks",
}
__all__ += [
    "Census",
    "TaskPlace",
    "TaskStats",
    "TransportSize",
    "census",
    "lost_tasks",
    "task_stats",
]

_T = TypeVar("_T")


def new_event_loop() -> Loop:
    """Return a new, open event loop of asyncloop.

    This is the factory to give to whatever takes one: `asyncio.run(..., loop_factory=)`,
    `asyncio.Runner(loop_factory=)`, `uvicorn --loop asyncloop:new_event_loop`. The loop does not
    become the current one of its thread; whoever asked for it closes it.

    Raises OSError if the system gives no descriptor for the loop.
    """
    return Loop()


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    strong_tasks: bool | None = None,
) -> _T:
    """Run the coroutine `main` on a new loop of asyncloop and return its result.

    Does what `asyncio.run` does: cancels what is left when `main` is done, shuts down the
    asynchronous generators and the default executor, closes the loop, and turns the first Ctrl-C
    into a cancellation of `main` and then KeyboardInterrupt.

    `debug` switches asyncio's debug mode on or off; None leaves that to `PYTHONASYNCIODEBUG` and
    `-X dev`. `strong_tasks` says whether each task is held until it is done, though nobody refers
    to it; None leaves that to `ASYNCLOOP_STRONG_TASKS`.

    Raises what `main` raises, RuntimeError if a loop is already running in this thread, and
    what `asyncio.run` of the same Python raises (ValueError or TypeError) if `main` is not a
    coroutine.
    """
    factory: Callable[[], Loop] = new_event_loop
    if strong_tasks is not None:
        factory = _factory_with(strong_tasks)
    if sys.version_info >= (3, 12):
        return asyncio.run(main, debug=debug, loop_factory=factory)
    # Python 3.11 has no loop_factory there. Asked before the Runner makes its loop, and with
    # asyncio.run's own words, for the sake of those who look for them.
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)


def _factory_with(strong_tasks: bool) -> Callable[[], Loop]:
    if not isinstance(strong_tasks, bool):
        raise TypeError(f"strong_tasks has to be True, False or None, not {strong_tasks!r}")

    def factory() -> Loop:
        loop = new_event_loop()
        loop.strong_tasks = strong_tasks
        return loop

    return factory


def build_info() -> dict[str, Any]:
    """Return what this build consists of, as a dictionary of plain values.

    `asyncloop` and `python` are version strings, `implementation` is the interpreter's name, and
    the rest comes from the core, among it `libev_version`, `backend` (the system interface that
    new loops wait with, such as ``epoll``), and `libev`: ``system`` where the library of the
    system is linked, ``embedded`` where libev was compiled into the extension.
    """
    import platform  # takes longer to import than most of the package

    return {
        "asyncloop": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        **_core_build_info(),
    }


def _start(module: str, *variables: str) -> None:
    """What these variables ask for. Whatever is wrong with it, the program runs on."""
    if not any(map(os.environ.get, variables)):
        return
    try:
        import_module(f".{module}", __name__).start_from_environment(os.environ)
    except Exception as error:
        from ._say import say

        say(f"{' or '.join(filter(os.environ.get, variables))}: {error}")


_start("_page", "ASYNCLOOP_PAGE")
_start("_watchdog", "ASYNCLOOP_WATCHDOG")
_start("_dump", "ASYNCLOOP_DUMP_SIGNAL")
_start("_tasks", "ASYNCLOOP_STRONG_TASKS", "ASYNCLOOP_TASK_ACCOUNTING")
_start("_liveness", "ASYNCLOOP_PROBE", "ASYNCLOOP_HEALTH_FILE", "NOTIFY_SOCKET")
_start("_shutdown", "ASYNCLOOP_SHUTDOWN")

if os.environ.get("ASYNCLOOP_CHECK"):
    from . import _switch

    _switch.watch(os.environ)

if not TYPE_CHECKING:  # a type checker takes the names from the import above

    def __getattr__(name: str) -> Callable[..., Any]:
        # Made on first use: Python 3.14 and 3.15 warn as soon as asyncio's policies are touched,
        # and importing asyncloop must not warn those who have no use for a policy.
        if name in _LATE_NAMES:
            value = getattr(import_module(f".{_LATE_NAMES[name]}", __name__), name)
            globals()[name] = value
            return value
        if name not in _POLICY_NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name not in __all__:
            raise AttributeError(
                f"asyncloop.{name} needs event loop policies, which this version of Python no "
                "longer has: use asyncloop.run(main()), or "
                "asyncio.run(main(), loop_factory=asyncloop.new_event_loop)"
            )
        from . import _policy

        value = getattr(_policy, name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
