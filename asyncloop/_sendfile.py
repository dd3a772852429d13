"""sendfile: a file to a socket without its bytes passing through the process."""

import errno
import io
import os
import socket
import sys
from asyncio import exceptions, unix_events
from types import BuiltinFunctionType
from typing import IO, TYPE_CHECKING, Any

from . import _core
from ._streams import lazy

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

# One call takes no more than this, which also is what the kernel would send of it at most.
_MAX_BYTES = 1 << 30


def _always_seeks() -> bool:
    """Whether this release puts the file's position at `offset` even if nothing could be sent.

    From 3.14 on, and late releases of 3.13, where the method that does it is not told how much
    was sent.
    """
    method = getattr(unix_events._UnixSelectorEventLoop, "_sock_sendfile_update_filepos", None)
    code = getattr(method, "__code__", None)
    return sys.version_info >= (3, 14) if code is None else code.co_argcount == 3


_ALWAYS_SEEKS = _always_seeks()


class SendfileHooks(_Base):
    """The part of `asyncloop.Loop` behind `sock_sendfile` and `sendfile`.

    `BaseEventLoop` has these two; they fall back to reading and writing when one of the methods
    here raises SendfileNotAvailableError, which they do only before the first byte.
    """

    @lazy
    def _transports_send(self) -> set[int]:
        """id() of each socket whose transport has called sock_sendfile()."""
        return set()

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        if id(sock) in self._transports_send:
            self._transports_send.discard(id(sock))  # a second call is somebody else's
            return await self._send_file(sock, file, offset, count, owned=True)
        if _core._has_custom_futures(self) or not isinstance(
            getattr(os, "sendfile", None), BuiltinFunctionType
        ):
            standard: Any = unix_events._UnixSelectorEventLoop
            sent: int = await standard._sock_sendfile_native(self, sock, file, offset, count)
            return sent
        return await self._send_file(sock, file, offset, count, owned=False)

    async def _sendfile_native(
        self, transp: Any, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        all_sent = transp._make_empty_waiter()
        reads = transp.is_reading()
        transp.pause_reading()
        try:
            await all_sent  # what was written before goes out before
            sock = transp._sock
            self._transports_send.add(id(sock))
            try:
                return await self.sock_sendfile(sock, file, offset, count, fallback=False)
            finally:
                self._transports_send.discard(id(sock))
        finally:
            transp._reset_empty_waiter()
            if reads:
                transp.resume_reading()

    async def _send_file(
        self, sock: socket.socket, file: IO[bytes], offset: int, count: int | None, owned: bool
    ) -> int:
        """Bytes sent. `owned`: a transport uses the socket, and it is the one that sends."""
        if not hasattr(os, "sendfile"):
            raise exceptions.SendfileNotAvailableError("os.sendfile() is not available")
        try:
            source = file.fileno()
            size = os.fstat(source).st_size
        except (AttributeError, io.UnsupportedOperation, OSError):
            raise exceptions.SendfileNotAvailableError("not a regular file")  # noqa: B904
        total = 0
        waited = failed = False
        blocksize = count or size
        if not blocksize:
            return 0
        try:
            while not count or total < count:
                if count:
                    blocksize = count - total
                try:
                    if blocksize <= sys.maxsize or sys.version_info >= (3, 13):
                        blocksize = min(blocksize, _MAX_BYTES)  # before, asyncio's OverflowError
                    sent = os.sendfile(sock.fileno(), source, offset, blocksize)
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError as exc:
                    if total == 0:
                        failed = True  # among others: not a file of the kind that can be mapped
                        break
                    if waited and exc.errno == errno.ENOTCONN and type(exc) is not ConnectionError:
                        raise ConnectionError("socket is not connected", errno.ENOTCONN) from exc
                    raise
                else:
                    if sent == 0:
                        break
                    offset += sent
                    total += sent
                    if total == count:
                        break
                if not owned:
                    self._ensure_fd_no_transport(sock.fileno())
                await self._wait_writable(sock)
                waited = True
        finally:
            if total or _ALWAYS_SEEKS:
                os.lseek(source, offset, os.SEEK_SET)
        if failed:
            raise exceptions.SendfileNotAvailableError("os.sendfile call failed")
        return total
