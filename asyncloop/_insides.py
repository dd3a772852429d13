"""What asyncio's own loop keeps in plain Python objects, for whoever looks at it or takes it apart.

The core keeps what is ready and what is scheduled for itself, and libev watches the descriptors.
`_ready`, `_scheduled` and `_selector` are views of that: they tell what there is, and what is put
into them or taken out of them counts. `_run_once()` is one iteration. Whoever replaces that, or
`_selector.select()`, or `_process_events()`, is called as asyncio's loop calls them.

Nothing here costs a loop anything that nobody looks at.
"""

import collections
import heapq
import selectors
import socket
import sys
import threading
import weakref
from asyncio import events
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

# -- _ready ------------------------------------------------------------------------------------


def _of_deque(name: str, changes: bool) -> Callable[..., Any]:
    """The method of a deque with what is ready in it, and with what it has then made ready."""

    def method(self: "ReadyView", *args: Any, **kwargs: Any) -> Any:
        plain = collections.deque(self)
        result = getattr(plain, name)(*args, **kwargs)
        if changes:
            self._replace(plain)
        return self if result is plain else result

    method.__name__ = name
    return method


class ReadyView(collections.deque[Any]):
    """`loop._ready`: the handles that run next.

    A Task that is ready has no Handle until somebody looks; then it has one whose callback's
    `__self__` is the Task, as with asyncio. Once the loop was given something else in its place it
    is a deque as any other, with what was ready then.
    """

    def __init__(self, loop: "InsideHooks") -> None:
        super().__init__()
        self._of = weakref.ref(loop)
        self._parted = False

    def _part(self) -> None:
        items = list(self)
        self.clear()
        self._parted = True
        collections.deque.extend(self, items)

    def _loop(self) -> "InsideHooks | None":
        loop = self._of()
        return None if loop is None or loop._closed else loop

    def _replace(self, items: Iterable[Any]) -> None:
        if self._parted:
            collections.deque.clear(self)
            collections.deque.extend(self, items)
            return
        loop = self._loop()
        if loop is not None:
            loop._carry_out_scheduled()
            loop._ready_replace(list(items))

    def __len__(self) -> int:
        if self._parted:
            return collections.deque.__len__(self)
        loop = self._loop()
        return 0 if loop is None else loop._ready_length()

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Any]:
        if self._parted:
            return collections.deque.__iter__(self)
        loop = self._loop()
        return iter([] if loop is None else loop._ready_list())

    def __repr__(self) -> str:
        return repr(collections.deque(self))

    def append(self, item: Any) -> None:
        if self._parted:
            return collections.deque.append(self, item)
        loop = self._loop()
        if loop is not None:
            loop._carry_out_scheduled()
            loop._ready_push(item)

    def popleft(self) -> Any:
        if self._parted:
            return collections.deque.popleft(self)
        loop = self._loop()
        if loop is None:
            raise IndexError("pop from an empty deque")
        return loop._ready_pop()

    def clear(self) -> None:
        self._replace(())

    def __reduce__(self) -> Any:
        return collections.deque, (list(self),)

    def copy(self) -> Any:
        return collections.deque(self)

    __copy__ = copy

    for _name in (
        "__contains__",
        "__getitem__",
        "__reversed__",
        "__add__",
        "__mul__",
        "__rmul__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "count",
        "index",
    ):
        if hasattr(collections.deque, _name):
            locals()[_name] = _of_deque(_name, changes=False)
    for _name in (
        "__setitem__",
        "__delitem__",
        "__iadd__",
        "__imul__",
        "appendleft",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "remove",
        "reverse",
        "rotate",
    ):
        locals()[_name] = _of_deque(_name, changes=True)
    del _name
    __hash__ = None


# -- _scheduled --------------------------------------------------------------------------------


def _when(handle: Any) -> float:
    return float(handle._when)


def _of_list(name: str, changes: bool) -> Callable[..., Any]:
    own = getattr(list, name)

    def method(self: "ScheduledView", *args: Any, **kwargs: Any) -> Any:
        loop = self._of()
        if not self._parted and loop is not None and loop._runs_elsewhere():
            self = ScheduledView(loop)
        self._refresh()
        result = own(self, *args, **kwargs)
        if changes:
            self._carry_out()
        return result

    method.__name__ = name
    return method


class ScheduledView(list[Any]):
    """`loop._scheduled`: the timers that wait, in an order that is a heap's.

    A real list, because the functions of heapq take nothing else, and work on its items directly.
    What they have done is carried out when the view is looked at again, and at the next iteration
    at the latest. That is the business of the thread that runs the loop: any other one looks at a
    view of its own, which nobody else changes meanwhile. Once the loop was given something else in
    its place it is a list as any other, with what waited then.
    """

    def __init__(self, loop: "InsideHooks") -> None:
        super().__init__()
        self._of = weakref.ref(loop)
        self._parted = False
        self._known: list[Any] = []  # the items as they were when it was last refreshed

    def _part(self) -> None:
        self._refresh()
        items = self[:]
        self.clear()
        self._parted = True
        list.extend(self, items)

    def _carry_out(self) -> None:
        """Schedule what was put in, and take out what was taken out."""
        if self._parted:
            return
        loop = self._of()
        known = self._known
        items = list.__getitem__(self, slice(None))
        if len(items) == len(known) and all(a is b for a, b in zip(items, known, strict=True)):
            return
        self._known = items
        if loop is None or loop._closed:
            return
        before = {id(handle) for handle in known}
        after = {id(handle) for handle in items}
        for handle in known:
            if id(handle) not in after:
                loop._timer_take(handle)
        for handle in items:
            if id(handle) in before:
                continue
            if handle._cancelled:
                handle._scheduled = False
                continue
            loop._timer_put(handle)

    def _refresh(self) -> None:
        if self._parted:
            return
        self._carry_out()
        loop = self._of()
        waiting = [] if loop is None or loop._closed else loop._timer_list()
        waiting.sort(key=_when)
        list.__setitem__(self, slice(None), waiting)
        self._known = waiting

    def __bool__(self) -> bool:
        return len(self) > 0

    def __reduce__(self) -> Any:
        return list, (list(self),)

    for _name in (
        "__contains__",
        "__getitem__",
        "__iter__",
        "__len__",
        "__reversed__",
        "__add__",
        "__mul__",
        "__rmul__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__repr__",
        "copy",
        "count",
        "index",
    ):
        locals()[_name] = _of_list(_name, changes=False)
    for _name in (
        "__setitem__",
        "__delitem__",
        "__iadd__",
        "__imul__",
        "append",
        "clear",
        "extend",
        "insert",
        "pop",
        "remove",
        "reverse",
        "sort",
    ):
        locals()[_name] = _of_list(_name, changes=True)
    del _name
    __hash__ = None


# -- _selector ---------------------------------------------------------------------------------


class _WatchHandle(events.Handle):
    """What is seen of a transport that is watched: it has no Handle until somebody looks.

    Of the standard library's kind, which the garbage collector follows: whoever keeps one may be
    something that its loop leads to.
    """

    __slots__ = ()


_WatchHandle.__name__ = "Handle"  # for its repr()


class LoopSelector(selectors.BaseSelector):
    """`loop._selector`: what is watched, by libev.

    `select()` polls and returns the events, and may be replaced by a function around it: the loop
    then calls that, with the time that asyncio would give it.
    """

    def __init__(self, loop: "InsideHooks") -> None:
        self._of = weakref.ref(loop)

    def _loop(self) -> "InsideHooks":
        loop = self._of()
        if loop is None or loop._closed:
            raise RuntimeError("Event loop is closed")
        return loop

    def _keys(self) -> dict[int, selectors.SelectorKey]:
        keys: dict[int, selectors.SelectorKey] = {}
        loop = self._loop()
        for fd, event, fileobj, handle in loop._watched():
            if fd < 0:
                continue  # a forked child has nothing yet that wakes it
            if callable(handle):
                handle = _WatchHandle(handle, (), loop)
            known = keys.get(fd)
            mask = event if known is None else known.events | event
            reader, writer = (None, None) if known is None else known.data
            if event == selectors.EVENT_READ:
                reader = handle
            else:
                writer = handle
            keys[fd] = selectors.SelectorKey(fileobj, fd, mask, (reader, writer))
        return keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Poll for `timeout` seconds at most; None is for ever.

        Returns the events as [(key, mask)], for `_process_events`.
        """
        events: dict[int, int] = {}
        for fd, event in self._loop()._select(timeout):
            events[fd] = events.get(fd, 0) | event
        if not events:
            return []
        keys = self._keys()
        return [(keys[fd], mask) for fd, mask in events.items() if fd in keys]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is watched, by descriptor or object with fileno()."""
        loop = self._of()
        return _Watched({} if loop is None or loop._closed else self._keys())

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The key of a descriptor that is watched; KeyError if it is not."""
        try:
            return self.get_map()[fileobj]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Not here: a callback has to come with it."""
        raise NotImplementedError(
            "the loop's descriptors are watched by libev: call loop.add_reader() or "
            "loop.add_writer() in place of loop._selector.register()"
        )

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Not here either."""
        return self.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Ends what add_reader() and add_writer() have begun for it."""
        key = self.get_key(fileobj)
        self._loop()._remove_reader(key.fd)
        self._loop()._remove_writer(key.fd)
        return key

    def close(self) -> None:
        """No effect: it lives as long as the loop."""


class _Watched(Mapping[Any, selectors.SelectorKey]):
    def __init__(self, keys: dict[int, selectors.SelectorKey]) -> None:
        self._by_fd = keys

    def __len__(self) -> int:
        return len(self._by_fd)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._by_fd)

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        if not isinstance(fileobj, int):
            try:
                fileobj = int(fileobj.fileno())
            except (AttributeError, TypeError, ValueError):
                raise KeyError(fileobj) from None
        return self._by_fd[fileobj]


_own_select = LoopSelector.select


# -- references --------------------------------------------------------------------------------


def _references(holder: Any, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


class _Sole:
    def __init__(self) -> None:
        self.thing = object()


_FROM_ONE_HOLDER = _references(_Sole(), "thing")  # another number in each Python


def _nobody_else_has(holder: Any, name: str) -> bool:
    return _references(holder, name) <= _FROM_ONE_HOLDER


# -- the loop ----------------------------------------------------------------------------------


class InsideHooks(_Base):
    """The part of `asyncloop.Loop` that shows what is inside, and takes turns by hand."""

    _ready_view: ReadyView | None = None
    _scheduled_view: ScheduledView | None = None
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
        if self._runs_elsewhere():
            view = ScheduledView(self)
        elif view is None:
            view = self._scheduled_view = ScheduledView(self)
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

    def _call_soon(self, callback: Any, args: tuple[Any, ...], context: Any) -> Any:
        """For asyncio's call_soon(), which is called while `_ready` is the program's own."""
        kind: Any = _core.Loop if self._own_ready is None else BaseEventLoop
        return kind._call_soon(self, callback, args, context)

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
        return (
            selector is not None
            and (
                type(selector) is not LoopSelector
                or "select" in selector.__dict__
                or LoopSelector.select is not _own_select
            )
        ) or self._has_other("_process_events", _own_process_events)

    def _has_other(self, name: str, own: Any) -> bool:
        return self._has_own(name) or getattr(type(self), name) is not own

    def _woken(self) -> None:
        """Called by the core after each sleep, while a profile function is set in this thread."""

    def _poll_by_selector(self, timeout: float | None) -> None:
        """Called by the core in place of its own poll."""
        self._process_events(self._selector.select(timeout))

    def _process_events(self, event_list: Any) -> None:
        """Make ready what a call of `_selector.select()` has returned."""
        for key, mask in event_list:
            handles = key.data if isinstance(key.data, tuple) else (None, None)
            for event, handle in zip(
                (selectors.EVENT_READ, selectors.EVENT_WRITE), handles, strict=True
            ):
                if not mask & event:
                    continue
                if handle is None or type(handle) in (_core.Handle, _WatchHandle):
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

    def _close_self_pipe(self) -> None:
        if self._self_pipe is not None:
            ssock, csock = self._self_pipe
            self._self_pipe = None
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
_stock_run_once = BaseEventLoop._run_once  # type: ignore[attr-defined]
