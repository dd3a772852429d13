"""Objects that die inside a call, and what still leads to them then."""

import asyncio
import gc
import random
import socket
import weakref

import pytest

from tests.support import PY, collect, spin, turns, until

has_clients = pytest.mark.skipif(PY < (3, 13), reason="servers have clients from 3.13 on")


async def adopted(loop, server):
    """A transport among a server's clients, and its peer."""
    one, peer = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
    server._clients.add(transport)
    return transport, peer


@has_clients
def test_dying_client_is_not_seen(run, loop):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, peer = await adopted(loop, server)
        transport.close()
        await turns(2)
        seen = []

        def look(reference):
            assert reference() is None
            seen.append(list(server._clients))
            server.close_clients()
            server.abort_clients()

        reference = weakref.ref(transport, look)
        del transport
        collect()
        assert seen == [[]]
        assert reference() is None
        peer.close()
        server.close()

    run(main())


@has_clients
def test_client_that_is_garbage_is_not_seen(run, loop):
    """The collector's callbacks run before the finalizers of what it frees."""

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        other, other_peer = await adopted(loop, server)
        transport, peer = await adopted(loop, server)
        transport.close()
        await turns(2)
        transport.me = transport
        seen = []

        def look(reference):
            seen.append([client is other for client in server._clients.copy()])
            server.close_clients()

        reference = weakref.ref(transport, look)
        del transport
        collect()
        assert seen == [[True]]
        assert reference() is None and other.is_closing()
        other_peer.close()
        peer.close()
        server.close()
        await turns(2)

    run(main())


@has_clients
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_client_that_paused_and_is_garbage_is_not_seen(run, loop):
    """Nobody holds it: it reads nothing, and only its protocol knows it."""

    class Paused(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            transport.pause_reading()
            references.append(weakref.ref(transport, look))

    seen, references = [], []

    def look(reference):
        seen.append(list(server._clients))
        server.close_clients()

    async def main():
        peer = socket.create_connection(server.sockets[0].getsockname())
        await until(lambda: references)
        assert list(server._clients) == [references[0]()]
        assert references[0]() in server._clients
        await turns(2)
        collect()
        assert seen == [[]]
        assert list(server._clients) == []
        peer.close()
        server.close()
        await server.wait_closed()

    server = run(loop.create_server(Paused, "127.0.0.1", 0))
    run(main())


@has_clients
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_client_that_pauses_while_it_leaves(run, loop, monkeypatch):
    """By a server's method that somebody has replaced, which is called for one that dies."""
    left, made = [], []

    class Nobody(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
            transport.pause_reading()
            transport.resume_reading()

    def detach(server, transport):
        transport.pause_reading()
        left.append(len(server._clients))
        original(server, transport)
        left.append(len(server._clients))

    original = asyncio.Server._detach
    monkeypatch.setattr(asyncio.Server, "_detach", detach)

    async def main():
        peer = socket.create_connection(server.sockets[0].getsockname())
        await until(lambda: made)
        await turns(2)
        made[0].abort()
        made.clear()
        await until(lambda: len(left) == 2)
        assert left == [1, 0]
        peer.close()
        server.close()
        await server.wait_closed()

    server = run(loop.create_server(Nobody, "127.0.0.1", 0))
    run(main())


@has_clients
def test_clients_while_they_come_and_go(run, loop, size):
    """Weak references, iterators and the collector at any moment."""
    chance = random.Random(7)

    class Peer(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.cycle = [self]
            made.append(weakref.ref(transport, forget))
            act()

        def connection_lost(self, exc):
            act()

    made, kept = [], []

    def forget(reference):
        assert all(client is not None for client in server._clients)
        act()

    def act():
        choice = chance.randrange(8)
        if choice == 0:
            gc.collect()
        elif choice == 1:
            kept.extend(server._clients)
        elif choice == 2:
            kept.clear()
        elif choice == 3:
            for client in server._clients.copy():
                client.get_protocol()
                if chance.random() < 0.3:
                    client.abort()
        elif choice == 4:
            for client in list(server._clients):
                server._clients.discard(client)
                server._clients.add(client)
        elif choice == 5 and chance.random() < 0.1:
            server.abort_clients()
        for client in kept:
            client.is_closing()

    server = run(loop.create_server(Peer, "127.0.0.1", 0))

    async def main():
        address = server.sockets[0].getsockname()
        for _ in range(size(100, 2000)):
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            if chance.random() < 0.5:
                transport.abort()
            else:
                transport.close()
            await turns(chance.randrange(3))
        server.close()
        server.abort_clients()
        kept.clear()
        await until(lambda: not list(server._clients))

    run(main())
    collect()


@pytest.mark.parametrize("kind", ["task", "future", "handle", "timer"])
@pytest.mark.parametrize("how", ["by itself", "by the collector"])
def test_weak_references_of_what_dies(loop, impl, kind, how):
    """Nothing leads to it when the callback runs."""
    seen = []

    async def never():
        await loop.create_future()

    def make():
        if kind == "task":
            task = impl.Task(never(), loop=loop)
            task._log_destroy_pending = False
            return task
        if kind == "future":
            return impl.Future(loop=loop)
        if kind == "timer":
            timer = loop.call_later(100, print)
            timer.cancel()
            return timer
        return loop.call_soon(print)

    class Box:
        pass

    one = make()
    if kind == "handle":
        one.cancel()
    spin(loop)
    box = Box()
    box.one, box.box = one, box

    def gone(reference):
        seen.append(reference())
        asyncio.all_tasks(loop)
        gc.collect()

    reference = weakref.ref(one, gone)
    del one
    if how == "by itself":
        del box.box
    del box
    collect()
    assert seen == [None]
    assert reference() is None
