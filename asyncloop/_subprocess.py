"""Child processes: how one is started, and how its end is noticed.

`BaseEventLoop` and `asyncio.subprocess` have the rest. A child is started by `subprocess.Popen`,
which uses vfork() where it can, so that a large process does not stop for it. Its end is noticed by
a descriptor of the child (pidfd) that the loop watches, on whatever thread the loop runs, or by a
thread of its own where the system has none. No other process is ever waited for.

That is what asyncio's own child watchers do, unless somebody has chosen or changed one: then
asyncio's function for all of it is called, and asks that watcher.
"""

import asyncio
import collections
import contextlib
import os
import subprocess
import sys
import threading
import types
import warnings
from asyncio import base_events, base_subprocess, events, unix_events
from asyncio.log import logger
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _core
from ._streams import lazy

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

_UnixTransport: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]
_NO_LOCK = contextlib.nullcontext()
_NO_PIPES = None, None, None

# What this Python's transport keeps those in that wait for the end, and whether they are woken
# by the end of the process itself or, up to 3.13, by that of the last pipe too.
_new_waiters: Any = set if "add" in _UnixTransport._wait.__code__.co_names else list
_WAKES_AT_EXIT = "_exit_waiters" in _UnixTransport._process_exited.__code__.co_names

_PIDFD_GET_INFO = 0xC040FF0B  # Linux's ioctl, and a bit of its argument
_PIDFD_INFO_EXIT = 8

_UnixLoop: Any = unix_events._UnixSelectorEventLoop
_WATCHER_METHODS = "__enter__", "__exit__", "is_active", "add_child_handler"
_THREADED = tuple(
    getattr(unix_events, name)
    for name in ("ThreadedChildWatcher", "_ThreadedChildWatcher")  # the second since 3.14
    if hasattr(unix_events, name)
)
_can_use_pidfd: Any = getattr(unix_events, "can_use_pidfd", None)  # since 3.12
_WATCHERS: dict[Any, dict[str, Any]] = {
    kind: {name: getattr(kind, name, None) for name in _WATCHER_METHODS}
    for kind in (
        *_THREADED,
        # before 3.12 not without being told of a loop
        getattr(unix_events, "PidfdChildWatcher", None) if _can_use_pidfd else None,
        getattr(unix_events, "_PidfdChildWatcher", None),  # since 3.14
    )
    if kind is not None
}
"""What asyncio chooses as child watcher, and what that was made of."""


def _is_usual(watcher: Any) -> bool:
    """Whether a child watcher does what our transport does by itself, or there is none.

    Threads are what asyncio chooses where there is no pidfd to be had, which is so on 3.11 for it.
    Where there is one, somebody has chosen them.
    """
    kind = type(watcher)
    methods = _WATCHERS.get(kind, {})
    return watcher is None or (
        kind in _WATCHERS
        and all(getattr(kind, name, None) is was for name, was in methods.items())
        and methods.keys().isdisjoint(vars(watcher))
        and not (kind in _THREADED and _can_use_pidfd and _can_use_pidfd())
    )


def _status_of_the_dead(pidfd: int) -> int | None:
    """How a child ended whose status somebody else has taken; Linux knows it since 6.15."""
    import struct
    from fcntl import ioctl

    info = bytearray(64)  # struct pidfd_info
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    [answered] = struct.unpack_from("=Q", info)
    [status] = struct.unpack_from("=i", info, 60)
    return os.waitstatus_to_exitcode(status) if answered & _PIDFD_INFO_EXIT else None


@types.coroutine
def _turn() -> Iterator[None]:
    """Awaited: what has been scheduled so far runs first."""
    yield


class SubprocessTransport(_UnixTransport):  # type: ignore[misc]
    """asyncio's, for a process that runs already. It notices the end by itself.

    The standard one has a task for the pipes and a future for each, although all of them can be
    connected at once, and although there may be none.
    """

    # As asyncio.BaseTransport has a slot, what has none is stored in a dictionary of each object,
    # where the interpreter is slow to find it.
    __slots__ = (
        *("_closed", "_exit_waiters", "_finished", "_loop", "_pending_calls", "_pid", "_pidfd"),
        *("_pipes", "_proc", "_protocol", "_returncode"),
    )

    def __init__(
        self,
        loop: Any,
        protocol: asyncio.SubprocessProtocol,
        process: "subprocess.Popen[bytes]",
        extra: dict[str, Any] | None,
    ) -> None:
        self._extra = extra = {} if extra is None else extra
        extra["subprocess"] = process
        self._closed = False
        self._protocol = protocol
        self._loop = loop
        self._proc = process
        self._pid = process.pid
        self._returncode: int | None = None
        self._exit_waiters = _new_waiters()
        self._pending_calls: collections.deque[Any] | None = None
        self._pipes: dict[int, Any] = {}
        self._finished = False
        self._pidfd = -1

    async def _connect_one_by_one(self, files: Any) -> None:
        """asyncio's way, which tells the protocol at its end."""
        self._pipes = {fd: None for fd, file in enumerate(files) if file is not None}
        self._pending_calls = collections.deque()
        waiter = self._loop.create_future()
        self._loop.create_task(self._connect_pipes(waiter))
        await waiter

    def _connect_all(self, files: Any) -> None:
        """Make the transports of the pipes, which tell their protocols soon, then ours is told."""
        loop = self._loop
        unconnected = [file for file in files if file is not None]
        try:
            for fd, file in enumerate(files):
                if file is None:
                    continue
                proto: Any
                if fd == 0:
                    proto = base_subprocess.WriteSubprocessPipeProto(self, fd)
                    proto.pipe = loop._make_write_pipe_transport(file, proto)
                else:
                    proto = base_subprocess.ReadSubprocessPipeProto(self, fd)
                    proto.pipe = loop._make_read_pipe_transport(file, proto)
                self._pipes[fd] = proto
                del unconnected[0]
                if loop.get_debug():
                    kind = "Read" if fd else "Write"
                    logger.debug(
                        "%s pipe %r connected: (%r, %r)", kind, file.fileno(), proto.pipe, proto
                    )
        except BaseException:
            for file in unconnected:
                file.close()
            raise
        finally:  # behind theirs, and whatever comes of it: it will be told of the end as well
            loop.call_soon(self._protocol.connection_made, self)

    def _watch(self) -> None:
        """Look out for the end. Raises RuntimeError if there is no way to."""
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except (AttributeError, OSError):  # no such thing, forbidden, or no descriptor left
            name = f"asyncloop-waitpid-{self._pid}"
            threading.Thread(target=self._wait_in_thread, name=name, daemon=True).start()
        else:
            self._loop._add_reader(self._pidfd, self._ended)
        self._loop._children.add(self)

    def _wait_in_thread(self) -> None:
        loop, pid = self._loop, self._pid
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(Exception):  # _ended() tries again
                self._take_status()
        else:
            # Takes the status away from Popen: put it where _ended() looks for it.
            with contextlib.suppress(ChildProcessError):
                status = os.waitpid(pid, 0)[1]
                self._proc.returncode = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(RuntimeError):  # the loop was closed
            # A turn later: connection_made() may not have been scheduled yet.
            loop.call_soon_threadsafe(loop.call_soon, self._ended)

    def _take_status(self) -> int | None:
        """The return code, which is Popen's from now on; None: it has not ended.

        ChildProcessError: it has, but somebody else has taken the status.
        """
        process = self._proc
        # Popen takes the status itself when somebody asks it, maybe in another thread.
        with getattr(process, "_waitpid_lock", _NO_LOCK):
            if process.returncode is None:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
                if pid == 0:
                    return None
                process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode

    def _unwatch(self, loop: Any) -> None:
        """Let go of what _watch() has taken; a transport that has ended knows no loop."""
        if self._pidfd >= 0:
            loop._remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        loop._children.discard(self)

    def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:  # somebody else has told the transport of the end
            self._unwatch(loop)
            with contextlib.suppress(OSError):
                os.waitpid(self._pid, os.WNOHANG)
            return
        try:
            returncode = self._take_status()
        except ChildProcessError:
            returncode = None if self._pidfd < 0 else _status_of_the_dead(self._pidfd)
            if returncode is None:
                returncode = 255
                logger.warning(
                    "child process pid %d exit status already read:  will report returncode 255",
                    self._pid,
                )
            self._proc.returncode = returncode
        except BaseException:
            self._unwatch(loop)  # as asyncio: the end is not looked for once more
            raise
        if returncode is None:
            return  # not yet: the descriptor stays watched
        self._unwatch(loop)
        if self._pipes or loop.get_debug():
            self._process_exited(returncode)
        else:
            self._finish(returncode)

    def _finish(self, returncode: int) -> None:
        """What _process_exited() does, without the turn that callbacks of pipes could need."""
        self._returncode = returncode
        self._finished = True
        try:
            self._protocol.process_exited()
        except BaseException:
            self._loop.call_soon(self._call_connection_lost, None)
            raise
        else:
            self._call_connection_lost(None)
        finally:
            if _WAKES_AT_EXIT:
                waiters, self._exit_waiters = self._exit_waiters, None
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(returncode)


class SubprocessHooks(_Base):
    """The part of `asyncloop.Loop` that starts child processes."""

    @lazy
    def _children(self) -> set[SubprocessTransport]:
        """Those whose end has not been noticed yet."""
        return set()

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> asyncio.SubprocessTransport:
        if not _is_usual(self._child_watcher()) or self._has_other(
            "_child_watcher_callback", _UnixLoop._child_watcher_callback
        ):
            watched: asyncio.SubprocessTransport = await self._make_watched_transport(
                protocol, args, shell, stdin, stdout, stderr, bufsize, extra, **kwargs
            )
            return watched
        # On Python 3.11 asyncio has a socket pair for the input; a child cannot open that anew
        # as /dev/stdin.
        process = subprocess.Popen(
            args,
            shell=shell,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            universal_newlines=False,
            bufsize=bufsize,
            **kwargs,
        )
        transport = SubprocessTransport(self, protocol, process, extra)
        if self._debug:
            program = args if isinstance(args, (bytes, str)) else args[0]
            logger.debug("process %r created: pid %s", program, process.pid)
        try:
            transport._watch()
        except BaseException:
            # Nobody would notice its end: it must not outlive this call.
            transport._unwatch(self)
            transport.close()
            process.wait()
            for file in (process.stdin, process.stdout, process.stderr):
                if file is not None:
                    file.close()
            raise
        try:
            files = process.stdin, process.stdout, process.stderr
            otherwise = files != _NO_PIPES and self._connects_pipes_otherwise()
            if otherwise or not _core._leave_task_out(self):
                await transport._connect_one_by_one(files)
                return transport
            if files != _NO_PIPES:
                transport._connect_all(files)
            else:
                self.call_soon(protocol.connection_made, transport)
            await self._turn_or_future()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await asyncio.shield(transport._wait())
            raise
        return transport

    async def _turn_or_future(self) -> None:
        """One iteration; where create_future() is somebody's, he is asked, as by asyncio."""
        if not _core._has_custom_futures(self):
            return await _turn()
        waiter: asyncio.Future[None] = self.create_future()
        self.call_soon(lambda: None if waiter.done() else waiter.set_result(None))
        await waiter

    _make_watched_transport = _UnixLoop._make_subprocess_transport
    _child_watcher_callback = _UnixLoop._child_watcher_callback

    if sys.version_info >= (3, 14):

        @lazy
        def _watcher(self) -> Any:
            """As asyncio's, which asks it for each child; ours only if it is another one."""
            pidfd = unix_events.can_use_pidfd()
            kind = unix_events._PidfdChildWatcher if pidfd else unix_events._ThreadedChildWatcher
            return kind()

        def _child_watcher(self) -> Any:
            return self._watcher

    else:

        def _child_watcher(self) -> Any:
            """The one that asyncio would ask; None if the policy knows of no such thing."""
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                try:
                    return events.get_child_watcher()
                except NotImplementedError:
                    return None

    def _connects_pipes_otherwise(self) -> bool:
        """Whether somebody has put other functions in the place of asyncio's."""
        base = base_events.BaseEventLoop
        return (
            getattr(self.connect_read_pipe, "__func__", None) is not base.connect_read_pipe
            or getattr(self.connect_write_pipe, "__func__", None) is not base.connect_write_pipe
        )

    def _close_children(self) -> None:
        """For close(): the processes go on, their descriptors do not."""
        for child in list(self._children):
            child._unwatch(self)
