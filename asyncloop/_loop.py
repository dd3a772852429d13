"""The event loop: the C core under `asyncio.BaseEventLoop`.

What happens once per callback, task step, packet or byte is the core's (`_core.Loop`). What
happens once per connection or per process is `asyncio.BaseEventLoop`'s own, in the version that the
running Python has. The mixins give the hooks that it calls.
"""

import sys
import traceback
import types
from asyncio import selector_events
from asyncio.base_events import BaseEventLoop
from asyncio.unix_events import SelectorEventLoop
from typing import TYPE_CHECKING, Any

from . import _core
from ._insides import InsideHooks, stock
from ._nested import NestedHooks, _Run
from ._sendfile import SendfileHooks
from ._signals import SignalHooks
from ._streams import StreamHooks
from ._subprocess import SubprocessHooks
from ._tls import TlsHooks
from ._transports import TransportHooks

if TYPE_CHECKING:
    from ._stats import LoopStats


class Loop(
    NestedHooks,
    InsideHooks,
    SignalHooks,
    SendfileHooks,
    SubprocessHooks,
    TlsHooks,
    StreamHooks,
    TransportHooks,
    _core.Loop,
    BaseEventLoop,
):
    """An asyncio event loop in C, over libev.

    Used like any other loop of asyncio; nothing in a program has to know of it. Not for use by
    several threads at a time, except `call_soon_threadsafe`.
    """

    # What the environment asks for.
    _strong_by_default = False
    _accounting_by_default = False
    _place_of_futures: traceback.FrameSummary

    # Whoever gets hold of the instance's dict may put a method into it, which has to be called.
    __dict__ = property(_core.Loop._instance_dict, _core.Loop._set_instance_dict)

    def __init__(self, selector: Any = None) -> None:
        if selector is not None and not callable(getattr(selector, "select", None)):
            raise TypeError(f"a selector is expected, not {type(selector).__name__}")
        _core.Loop.__init__(self)
        BaseEventLoop.__init__(self)
        kind = "LoopSelector" if selector is None else type(selector).__name__
        selector_events.logger.debug("Using selector: %s", kind)  # type: ignore[attr-defined]
        self._own_ready = self._own_scheduled = None  # those that it has just made
        if self._strong_by_default:
            self.strong_tasks = True
        if self._accounting_by_default:
            self.task_accounting = True
        if "ddtrace.profiling._asyncio" in sys.modules:
            from ._visible import show_tasks

            show_tasks(self)
        SignalHooks.__init__(self)
        self._internal_fds = 1
        self._make_pipe_for_program()
        if selector is not None:
            try:
                self._selector = selector
            except TypeError:
                self.close()
                raise

    def run_forever(self) -> None:
        """Run until stop() is called. Follows asyncio.loop.run_forever.

        Raises RuntimeError if this loop is closed, or it or another one runs in this thread;
        KeyboardInterrupt and SystemExit of a callback end the run and are raised here.
        Inside of a run: see asyncloop.allow_nested().
        """
        self._check_closed()
        if self._nests():
            return self._run_nested(_Run(self, None))
        if BaseEventLoop.run_forever is not _stock_run_forever:
            return BaseEventLoop.run_forever(self)
        self._check_running()
        try:
            self._begin_run()
            self._set_wakeup_fd_in_child()
            self._run_turns()
        finally:
            self._end_run()

    def stats(self) -> "LoopStats":
        """Return what the loop has counted so far: turns, callbacks, time, bytes, delays.

        Works from any thread, also while the loop is blocked or after it was closed. asyncio does
        not have it.
        """
        from ._stats import stats_of

        return stats_of(self._counters())

    def utilization(self, since: "LoopStats | None" = None) -> float:
        """Return the share of its time that the loop was busy, from 0.0 to 1.0.

        since: what `stats()` gave earlier; None: from the loop's first run on. Raises ValueError
        for the statistics of another loop. asyncio does not have it.
        """
        from . import _stats

        return _stats.utilization(self.stats(), since)

    def close(self) -> None:
        """Close the loop: pending calls are dropped, the executor is told to end.

        Raises RuntimeError while the loop runs. Follows asyncio.loop.close.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        closes = not self.is_closed()
        if closes:
            if self._shutdown is not None:
                self._shutdown.ended(self)
            self._close_children()
            self._close_self_pipe()
            self._internal_fds = 0
            super().close()  # works while the interpreter ends, when globals are gone
        try:
            self._remove_all_signal_handlers()  # overridden parts of it find a closed loop
        finally:
            if closes:
                self._close()
                self._close_servers()


# Steps of asyncio's own methods, which nothing here calls, for whoever calls them. They are
# asyncio's functions, and do their work through add_reader() and its kin.
for _name in (
    "_accept_connection",
    "_accept_connection2",
    "_sock_accept",
    "_sock_add_cancellation_callback",
    "_sock_connect",
    "_sock_connect_cb",
    "_sock_read_done",
    "_sock_recv",
    "_sock_recv_into",
    "_sock_recvfrom",
    "_sock_recvfrom_into",
    "_sock_sendall",
    "_sock_sendfile_native_impl",
    "_sock_sendfile_update_filepos",
    "_sock_sendto",
    "_sock_write_done",
):
    if hasattr(SelectorEventLoop, _name):
        setattr(Loop, _name, getattr(SelectorEventLoop, _name))


# In debug mode a Future knows where it was made.
_stock_run_forever = stock("run_forever")
_code = BaseEventLoop.create_future.__code__
_line = max(line for *_, line in _code.co_lines() if line)
Loop._place_of_futures = traceback.FrameSummary(
    _code.co_filename, _line, _code.co_name, lookup_line=False
)

_core._give_methods(Loop)


def _describe_as_asyncio() -> None:
    """Give our public methods in Python the names and signatures that asyncio's have.

    They stand in texts of errors and warnings, and `inspect.signature()` tells of them; the
    annotations are for those who read the source.
    """
    for owner in Loop.__mro__:
        if not owner.__module__.startswith("asyncloop."):
            continue
        for name, method in vars(owner).items():
            if name.startswith("_") or not isinstance(method, types.FunctionType):
                continue
            theirs = getattr(SelectorEventLoop, name, None)
            if isinstance(theirs, types.FunctionType) and method is not theirs:
                method.__qualname__ = theirs.__qualname__
                method.__annotations__ = {}


_describe_as_asyncio()
