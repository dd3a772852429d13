"""Connections and servers: the hooks that `asyncio.BaseEventLoop` calls, over the C core.

`BaseEventLoop` has `create_connection`, `create_server`, `connect_accepted_socket` and `start_tls`;
what it leaves to a loop is here. Every socket has one owner: it is the caller's until a transport
is made over it, and the transport's from then on.
"""

import asyncio
import functools
import socket
import sys
import types
import weakref
from asyncio import base_events, constants, unix_events
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    import ssl

    from ._core import _MixinBase as _Base
else:
    _Base = object

_ProtocolFactory = Callable[[], asyncio.BaseProtocol]
_base_events: Any = base_events
_UnixLoop: Any = unix_events._UnixSelectorEventLoop

_Server: Any = base_events.Server
_SERVER_METHODS = (_Server._attach, _Server._detach)
_Clients: Any = getattr(_core, "Clients", None)
"""The core's list of a server's connections; None where there is none (src/net/clients.h)."""


class lazy:  # noqa: N801
    """An attribute that is made when somebody first wants it.

    `functools.cached_property`, but for that it leaves the instance's dict alone. Who takes hold of
    that may put a method into it, which the core then has to look for.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self.function(instance)
        setattr(instance, self.function.__name__, value)
        return value


def _list_clients(server: Any) -> None:
    """Let the core keep the connections of a server, if that is asyncio's own and new."""
    if (
        _Clients is not None
        and type(server) is _Server
        and (_Server._attach, _Server._detach) == _SERVER_METHODS
        and type(server._clients) is weakref.WeakSet
        and not server._clients
    ):
        server._clients = _Clients()


def _connect_error(exceptions: list[OSError]) -> OSError:
    """What to raise when no address could be connected to, in the words of asyncio."""
    texts = {str(exc) for exc in exceptions}
    if len(texts) == 1:
        return exceptions[0]
    if not exceptions:
        return OSError("getaddrinfo() returned empty list")
    return OSError("Multiple exceptions: " + ", ".join(str(exc) for exc in exceptions))


def context_argument(context: Context | None) -> dict[str, Any]:
    """The argument for a hook, which knows none before 3.15 if it is overridden."""
    return {"context": context} if sys.version_info >= (3, 15) or context is not None else {}


class StopHooks(_Base):
    """The end of a server: asyncio's method calls this one by super()."""

    _acceptors: dict[Any, Any]

    def _stop_serving(self, sock: socket.socket) -> None:
        acceptor = self._acceptors.pop(sock, None)
        if acceptor is not None:
            acceptor.stop()
        if acceptor is None or sock.fileno() < 0:
            self._remove_reader(sock.fileno())  # ValueError for a socket that somebody has closed
        sock.close()


def _as_method_of(owner: type, function: types.FunctionType) -> Any:
    """A function of asyncio's in which super() goes on from `owner`."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    made = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(types.CellType(owner) if name == "__class__" else cell for name, cell in cells),
    )
    return functools.update_wrapper(made, function)


class StreamHooks(StopHooks):
    """Mixin of `asyncloop.Loop`: stream transports and servers."""

    # asyncio's own: all they need of a loop is what is here.
    create_unix_connection = _UnixLoop.create_unix_connection
    create_unix_server = _UnixLoop.create_unix_server

    @lazy
    def _acceptors(self) -> dict[Any, Any]:
        """Listening socket to the core's Acceptor, for `_stop_serving`."""
        return {}

    @lazy
    def _unix_server_sockets(self) -> "weakref.WeakKeyDictionary[Any, int]":
        """Listening Unix socket to the inode of its path; filled by `create_unix_server`.

        A socket belongs to its Server, which may be closed after the loop.
        """
        return weakref.WeakKeyDictionary()

    # -- transports ---------------------------------------------------------------------------

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Context | None = None,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(sock)
        return _core._stream_new(self, sock, protocol, waiter, extra, server, context)

    async def _create_connection_transport(
        self,
        sock: socket.socket,
        protocol_factory: _ProtocolFactory,
        ssl: "ssl.SSLContext | bool | None",
        server_hostname: str | None,
        server_side: bool = False,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Context | None = None,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """The transport of a connected socket, once it has begun.

        The socket is closed on every failure, as asyncio does it since 3.14: by the transport if
        there is one, else here. Before, another transport that has it keeps it.
        """
        try:
            sock.setblocking(False)
            protocol = protocol_factory()
            waiter = self.create_future()
            if ssl:
                transport = self._make_ssl_transport(
                    sock,
                    protocol,
                    None if isinstance(ssl, bool) else ssl,
                    waiter,
                    server_side=server_side,
                    server_hostname=server_hostname,
                    ssl_handshake_timeout=ssl_handshake_timeout,
                    ssl_shutdown_timeout=ssl_shutdown_timeout,
                    **context_argument(context),
                )
            elif context is None and sys.version_info < (3, 15):
                transport = self._make_socket_transport(sock, protocol, waiter)
            else:
                transport = self._make_socket_transport(sock, protocol, waiter, context=context)
        except BaseException:
            if sys.version_info >= (3, 14) or sock.fileno() not in self._transports:
                sock.close()
            raise
        try:
            await waiter
        except BaseException:
            # Not close(), which may take its time: who has been cancelled may close his socket,
            # and then the number of the descriptor is somebody else's.
            transport.abort()
            raise
        finally:
            del waiter  # an exception in it would keep its own traceback alive
        return transport, protocol

    @functools.wraps(asyncio.BaseEventLoop.create_connection)
    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: _ProtocolFactory,
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        # The plain case without BaseEventLoop's eight calls; benchmark row: connect. Its own way
        # also goes for who has replaced the module that it makes sockets with.
        if (
            options
            or type(host) is not str
            or type(port) is not int  # a service by name, and what is no port
            or not 0 <= port <= 65535
            or "\0" in host
            or not _core._connects_as_usual(self)
        ):
            return await super().create_connection(protocol_factory, host, port, **options)
        sock = await self._connect_to(host, port)
        return await self._create_connection_transport(sock, protocol_factory, None, None)

    async def _connect_to(self, host: Any, port: Any) -> socket.socket:
        """A non-blocking socket connected to the first address of the host that answers."""
        made = _core._socket_for(self, host, port)
        if made is not None:
            sock, address = made
            try:
                await self.sock_connect(sock, address)
            except BaseException:
                sock.close()
                raise
            return sock  # type: ignore[no-any-return]
        exceptions = []
        infos = await self._ensure_resolved((host, port), type=socket.SOCK_STREAM, loop=self)
        try:
            for family, kind, proto, _, address in infos or ():
                sock = None
                try:
                    sock = socket.socket(family=family, type=kind, proto=proto)
                    sock.setblocking(False)
                    await self.sock_connect(sock, address)
                    return sock
                except OSError as exc:
                    if sock is not None:
                        sock.close()
                    exceptions.append(exc)
                except BaseException:
                    if sock is not None:
                        sock.close()
                    raise
            raise _connect_error(exceptions)
        finally:
            exceptions.clear()  # each keeps this frame alive

    # -- servers ------------------------------------------------------------------------------

    def _start_serving(
        self,
        protocol_factory: _ProtocolFactory,
        sock: socket.socket,
        sslcontext: "ssl.SSLContext | None" = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> None:
        if _core._has_custom_futures(self) or any(
            self._has_other(name, own) for name, own in ACCEPTING.items()
        ):
            # What accepts, or what it waits in, is somebody else's: then asyncio's way goes to it.
            _UnixLoop._start_serving(
                self,
                protocol_factory,
                sock,
                sslcontext,
                server,
                backlog,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
                **context_argument(context),
            )
            return
        accepted = None
        if sslcontext:

            def accepted(conn: socket.socket, peername: Any, context: Context) -> None:
                self.create_task(
                    self._accept_tls(
                        conn,
                        protocol_factory,
                        {"peername": peername},
                        sslcontext,
                        server,
                        ssl_handshake_timeout,
                        ssl_shutdown_timeout,
                        context,
                    )
                )

        hooks: Any = self

        def otherwise(conn: socket.socket, peername: Any, context: Context) -> None:
            self.create_task(
                hooks._accept_connection2(
                    protocol_factory,
                    conn,
                    {"peername": peername},
                    sslcontext,
                    server,
                    ssl_handshake_timeout,
                    ssl_shutdown_timeout,
                    **({"context": context} if sys.version_info >= (3, 15) else {}),
                )
            )

        _list_clients(server)
        most = len(range(backlog)) + 1  # of any kind that has an index; asyncio's newest number
        self._acceptors[sock] = _core._acceptor_new(
            self, protocol_factory, sock, server, context, accepted, otherwise, min(most, 1 << 20)
        )

    async def _accept_tls(
        self,
        conn: socket.socket,
        protocol_factory: _ProtocolFactory,
        extra: dict[str, Any],
        sslcontext: "ssl.SSLContext",
        server: Any,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
        context: Context,
    ) -> None:
        protocol = transport = None
        try:
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_ssl_transport(
                conn,
                protocol,
                sslcontext,
                waiter,
                server_side=True,
                extra=extra,
                server=server,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                context=context,
            )
            try:
                await waiter
            finally:
                del waiter
        except BaseException as exc:
            if transport is None:
                conn.close()
            else:
                transport.close()
            if isinstance(exc, SystemExit | KeyboardInterrupt):
                raise
            if self._debug:
                report = {
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                }
                if protocol is not None:
                    report["protocol"] = protocol
                if transport is not None:
                    report["transport"] = transport
                self.call_exception_handler(report)

    def _close_servers(self) -> None:
        """For close(): nothing of the loop keeps the listening sockets of a Server alive."""
        for acceptor in list(self._acceptors.values()):
            acceptor.stop()
        self._acceptors.clear()


if "_stop_serving" in vars(_UnixLoop):  # from 3.13 on it removes the path of a Unix socket
    _hooks: Any = StreamHooks
    _hooks._stop_serving = _as_method_of(StreamHooks, _UnixLoop._stop_serving)

ACCEPTING: dict[str, Any] = {
    "_accept_connection": _UnixLoop._accept_connection,
    "_accept_connection2": _UnixLoop._accept_connection2,
    "_make_socket_transport": StreamHooks._make_socket_transport,
}
"""What asyncio calls for each connection that it accepts."""
