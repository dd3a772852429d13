"""Tasks that ddtrace's profiler sees: it reads asyncio's set of tasks, and fields of their memory.

Where those are, a Task of asyncio's own shows, whose loop, coroutine and name are known.
"""

import _asyncio
import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._loop import Loop


class _Inert:
    """The least that asyncio.Task accepts as a loop."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *args: Any, **kwargs: Any) -> None:
        pass


_found: bool | None = None


def _find() -> bool:
    loop: Any = _Inert()
    name = "asyncloop looks at this Task"
    coro = asyncio.sleep(0)
    task: asyncio.Task[None] = _asyncio.Task(coro, loop=loop, name=name)
    try:
        return _core._find_task_fields(task, loop, coro, name)
    finally:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        _asyncio._unregister_task(task)
        coro.close()


def show_tasks(loop: "Loop") -> None:
    """The tasks that are made on the loop are seen from now on; nothing where that fails.

    The profiler learns of a loop by `set_event_loop()`, which who is given a factory does not call:
    it is told of this one, as it tells itself of uvloop's.
    """
    global _found
    try:
        if _found is None:
            _found = _find()
        loop._visible_tasks = _found
        sys.modules["ddtrace.internal.datadog.profiling.stack"].track_asyncio_loop(
            threading.get_ident(), loop
        )
        sys.modules["ddtrace.profiling._asyncio"]._call_init_asyncio(asyncio)
    except Exception:  # another release of it, whose inside is another one
        _found = _found or False
