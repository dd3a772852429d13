"""An HTTP server and client on loopback, just big enough for the other examples.

Those are about many requests at a time and should not need a network for it. The server answers:

    /items/N     {"item": N, "price": ...} after a moment
    /shaky/N     503 for the first two requests, then as /items/N
    /busy/N      429 while four others are being answered, else as /items/N
    /never       nothing, ever
    other        404
"""

import asyncio
import collections
import contextlib
import http
import json
from urllib.parse import urlsplit


class LocalServer:
    """`async with LocalServer() as server:` listens at `server.url` until the block ends."""

    def __init__(self, seconds_per_answer: float = 0.005) -> None:
        self.url = ""
        self.answered = 0
        self.most_at_once = 0
        self._at_once = 0
        self._seconds = seconds_per_answer
        self._asked: collections.Counter[str] = collections.Counter()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "LocalServer":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain function, so that the tasks are ours to cancel.
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The connection stays open for further requests until the client closes it.
            while head := await read_head(reader):
                method, path, _ = head[0].split(" ")
                status, answer = await self._answer(path)
                body = json.dumps(answer)
                writer.write(
                    f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
                    "Content-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
        except ConnectionError:
            pass  # the client went away
        finally:
            writer.close()

    async def _answer(self, path: str) -> tuple[int, object]:
        kind, _, number = path.strip("/").partition("/")
        self._asked[path] += 1
        if kind == "busy" and self._at_once >= 4:
            return 429, {"error": "too many at a time"}
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(3600 if kind == "never" else self._seconds)
        finally:
            self._at_once -= 1
        if kind not in ("items", "shaky", "busy") or not number.isdigit():
            return 404, {"error": f"no {path}"}
        if kind == "shaky" and self._asked[path] <= 2:
            return 503, {"error": "try again"}
        self.answered += 1
        return 200, {"item": int(number), "price": 100 + int(number)}


async def read_head(reader: asyncio.StreamReader) -> list[str]:
    """The lines of a request's or an answer's head; none where the connection ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return []
    return head.decode("latin-1").split("\r\n")[:-2]


async def get_json(url: str) -> tuple[int, object]:
    """Status and content of one GET request, on a connection of its own."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        head = await read_head(reader)
        if not head:
            raise ConnectionError("no answer")
        headers = dict(line.lower().split(": ", 1) for line in head[1:])
        body = await reader.readexactly(int(headers["content-length"]))
        return int(head[0].split(" ")[1]), json.loads(body)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def main() -> None:
    async with LocalServer() as server:
        for path in ("/items/7", "/nowhere"):
            print(path, *await get_json(server.url + path))


if __name__ == "__main__":
    asyncio.run(main())
