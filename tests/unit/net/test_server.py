"""Servers: life cycle, sockets, closing, accept under a full descriptor table."""

import asyncio
import contextlib
import errno
import gc
import inspect
import os
import socket
import stat
import sys
import warnings

import pytest

from tests import protocols
from tests.support import (
    PY,
    RECORDS,
    check_script,
    collect,
    listening,
    open_descriptors,
    script,
    turns,
    until,
)

PATCH = sys.version_info[:3]


class Echo(protocols.Echo):
    """Counts the connections of its server."""

    made = None  # a list of the transports, given by the test
    lost = None

    def connection_made(self, transport):
        super().connection_made(transport)
        if self.made is not None:
            self.made.append(transport)

    def connection_lost(self, exc):
        if self.lost is not None:
            self.lost.append(self.transport)


def echo_kind():
    return type("OneEcho", (Echo,), {"made": [], "lost": []})


async def echo_client(address):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    return reader, writer


async def finish(writer):
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass


def address_of(server):
    return server.sockets[0].getsockname()[:2]


def test_life_cycle(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert server.is_serving()
        assert server.get_loop() is loop
        assert isinstance(server.sockets, tuple)
        assert len(server.sockets) == 1
        assert isinstance(server.sockets[0], asyncio.trsock.TransportSocket)
        address = address_of(server)
        _, writer = await echo_client(address)
        server.close()
        assert not server.is_serving()
        assert server.sockets == ()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        await finish(writer)
        await server.wait_closed()

    run(main())


def test_established_connections_survive_close(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        reader, writer = await echo_client(address_of(server))
        server.close()
        await turns(3)
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        await finish(writer)
        await turns(3)

    run(main())


@pytest.mark.skipif(PATCH < (3, 12, 1), reason="wait_closed waits from 3.12.1 on")
def test_wait_closed_waits_for_connections(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        _, writer = await echo_client(address_of(server))
        waiter = asyncio.ensure_future(server.wait_closed())
        await turns(5)
        assert not waiter.done()
        server.close()
        await turns(5)
        assert not waiter.done()
        await finish(writer)
        await waiter
        await server.wait_closed()

    run(main())


@pytest.mark.skipif(PATCH >= (3, 12), reason="before 3.12 it returns at once")
def test_wait_closed_of_old(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        _, writer = await echo_client(address_of(server))
        server.close()
        await server.wait_closed()
        await finish(writer)
        await turns(3)

    run(main())


def test_wait_closed_without_connections(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        server.close()
        await server.wait_closed()
        await server.wait_closed()

    run(main())


def test_async_with(run):
    async def main():
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            _, writer = await echo_client(address_of(server))
            await finish(writer)
        assert not server.is_serving()
        assert server.sockets == ()

    run(main())


def test_start_serving(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        assert not server.is_serving()
        address = address_of(server)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        _, writer = await echo_client(address)
        await finish(writer)
        server.close()
        with pytest.raises((RuntimeError, TypeError)):
            await server.start_serving()

    run(main())


def test_serve_forever(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        address = address_of(server)
        task = asyncio.ensure_future(server.serve_forever())
        await turns(3)
        assert server.is_serving()
        with pytest.raises(RuntimeError, match="already being awaited"):
            await server.serve_forever()
        _, writer = await echo_client(address)
        await finish(writer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    run(main())


# As this release of asyncio: it came with 3.14 and a late 3.13.
CANCELLING_CLOSES_CLIENTS = "close_clients" in inspect.getsource(asyncio.Server.serve_forever)


@pytest.mark.skipif(PY < (3, 13), reason="cancelling waits for the clients or not, by release")
def test_serve_forever_cancelled_with_a_live_client(run):
    """The client lives on; in newer releases it is closed in good order."""
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        task = asyncio.ensure_future(server.serve_forever())
        reader, writer = await echo_client(address_of(server))
        task.cancel()
        await turns(5)
        if not CANCELLING_CLOSES_CLIENTS:
            writer.write(b"alive")
            assert await reader.readexactly(5) == b"alive"
        else:
            assert await reader.read() == b""
        await finish(writer)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_close_ends_serve_forever(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        task = asyncio.ensure_future(server.serve_forever())
        await turns(3)
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="close_clients came in 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_close_clients(run, how):
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0)
        pairs = [await echo_client(address_of(server)) for _ in range(3)]
        if how == "abort_clients":
            # a stuck client: what is queued for it can't be flushed
            for transport in kind.made:
                while not transport.get_write_buffer_size():
                    transport.write(b"x" * 65536)
        server.close()
        getattr(server, how)()
        await server.wait_closed()
        assert len(kind.lost) == 3
        for reader, writer in pairs:
            try:
                await reader.read()
            except ConnectionError:
                pass
            await finish(writer)

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="close_clients came in 3.13")
def test_close_clients_flushes(run):
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0)
        reader, writer = await echo_client(address_of(server))
        kind.made[0].write(b"z" * 3_000_000)
        server.close()
        server.close_clients()
        assert len(await reader.read()) == 3_000_000
        await finish(writer)
        await server.wait_closed()

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="the set of clients came in 3.13")
def test_set_of_clients(run):
    """What monitoring code looks at: it follows the connections, and holds none of them."""
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0)
        clients = server._clients
        pairs = [await echo_client(address_of(server)) for _ in range(3)]
        assert len(clients) == 3 and set(clients) == set(kind.made) == set(clients.copy())
        assert kind.made[0] in clients and server not in clients
        clients.add(kind.made[0])
        assert len(clients) == 3
        pairs[0][1].close()
        await until(lambda: len(kind.lost) == 1)
        await turns(3)
        assert kind.lost[0] not in clients and set(clients) == set(kind.made) - set(kind.lost)
        clients.discard(kind.lost[0])

        class Foreign:
            pass

        foreign = Foreign()
        server._attach(foreign)
        assert foreign in clients and len(clients) == 3
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        for _, writer in pairs:
            await finish(writer)
        await until(lambda: len(kind.lost) == 3)
        await turns(3)
        assert not waiting.done() and list(clients) == [foreign]
        server._detach(foreign)
        await waiting
        assert not len(clients)

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="the set of clients came in 3.13")
def test_abandoned_client(run):
    """A connection that nobody closed leaves its server when it is collected."""
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0)
        _, writer = await echo_client(address_of(server))
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            transport = kind.made.pop()
            transport.pause_reading()
            transport.get_protocol().transport = None
            del transport
            await until(lambda: gc.collect() >= 0 and not len(server._clients))
        await waiting
        await finish(writer)

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="the set of clients came in 3.13")
@pytest.mark.parametrize("kept", [False, True])
def test_clients_outlived(run, kept):
    """The set is replaced, and dies before what it lists, or lives on."""
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0)
        pairs = [await echo_client(address_of(server)) for _ in range(3)]
        first = server._clients if kept else None
        server._clients = set(server._clients)
        gc.collect()
        assert server._clients == set(kind.made)
        for _, writer in pairs:
            await finish(writer)
        await until(lambda: len(kind.lost) == 3)
        await turns(2)
        assert not server._clients
        server.close()
        await asyncio.wait_for(server.wait_closed(), 10)
        del first

    run(main())


def test_repr(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        assert repr(server).startswith("<Server sockets=(<asyncio.TransportSocket fd=")
        server.close()
        assert repr(server) == "<Server sockets=()>"

    run(main())


def test_several_sockets(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], 0)
        assert len(server.sockets) == 2
        for sock in server.sockets:
            _, writer = await echo_client(sock.getsockname())
            await finish(writer)
        server.close()
        await server.wait_closed()

    run(main())


def test_given_socket(run):
    async def main():
        loop = asyncio.get_running_loop()
        with listening() as sock:
            server = await loop.create_server(Echo, sock=sock)
            assert server.sockets[0].fileno() == sock.fileno()
            _, writer = await echo_client(sock.getsockname())
            await finish(writer)
            server.close()
            await server.wait_closed()
            assert sock.fileno() == -1

    run(main())


def test_reuse_options(run):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            Echo, "127.0.0.1", 0, reuse_address=True, reuse_port=True, backlog=5
        )
        option = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert option
        port = address_of(server)[1]
        second = await loop.create_server(Echo, "127.0.0.1", port, reuse_port=True)
        server.close()
        second.close()

    run(main())


def test_address_in_use(run):
    async def main():
        loop = asyncio.get_running_loop()
        with listening() as sock:
            with pytest.raises(OSError, match="address already in use"):
                await loop.create_server(Echo, *sock.getsockname())

    run(main())


def test_bad_arguments(run):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            with pytest.raises(ValueError):
                await loop.create_server(Echo, "127.0.0.1", 0, sock=sock)
        with pytest.raises(ValueError):
            await loop.create_server(Echo)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="Stream Socket was expected"):
                await loop.create_server(Echo, sock=sock)
        with pytest.raises(TypeError):
            await loop.create_server(Echo, "127.0.0.1", 0, ssl=True)
        with pytest.raises((OSError, UnicodeError)):
            await loop.create_server(Echo, "300.300.300.300", 0)

    run(main())


def test_accepted_sockets_are_non_blocking_and_close_on_exec(run):
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0)
        _, writer = await echo_client(address_of(server))
        for transport in (kind.made[0], writer.transport):
            fd = transport.get_extra_info("socket").fileno()
            assert not os.get_inheritable(fd)
            assert not os.get_blocking(fd)
        assert not os.get_inheritable(server.sockets[0].fileno())
        await finish(writer)
        server.close()
        await server.wait_closed()

    run(main())


def test_burst_of_connections(run):
    async def main():
        loop = asyncio.get_running_loop()
        kind = echo_kind()
        server = await loop.create_server(kind, "127.0.0.1", 0, backlog=300)
        address = address_of(server)
        clients = [socket.create_connection(address) for _ in range(200)]
        await until(lambda: len(kind.made) == 200)
        for client in clients:
            client.send(b"x")
        for client in clients:
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b"x"
            client.close()
        await until(lambda: len(kind.lost) == 200)
        server.close()
        await server.wait_closed()

    run(main())


def test_all_that_wait_are_accepted_in_one_event(run, tmp_path):
    """The backlog is the only bound."""

    async def main():
        loop = asyncio.get_running_loop()
        turn = 0
        made = []

        def count():
            nonlocal turn
            turn += 1
            loop.call_soon(count)

        class Served(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(turn)
                transport.close()

        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Served, path, backlog=300)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(200)]
        for client in clients:
            client.connect(path)
        count()
        await until(lambda: len(made) == 200)
        assert len(set(made)) == 1
        for client in clients:
            client.close()
        server.close()
        await server.wait_closed()

    run(main())


def test_closed_inside_the_accept_callback(run):
    """The server goes while it tells of a connection: that one still lives."""

    async def main():
        loop = asyncio.get_running_loop()
        closed = []

        class Closes(Echo):
            def connection_made(self, transport):
                super().connection_made(transport)
                server.close()
                closed.append(transport)

        server = await loop.create_server(Closes, "127.0.0.1", 0)
        reader, writer = await echo_client(address_of(server))
        assert len(closed) == 1
        await finish(writer)
        await server.wait_closed()

    run(main())


def test_failing_factory(run, impl, loop):
    """The connection is closed and the server goes on; debug mode reports it."""
    kinds = set()
    loop.set_exception_handler(lambda _, context: kinds.add(type(context["exception"])))

    async def main():
        loop = asyncio.get_running_loop()
        failures = []

        def factory():
            if not failures:
                failures.append(1)
                raise LookupError("factory")
            return Echo()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(address_of(server)) as first:
            if impl.ours:  # the standard one leaves it to the garbage collector
                first.setblocking(False)
                try:
                    assert await loop.sock_recv(first, 1) == b""
                except ConnectionError:
                    pass
            else:
                await until(lambda: failures)
        _, writer = await echo_client(address_of(server))
        await finish(writer)
        server.close()
        await server.wait_closed()
        collect()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main())
    assert kinds <= {LookupError}


def test_many_servers(run):
    async def main():
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(Echo, "127.0.0.1", 0) for _ in range(20)]
        for server in servers:
            _, writer = await echo_client(address_of(server))
            await finish(writer)
        for server in servers:
            server.close()
            await server.wait_closed()

    run(main())


def test_loop_closed_with_a_server(loop_factory, impl):
    """The listening socket goes with the loop or the server object; at most it warns."""
    loop = impl.new_event_loop()

    async def main():
        return await loop.create_server(Echo, "127.0.0.1", 0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = loop.run_until_complete(main())
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()
        del server, loop
        collect()


# Unix


def test_unix(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Echo, path)
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await finish(writer)
        server.close()
        await server.wait_closed()
        assert os.path.exists(path) is (PY < (3, 13))

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="cleanup_socket came in 3.13")
def test_unix_cleanup(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "kept")
        server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
        server.close()
        assert os.path.exists(path)
        # somebody else's file under our name stays
        path = str(tmp_path / "replaced")
        server = await loop.create_unix_server(Echo, path)
        os.unlink(path)
        with open(path, "w"):
            pass
        server.close()
        assert os.path.exists(path)
        # already gone: no error
        path = str(tmp_path / "gone")
        server = await loop.create_unix_server(Echo, path)
        os.unlink(path)
        server.close()
        await server.wait_closed()

    run(main())


def test_unix_path_objects(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(Echo, tmp_path / "path")
        server.close()
        await server.wait_closed()

    run(main())


def test_unix_stale_socket_is_replaced(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        server = await loop.create_unix_server(Echo, path)
        reader, writer = await asyncio.open_unix_connection(path)
        await finish(writer)
        server.close()
        await server.wait_closed()

    run(main())


def test_unix_regular_file_is_not_replaced(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = tmp_path / "file"
        path.write_text("content")
        with pytest.raises(OSError):
            await loop.create_unix_server(Echo, str(path))
        assert path.read_text() == "content"

    run(main())


def test_unix_given_socket(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        server = await loop.create_unix_server(Echo, sock=sock)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        await finish(writer)
        server.close()
        await server.wait_closed()

    run(main())


# A full descriptor table


EMFILE = RECORDS + script("no_descriptors")


@pytest.mark.our_loop("one report per pending connection, 100 of them, before 3.14.1")
@pytest.mark.parametrize("close", [False, True])
def test_descriptor_table_full(impl, close):
    """Accepting pauses with a report a second, and recovers by itself."""
    check_script(impl, f"LIMIT = 4\nCLOSE = {close}\n" + EMFILE, "ok")


# -- create_connection() in its plain form ----------------------------------------------------


def test_plain_connection_errors(run):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        assert caught.value.errno == errno.ECONNREFUSED
        for host, number, error in [
            ("127.0.0.1", "no-such-service", socket.gaierror),
            ("127.0.0.1", 1 << 20, (OverflowError, OSError)),
            ("a host\0", 80, (ValueError, UnicodeError)),
            ("256.256.256.256", 80, OSError),
            (None, None, ValueError),
        ]:
            with pytest.raises(error):
                await loop.create_connection(asyncio.Protocol, host, number)

    run(main())


def test_plain_connection_goes_through_the_addresses(run):
    """The name has two addresses; the first refuses."""

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            asked = []

            async def getaddrinfo(host, port, **options):
                asked.append((host, port))
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                    for address in ("127.0.0.2", "127.0.0.1")
                ]

            loop.getaddrinfo = getaddrinfo
            transport, protocol = await loop.create_connection(asyncio.Protocol, "name", port)
            assert asked == [("name", port)]
            assert transport.get_extra_info("peername") == ("127.0.0.1", port)
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not sock.gettimeout()
            transport.abort()
        with pytest.raises(OSError, match=r"Multiple exceptions: .*127\.0\.0\.2.*127\.0\.0\.1"):
            await loop.create_connection(asyncio.Protocol, "name", port)

    run(main())


@pytest.mark.our_loop("asyncio leaves the socket of a failing factory to the collector")
def test_plain_connection_leaves_no_descriptor(run):
    def failing():
        raise ZeroDivisionError

    async def attempts(loop, address):
        with pytest.raises(ZeroDivisionError):
            await loop.create_connection(failing, *address)
        for steps in range(4):
            task = loop.create_task(loop.create_connection(asyncio.Protocol, *address))
            await turns(steps)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await task)[0].abort()
            await turns(3)

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            counts = []
            for _ in range(4):
                await attempts(loop, listener.getsockname())
                gc.collect()
                # The loop makes a timer's descriptor for itself when it first sleeps.
                open_now = open_descriptors().values()
                counts.append(sum("socket:" in what for what in open_now))
            assert counts[-1] <= counts[0]

    run(main())
