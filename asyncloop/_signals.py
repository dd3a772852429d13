"""Signals: add_signal_handler() and its kin, and the descriptor that a signal wakes the loop with.

As with asyncio, `signal.set_wakeup_fd` is called by each `add_signal_handler()`, and taken back
with the last handler; a run alone leaves it as it is, because any signal ends a sleeping poll.
Python's own C handler writes the number of each signal to that descriptor. The core owns both ends
of the pipe and calls `_signals_arrived` with what it has read, after the interpreter has run its
Python-level handlers. A flood of signals can fill the pipe while a callback runs for long; the
Python-level handlers are called even then, so that they tell which signals are still to be handled.
"""

import asyncio
import errno
import os
import signal
import sys
import types
import warnings
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

_Ts = TypeVarTuple("_Ts")


_noted: set[int] = set()


def _note(signum: int, frame: Any) -> None:
    """The Python-level handler: the interpreter never forgets to call it, once at least."""
    _noted.add(signum)


class SignalHooks(_Base):
    """The part of `asyncloop.Loop` that deals with signals. Works in the main thread only."""

    def __init__(self) -> None:
        self._signal_handlers: dict[int, Any] = {}
        self._wakeup_pid = 0  # of the process that it was set in

    def _set_wakeup_fd(self) -> None:
        """Raises ValueError outside the main thread, RuntimeError if the loop is closed."""
        # A flood needs no warnings: it is dealt with. What is in its place is called as by asyncio.
        own = isinstance(signal.set_wakeup_fd, types.BuiltinFunctionType)
        options: dict[str, bool] = {"warn_on_full_buffer": False} if own else {}
        signal.set_wakeup_fd(self._signal_fd(), **options)
        self._wakeup_pid = os.getpid()

    def _set_wakeup_fd_in_child(self) -> None:
        """For a loop that goes on in a child of fork(), where asyncio has taken it off."""
        if not self._signal_handlers or self._wakeup_pid == os.getpid():
            return
        try:
            self._set_wakeup_fd()
        except ValueError:  # not the main thread
            pass

    @staticmethod
    def _unset_wakeup_fd() -> None:
        try:
            signal.set_wakeup_fd(-1)
        except (ValueError, OSError) as exc:
            logger.info("set_wakeup_fd(-1) failed: %s", exc)

    def _signals_arrived(self, numbers: bytes, full: bool) -> None:
        """Called by the core from a poll, with one byte per signal.

        `full`: there are so many that those of some signals may not have fitted into the pipe.
        """
        _noted.difference_update(numbers)
        if full:
            numbers += bytes(_noted.intersection(self._signal_handlers))
            _noted.clear()
        self._process_self_data(numbers)

    def _process_self_data(self, data: bytes) -> None:
        for signum in data:
            if signum:
                self._handle_signal(signum)

    def _handle_signal(self, sig: int) -> None:
        handle = self._signal_handlers.get(sig)
        if handle is None:
            return
        if handle._cancelled:
            self.remove_signal_handler(sig)
        else:
            self._add_callback_signalsafe(handle)

    @staticmethod
    def _check_signal(sig: int) -> None:
        if not isinstance(sig, int):
            raise TypeError(f"sig must be an int, not {sig!r}")
        if sig not in signal.valid_signals():
            raise ValueError(f"invalid signal number {sig}")

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call callback(*args) in the loop whenever the process gets the signal `sig`.

        Takes the place of an earlier handler. Raises TypeError for a coroutine function, ValueError
        for an invalid number, RuntimeError outside the main thread and for a signal that cannot be
        caught. Follows asyncio.loop.add_signal_handler.
        """
        if asyncio.iscoroutine(callback) or _is_coroutine_function(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        try:
            self._set_wakeup_fd()
        except (ValueError, OSError) as exc:
            raise RuntimeError(str(exc))  # noqa: B904 - as asyncio
        previous = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = asyncio.Handle(callback, args, self, None)
        try:
            signal.signal(sig, _note)
            if previous is None:
                _noted.discard(sig)
            # Restarted system calls: fewer EINTRs in other people's code.
            signal.siginterrupt(sig, False)
        except (OSError, ValueError) as exc:
            if previous is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = previous
            if not self._signal_handlers:
                self._unset_wakeup_fd()
            if isinstance(exc, OSError) and exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught")  # noqa: B904
            raise

    def remove_signal_handler(self, sig: int) -> bool:
        """Put back the default disposition; True if there was a handler of this loop.

        Raises TypeError for what is no int, ValueError for an invalid number.
        """
        self._check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught")  # noqa: B904
            raise
        if not self._signal_handlers:
            self._unset_wakeup_fd()
        return True

    def _remove_all_signal_handlers(self) -> None:
        """For close(): what cannot be undone while the interpreter ends is only warned of."""
        if not self._signal_handlers:
            return
        if sys.is_finalizing():
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, "
                "skipping signal handlers removal",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
            self._signal_handlers.clear()
            return
        for sig in list(self._signal_handlers):
            self.remove_signal_handler(sig)


def _is_coroutine_function(callback: Any) -> bool:
    # asyncio's own warns from 3.14 on; inspect's knows the same functions.
    import inspect

    return inspect.iscoroutinefunction(callback)
