"""Pipes: the transports behind `connect_read_pipe` and `connect_write_pipe`."""

import asyncio
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object


class PipeHooks(_Base):
    """The part of `asyncloop.Loop` that makes transports of pipes, FIFOs, terminals and sockets."""

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
