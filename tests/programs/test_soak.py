"""A few seconds of the secrets soak (soak.py), and that it finds what it is there for."""

import asyncio
import gc
import random
import socket

import pytest

from tests.support import FREE_THREADED, collect, without_collector

from .soak import Stream, Tally, soak


def test_soak(impl):
    if not impl.ours:
        pytest.skip("releases of the standard loop lose bytes of a bytearray written to TLS")
    seed = random.SystemRandom().randrange(1 << 32)
    tally = soak(impl.new_event_loop, seconds=5, seed=seed, workers=20)
    assert not tally.failures, f"seed {seed}: " + "\n".join(tally.failures)
    assert tally.counts["foreign bytes"] == 0
    assert tally.counts["connections made"] == tally.counts["connections lost"] > 0
    assert tally.counts["exchanges"] > tally.counts["honest connections"] > 0


class Unlucky(asyncio.StreamReaderProtocol):
    """Its future is of a younger generation than itself, and so finalized first."""

    def __init__(self, reader, loop):
        gc.collect(0)
        super().__init__(reader, loop=loop)
        self.cycle = self


@pytest.mark.skipif(FREE_THREADED, reason="its collector has no generations")
def test_collector_may_reach_the_future_before_its_protocol(loop, reports):
    """Why the soak asks for the exception of each stream that has ended with one.

    A StreamReaderProtocol asks for it in __del__(), so that nobody is told of a future that
    nobody awaits. But a collection of all generations takes the youngest before the middle one:
    if an earlier collection fell between the making of the protocol and that of its future, and
    both die in a cycle, then the future is finalized first. So it is with every loop, but for
    transports of ours, which ask for it at once.
    """
    reader = asyncio.StreamReader(loop=loop)
    with without_collector():
        protocol = Unlucky(reader, loop)
        protocol.connection_lost(ConnectionResetError())
        del protocol, reader
    gc.collect()
    assert [context["message"] for context in reports] == ["Future exception was never retrieved"]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_nobody_is_told_of_a_reset_that_nobody_awaits(impl, loop, run, contexts, reports, secure):
    if not impl.ours:
        pytest.skip("the standard transport leaves it to the protocol's __del__()")
    server_context, client_context = contexts

    async def main():
        lost = asyncio.Event()

        class Lost(Unlucky):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                assert isinstance(exc, ConnectionResetError)
                lost.set()

        accepted = loop.create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                accepted.set_result(transport)

        server = await loop.create_server(
            Server, "127.0.0.1", 0, ssl=server_context if secure else None
        )
        extra = {"ssl": client_context, "server_hostname": "localhost"} if secure else {}
        reader = asyncio.StreamReader(loop=loop)
        await loop.create_connection(
            lambda: Lost(reader, loop), *server.sockets[0].getsockname(), **extra
        )
        peer = await accepted
        sock = peer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.abort()
        await lost.wait()
        server.close()
        await server.wait_closed()

    with without_collector():
        run(main())
    collect()
    assert reports == []


def test_foreign_bytes_are_counted():
    tally = Tally(1)
    key, other = tally.issue(0), tally.issue(0)
    server = Stream(tally)
    server.feed(key[:5])
    server.feed(key[5:] + key)
    client = Stream(tally, key, turned=True)
    client.feed(server.expected(0, 0))
    client.feed(client.expected(0, 100))
    assert not tally.failures
    client.feed(client.expected(100, 50)[:-1] + b"?")
    assert tally.counts["foreign bytes"] == 1
    server.feed(other[:4])
    assert tally.counts["foreign bytes"] > 1
    Stream(tally).feed(key)
    Stream(tally).feed(bytes(16))
    assert len(tally.failures) == 4


def test_a_forgotten_connection_lost_is_reported(monkeypatch):
    from asyncloop import new_event_loop

    from . import soak as module

    lost = module.Watched.lost
    calls = iter(range(1 << 30))
    monkeypatch.setattr(
        module.Watched, "lost", lambda self: None if next(calls) == 10 else lost(self)
    )
    monkeypatch.setattr(module, "HANG", 1)
    tally = soak(new_event_loop, seconds=0.5, seed=1, workers=4)
    assert any("connections made" in failure for failure in tally.failures)
