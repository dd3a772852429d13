"""The hooks that `asyncio.BaseEventLoop` calls for transports which the core makes alone.

Those of datagrams, and of pipes: behind `connect_read_pipe` and `connect_write_pipe`.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object


class _Absent:
    """A name of transports over sockets that one over a pipe has not, as with asyncio."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, op: Any, owner: type) -> Any:
        what = f"type object {owner.__name__!r}" if op is None else f"{owner.__name__!r} object"
        raise AttributeError(f"{what} has no attribute {self.name!r}", name=self.name, obj=op)


def _take_away(owner: type, names: str) -> None:
    for name in names.split():
        if hasattr(owner, name):
            setattr(owner, name, _Absent(name))


_OF_SOCKETS = """
    _add_writer _buffer_size _call_soon _context _force_close _header_size _protocol_connected
    _server _sock _sock_fd
"""
_take_away(_core.WritePipeTransport, _OF_SOCKETS + "_add_reader _eof _paused max_size")
_take_away(
    _core.ReadPipeTransport,
    _OF_SOCKETS
    + """
    _conn_lost _high_water _low_water _maybe_pause_protocol _maybe_resume_protocol _protocol_paused
    _set_write_buffer_limits _write_ready abort can_write_eof get_write_buffer_limits
    get_write_buffer_size set_write_buffer_limits write write_eof writelines
    """,
)


class TransportHooks(_Base):
    """The part of `asyncloop.Loop` that makes them: of datagrams, pipes, FIFOs, terminals."""

    def _make_datagram_transport(
        self,
        sock: Any,
        protocol: Any,
        address: Any = None,
        waiter: Any = None,
        extra: Any = None,
    ) -> Any:
        self._ensure_fd_no_transport(sock)
        return _core._datagram_new(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.ReadTransport:
        return _core._read_pipe_new(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.WriteTransport:
        return _core._write_pipe_new(self, pipe, protocol, waiter, extra)
