"""Slow and hostile peers: everybody else goes on being served. Figures: hostile.py."""

import asyncio
import contextlib
import gc
import selectors
import socket
import ssl
import struct
import threading
import weakref

import pytest

from tests import protocols
from tests.certificates import make_contexts
from tests.support import turns, until

from .hostile import client_hello


class Echo(protocols.Echo):
    """Counts itself among the living."""

    alive = weakref.WeakSet()

    def __init__(self):
        self.alive.add(self)


async def serve(loop, **kwargs):
    """(server, port) of an echo server on loopback."""
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1000, **kwargs)
    return server, server.sockets[0].getsockname()[1]


async def stop(server):
    server.close()
    await server.wait_closed()


def nobody_left():
    gc.collect()
    return not Echo.alive


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Attacker:
    """A thread with many blocking sockets; what it does is its own business, until it is left."""

    def __init__(self, work, *args):
        self.over = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self._run, args=(work, *args))

    def _run(self, work, *args):
        try:
            work(self, *args)
        except BaseException as exc:
            self.failure = exc

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()
        if self.failure is not None and exc[0] is None:
            raise self.failure

    async def done(self):
        await until(lambda: not self.thread.is_alive())


async def exchange(port, count=20, **kwargs):
    """Honest exchanges on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **kwargs)
    for number in range(count):
        message = b"%d." % number * 50
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
    writer.close()
    await writer.wait_closed()


async def exchange_in_time(port, **kwargs):
    """exchange() with a server that has little patience: a busy machine may need more than once."""
    for _ in range(20):
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            return await exchange(port, **kwargs)
    await exchange(port, **kwargs)


# -- TLS handshakes -------------------------------------------------------------------------------


def test_handshake_byte_by_byte(loop, run, contexts, engine):
    """However small its segments are, a handshake comes to its end."""
    server_context, client_context = contexts

    def drip(attacker, port):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(20)

            def send():
                for byte in outgoing.read():
                    sock.send(bytes([byte]))

            def call(method, *args):
                while True:
                    try:
                        return method(*args)
                    except ssl.SSLWantReadError:
                        send()
                        incoming.write(sock.recv(65536))

            call(tls.do_handshake)
            tls.write(b"slowly")
            send()
            assert call(tls.read, 100) == b"slowly"

    async def main():
        server, port = await serve(loop, ssl=server_context)
        with Attacker(drip, port) as attacker:
            await exchange(port, ssl=client_context, server_hostname="localhost")
            await attacker.done()
        await stop(server)

    run(main())


def test_handshake_timeout_counts_from_the_beginning(loop, run, contexts, engine):
    """Bytes now and then do not prolong it."""
    server_context, client_context = contexts
    hello = client_hello()
    dropped = []

    def drip(attacker, port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                for byte in hello[:-1]:
                    sock.send(bytes([byte]))
                    if attacker.over.wait(0.02):
                        return
            dropped.append(True)

    async def main():
        server, port = await serve(loop, ssl=server_context, ssl_handshake_timeout=0.3)
        before = loop.time()
        with Attacker(drip, port) as attacker:
            await exchange_in_time(port, ssl=client_context, server_hostname="localhost")
            await attacker.done()
        assert loop.time() - before >= 0.3
        await stop(server)

    run(main())
    # 517 bytes and more would take ten seconds
    assert dropped


@pytest.mark.parametrize("size", [0, 1, 5, 200])
def test_half_open_handshakes_end_with_their_time_limit(loop, run, contexts, engine, size):
    """Many that say so much of a hello and then nothing. Nothing of them is left."""
    server_context, client_context = contexts
    hello = client_hello()

    def hold(attacker, port):
        with contextlib.ExitStack() as stack:
            socks = []
            for _ in range(100):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                sock.send(hello[:size])
                socks.append(sock)
            for sock in socks:  # each is closed by the server
                sock.settimeout(30)
                with contextlib.suppress(ConnectionError):
                    while sock.recv(1000):
                        pass

    async def main():
        server, port = await serve(loop, ssl=server_context, ssl_handshake_timeout=0.5)
        with Attacker(hold, port) as attacker:
            await exchange_in_time(port, ssl=client_context, server_hostname="localhost")
            await attacker.done()
        await stop(server)

    run(main())
    assert nobody_left()


@pytest.mark.our_loop("asyncio leaves the tasks of some handshakes pending for ever")
def test_flood_of_hellos(loop, run, contexts, engine):
    """Hundreds of handshakes at once, which end in every way; honest ones succeed in between."""
    server_context, client_context = contexts
    hello = client_hello()

    def flood(attacker, port):
        for _ in range(2):
            socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
            for sock in socks:
                sock.send(hello)
            for number, sock in enumerate(socks):
                kind = number % 5
                if kind == 0:
                    reset(sock)
                elif kind == 1:
                    sock.shutdown(socket.SHUT_WR)
                elif kind == 2:
                    sock.close()
                elif kind == 3:
                    sock.send(b"nonsense" * 100)
            for sock in socks:
                if sock.fileno() >= 0:
                    sock.settimeout(30)
                    with contextlib.suppress(ConnectionError):
                        assert sock.recv(10)
                    sock.close()

    def honest(attacker, port):
        """The whole of it in one go: last bytes of the handshake, request and end."""
        for number in range(20):
            message = b"%d." % number * 1000
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.settimeout(30)
                with client_context.wrap_socket(plain, server_hostname="localhost") as sock:
                    sock.sendall(message)
                    received = b""
                    while len(received) < len(message):
                        received += sock.recv(65536)
                    assert received == message

    async def main():
        server, port = await serve(loop, ssl=server_context)
        with Attacker(flood, port) as one, Attacker(honest, port) as two:
            await exchange(port, 5, ssl=client_context, server_hostname="localhost")
            await one.done()
            await two.done()
        await stop(server)
        # what the attackers closed last, the server has yet to hear of
        await until(nobody_left)

    run(main())
    assert nobody_left()


@pytest.mark.our_loop("asyncio makes all of them in one iteration")
def test_handshakes_of_one_iteration_are_not_all_of_them(loop, run, tmp_path, engine):
    """Between the handshakes of a flood everybody else has turns."""
    # a large key: each handshake is a millisecond's work, and more
    server_context, _ = make_contexts(tmp_path, key="rsa:3072")
    hello = client_hello()
    count = 120

    async def main():
        server, port = await serve(loop, ssl=server_context)
        selector = selectors.DefaultSelector()
        socks = []
        for number in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            selector.register(sock, selectors.EVENT_READ)
            socks.append(sock)
            if number % 50 == 0:
                await turns(10)
        await asyncio.sleep(0.1)
        for sock in socks:
            sock.send(hello)
        answered = most = 0
        while answered < count:
            await asyncio.sleep(0)
            ready = selector.select(0)
            for key, _ in ready:
                assert key.fileobj.recv(65536)[:1] == b"\x16"
                selector.unregister(key.fileobj)
            answered += len(ready)
            most = max(most, len(ready))
        # without a limit it would be as many as one poll reports, which is 64
        assert most < 40
        for sock in socks:
            sock.close()
        selector.close()
        await stop(server)

    run(main())


@pytest.mark.our_loop("asyncio warns of some of them")
def test_loop_closed_while_handshakes_wait(impl, contexts, engine):
    server_context, _ = contexts
    hello = client_hello()
    loop = impl.new_event_loop()
    socks = []

    async def main():
        server, port = await serve(loop, ssl=server_context)
        for _ in range(100):
            socks.append(socket.create_connection(("127.0.0.1", port)))
        await asyncio.sleep(0.05)
        for sock in socks:
            sock.send(hello)
        await turns(2)
        server.close()

    loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns(3))
    loop.close()
    for sock in socks:
        sock.close()
    assert nobody_left()


# -- datagrams ------------------------------------------------------------------------------------


def test_flood_of_empty_datagrams(loop, run):
    """They count as datagrams, in their order, and nobody starves."""
    received = []

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            received.append(data)

    def flood(attacker, address):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            while not attacker.over.is_set():
                for _ in range(100):
                    sock.sendto(b"", address)

    async def main():
        server, port = await serve(loop)
        transport, _ = await loop.create_datagram_endpoint(Receiver, ("127.0.0.1", 0))
        address = transport.get_extra_info("sockname")
        with (
            Attacker(flood, address),
            socket.socket(type=socket.SOCK_DGRAM) as sock,
        ):
            await exchange(port)
            await asyncio.sleep(0.01)
            # the receive queue of the kernel may be full
            while b"last" not in received:
                sock.sendto(b"last", address)
                await asyncio.sleep(0.001)
        assert received.count(b"") > 100
        assert set(received) == {b"", b"last"}
        transport.close()
        await stop(server)

    run(main())


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_reader_that_never_reads(loop, run, contexts, secure):
    """Its writer waits in drain() with no more than the high-water mark and one write."""
    server_context, client_context = contexts
    chunk = bytes(65536)
    most = 0
    paused = []

    async def pour(reader, writer):
        nonlocal most
        high = writer.transport.get_write_buffer_limits()[1]
        try:
            for _ in range(1000):
                writer.write(chunk)
                size = writer.transport.get_write_buffer_size()
                most = max(most, size - high)
                if writer.transport.get_protocol()._paused:
                    paused.append(writer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async def main():
        extra = {"ssl": server_context} if secure else {}
        server = await asyncio.start_server(pour, "127.0.0.1", 0, **extra)
        port = server.sockets[0].getsockname()[1]
        other, other_port = await serve(loop)
        kwargs = {"ssl": client_context, "server_hostname": "localhost"} if secure else {}
        idle = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000, **kwargs)
            writer.transport.pause_reading()
            idle.append(writer)
        await until(lambda: len(set(paused)) == 5)
        await exchange(other_port)
        assert most <= len(chunk) + 1000  # a record has a head
        for writer in idle:
            writer.transport.abort()
        await until(lambda: all(writer.transport.is_closing() for writer in paused))
        await stop(server)
        await stop(other)

    run(main())


def test_segments_of_one_byte(loop, run, size):
    """So many of them; others are served meanwhile."""
    total = size(100_000, 1_000_000)
    received = 0

    class Receiver(asyncio.Protocol):
        def data_received(self, data):
            nonlocal received
            received += len(data)

    def drip(attacker, port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(total):
                sock.send(b"x")

    async def main():
        other, other_port = await serve(loop)
        server = await loop.create_server(Receiver, "127.0.0.1", 0)
        with Attacker(drip, server.sockets[0].getsockname()[1]) as attacker:
            await exchange(other_port, 100)
            await attacker.done()
        await until(lambda: received == total)
        await stop(server)
        await stop(other)

    run(main())


def test_endless_header(loop, run):
    """readuntil() gives up at its limit, and what is kept until then is bounded."""
    limit = 10_000
    most = 0
    refused = []

    async def headers(reader, writer):
        nonlocal most
        try:
            # Somebody slow: what comes meanwhile waits in the kernel.
            for _ in range(5):
                await asyncio.sleep(0.005)
                most = max(most, len(reader._buffer))
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as exc:
            refused.append(exc)
        most = max(most, len(reader._buffer))
        writer.transport.abort()

    def endless(attacker, port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            with contextlib.suppress(ConnectionError):
                while not attacker.over.is_set():
                    sock.send(b"X-Header: " + b"x" * 10_000)

    async def main():
        other, other_port = await serve(loop)
        server = await asyncio.start_server(headers, "127.0.0.1", 0, limit=limit)
        port = server.sockets[0].getsockname()[1]
        with contextlib.ExitStack() as stack:
            attackers = [stack.enter_context(Attacker(endless, port)) for _ in range(5)]
            await exchange(other_port)
            for attacker in attackers:
                await attacker.done()
        await stop(server)
        await stop(other)

    run(main())
    assert len(refused) == 5
    # reading stops above twice the limit; one read of the kernel comes on top
    assert most <= 2 * limit + 256 * 1024
