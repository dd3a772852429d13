"""What asyncio's own loop keeps in plain Python objects, for whoever looks at it or takes it apart.

The core keeps what is ready and what is scheduled for itself, and libev watches the descriptors.
`_ready`, `_scheduled` and `_selector` are views of that (_views.py): they tell what there is, and
what is put into them or taken out of them counts. `_run_once()` is one iteration. Whoever replaces
that, or `_selector.select()`, or `_process_events()`, is called as asyncio's loop calls them.

Nothing here costs a loop anything that nobody looks at.
"""

import collections
import concurrent.futures
import contextlib
import heapq
import selectors
import socket
import sys
import threading
import types
import weakref
from asyncio import events, futures
from asyncio.base_events import BaseEventLoop
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
    from ._views import ReadyView, ScheduledView
else:
    _Base = object

# -- references --------------------------------------------------------------------------------


def _references(holder: Any, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


# Another number in each Python.
_FROM_ONE_HOLDER = _references(types.SimpleNamespace(thing=object()), "thing")


def _nobody_else_has(holder: Any, name: str) -> bool:
    return _references(holder, name) <= _FROM_ONE_HOLDER


def chained() -> tuple[Any, Any, bool]:
    """What asyncio has a future of an executor call, and the loop when the executor's is done.

    And whether that is called at once where it is done in the loop's own thread.
    """
    source, future = concurrent.futures.Future(), concurrent.futures.Future()  # type: ignore[var-annotated]
    futures._chain_future(source, future)  # type: ignore[attr-defined]
    (check_cancel,), (call,) = future._done_callbacks, source._done_callbacks  # type: ignore[attr-defined]
    place = call.__code__.co_freevars.index("_set_state")
    at_once = "_get_running_loop" in call.__code__.co_names
    return check_cancel, call.__closure__[place].cell_contents, at_once


# -- the loop ----------------------------------------------------------------------------------


class InsideHooks(_Base):
    """The part of `asyncloop.Loop` that shows what is inside, and takes turns by hand."""

    _ready_view: "ReadyView | None" = None
    _scheduled_view: "ScheduledView | None" = None
    _selector_view: Any = None
    _self_pipe: tuple[socket.socket, socket.socket] | None = None
    _own_ready: Any = None  # what was put in the place of the view; then asyncio's turns run it
    _own_scheduled: Any = None

    # -- _ready and _scheduled

    @property
    def _ready(self) -> Any:
        if self._closed:
            return collections.deque()
        own = self._own_ready
        if own is not None:
            if not self._runs_elsewhere() and self._ready_length():
                items = self._ready_list()
                self._ready_replace([])
                for item in items:
                    own.append(item)
            return own
        view = self._ready_view
        if view is None:
            from ._views import ReadyView  # most loops are looked at by nobody

            view = self._ready_view = ReadyView(self)
        return view

    @_ready.setter
    def _ready(self, items: Any) -> None:
        if items is self._own_ready or (self._own_ready is None and items is self._ready_view):
            return
        view, self._ready_view = self._ready_view, None
        if view is not None:
            view._part()
        self._ready_replace([])
        self._own_ready = items

    @property
    def _scheduled(self) -> Any:
        if self._closed:
            return []
        own = self._own_scheduled
        if own is not None:
            if not self._runs_elsewhere():
                for handle in self._timer_list():
                    self._timer_take(handle)
                    heapq.heappush(own, handle)
            return own
        view = self._scheduled_view
        elsewhere = self._runs_elsewhere()
        if view is None or elsewhere:
            from ._views import ScheduledView

            view = ScheduledView(self)
            if not elsewhere:
                self._scheduled_view = view
                self._looked_at = True
        view._refresh()
        return view

    @_scheduled.setter
    def _scheduled(self, items: Any) -> None:
        view = self._scheduled_view
        if items is self._own_scheduled or (self._own_scheduled is None and items is view):
            return
        if view is not None:
            view._part()
            self._scheduled_view = None
        for handle in self._timer_list():
            self._timer_take(handle)
        self._own_scheduled = items

    def _has_own_queues(self) -> bool:
        """Has the loop another `_ready` or `_scheduled` than the views?

        One that nobody else holds is taken for its items.
        """
        if self._own_ready is None and self._own_scheduled is None:
            return False
        if type(self._own_ready) is collections.deque and _nobody_else_has(self, "_own_ready"):
            ready, self._own_ready = self._own_ready, None
            if ready:
                self._ready_replace([*ready, *self._ready_list()])
        if type(self._own_scheduled) is list and _nobody_else_has(self, "_own_scheduled"):
            scheduled, self._own_scheduled = self._own_scheduled, None
            for handle in scheduled:
                if not handle._cancelled:
                    self._timer_put(handle)
        return self._own_ready is not None or self._own_scheduled is not None

    def _carry_out_scheduled(self) -> None:
        if self._scheduled_view is not None and not self._runs_elsewhere():
            self._scheduled_view._carry_out()

    def _runs_elsewhere(self) -> bool:
        thread = self._thread_id
        return thread is not None and thread != threading.get_ident()

    # -- the poll

    @property
    def _selector(self) -> Any:
        if self._closed:
            return None
        if self._selector_view is None:
            from ._views import LoopSelector

            self._selector_view = LoopSelector(self)
            self._looked_at = True
        return self._selector_view

    @_selector.setter
    def _selector(self, selector: Any) -> None:
        if type(selector).__module__ == "selectors":
            raise TypeError(
                f"asyncloop polls through libev, so {type(selector).__name__} would see none of "
                "its descriptors: replace loop._selector.select, or give an object around "
                "loop._selector"
            )
        self._selector_view = selector
        self._looked_at = True

    @property
    def _transports(self) -> Any:
        return weakref.WeakValueDictionary({} if self._closed else self._transport_dict())

    def _look_at_insides(self) -> bool:
        """Called by the core at the beginning of each iteration while `_looked_at`."""
        view = self._scheduled_view
        if view is not None:
            view._refresh()
            del view
            if _nobody_else_has(self, "_scheduled_view"):
                self._scheduled_view = None
        by_selector = self._polls_by_selector()
        if not by_selector and self._scheduled_view is None and self._selector_view is None:
            self._looked_at = False
        return by_selector

    def _polls_by_selector(self) -> bool:
        selector = self._selector_view
        if selector is not None:
            from ._views import LoopSelector, own_select

            if (
                type(selector) is not LoopSelector
                or "select" in selector.__dict__
                or LoopSelector.select is not own_select
            ):
                return True
        return self._has_other("_process_events", _own_process_events)

    def _has_other(self, name: str, own: Any) -> bool:
        return self._has_own(name) or getattr(type(self), name) is not own

    def _woken(self) -> None:
        """Called by the core after each sleep, while a profile function is set in this thread."""

    def _poll_by_selector(self, timeout: float | None) -> None:
        """Called by the core in place of its own poll."""
        self._process_events(self._selector.select(timeout))

    def _process_events(self, event_list: Any) -> None:
        """Make ready what a call of `_selector.select()` has returned."""
        from ._views import WatchHandle

        for key, mask in event_list:
            handles = key.data if isinstance(key.data, tuple) else (None, None)
            for event, handle in zip(
                (selectors.EVENT_READ, selectors.EVENT_WRITE), handles, strict=True
            ):
                if not mask & event:
                    continue
                if handle is None or type(handle) in (_core.Handle, WatchHandle):
                    self._post_event((key.fd, event))
                elif not handle._cancelled:
                    self._add_callback(handle)
                elif event == selectors.EVENT_READ:
                    self._remove_reader(key.fd)
                else:
                    self._remove_writer(key.fd)

    # -- a run, and its parts

    def _run_once(self) -> None:
        """One iteration, as run_forever() makes them."""
        if self._has_other("_process_events", _own_process_events):
            self._looked_at = True
        if BaseEventLoop._run_once is not _stock_run_once or self._has_own_queues():  # type: ignore[attr-defined]
            BaseEventLoop._run_once(self)  # type: ignore[attr-defined]
        else:
            self._run_turn()

    def _run_turns(self) -> None:
        """Iterations until stop() was called."""
        if self._has_other("_process_events", _own_process_events):
            self._looked_at = True
        while True:
            if (
                self._has_other("_run_once", _own_run_once)
                or BaseEventLoop._run_once is not _stock_run_once  # type: ignore[attr-defined]
                or self._has_own_queues()
            ):
                self._run_once()
            else:
                self._run()  # until stop(), or until one of these may be another
            if self._stopping:
                break

    if sys.version_info >= (3, 13):

        def _begin_run(self) -> None:
            self._run_forever_setup()

        def _end_run(self) -> None:
            self._run_forever_cleanup()

    else:

        def _begin_run(self) -> None:
            self._check_closed()
            self._check_running()
            self._set_coroutine_origin_tracking(self._debug)
            self._old_agen_hooks = sys.get_asyncgen_hooks()
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)

        def _end_run(self) -> None:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            if self._old_agen_hooks is not None:
                sys.set_asyncgen_hooks(*self._old_agen_hooks)
                self._old_agen_hooks = None

    # -- the pair of sockets that wakes asyncio's loop: here only for those who ask for it

    def _make_self_pipe(self) -> None:
        self._self_pipe = socket.socketpair()
        for end in self._self_pipe:
            end.setblocking(False)
        self._add_reader(self._self_pipe[0].fileno(), self._read_from_self)

    def _make_pipe_for_program(self) -> None:
        """Called for a new loop: a program's class may have its own of the pipe's methods."""
        own, reads = type(self), type(self)._read_from_self is not InsideHooks._read_from_self
        if reads or own._make_self_pipe is not InsideHooks._make_self_pipe:
            self._make_self_pipe()
        if reads:
            self._write_to_self = self._write_to_pipe  # type: ignore[method-assign]

    def _write_to_pipe(self) -> None:
        if self._self_pipe is not None:
            with contextlib.suppress(BlockingIOError):
                self._self_pipe[1].send(b"\0")

    def _close_self_pipe(self) -> None:
        if self._self_pipe is not None:
            ssock, csock = self._self_pipe
            self._self_pipe = None
            self.__dict__.pop("_write_to_self", None)
            self._remove_reader(ssock.fileno())
            ssock.close()
            csock.close()

    def _read_from_self(self) -> None:
        while self._self_pipe is not None:
            try:
                data = self._self_pipe[0].recv(4096)
            except InterruptedError:
                continue
            except BlockingIOError:
                break
            if not data:
                break
            self._process_self_data(data)

    @property
    def _ssock(self) -> socket.socket | None:
        """The end that is read. Whatever is sent to `_csock` wakes the loop."""
        if self._self_pipe is None and not self._closed:
            self._make_self_pipe()
        return None if self._self_pipe is None else self._self_pipe[0]

    @property
    def _csock(self) -> socket.socket | None:
        """The end that is written to, also by signals after `set_wakeup_fd(_csock.fileno())`."""
        return None if self._ssock is None or self._self_pipe is None else self._self_pipe[1]


_own_process_events = InsideHooks._process_events
_own_run_once = InsideHooks._run_once


def stock(name: str) -> Any:
    """What asyncio has for that method of BaseEventLoop; nothing, if it was replaced before."""
    method = getattr(BaseEventLoop, name)
    code = getattr(method, "__code__", None)
    return method if code and code.co_filename == _FILE else None


_FILE = BaseEventLoop.__init__.__code__.co_filename
_stock_run_once = stock("_run_once")
