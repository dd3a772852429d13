"""Child processes: how one is started, and how its end is noticed.

`BaseEventLoop` and `asyncio.subprocess` have the rest. A child is started by `subprocess.Popen`,
which uses vfork() where it can, so that a large process does not stop for it. Its end is noticed by
a descriptor of the child (pidfd) that the loop watches, on whatever thread the loop runs, or by a
thread of its own where the system has none. No other process is ever waited for.
"""

import asyncio
import contextlib
import functools
import os
import subprocess
import threading
from asyncio import unix_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

_UnixTransport: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]


class SubprocessTransport(_UnixTransport):  # type: ignore[misc]
    """asyncio's, with a pipe for the child's input on every version.

    Python 3.11 makes a socket pair of it, and then the child cannot open /dev/stdin.
    """

    def _start(
        self,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        **kwargs: Any,
    ) -> None:
        self._proc = subprocess.Popen(
            args,
            shell=shell,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            universal_newlines=False,
            bufsize=bufsize,
            **kwargs,
        )


class _Child:
    """Tells a transport when its process has ended, once, and takes the exit status."""

    def __init__(self, loop: Any, transport: Any) -> None:
        self.loop = loop
        self.transport = transport
        self.pidfd = -1
        self.thread: threading.Thread | None = None  # where there is no pidfd

    def watch(self) -> None:
        """Raises RuntimeError if neither way is open."""
        pid = self.transport.get_pid()
        try:
            self.pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # no such thing, forbidden, or no descriptor left
            name = f"asyncloop-waitpid-{pid}"
            self.thread = threading.Thread(target=self._wait, args=(pid,), name=name, daemon=True)
            self.thread.start()
        else:
            self.loop._add_reader(self.pidfd, self.ended)

    def stop(self) -> None:
        if self.pidfd >= 0:
            self.loop._remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

    def _wait(self, pid: int) -> None:
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        else:
            # Takes the status away from Popen: put it where ended() looks for it.
            with contextlib.suppress(ChildProcessError):
                status = os.waitpid(pid, 0)[1]
                self.transport._proc.returncode = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self.loop.call_soon_threadsafe(self.ended)

    def ended(self) -> None:
        try:
            returncode = self._take_status()
            if returncode is None:
                return  # not yet: the descriptor stays watched
        except BaseException:
            self._forget()
            raise
        self._forget()
        self.transport._process_exited(returncode)

    def _forget(self) -> None:
        self.stop()
        self.loop._children.discard(self)

    def _take_status(self) -> int | None:
        process: subprocess.Popen[bytes] = self.transport._proc
        # Popen takes the status itself when somebody asks it, maybe in another thread.
        with getattr(process, "_waitpid_lock", contextlib.nullcontext()):
            if process.returncode is None:
                try:
                    pid, status = os.waitpid(process.pid, os.WNOHANG)
                except ChildProcessError:
                    logger.warning(
                        "child process pid %d exit status already read: "
                        "will report returncode 255",
                        process.pid,
                    )
                    process.returncode = 255
                else:
                    if pid == 0:
                        return None
                    process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode


class SubprocessHooks(_Base):
    """The part of `asyncloop.Loop` that starts child processes."""

    @functools.cached_property
    def _children(self) -> set[_Child]:
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
        waiter = self.create_future()
        transport = SubprocessTransport(
            self,
            protocol,
            args,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
            waiter=waiter,
            extra=extra,
            **kwargs,
        )
        child = _Child(self, transport)
        try:
            child.watch()
        except BaseException:
            # Nobody would notice its end: it must not outlive this call.
            transport.close()
            transport._proc.wait()
            raise
        self._children.add(child)
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await asyncio.shield(transport._wait())
            raise
        return transport

    def _close_children(self) -> None:
        """For close(): the processes go on, their descriptors do not."""
        for child in list(self._children):
            child.stop()
        self._children.clear()
