"""The measured servers: ``python -m benchmarks.serve KIND LOOP [--size N]``.

Each serves on a free port of 127.0.0.1, prints {"port": N} once it listens, and runs until it
is ended. They are written as a user would write them: no tricks for the benchmark's sake.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from . import loops

BACKLOG = 1024


def raise_descriptor_limit() -> None:
    """Allow as many connections as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listener() -> socket.socket:
    """Return a listening, non-blocking socket on a free port of 127.0.0.1."""
    # The protocol by its number: the standard loop sets TCP_NODELAY on such sockets only.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def announce(sock: Any) -> None:
    """Tell the parent the port of a socket (or of what stands for one in Server.sockets)."""
    print(json.dumps({"port": sock.getsockname()[1]}), flush=True)


# --- echo ------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    """Echo by Protocol."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """Echo by BufferedProtocol.

    What is written is a copy: a transport may keep what it was given while the next bytes
    already arrive in the buffer.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(65536))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


async def forever() -> NoReturn:
    """Wait until the process is ended."""
    while True:
        await asyncio.sleep(3600)


async def serve_protocol(
    factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None = None
) -> None:
    """Serve a protocol, with a context over TLS."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
    announce(server.sockets[0])
    await forever()


class Greeting(asyncio.Protocol):
    """Sends one byte to who connects, and ends when they do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"x")  # type: ignore[attr-defined]


async def accept_protocol(size: int) -> None:
    """Serve Greeting."""
    await serve_protocol(Greeting)


async def accept_streams(size: int) -> None:
    """The same by streams."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=BACKLOG)
    announce(server.sockets[0])
    await forever()


async def echo_protocol(size: int) -> None:
    """Serve Echo."""
    await serve_protocol(Echo)


async def echo_buffered(size: int) -> None:
    """Serve BufferedEcho."""
    await serve_protocol(BufferedEcho)


async def echo_streams(size: int, context: ssl.SSLContext | None = None) -> None:
    """Echo by streams, message by message, with a context over TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await reader.readexactly(size))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
    announce(server.sockets[0])
    await forever()


async def echo_sock(size: int) -> None:
    """Echo by sock_recv and sock_sendall, each connection in a task."""
    loop = asyncio.get_running_loop()
    tasks = set()

    async def serve(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer:
            try:
                while data := await loop.sock_recv(peer, 65536):
                    await loop.sock_sendall(peer, data)
            except ConnectionError:
                pass

    sock = listener()
    announce(sock)
    while True:
        peer, _ = await loop.sock_accept(sock)
        task = loop.create_task(serve(peer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class DatagramEcho(asyncio.DatagramProtocol):
    """Echo of datagrams."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def echo_udp(size: int) -> None:
    """Serve DatagramEcho."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=("127.0.0.1", 0))
    print(json.dumps({"port": transport.get_extra_info("sockname")[1]}), flush=True)
    await forever()


# --- TLS -------------------------------------------------------------------------------

certificate_files: list[str] = []
"""The certificate and its key."""


def server_context() -> ssl.SSLContext:
    """Return the context of the TLS servers."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate_files)
    return context


async def tls_protocol(size: int) -> None:
    """Serve Echo over TLS."""
    await serve_protocol(Echo, server_context())


async def tls_streams(size: int) -> None:
    """Echo by streams over TLS."""
    await echo_streams(size, server_context())


# --- HTTP ------------------------------------------------------------------------------


async def http_aiohttp(size: int) -> None:
    """Serve a JSON answer by aiohttp."""
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"message": "hello"})

    app = web.Application()
    app.router.add_get("/hello", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await forever()


async def uvicorn_serve(app: Any, websockets: str = "none") -> None:
    """Serve an ASGI application by uvicorn with httptools, on the loop that runs already."""
    import uvicorn

    config = uvicorn.Config(
        app, http="httptools", ws=websockets, access_log=False, log_level="error"
    )
    sock = listener()
    announce(sock)
    await uvicorn.Server(config).serve(sockets=[sock])


def bare_application(content: bytes) -> Any:
    """Return a bare ASGI application that answers with this, and echoes WebSocket messages."""
    length = str(len(content)).encode()
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"content-length", length)],
    }
    body = {"type": "http.response.body", "body": content}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "bytes": message["bytes"]})
            return
        await send(start)
        await send(body)

    return app


async def http_asgi(size: int) -> None:
    """Serve a short answer by a bare ASGI application."""
    await uvicorn_serve(bare_application(b"hello"))


async def http_large(size: int) -> None:
    """The same with an answer of 10 KiB."""
    await uvicorn_serve(bare_application(b"0123456789" * 1024))


async def http_websocket(size: int) -> None:
    """Echo WebSocket messages by a bare ASGI application."""
    await uvicorn_serve(bare_application(b""), "auto")


async def http_fastapi(size: int) -> None:
    """Serve a JSON answer by FastAPI."""
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"message": "hello"}

    await uvicorn_serve(app)


SERVERS: dict[str, Callable[[int], Awaitable[None]]] = {
    "accept-protocol": accept_protocol,
    "accept-streams": accept_streams,
    "echo-protocol": echo_protocol,
    "echo-buffered": echo_buffered,
    "echo-streams": echo_streams,
    "echo-sock": echo_sock,
    "echo-udp": echo_udp,
    "tls-protocol": tls_protocol,
    "tls-streams": tls_streams,
    "http-aiohttp": http_aiohttp,
    "http-asgi": http_asgi,
    "http-large": http_large,
    "http-websocket": http_websocket,
    "http-fastapi": http_fastapi,
}


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=SERVERS)
    parser.add_argument("loop")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--certificate", default="")
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    certificate_files[:] = [options.certificate, options.key]
    raise_descriptor_limit()
    loops.prefer_built()
    loop = loops.kind_of(options.loop).new()
    asyncio.set_event_loop(loop)

    async def run() -> None:
        await SERVERS[options.kind](options.size)

    loop.run_until_complete(run())


if __name__ == "__main__":
    main()
