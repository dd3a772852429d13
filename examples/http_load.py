"""Keeps HTTP connections busy and compares every answer: a small client for measurements.

It uses no event loop, so that it is the same for any loop under test and costs little beside the
server. It knows just enough HTTP/1.1 for that: requests without pipelining over kept-alive
connections, answers with a Content-Length.
"""

import re
import selectors
import socket
import time
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

# How long an answer may take, in seconds, before its connection counts as stuck.
PATIENCE = 10.0


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


class _Connection:
    """One connection that sends the next request when the answer to the last is complete."""

    def __init__(self, port: int, exchanges: list[Exchange], first: int) -> None:
        self.exchanges = exchanges
        self.next = first % len(exchanges)
        self.received = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        self.current = self.exchanges[self.next]
        self.next = (self.next + 1) % len(self.exchanges)
        self.received = b""
        self.sent_at = time.perf_counter()
        # Small, and the answer to the last one is here: there is room for it.
        self.socket.sendall(self.current.request)

    def receive(self) -> bool:
        """Take what has come; return whether the answer is complete. ValueError if it is wrong."""
        data = self.socket.recv(65_536)
        if not data:
            raise ValueError(f"connection closed after {len(self.received)} bytes of the answer")
        self.received += data
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return False
        length = _LENGTH.search(self.received, 0, head_end)
        if length is None:
            raise ValueError(f"an answer without a length: {self.received[:200]!r}")
        end = head_end + 4 + int(length[1])
        if len(self.received) < end:
            return False
        status, body = int(self.received[9:12]), self.received[head_end + 4 : end]
        if status != self.current.status or body != self.current.body:
            raise ValueError(f"{status} {body[:200]!r} to {self.current.request[:60]!r}")
        if len(self.received) > end:
            raise ValueError(f"bytes that nobody asked for: {self.received[end : end + 200]!r}")
        return True


def keep_busy(port: int, exchanges: list[Exchange], *, connections: int, seconds: float) -> Result:
    """Exchange for `seconds` with the server at `port` on loopback over so many connections.

    Blocks; every answer on its way when the time is up is still waited for.
    """
    result = Result()
    waiting = {}
    start = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        try:
            for number in range(connections):
                connection = _Connection(port, exchanges, number)
                waiting[connection.socket] = connection
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.send()
            while waiting:
                ready = selector.select(PATIENCE)
                if not ready:
                    result.wrong += [f"no answer for {PATIENCE:.0f} s"] * len(waiting)
                    break
                for key, _ in ready:
                    connection = key.data
                    try:
                        if not connection.receive():
                            continue
                        now = time.perf_counter()
                        result.latencies.append(now - connection.sent_at)
                        if now - start < seconds:
                            connection.send()
                            continue
                    except (OSError, ValueError) as error:
                        result.wrong.append(str(error))
                    selector.unregister(connection.socket)
                    del waiting[connection.socket]
                    connection.socket.close()
        finally:
            for sock in waiting:
                sock.close()
    result.seconds = time.perf_counter() - start
    return result
