"""What this process shows to `python -m asyncloop ps`, `tree` and `top` of another one.

The counters lie in a file in memory (`_core._page_open`), of mode 0600, which the other process
finds below /proc. What needs Python, the tree of tasks, is answered by a thread at a socket whose
name is in that page, for this user and root alone. It waits without the GIL; a call that holds the
GIL delays it.
"""

import _thread
import asyncio
import atexit
import contextlib
import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import _core
from ._say import say, says_yes

__all__: list[str] = []

_TIMEOUT = 5.0  # seconds, of one who asks
_MOST_TASKS = 10_000
_FOR_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_AGAIN = 0.5  # seconds, after one of these
_PART = 500  # tasks after which who asks is told that it goes on
_PATIENCE = 2.0  # seconds, for the thread to end

_lock = threading.Lock()
_users = 0
_listener: socket.socket | None = None
_ended = threading.Event()  # the thread at it
_thread_handle: Any = None
_of_environment = False


def acquire() -> bool:
    """Open the page of this interpreter, once. False where there is none."""
    global _users
    with _lock:
        if _users == 0 and not _open():
            return False
        _users += 1
        return True


def release() -> None:
    """As often as acquire() said True."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _close()


def _open() -> bool:
    global _listener
    if not sys.platform.startswith("linux"):
        return False
    from . import __version__

    name = f"asyncloop-{os.getpid()}-{os.urandom(8).hex()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.settimeout(None)
        listener.bind(f"\0{name}")
        listener.listen(8)
        _core._page_open(__version__, sys.version.split()[0], name)
    except BaseException:
        listener.close()
        raise
    _listener = listener
    # Not one of the program's threads, as threading knows them. Without it (in a sub-interpreter
    # that may have none) the counters are there all the same.
    _ended.clear()
    try:
        _start_thread(listener)
    except RuntimeError:
        _ended.set()
    # Those that run move there by themselves.
    for _, _, loop in _core._running_loops():
        with contextlib.suppress(RuntimeError):
            _core.Loop.call_soon_threadsafe(loop, loop._move_counters)
    return True


def _start_thread(listener: socket.socket) -> None:
    global _thread_handle
    if sys.version_info >= (3, 13):
        _thread_handle = _thread.start_joinable_thread(
            lambda: _serve(listener, _ended), daemon=True
        )
    else:
        _thread.start_new_thread(_serve, (listener, _ended))


def _close() -> None:
    global _listener, _thread_handle
    _core._page_close()
    if _listener is not None:
        with contextlib.suppress(OSError):
            _listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        if _ended.wait(_PATIENCE) and _thread_handle is not None:
            _thread_handle.join()  # an interpreter may end only when it is gone altogether
        _thread_handle = None
        _listener.close()
        _listener = None


def _after_fork() -> None:
    """The core has made the counters the child's own."""
    global _users, _listener, _lock, _ended, _thread_handle
    _thread_handle = None
    _lock = threading.Lock()
    _ended = threading.Event()
    _users = 0
    if _listener is not None:
        _listener.close()
        _listener = None
    if _of_environment:
        with contextlib.suppress(OSError):
            acquire()


def _at_exit() -> None:
    if _listener is not None:
        _close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def start_from_environment(environ: Mapping[str, str]) -> None:
    """What ASYNCLOOP_PAGE asks for; one line where that cannot be had."""
    global _of_environment
    if not _core._is_main_interpreter:
        return  # a thread would be in the way of its end
    if not says_yes("ASYNCLOOP_PAGE", environ):
        return
    _of_environment = acquire()
    if not _of_environment:
        say("ASYNCLOOP_PAGE: this system has no such pages")


# -- answers --------------------------------------------------------------------------------


def _serve(listener: socket.socket, ended: threading.Event) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno not in _FOR_NOW:
                ended.set()  # it was shut down
                return
            # The program has no descriptor left, and may have one again.
            with contextlib.suppress(ValueError):  # it was closed
                poll = select.poll()
                poll.register(listener, 0)
                if not poll.poll(_AGAIN * 1000):
                    continue
            ended.set()  # it was shut down meanwhile
            return
        # BaseException: a repr() may raise SystemExit, which is not for this thread.
        with contextlib.suppress(BaseException), connection:
            _answer(connection)


def _answer(connection: socket.socket) -> None:
    connection.settimeout(_TIMEOUT)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, user, _ = struct.unpack("iII", credentials)
    if user not in (0, os.geteuid()):
        return
    asked = connection.recv(16)
    if asked == b"tree":
        from ._dump import write_to

        # In parts: who asks knows that it goes on.
        with connection.makefile("w", 1 << 16, encoding="utf-8", errors="backslashreplace") as file:
            write_to(file, lambda: connection.sendall(b"\0"))
    elif asked == b"tasks":
        import json

        found = _tasks(lambda: connection.sendall(b" "))
        connection.sendall(json.dumps(found).encode())


def _tasks(goes_on: Callable[[], None]) -> list[dict[str, Any]]:
    from ._dump import places_of_tasks, tasks_of

    names = {each.ident: each.name for each in threading.enumerate()}
    found = []
    for number, thread, loop in _core._running_loops():
        current = asyncio.current_task(loop)
        records = dict(loop._task_records()) if loop.task_accounting else {}
        tasks: list[dict[str, Any]] = []
        first, count = tasks_of(loop, _MOST_TASKS, goes_on)
        places = places_of_tasks(loop, first, goes_on)
        for task in first:
            if len(tasks) % _PART == 0:
                goes_on()
            tasks.append(_task(task, task is current, records.get(id(task)), places(task)))
        found.append(
            {
                "loop": number,
                "thread": names.get(thread, str(thread)),
                "tasks": tasks,
                "tasks_not_shown": count - len(tasks),
            }
        )
    return found


def _task(task: Any, current: bool, record: Any, places: list[str]) -> dict[str, Any]:
    from ._dump import _awaited_by, name_of
    from ._tasks import cost_of

    waits = getattr(task, "_fut_waiter", None) is not None
    nothing = dict.fromkeys(("ran", "ready", "steps", "wakeups"))
    return {
        "id": f"{id(task):x}",
        "name": name_of(task),
        "state": "running" if current else "waiting" if waits else "ready",
        "stack": places,
        **(cost_of(record, time.monotonic_ns()) if record else nothing),
        "awaited_by": [name_of(each) for each in _awaited_by(task)],
    }
