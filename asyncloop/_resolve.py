"""Names that are looked up by Python: `getnameinfo`, and `getaddrinfo` where the core cannot.

The core answers numeric hosts and ports at once, and looks names up in threads of its own. Here is
what needs Python for it: a `socket.getaddrinfo` that somebody has replaced, debug mode, which logs,
and names that have to be encoded first. The threads are the loop's as well, so that names resolve
while the default executor is full of other work.
"""

import asyncio
import os
import socket
import threading
from asyncio import base_events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    from ._core import _MixinBase as _Base
else:
    _Base = object

_base_events: Any = base_events

# Threads of one loop. They mostly wait for a name server, so there may be more than processors.
MAX_THREADS = 16
# Seconds without work after which a thread ends.
IDLE_SECONDS = 10

_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver:
    """Threads that call blocking functions for one loop; started when there is work.

    They are daemons: a name server that does not answer keeps neither `close()` nor the end of the
    process waiting.
    """

    def __init__(self) -> None:
        import queue  # most programs resolve no name by a thread of Python's

        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = 0
        self._pending = 0  # calls that wait or run
        self._number = 0

    def submit(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """A future of `loop` for function(*args). RuntimeError if no thread can be started."""
        future = loop.create_future()
        with self._lock:
            if self._pending >= self._threads and self._threads < MAX_THREADS:
                self._start_thread()
            self._pending += 1
            self._queue.put((loop, future, function, args))
        return future

    def close(self) -> None:
        """Let the threads end; those in a call do so after it."""
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)

    def _start_thread(self) -> None:
        self._number += 1
        name = f"asyncloop-resolver-{self._number}"
        try:
            try:
                thread = threading.Thread(target=self._work, name=name, daemon=True)
            except RuntimeError:  # a sub-interpreter that allows no daemons
                thread = threading.Thread(target=self._work, name=name, daemon=False)
            thread.start()
        except RuntimeError:
            if self._threads == 0:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        import queue

        while True:
            try:
                item = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():  # nobody has counted on this thread since
                        self._threads -= 1
                        return
                continue
            if item is None:
                with self._lock:
                    self._threads -= 1
                return
            self._call(*item)
            del item

    def _call(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        value = error = None
        if not future.cancelled():
            try:
                value = function(*args)
            except BaseException as exc:
                error = exc
        with self._lock:
            self._pending -= 1
        try:
            loop.call_soon_threadsafe(_settle, future, value, error)
        except RuntimeError:
            pass  # the loop was closed: nobody waits any more
        finally:
            del error


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


class ResolverHooks(_Base):
    """The part of `asyncloop.Loop` that looks names up."""

    _resolver: Resolver | None = None

    def _by_thread(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._check_closed()
        resolver = self._resolver
        if resolver is None or resolver.pid != os.getpid():  # threads do not survive a fork
            resolver = self._resolver = Resolver()
        return resolver.submit(self, function, *args)

    def _getaddrinfo_by_thread(self, *args: Any) -> asyncio.Future[Any]:
        """For the core: host, port, family, type, proto, flags."""
        # By asyncio's name for the module: whoever replaces it there means this call as well.
        function = self._getaddrinfo_debug if self._debug else _base_events.socket.getaddrinfo
        return self._by_thread(function, *args)

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """What `socket.getnameinfo` gives; numeric answers at once, names by a thread.

        Raises socket.gaierror for what is not found.
        """
        self._check_closed()
        if isinstance(flags, int) and flags & _NUMERIC == _NUMERIC:
            return socket.getnameinfo(sockaddr, flags)
        answer: tuple[str, str] = await self._by_thread(socket.getnameinfo, sockaddr, flags)
        return answer

    def _close_resolver(self) -> None:
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None
