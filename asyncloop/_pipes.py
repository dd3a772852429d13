"""Pipes: the transports behind `connect_read_pipe` and `connect_write_pipe`."""

import asyncio
from asyncio import unix_events
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object

_ReadPipe: Any = unix_events._UnixReadPipeTransport  # type: ignore[attr-defined]
_WritePipe: Any = unix_events._UnixWritePipeTransport  # type: ignore[attr-defined]


class PipeHooks(_Base):
    """The part of `asyncloop.Loop` that makes transports of pipes, FIFOs, terminals and sockets.

    They are asyncio's own, over the core's descriptors.
    """

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.ReadTransport:
        transport: asyncio.ReadTransport = _ReadPipe(self, pipe, protocol, waiter, extra)
        return transport

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.WriteTransport:
        transport: asyncio.WriteTransport = _WritePipe(self, pipe, protocol, waiter, extra)
        return transport
