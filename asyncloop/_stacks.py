"""Stacks of threads that are looked at from outside: of a frame, or as faulthandler wrote them.

`StackSignal` asks a thread for its stack in the middle of a call that holds the GIL.
"""

import concurrent.futures.thread
import os
import queue
import re
import selectors
import signal
import socket
import sys
import threading
import traceback
from types import FrameType

from . import _core
from ._say import one_line

__all__ = ["OWN_FILES", "StackSignal", "is_in_a_debugger", "other_threads", "stack_of_dump"]
__all__ += ["stack_of_frame"]

try:
    import faulthandler
except ImportError:  # an interpreter beside the main one may not have it
    _has_handler = False
else:
    _has_handler = hasattr(faulthandler, "register")

_FOLDER = os.path.dirname(os.path.abspath(__file__))
#: whose frames are the loop's own
OWN_FILES = {os.path.join(_FOLDER, name) for name in ("_loop.py", "_insides.py", "_views.py")}
_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_MOST_PLACES = 3  # of another thread
_MOST_THREADS = 10
#: in which threads wait for something to do
_WAITING = {
    each.__file__ for each in (concurrent.futures.thread, queue, selectors, socket, threading)
}
# Frames above the loop in which a debugger waits for somebody.
_DEBUGGER = re.compile(r"(?:^|[\\/])(?:bdb\.py|_?pydevd[^\\/]*\.py|debugpy[\\/].*)$")


def stack_of_frame(frame: FrameType | None) -> tuple[traceback.FrameSummary, ...]:
    """The frames above the run of the loop, outermost first."""
    if frame is None:
        return ()
    stack = traceback.StackSummary.extract(
        traceback.walk_stack(frame), limit=200, lookup_lines=False
    )
    stack.reverse()
    return _above_the_loop(list(stack))


def stack_of_dump(dump: str) -> tuple[traceback.FrameSummary, ...]:
    found = []
    for line in dump.splitlines():
        line = line.strip()
        if not line.startswith('File "'):
            continue
        name, _, rest = line[len('File "') :].rpartition('", line ')
        number, _, function = rest.partition(" in ")
        if number.isdigit():
            name, function = _unescaped(name), _unescaped(function)
            found.append(traceback.FrameSummary(name, int(number), function, lookup_line=False))
    found.reverse()
    return _above_the_loop(found)


def _unescaped(text: str) -> str:
    r"""What faulthandler writes as \xe9 and \u20ac."""
    return _ESCAPED.sub(lambda match: chr(int(match[0][2:], 16)), text)


def is_in_a_debugger(stack: tuple[traceback.FrameSummary, ...]) -> bool:
    """Does it stand at a breakpoint?"""
    return any(_DEBUGGER.search(frame.filename) for frame in stack)


def other_threads(thread: int) -> tuple[str, ...]:
    """Name and innermost frames of the threads beside this one, but those that only wait."""
    if not (_core._is_main_interpreter and getattr(sys, "_is_gil_enabled", lambda: True)()):
        return ()  # sys._current_frames() mixes up interpreters; without a GIL the frames change
    found = []
    names = {each.ident: each.name for each in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        name = frame.f_code.co_filename
        waits = name in _WAITING or name.startswith(_FOLDER)
        if waits or ident in (thread, threading.get_ident()):
            continue
        places: list[str] = []
        inner: FrameType | None = frame
        while inner is not None and len(places) < _MOST_PLACES:
            code = inner.f_code
            places.append(f"{code.co_filename}:{inner.f_lineno} in {code.co_name}()")
            inner = inner.f_back
        found.append(one_line(f"{names.get(ident, ident)}: {', '.join(reversed(places))}"))
    return tuple(found[:_MOST_THREADS])


def _above_the_loop(
    stack: list[traceback.FrameSummary],
) -> tuple[traceback.FrameSummary, ...]:
    """Without the loop's own frames and what is below them, unless that is all there is."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index].filename in OWN_FILES:
            return tuple(stack[index + 1 :]) or tuple(stack[index:])
    return tuple(stack)


class StackSignal:
    """A signal whose handler, faulthandler's, writes the stack of its thread into a pipe.

    The handler is C and asks nobody, so it works in the middle of a call that holds the GIL. Who
    asks has one of his own: of two that share a pipe one would read what the other has asked for.
    """

    def __init__(self) -> None:
        self._number = 0
        self._read = self._write = -1

    def acquire(self) -> tuple[int, int]:
        """The signal, 0 where there is none, and the descriptor to read from."""
        with _choosing:
            self._open()
            _acquired.add(self)
        return self._number, self._read

    def release(self) -> None:
        _acquired.discard(self)
        if self._number:
            # A thread that blocks it has it pending, and would end the process by it later.
            _core.Watchdog.ignore(self._number)
            faulthandler.unregister(self._number)
            self._number = 0
        if self._read >= 0:
            os.close(self._read)
            os.close(self._write)
            self._read = self._write = -1

    def _open(self) -> None:
        if not hasattr(signal, "SIGRTMAX") or not _has_handler:
            return
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        for number in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
            # Python does not know of handlers in C, such as faulthandler's own.
            if signal.getsignal(number) == signal.SIG_DFL and _core.Watchdog.is_free(number):
                try:
                    faulthandler.register(number, self._write, all_threads=False, chain=False)
                except (OSError, RuntimeError, ValueError):
                    continue
                self._number = number
                return


_choosing = threading.Lock()
_acquired: set[StackSignal] = set()


def _after_fork() -> None:
    """In the child the pipes are the parent's, and a thread may have held the lock."""
    global _choosing
    _choosing = threading.Lock()
    for each in list(_acquired):
        each.release()


os.register_at_fork(after_in_child=_after_fork)
