"""Keeps HTTP connections busy and compares every answer: a small client for measurements.

It knows just enough HTTP/1.1 for that: requests without pipelining over kept-alive connections,
answers with a Content-Length.
"""

import asyncio
import re
import time
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Exchange:
    """A request as it goes over the wire, and the answer that is right."""

    request: bytes
    status: int
    body: bytes


@dataclass
class Result:
    """What a run saw: times in seconds, one per answer, and what was wrong, in words."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Result") -> None:
        self.seconds += other.seconds
        self.latencies += other.latencies
        self.wrong += other.wrong


class _Client(asyncio.Protocol):
    """One connection that sends the next request when the answer to the last is complete."""

    def __init__(self, exchanges: list[Exchange], first: int, result: Result) -> None:
        self.exchanges = exchanges
        self.next = first % len(exchanges)
        self.result = result
        self.received = b""
        self.stopping = False
        self.waits_for_answer = False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.current = self.exchanges[self.next]
        self.next = (self.next + 1) % len(self.exchanges)
        self.waits_for_answer = True
        self.sent_at = time.perf_counter()
        self.transport.write(self.current.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self.received, 0, head_end)
        if length is None:
            self.fail(f"an answer without a length: {self.received[:200]!r}")
            return
        end = head_end + 4 + int(length[1])
        if len(self.received) < end:
            return
        self.result.latencies.append(time.perf_counter() - self.sent_at)
        self.waits_for_answer = False
        status, body = int(self.received[9:12]), self.received[head_end + 4 : end]
        if status != self.current.status or body != self.current.body:
            self.fail(f"{status} {body[:200]!r} to {self.current.request[:60]!r}")
        elif len(self.received) > end:
            self.fail(f"bytes that nobody asked for: {self.received[end : end + 200]!r}")
        elif self.stopping:
            self.transport.close()
        else:
            self.received = b""
            self.send()

    def fail(self, reason: str) -> None:
        self.result.wrong.append(reason)
        self.waits_for_answer = False
        self.transport.abort()

    def stop(self) -> None:
        """Close the connection when the answer on its way is there."""
        self.stopping = True

    def connection_lost(self, error: Exception | None) -> None:
        if self.waits_for_answer:
            self.result.wrong.append(f"connection lost before the answer: {error!r}")
        self.done.set_result(None)


async def keep_busy(
    port: int, exchanges: list[Exchange], *, connections: int, seconds: float
) -> Result:
    """Let `connections` clients exchange for `seconds` with the server at `port` on loopback."""
    loop = asyncio.get_running_loop()
    result = Result()
    start = time.perf_counter()
    clients = []
    for number in range(connections):
        _, client = await loop.create_connection(
            lambda number=number: _Client(exchanges, number, result), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.sleep(seconds)
    for client in clients:
        client.stop()
    _, stuck = await asyncio.wait([client.done for client in clients], timeout=10)
    result.seconds = time.perf_counter() - start
    if stuck:
        result.wrong.append(f"{len(stuck)} connections without an answer for 10 s")
        for client in clients:
            client.transport.abort()
    return result
