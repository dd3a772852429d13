"""Real apps on asyncloop and on the standard loop, with every answer checked.

Starts a FastAPI app under uvicorn and an aiohttp app, each once on asyncloop and once on asyncio's
own loop, as processes of their own on free ports of the loopback interface. Sends each the same
real HTTP and WebSocket traffic and checks status and body of every answer, then measures each app
on both loops in turn. The table at the end shows the two loops side by side; the exit status is 0
only if every answer was right.

    python examples/showcase.py [--seconds 6] [--connections 50]

The clients run in this process: the checks on the standard loop, the load on no loop at all.
"""

import argparse
import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from http_load import Exchange, Result, keep_busy

HERE = Path(__file__).resolve().parent
MIB = 1024 * 1024

# What uvicorn rightly says about the nonsense that one of the checks sends.
EXPECTED_LOG = {"WARNING:  Invalid HTTP request received."}
LOOPS = ("asyncloop", "asyncio")


class Wrong(Exception):
    """An answer, or a server, was not as it has to be."""


# --- servers


def fastapi_command(loop: str, port: int) -> list[str]:
    factory = "asyncloop:new_event_loop" if loop == "asyncloop" else "asyncio"
    return [
        *(sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(HERE)),
        *("--host", "127.0.0.1", "--port", str(port), "--loop", factory),
        *("--no-access-log", "--log-level", "warning"),
    ]


def aiohttp_command(loop: str, port: int) -> list[str]:
    runner = ["-m", "asyncloop"] if loop == "asyncloop" else []
    return [sys.executable, *runner, str(HERE / "aiohttp_app.py"), "--port", str(port)]


APPS: dict[str, Callable[[str, int], list[str]]] = {
    "FastAPI under uvicorn": fastapi_command,
    "aiohttp": aiohttp_command,
}


def end_with_parent() -> None:
    """Run in a child before it becomes the server: the kernel ends it if this process is killed."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


class Server:
    """One app on one loop, in a process of its own."""

    def __init__(self, app: str, loop: str) -> None:
        self.app = app
        self.loop = loop
        self.name = f"{app} on {loop}"
        self.port = 0
        self.starts = 0
        self.load = Result()
        self.cpu_seconds = 0.0
        self.checked = 0
        self.wrong: list[str] = []
        self.log = tempfile.TemporaryFile("w+")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.starts += 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            APPS[self.app](self.loop, self.port),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            preexec_fn=end_with_parent,
        )

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until the server answers, and see that it runs on the loop that it should."""
        give_up = time.monotonic() + 30
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                loop = (await self.state(session))["loop"]
                break
            ended = self.process.poll() is not None
            if ended and self.starts < 3 and "address already in use" in self.said():
                # Somebody else took the port between our look and the server's bind.
                self.log.truncate(0)
                self.start()
            elif ended or time.monotonic() > give_up:
                raise Wrong(f"{self.name} does not answer; it said:\n{self.said()}")
            await asyncio.sleep(0.05)
        if loop.partition(".")[0] != self.loop:
            raise Wrong(f"{self.name} runs on {loop}")

    async def state(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        async with session.get(f"{self.url}/process") as response:
            answer: dict[str, Any] = await response.json()
            return answer

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> None:
        """End the server by SIGTERM, as a service manager does, and note whether it went well."""
        if self.process.poll() is not None:
            self.wrong.append(f"ended by itself with status {self.process.returncode}")
        else:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.wrong.append("did not end within 10 s of SIGTERM")
            else:
                # uvicorn ends by the signal itself when it has shut everything down.
                if self.process.returncode not in (0, -signal.SIGTERM):
                    self.wrong.append(f"ended with status {self.process.returncode}")
        complaints = [line for line in self.said().splitlines() if line not in EXPECTED_LOG]
        if any(complaints):
            self.wrong.append("\n".join(["it complained:", *complaints]))

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@contextlib.contextmanager
def started(servers: list[Server]) -> Iterator[None]:
    running = []
    try:
        for server in servers:
            server.start()
            running.append(server)
        yield
    finally:
        for server in running:
            server.kill()


# --- checks: what a server has to answer


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Wrong(f"{what}: {str(found)[:300]!r} instead of {str(wanted)[:300]!r}")


async def expect_json(
    response: aiohttp.ClientResponse, wanted: object, *, status: int = 200
) -> None:
    expect("status", response.status, status)
    expect("body", await response.json(), wanted)


async def check_json(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/json") as response:
        await expect_json(response, {"message": "hello", "numbers": [1, 2, 3]})


async def check_parameters(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/items/42", params={"q": "ä b&c"}) as response:
        await expect_json(response, {"number": 42, "q": "ä b&c"})
    async with session.get(f"{url}/items/many") as response:
        expect("status of a wrong parameter", response.status, 422)
    async with session.get(f"{url}/nowhere") as response:
        expect("status of an unknown path", response.status, 404)


async def check_validation(session: aiohttp.ClientSession, url: str) -> None:
    order = {"item": "apple", "count": 3}
    async with session.post(f"{url}/orders", json=order) as response:
        await expect_json(response, order)
    for broken in ({"item": "apple"}, {"item": "", "count": 3}, {"item": "a", "count": 0}, []):
        async with session.post(f"{url}/orders", json=broken) as response:
            expect(f"status of {broken}", response.status, 422)


async def check_stream(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/stream", params={"lines": "200"}) as response:
        expect("status", response.status, 200)
        expect("encoding", response.headers.get("Transfer-Encoding"), "chunked")
        body = b"".join([chunk async for chunk in response.content.iter_any()])
        expect("body", body, b"".join(b"line %d\n" % number for number in range(200)))


async def check_download(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/download", params={"size": str(MIB)}) as response:
        expect("status", response.status, 200)
        expect("1 MiB is as sent", await response.read() == bytes(range(256)) * 4096, True)


async def check_upload(session: aiohttp.ClientSession, url: str) -> None:
    body = os.urandom(MIB)
    async with session.post(f"{url}/upload", data=body) as response:
        wanted = {"size": MIB, "sha256": hashlib.sha256(body).hexdigest()}
        await expect_json(response, wanted)


async def check_echo(session: aiohttp.ClientSession, url: str) -> None:
    body = os.urandom(MIB)
    async with session.post(f"{url}/echo", data=body) as response:
        expect("status", response.status, 200)
        expect("1 MiB is as sent", await response.read() == body, True)


async def check_chunked_upload(session: aiohttp.ClientSession, url: str) -> None:
    parts = [os.urandom(1000 * number) for number in range(1, 20)]

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
            await asyncio.sleep(0.001)

    async with session.post(f"{url}/upload", data=body()) as response:
        whole = b"".join(parts)
        wanted = {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
        await expect_json(response, wanted)


async def check_websocket(session: aiohttp.ClientSession, url: str) -> None:
    async with session.ws_connect(f"{url}/ws", max_msg_size=4 * MIB) as ws:
        for number in range(100):
            await ws.send_str(f"message {number}")
            expect("text", await ws.receive_str(timeout=10), f"message {number}")
        for size in (0, 1, 125, 126, 65_535, 65_536, MIB // 2):
            body = os.urandom(size)
            await ws.send_bytes(body)
            expect(f"{size} bytes are as sent", await ws.receive_bytes(timeout=10) == body, True)
        # Many on the way at once, answered in their order.
        for number in range(200):
            await ws.send_str(str(number))
        for number in range(200):
            expect("order", await ws.receive_str(timeout=10), str(number))
    expect("close code", ws.close_code, 1000)


async def check_keep_alive(session: aiohttp.ClientSession, url: str) -> None:
    """50 connections at once, each used for several requests with an answer of its own."""
    connector = aiohttp.TCPConnector(limit=50)
    opened = 0

    async def count_opened(*_: object) -> None:
        nonlocal opened
        opened += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count_opened)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as own:

        async def ask(number: int) -> None:
            async with own.get(f"{url}/items/{number}", params={"q": f"q{number}"}) as response:
                await expect_json(response, {"number": number, "q": f"q{number}"})

        await asyncio.gather(*(ask(number) for number in range(500)))
    if opened > 50:
        raise Wrong(f"{opened} connections were opened for 50 that should have stayed open")


async def check_concurrency(session: aiohttp.ClientSession, url: str) -> None:
    """Requests that wait do not wait for each other."""

    async def ask() -> None:
        async with session.get(f"{url}/slow", params={"seconds": "0.3"}) as response:
            await expect_json(response, {"slept": 0.3})

    start = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(20)))
    if time.monotonic() - start > 3:  # one after the other they would take 6 s
        raise Wrong("requests waited for each other")


async def check_pipelined(session: aiohttp.ClientSession, url: str) -> None:
    """Three requests in one segment, and one whose bytes trickle in."""
    host, _, port = url.removeprefix("http://").partition(":")
    request = b"GET /json HTTP/1.1\r\nHost: test\r\n\r\n"
    last = b"GET /json HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    for parts in ([request * 2 + last], [last[n : n + 1] for n in range(len(last))]):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            answer = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
        wanted = sum(part.count(b"GET") for part in parts) or 1
        expect("answers", answer.count(b"HTTP/1.1 200 OK"), wanted)


async def check_rude_clients(session: aiohttp.ClientSession, url: str) -> None:
    """Clients that reset their connection or talk nonsense do not disturb the others."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n"
    for rudeness in (b"", b"GET /js", head + bytes(50_000)):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(rudeness)
        await asyncio.sleep(0.02)
        writer.transport.abort()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"this is no HTTP\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    expect("answer to nonsense", answer[9:12], b"400")
    await check_json(session, url)


Check = Callable[[aiohttp.ClientSession, str], Awaitable[None]]
CHECKS: dict[str, Check] = {
    "GET with a JSON answer": check_json,
    "path and query parameters, 404, 422": check_parameters,
    "POST of JSON with validation": check_validation,
    "streamed answer": check_stream,
    "1 MiB down": check_download,
    "1 MiB up": check_upload,
    "1 MiB up and down": check_echo,
    "chunked upload": check_chunked_upload,
    "WebSocket echo": check_websocket,
    "50 connections kept alive": check_keep_alive,
    "20 requests that wait side by side": check_concurrency,
    "pipelined and trickling requests": check_pipelined,
    "clients that reset or talk nonsense": check_rude_clients,
}


async def check(server: Server, session: aiohttp.ClientSession) -> None:
    for name, body in CHECKS.items():
        server.checked += 1
        try:
            await asyncio.wait_for(body(session, server.url), 30)
        except Exception as error:  # whatever went wrong, the other checks still run
            server.wrong.append(f"{name}: {error or type(error).__name__}")
    right = server.checked - len(server.wrong)
    print(f"{server.name}: {right} of {server.checked} checks passed", flush=True)


# --- measurement


def exchanges_for(app: str) -> list[Exchange]:
    """The requests of the measurement; the two frameworks write JSON with different spaces."""
    compact = app.startswith("FastAPI")

    def dump(value: object) -> bytes:
        separators = (",", ":") if compact else (", ", ": ")
        return json.dumps(value, separators=separators).encode()

    order = {"item": "apple", "count": 3}
    body = json.dumps(order).encode()
    post = (
        b"POST /orders HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    get = b"GET %b HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n"
    return [
        Exchange(get % b"/json", 200, dump({"message": "hello", "numbers": [1, 2, 3]})),
        Exchange(get % b"/items/42?q=x", 200, dump({"number": 42, "q": "x"})),
        Exchange(post, 200, dump(order)),
    ]


async def measure(
    servers: list[Server], session: aiohttp.ClientSession, seconds: float, connections: int
) -> None:
    """Load the servers of one app in turn, so that what else the machine does hits both."""
    turns = [*servers, *reversed(servers)] * 2
    exchanges = exchanges_for(servers[0].app)
    for server in servers:  # caches and specialised bytecode come first
        warm_up = await asyncio.to_thread(
            keep_busy, server.port, exchanges, connections=connections, seconds=0.5
        )
        server.wrong += warm_up.wrong
    for server in turns:
        before = (await server.state(session))["cpu_seconds"]
        result = await asyncio.to_thread(
            keep_busy, server.port, exchanges, connections=connections, seconds=seconds / 4
        )
        server.cpu_seconds += (await server.state(session))["cpu_seconds"] - before
        server.load.add(result)
    for server in servers:
        server.wrong += server.load.wrong


def table(servers: list[Server], connections: int) -> str:
    head = ("", "requests/s", "CPU µs/request", "median ms", "p99 ms", "right answers")
    rows = []
    for app in APPS:
        rows.append((app, "", "", "", "", ""))
        figures = {}
        for server in servers:
            if server.app != app:
                continue
            right = len(server.load.latencies)
            total = right + len(server.load.wrong)
            if right < 2:
                rows.append((f"  {server.loop}", "-", "-", "-", "-", f"{right} of {total}"))
                continue
            rate = right / server.load.seconds
            cpu = server.cpu_seconds / right * 1e6
            figures[server.loop] = (rate, cpu)
            cuts = statistics.quantiles(server.load.latencies, n=100)
            rows.append(
                (
                    *(f"  {server.loop}", f"{rate:,.0f}", f"{cpu:.1f}"),
                    *(f"{cuts[49] * 1e3:.2f}", f"{cuts[98] * 1e3:.2f}"),
                    f"{right:,} of {total:,}",
                )
            )
        if len(figures) == len(LOOPS):
            ours, theirs = (figures[loop] for loop in LOOPS)
            ratios = (f"{mine / other:.2f}×" for mine, other in zip(ours, theirs, strict=True))
            rows.append(("  asyncloop / asyncio", *ratios, "", "", ""))
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
    lines.insert(1, "-" * len(lines[0]))
    note = (
        f"{connections} connections, requests in turn: GET JSON, GET with parameters, POST JSON.\n"
        "CPU is the server process's user and system time."
    )
    return "\n".join([*lines, note])


async def main(seconds: float, connections: int) -> int:
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    servers = [Server(app, loop) for app in APPS for loop in LOOPS]
    with started(servers):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            try:
                for server in servers:
                    await server.ready(session)
                for server in servers:
                    await check(server, session)
                for app in APPS:
                    of_app = [server for server in servers if server.app == app]
                    print(f"measuring {app} ...", flush=True)
                    await measure(of_app, session, seconds, connections)
            except Wrong as error:
                print(f"wrong: {error}", file=sys.stderr)
                return 1
        for server in servers:
            server.stop()
        print(f"\n{table(servers, connections)}")
        for server in servers:
            for reason in server.wrong[:10]:
                print(f"wrong: {server.name}: {reason}", file=sys.stderr)
    if any(server.wrong for server in servers):
        return 1
    print("All answers were right.")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of load per server")
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    # A SIGTERM to this process must not leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(asyncio.run(main(options.seconds, options.connections)))
