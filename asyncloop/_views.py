"""What asyncio's loop keeps in plain Python objects, as views of what the core has: _insides.py.

Each holds its loop by a weak reference. What the loop has parted from, because something else was
put in its place, is from then on a plain object of its kind.
"""

import collections
import selectors
import weakref
from asyncio import events
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._insides import InsideHooks

__all__ = ["LoopSelector", "ReadyView", "ScheduledView", "WatchHandle", "own_select"]

# What a deque and a list both have.
_LOOKING: tuple[str, ...] = ("__contains__", "__getitem__", "__reversed__", "__add__", "__mul__")
_LOOKING += ("__rmul__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_LOOKING += ("count", "index")
_CHANGING: tuple[str, ...] = ("__setitem__", "__delitem__", "__iadd__", "__imul__")
_CHANGING += ("extend", "insert", "pop", "remove", "reverse")

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

    for _name in _LOOKING:
        if hasattr(collections.deque, _name):
            locals()[_name] = _of_deque(_name, changes=False)
    for _name in (*_CHANGING, "appendleft", "extendleft", "rotate"):
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
        before = collections.Counter(map(id, known))  # one may be there twice
        after = collections.Counter(map(id, items))
        for handle in known:
            after[id(handle)] -= 1
            if after[id(handle)] < 0:
                loop._timer_take(handle)
        for handle in items:
            before[id(handle)] -= 1
            if before[id(handle)] >= 0:
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

    for _name in (*_LOOKING, "__iter__", "__len__", "__repr__", "copy"):
        locals()[_name] = _of_list(_name, changes=False)
    for _name in (*_CHANGING, "append", "clear", "sort"):
        locals()[_name] = _of_list(_name, changes=True)
    del _name
    __hash__ = None


# -- _selector ---------------------------------------------------------------------------------


class WatchHandle(events.Handle):
    """What is seen of a transport that is watched: it has no Handle until somebody looks.

    Of the standard library's kind, which the garbage collector follows: whoever keeps one may be
    something that its loop leads to.
    """

    __slots__ = ()


WatchHandle.__name__ = "Handle"  # for its repr()


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
                handle = WatchHandle(handle, (), loop)
            known = keys.get(fd)
            mask = event if known is None else known.events | event
            reader, writer = (None, None) if known is None else known.data
            if event == selectors.EVENT_READ:
                reader = handle
            else:
                writer = handle
            keys[fd] = selectors.SelectorKey(fileobj, fd, mask, (reader, writer))
        return keys

    _fd_to_key = property(_keys)

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


own_select = LoopSelector.select
