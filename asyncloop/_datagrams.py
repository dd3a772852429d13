"""The hook that `asyncio.BaseEventLoop.create_datagram_endpoint` calls."""

from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from ._core import _MixinBase as _Base
else:
    _Base = object


class DatagramHooks(_Base):
    """The part of `asyncloop.Loop` that makes datagram transports."""

    def _make_datagram_transport(
        self,
        sock: Any,
        protocol: Any,
        address: Any = None,
        waiter: Any = None,
        extra: Any = None,
    ) -> Any:
        return _core._datagram_new(self, sock, protocol, address, waiter, extra)
