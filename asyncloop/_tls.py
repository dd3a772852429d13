"""TLS: the hooks of `asyncio.BaseEventLoop`, over the core's TLS transport.

The core's transport does what `asyncio.sslproto.SSLProtocol` and its transport do. What happens
once per connection is here: checks of the arguments, and which transport lies below.
"""

import asyncio
import socket
from asyncio import constants, sslproto
from contextvars import Context
from typing import TYPE_CHECKING, Any

from . import _core
from ._streams import ACCEPTING, context_argument
from ._tls_shipped import is_shipped

if TYPE_CHECKING:
    import ssl

    from ._core import _MixinBase as _Base
else:
    _Base = object
    ssl = sslproto.ssl  # None in a Python without OpenSSL


def _timeout(value: float | None, name: str, default: float) -> float:
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


class TlsHooks(_Base):
    """Mixin of `asyncloop.Loop`: TLS transports and `start_tls`."""

    def _make_tls(
        self,
        protocol: asyncio.BaseProtocol,
        sslcontext: "ssl.SSLContext | None",
        waiter: asyncio.Future[None] | None,
        server_side: bool,
        server_hostname: str | None,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
        *,
        call_connection_made: bool = True,
        context: Context | None = None,
    ) -> Any:  # SSLTransport or SSLProtocol
        """A TLS transport, which has to become the protocol of the transport below it.

        Where TLS is not what the interpreter ships it is asyncio's protocol; `_app_transport` is
        the transport for the user, of either.
        """
        if ssl is None:
            raise RuntimeError("stdlib ssl module not available")
        handshake_timeout = _timeout(
            ssl_handshake_timeout, "ssl_handshake_timeout", constants.SSL_HANDSHAKE_TIMEOUT
        )
        shutdown_timeout = _timeout(
            ssl_shutdown_timeout, "ssl_shutdown_timeout", constants.SSL_SHUTDOWN_TIMEOUT
        )
        if not sslcontext:
            sslcontext = sslproto._create_transport_context(server_side, server_hostname)
        if not is_shipped(sslcontext):
            make: Any = sslproto.SSLProtocol
            tls = make(
                self,
                protocol,
                sslcontext,
                waiter,
                server_side,
                server_hostname,
                call_connection_made=call_connection_made,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
            # The core's transport is its own protocol: whoever tells it that the connection is
            # lost may tell this one in the same way.
            tls._app_transport.connection_lost = tls.connection_lost
            return tls
        return _core._tls_new(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname if server_hostname and not server_side else None,
            handshake_timeout,
            shutdown_timeout,
            call_connection_made,
            context,
        )

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: "ssl.SSLContext | None",
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
        call_connection_made: bool = True,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(rawsock)
        tls = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            call_connection_made=call_connection_made,
            context=context,
        )
        tls_transport: asyncio.Transport = tls._app_transport
        try:
            self._make_socket_transport(
                rawsock, tls, extra=extra, server=server, **context_argument(context)
            )
        except BaseException:
            tls_transport.abort()
            raise
        return tls_transport

    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: "ssl.SSLContext",
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Go on with TLS on a connection. Returns the transport that replaces `transport`.

        What was written before is sent first. On a server, what a StreamReader has received and
        nobody has read belongs to the handshake. The two times are in seconds; None is asyncio's.

        Raises TypeError for a context or a transport of another kind, ssl.SSLError or
        ConnectionError if the handshake fails; the connection is closed then. Follows
        asyncio.loop.start_tls.
        """
        if ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        lower: Any = transport
        waiter = self.create_future()
        tls = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            call_connection_made=False,
        )
        if server_side:
            unread = _take_unread(protocol)
            if unread and isinstance(tls, _core.SSLTransport):
                tls._feed(unread)
            elif unread:
                tls._incoming.write(unread)
        # Else the peer's bytes could come before connection_made().
        lower.pause_reading()
        lower.set_protocol(tls)
        begin = self.call_soon(tls.connection_made, transport)
        resume = self.call_soon(lower.resume_reading)
        try:
            await waiter
        except BaseException:
            lower.close()
            begin.cancel()
            resume.cancel()
            raise
        finally:
            del waiter  # an exception in it would keep its own traceback alive
        upgraded: asyncio.Transport = tls._app_transport
        return upgraded


def _take_unread(protocol: asyncio.BaseProtocol) -> bytes | None:
    """What a StreamReader has received and nobody has read: taken out of it."""
    if not isinstance(protocol, asyncio.StreamReaderProtocol):
        return None
    reader: Any = getattr(protocol, "_stream_reader", None)
    if reader is None or not reader._buffer:
        return None
    unread = bytes(reader._buffer)
    reader._buffer.clear()
    return unread


_LATE = "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"


def late_error() -> "ssl.SSLError":
    """The exception for data that comes after our own close_notify.

    As `SSLObject.unwrap()` raises it, with the place in the module's source. The core drops such
    data and goes on until the peer has closed as well; where the `ssl` module meets it the
    connection is of no more use.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place = ""
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).unwrap()
    except ssl.SSLError as exc:  # there is no connection to be ended
        _, bracket, rest = str(exc).rpartition(" (")
        place = bracket + rest
    error = ssl.SSLError(
        int(ssl.SSL_ERROR_SSL), f"[SSL: {_LATE}] {_LATE.lower().replace('_', ' ')}{place}"
    )
    error.library = "SSL"
    error.reason = _LATE
    return error


ACCEPTING["_make_ssl_transport"] = TlsHooks._make_ssl_transport
_core._accepting_methods(ACCEPTING)
