"""Secrets soak: whatever happens to connections, no two ever see each other's bytes.

    python -m tests.programs.soak --minutes 1 [--seed N] [--loop asyncio]

Clients connect over TCP and Unix sockets, in plain and over TLS (both engines of asyncloop), by
name, by number and by a socket of their own, with streams, Protocol, BufferedProtocol and the
loop's socket methods; through a proxy that they talk TLS to, with TLS inside of that or not;
through tunnels in Python that frame, over TLS or not, with TLS inside or not. Each connection has
a secret of 16 bytes. All that a client sends is its secret over and over, all that a server sends
back is the same with every bit turned, so that each end knows at each byte what it has to be: a
byte of another connection, a lost, doubled or moved one shows at once.

Meanwhile tasks are cancelled after random numbers of iterations or random times, time limits
expire, both sides reset, close and half close, strangers talk nonsense to the TLS ports or leave
in the middle of the handshake, and pipes come and go on the descriptor numbers that get free.

Connections that nobody disturbs have to come to a good end. After each round there must be no
descriptor, protocol or task left, each connection_made() must have been followed by exactly one
connection_lost(), nothing may have been reported to the loop's exception handler or to asyncio's
log as an error, and memory must not have grown. The exit status is 0 only then; the seed is
printed in any case. It determines the random choices, not the order in which the system lets
things happen.
"""

import argparse
import asyncio
import collections
import contextlib
import ctypes
import logging
import os
import pathlib
import random
import socket
import struct
import sys
import tempfile
import time
import warnings
import weakref

from tests.certificates import make_contexts
from tests.fuzz.layers import Frames
from tests.support import FREE_THREADED, collect, open_descriptors, rss_kib

KEY = 16
TURNED = bytes(255 - i for i in range(256))
# Bytes of one exchange, and exchanges of one connection.
SIZES = [1, 16, 100, 100, 1000, 1000, 1000, 4000, 20_000, 150_000]
EXCHANGES = [1, 2, 4, 16, 100]
# How long anything may take before it counts as a hang, in seconds.
HANG = 60
# What may end a disturbed connection.
EXPECTED = (OSError, EOFError)

# What the server does to a connection, told by the first byte of the secret.
HONEST, ABORT, RESET, CLOSE, HALF_CLOSE, PAUSE = range(6)


class Failure(Exception):
    """The soak has found something."""


class Tally:
    """What one run of the soak has counted, over all rounds."""

    def __init__(self, seed):
        self.seed = seed
        self.rng = random.Random(seed)
        self.counts = collections.Counter()
        self.failures = []
        self.alive = weakref.WeakSet()
        self.issued = {}

    def fail(self, text):
        if len(self.failures) < 20:
            self.failures.append(text)

    def issue(self, fault):
        key = bytes([fault]) + self.rng.randbytes(KEY - 1)
        self.issued[key] = 0
        return key


class Stream:
    """One direction of a connection: what was seen of a repeated secret."""

    def __init__(self, tally, key=None, turned=False):
        self.tally = tally
        self.key = key
        self.turned = turned
        self.seen = 0
        self.head = b""
        # This end has half closed and says no more.
        self.answered = False

    def expected(self, offset, size):
        start = offset % KEY
        data = (self.key * (size // KEY + 2))[start : start + size]
        return data.translate(TURNED) if self.turned else data

    def feed(self, data):
        """Check what came in."""
        data = bytes(data)
        if self.key is None:
            self.head += data
            if len(self.head) < KEY:
                return
            data, self.key = self.head, self.head[:KEY]
            uses = self.tally.issued.get(self.key)
            if uses != 0:
                what = "nobody sent" if uses is None else "another connection has"
                self.tally.counts["foreign bytes"] += KEY
                self.tally.fail(f"a server saw a secret that {what}: {self.key.hex()}")
            self.tally.issued[self.key] = 1
        wanted = self.expected(self.seen, len(data))
        if data != wanted:
            wrong = sum(a != b for a, b in zip(data, wanted, strict=True))
            self.tally.counts["foreign bytes"] += wrong
            self.tally.fail(
                f"{wrong} wrong bytes at {self.seen} of {self.key.hex()} "
                f"({'from the server' if self.turned else 'from the client'})"
            )
        self.seen += len(data)


class Watched:
    """A protocol whose life is checked: made once, lost once, nothing before and after."""

    def watch(self, tally):
        self.tally = tally
        self.state = "new"
        self.transport = None
        tally.alive.add(self)

    def expect(self, what, *states):
        if self.state not in states:
            self.tally.fail(f"{type(self).__name__}: {what} when {self.state}")

    def made(self, transport):
        self.expect("connection_made", "new", "upgrading")
        self.state = "made"
        self.transport = transport
        self.tally.counts["connections made"] += 1

    def excuse(self):
        """start_tls() has failed: asyncio tells that to the protocol for some reasons only."""
        if self.state == "made":
            self.tally.counts["connections lost"] += 1
            self.state = "excused"

    def lost(self):
        # start_tls() takes its protocol for one that is connected.
        if self.state in ("upgrading", "excused"):
            self.state = "lost"
            return
        self.expect("connection_lost", "made")
        self.state = "lost"
        self.tally.counts["connections lost"] += 1


class WatchedStreams(Watched, asyncio.StreamReaderProtocol):
    def __init__(self, tally, reader, callback=None):
        self.watch(tally)
        super().__init__(reader, callback, loop=asyncio.get_running_loop())

    def connection_made(self, transport):
        self.made(transport)
        super().connection_made(transport)

    def data_received(self, data):
        self.expect("data_received", "made")
        super().data_received(data)

    def eof_received(self):
        self.expect("eof_received", "made")
        return super().eof_received()

    def connection_lost(self, exc):
        self.lost()
        super().connection_lost(exc)
        # Asked for here, because its __del__() may come too late for that: see test_soak.py,
        # test_collector_may_reach_the_future_before_its_protocol().
        if exc is not None and not self._closed.cancelled():
            self._closed.exception()


class Client(Watched, asyncio.Protocol):
    """The client's end under Protocol: checks, and wakes the one who waits."""

    def __init__(self, tally, key):
        self.watch(tally)
        self.incoming = Stream(tally, key, turned=True)
        self.waiter = None
        self.ended = False
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.made(transport)

    def data_received(self, data):
        self.expect("data_received", "made")
        self.incoming.feed(data)
        self.wake()

    def eof_received(self):
        self.expect("eof_received", "made")
        self.ended = True
        self.wake()

    def connection_lost(self, exc):
        self.lost()
        self.ended = True
        self.wake()
        if not self.closed.done():
            self.closed.set_result(None)

    def wake(self):
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self, total):
        """Wait until `total` bytes have come, None: the end."""
        while total is None or self.incoming.seen < total:
            if self.ended:
                if total is None:
                    return
                raise EOFError(f"{self.incoming.seen} of {total} bytes")
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


class BufferedClient(Client, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.expect("get_buffer", "made", "upgrading")
        self.buffer = bytearray(self.tally.rng.choice([1000, 65536]))
        return self.buffer

    def buffer_updated(self, size):
        self.data_received(self.buffer[:size])


class Echo(Watched, asyncio.Protocol):
    """The server's end under Protocol."""

    def __init__(self, tally):
        self.watch(tally)
        self.incoming = Stream(tally)

    def connection_made(self, transport):
        self.made(transport)

    def data_received(self, data):
        self.expect("data_received", "made")
        self.incoming.feed(data)
        rng = self.tally.rng
        if self.incoming.answered:
            return
        if rng.random() < 0.2:
            self.transport.writelines([data[:7].translate(TURNED), data[7:].translate(TURNED)])
        else:
            self.transport.write(data.translate(TURNED))
        disturb(self.tally, self.incoming, self.transport)

    def eof_received(self):
        self.expect("eof_received", "made")

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

    def connection_lost(self, exc):
        self.lost()


class BufferedEcho(Echo, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.expect("get_buffer", "made", "upgrading")
        self.buffer = bytearray(self.tally.rng.choice([500, 65536]))
        return self.buffer

    def buffer_updated(self, size):
        self.data_received(self.buffer[:size])


class Line(asyncio.Protocol):
    """The first line that comes, as a future."""

    def __init__(self):
        self.line = asyncio.get_running_loop().create_future()
        self.data = b""

    def data_received(self, data):
        self.data += data
        if self.data.endswith(b"\n") and not self.line.done():
            self.line.set_result(self.data)

    def connection_lost(self, exc):
        if not self.line.done():
            self.line.set_exception(exc or EOFError("no line"))
            self.line.exception()


class Tunnel(Frames):
    def can_write_eof(self):
        # Over TLS streams take it for TLS itself, and close where they could still answer.
        return False

    def hold(self):
        """Keep what comes, without a word to the transport below."""
        self.paused = True


class Gate(asyncio.Protocol):
    """The protocol of a tunnel that is not open yet: calls `opened` with it."""

    def __init__(self, opened=lambda layer: None):
        self.opened = opened
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, layer):
        self.opened(layer)

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(exc)


def reset(transport):
    """End a connection by a reset, where its kind of socket has that."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def disturb(tally, incoming, transport):
    """Do what the secret says that the server shall do, at a random moment."""
    fault = HONEST if incoming.key is None else incoming.key[0]
    if fault == HONEST or incoming.answered or tally.rng.random() > 0.3:
        return
    if fault == ABORT:
        transport.abort()
    elif fault == RESET:
        reset(transport)
    elif fault == CLOSE:
        transport.close()
    elif fault == HALF_CLOSE and transport.can_write_eof():
        transport.write_eof()
        incoming.answered = True
    elif fault == PAUSE and not transport.is_closing():
        transport.pause_reading()
        asyncio.get_running_loop().call_later(tally.rng.random() * 0.01, resume, transport)


def resume(transport):
    """Let it read on; over TLS one that was closed twice cannot, as with asyncio."""
    with contextlib.suppress(AttributeError):
        transport.resume_reading()


async def carry(reader, writer):
    """One direction of the proxy."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    except EXPECTED:
        writer.transport.abort()


class Soak:
    """One round: a loop's worth of servers, clients and trouble."""

    def __init__(self, tally, folder, contexts, ours):
        self.tally = tally
        self.rng = tally.rng
        self.folder = folder
        self.server_context, self.client_context = contexts
        self.ours = ours
        self.servers = []
        self.handlers = set()
        self.ports = {}
        self.stopping = False

    # -- servers --

    async def serve_streams(self, reader, writer):
        incoming = Stream(self.tally)
        try:
            while data := await reader.read(65536):
                incoming.feed(data)
                if incoming.answered:
                    continue
                writer.write(data.translate(TURNED))
                disturb(self.tally, incoming, writer.transport)
                await writer.drain()
        except EXPECTED:
            pass
        finally:
            writer.close()
            with contextlib.suppress(*EXPECTED):
                await writer.wait_closed()

    async def serve_upgrade(self, reader, writer):
        """A plain connection that goes on with TLS after its first line."""
        protocol = writer.transport.get_protocol()
        try:
            if await reader.readline() != b"STARTTLS\n":
                return
            if not self.ours:
                writer.write(b"GO\n")
            try:
                await writer.start_tls(self.server_context)
            except BaseException:
                protocol.excuse()
                raise
        except EXPECTED:
            return
        finally:
            if asyncio.current_task().cancelling() or sys.exc_info()[0]:
                writer.transport.abort()
        await self.serve_streams(reader, writer)

    async def serve_proxy(self, reader, writer):
        """Reads whereto, and carries what comes then, both ways."""
        try:
            kind, tls = (await reader.readline()).decode().split()
            other_reader, other_writer = await asyncio.open_connection(
                "127.0.0.1", self.ports[kind, tls == "tls", "tcp"]
            )
        except (*EXPECTED, ValueError):
            return
        try:
            writer.write(b"OK\n")
            await asyncio.gather(carry(reader, other_writer), carry(other_reader, writer))
        finally:
            other_writer.transport.abort()

    def make_tunnel(self, gate):
        rng = self.rng
        return Tunnel(
            asyncio.get_running_loop(),
            gate,
            lambda: None,
            rng.random() < 0.5,
            how=rng.choice(["two", "join", "lines", "split", "cork"]),
            mark=77,
            secret=b"the tunnel's own secret",
            report=self.tally.fail,
        )

    async def enter(self, transport, protocol, inside, server):
        """Put the protocol on a transport, with TLS in between or not."""
        if inside:
            self.choose_engine()
            if server:
                context, extra = self.server_context, {"server_side": True}
            else:
                context, extra = self.client_context, {"server_hostname": "localhost"}
            loop = asyncio.get_running_loop()
            protocol.state = "upgrading"
            transport = await loop.start_tls(transport, protocol, context, **extra)
            if protocol.state == "lost" or transport is None:  # closed: None
                raise EOFError("lost in the handshake")
        else:
            transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if isinstance(transport, Tunnel):
            transport.resume_reading()
        return transport

    def tunnel_factory(self, inside, factories):
        """The server's end of tunnels: another protocol for each, with TLS inside or not."""

        async def serve(layer):
            try:
                await self.enter(layer, self.rng.choice(factories)(), inside, True)
                layer.control()  # now the client may talk
            except EXPECTED:
                layer.abort()

        def opened(layer):
            layer.hold()  # what comes before the protocol is there
            task = asyncio.get_running_loop().create_task(serve(layer))
            self.handlers.add(task)
            task.add_done_callback(self.handlers.discard)

        return lambda: self.make_tunnel(Gate(opened)).feet

    def streams_factory(self, serve):
        async def handle(reader, writer):
            task = asyncio.current_task()
            self.handlers.add(task)
            try:
                await serve(reader, writer)
            finally:
                self.handlers.discard(task)
                writer.transport.abort()

        def factory():
            return WatchedStreams(self.tally, asyncio.StreamReader(), handle)

        return factory

    async def start(self):
        loop = asyncio.get_running_loop()
        factories = {
            "protocol": lambda: Echo(self.tally),
            "buffered": lambda: BufferedEcho(self.tally),
            "streams": self.streams_factory(self.serve_streams),
            "upgrade": self.streams_factory(self.serve_upgrade),
        }
        echoes = [factories[kind] for kind in ("protocol", "buffered", "streams")]
        factories["proxy"] = self.streams_factory(self.serve_proxy)
        factories["tunnel"] = self.tunnel_factory(False, echoes)
        factories["secured tunnel"] = self.tunnel_factory(True, echoes)
        for kind, factory in factories.items():
            for tls in [False] if kind == "upgrade" else [False, True]:
                extra = {"ssl": self.server_context} if tls else {}
                server = await loop.create_server(factory, "127.0.0.1", 0, backlog=500, **extra)
                self.servers.append(server)
                self.ports[kind, tls, "tcp"] = server.sockets[0].getsockname()[1]
                path = str(self.folder / f"{kind}-{tls}")
                server = await loop.create_unix_server(factory, path, backlog=500, **extra)
                self.servers.append(server)
                self.ports[kind, tls, "unix"] = path

    # -- clients --

    def choose_engine(self):
        if self.ours:
            from asyncloop import _core

            _core._tls_set_engine(self.rng.choice([None, "portable"]))

    async def own_socket(self, family, address):
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
        try:
            sock.setblocking(False)
            target = address if family == "unix" else ("127.0.0.1", address)
            await loop.sock_connect(sock, target)
        except BaseException:
            sock.close()
            raise
        return sock

    async def connect(self, factory, family, address, tls):
        """create_connection or create_unix_connection, one of the ways there are."""
        loop = asyncio.get_running_loop()
        extra = {}
        if tls:
            extra = {"ssl": self.client_context, "server_hostname": "localhost"}
        if self.rng.random() < 0.4:
            sock = await self.own_socket(family, address)
            try:
                if family == "unix":
                    return await loop.create_unix_connection(factory, sock=sock, **extra)
                return await loop.create_connection(factory, sock=sock, **extra)
            except BaseException:
                # As careful programs do; somebody else may have its number by now.
                sock.close()
                raise
        if family == "unix":
            return await loop.create_unix_connection(factory, address, **extra)
        host = self.rng.choice(["127.0.0.1", "127.0.0.1", "localhost"])
        return await loop.create_connection(factory, host, address, **extra)

    async def connect_by_proxy(self, factory, family, kind, inside):
        """Over TLS to a proxy, and from there on; TLS in TLS, if `inside`."""
        transport, line = await self.connect(Line, family, self.ports["proxy", True, family], True)
        try:
            transport.write(f"{kind} {'tls' if inside else 'plain'}\n".encode())
            if await line.line != b"OK\n":
                self.tally.fail(f"the proxy said {line.data!r}")
            protocol = factory()
            transport = await self.enter(transport, protocol, inside, False)
        except BaseException:
            transport.abort()
            raise
        self.tally.counts["by proxy"] += 1
        return transport, protocol

    async def connect_by_tunnel(self, factory, family, tls, inside):
        """Through a tunnel in Python, over TLS or not, with TLS inside or not."""
        loop = asyncio.get_running_loop()
        gate = Gate()
        layer = self.make_tunnel(gate)
        heard = loop.create_future()
        layer.heard = lambda: heard.done() or heard.set_result(None)
        port = self.ports["secured tunnel" if inside else "tunnel", tls, family]
        await self.connect(lambda: layer.feet, family, port, tls)
        try:
            if not inside:
                # The server's end is open when it says so, or else is gone.
                await asyncio.wait([heard, gate.lost], return_when="FIRST_COMPLETED")
                if gate.lost.done():
                    raise EOFError("the tunnel is closed")
            protocol = factory()
            transport = await self.enter(layer, protocol, inside, False)
            if inside:
                await self.wait_unless_lost(protocol, heard)
        except BaseException:
            layer.abort()
            raise
        self.tally.counts["by tunnel"] += 1
        return transport, protocol

    async def wait_unless_lost(self, protocol, heard):
        while not heard.done():
            if protocol.state == "lost":
                raise EOFError("the tunnel is closed")
            await asyncio.wait([heard], timeout=0.01)

    async def connect_somehow(self, factory, family, tls, kind):
        """By the straight way mostly, else through something. `kind` is the server's."""
        way = self.rng.random()
        task = asyncio.current_task()
        task.set_name(f"{family} {kind} {tls}")
        if way < 0.7:
            return await self.connect(factory, family, self.ports[kind, tls, family], tls)
        if way < 0.85:
            task.set_name(f"by proxy, {task.get_name()}")
            return await self.connect_by_proxy(factory, family, kind, tls)
        outside = self.rng.random() < 0.6
        task.set_name(f"by tunnel over {'TLS' if outside else 'plain'}, {task.get_name()}")
        return await self.connect_by_tunnel(factory, family, outside, tls)

    async def protocol_client(self, key, family, tls, kind, buffered):
        tally, rng = self.tally, self.rng
        outgoing = Stream(tally, key)
        made = BufferedClient if buffered else Client
        transport, protocol = await self.connect_somehow(
            lambda: made(tally, key), family, tls, kind
        )
        sent = 0
        half_closed = False
        try:
            for _ in range(rng.choice(EXCHANGES)):
                size = rng.choice(SIZES) if sent else rng.choice(SIZES) + KEY
                transport.write(outgoing.expected(sent, size))
                sent += size
                if rng.random() < 0.1 and not transport.is_closing():
                    transport.pause_reading()
                    await asyncio.sleep(rng.random() * 0.002)
                    resume(transport)
                await protocol.wait(sent)
                tally.counts["exchanges"] += 1
            if transport.can_write_eof() and rng.random() < 0.3:
                size = rng.choice(SIZES)
                transport.write(outgoing.expected(sent, size))
                sent += size
                transport.write_eof()
                half_closed = True
                # the server's Protocol closes at the end, what it had to say comes first
                await protocol.wait(None)
                if protocol.incoming.seen != sent:
                    raise EOFError(f"{protocol.incoming.seen} of {sent} bytes at the end")
                tally.counts["half closes"] += 1
        finally:
            how = rng.random()
            if how < 0.6 or half_closed:
                transport.close()
            elif how < 0.8:
                transport.abort()
            else:
                reset(transport)
        await protocol.closed

    async def stream_client(self, key, family, tls, kind):
        tally, rng = self.tally, self.rng
        outgoing, incoming = Stream(tally, key), Stream(tally, key, turned=True)
        reader = asyncio.StreamReader()
        connect = self.connect_somehow
        if kind == "upgrade":
            port = self.ports[kind, tls, family]

            def connect(factory, family, tls, kind):
                return self.connect(factory, family, port, tls)

        transport, protocol = await connect(
            lambda: WatchedStreams(tally, reader), family, tls, kind
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        sent = 0
        try:
            if kind == "upgrade":
                writer.write(b"STARTTLS\n")
                if not self.ours:
                    assert await reader.readexactly(3) == b"GO\n"
                self.choose_engine()
                try:
                    await writer.start_tls(self.client_context, server_hostname="localhost")
                except BaseException:
                    protocol.excuse()
                    raise
            for _ in range(rng.choice(EXCHANGES)):
                size = rng.choice(SIZES) if sent else rng.choice(SIZES) + KEY
                writer.write(outgoing.expected(sent, size))
                sent += size
                await writer.drain()
                while incoming.seen < sent:
                    data = await reader.read(65536)
                    if not data:
                        raise EOFError(f"{incoming.seen} of {sent} bytes")
                    incoming.feed(data)
                tally.counts["exchanges"] += 1
            if writer.can_write_eof() and rng.random() < 0.3:
                writer.write_eof()
                if await reader.read():
                    tally.fail("data after the last echo")
                tally.counts["half closes"] += 1
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            writer.close()
        await writer.wait_closed()

    async def sock_client(self, key, family, kind):
        """The loop's socket methods, without a transport."""
        tally, rng = self.tally, self.rng
        loop = asyncio.get_running_loop()
        outgoing, incoming = Stream(tally, key), Stream(tally, key, turned=True)
        sent = 0
        buffer = bytearray(65536)
        with await self.own_socket(family, self.ports[kind, False, family]) as sock:
            for _ in range(rng.choice(EXCHANGES)):
                size = min(rng.choice(SIZES), 20_000) + KEY
                await loop.sock_sendall(sock, outgoing.expected(sent, size))
                sent += size
                while incoming.seen < sent:
                    if rng.random() < 0.5:
                        data = await loop.sock_recv(sock, 65536)
                    else:
                        data = buffer[: await loop.sock_recv_into(sock, buffer)]
                    if not data:
                        raise EOFError(f"{incoming.seen} of {sent} bytes")
                    incoming.feed(data)
                tally.counts["exchanges"] += 1

    async def stranger(self):
        """Talks nonsense to a TLS port, or leaves in the middle of the handshake."""
        loop = asyncio.get_running_loop()
        family = self.rng.choice(["tcp", "unix"])
        kind = self.rng.choice(["protocol", "buffered", "streams"])
        with await self.own_socket(family, self.ports[kind, True, family]) as sock:
            size = self.rng.randrange(200)
            head = self.rng.choice([b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n"])
            await loop.sock_sendall(sock, head + self.rng.randbytes(size))
            await asyncio.sleep(self.rng.random() * 0.005)
            if self.rng.random() < 0.5 and family == "tcp":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tally.counts["strangers"] += 1

    def client(self, fault):
        rng = self.rng
        key = self.tally.issue(fault)
        family = rng.choice(["tcp", "unix"])
        tls = rng.random() < 0.4
        kind = rng.choice(["protocol", "buffered", "streams"])
        self.choose_engine()
        which = rng.randrange(8)
        if which < 2:
            return key, self.protocol_client(key, family, tls, kind, False)
        if which < 4:
            return key, self.protocol_client(key, family, tls, kind, True)
        if which < 6:
            return key, self.stream_client(key, family, tls, kind)
        if which < 7:
            return key, self.stream_client(key, family, False, "upgrade")
        return key, self.sock_client(key, family, kind)

    async def disturbed(self):
        """A connection that something happens to. It may end in any expected way."""
        rng = self.rng
        loop = asyncio.get_running_loop()
        fault = rng.choice([HONEST, HONEST, ABORT, RESET, CLOSE, HALF_CLOSE, PAUSE])
        key, coroutine = self.client(fault)
        task = loop.create_task(coroutine)
        how = rng.randrange(4)
        try:
            if how == 0:
                for _ in range(rng.randrange(30)):
                    await asyncio.sleep(0)
                self.tally.counts["cancellations"] += task.cancel()
            elif how == 1:
                await asyncio.sleep(rng.random() * 0.02)
                self.tally.counts["cancellations"] += task.cancel()
            elif how == 2:
                try:
                    async with asyncio.timeout(rng.random() * 0.02):
                        await task
                except TimeoutError:
                    self.tally.counts["time limits"] += 1
            # A server that only half closes or pauses leaves the end to the client.
            async with asyncio.timeout(HANG):
                await task
        except TimeoutError:
            self.tally.fail(f"disturbed connection {key.hex()} hangs")
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
        except EXPECTED:
            pass

    async def honest(self):
        """A connection that nobody disturbs: all of it has to work."""
        key, coroutine = self.client(HONEST)
        try:
            async with asyncio.timeout(HANG):
                await coroutine
            self.tally.counts["honest connections"] += 1
        except TimeoutError:
            way = asyncio.current_task().get_name()
            self.tally.fail(f"honest connection {key.hex()} hangs ({way})")
        except EXPECTED as exc:
            way = asyncio.current_task().get_name()
            self.tally.fail(f"honest connection {key.hex()}: {exc!r} ({way})")

    async def pipes(self):
        """Takes descriptor numbers that get free, and looks whether they stay its own."""
        held = []
        try:
            while not self.stopping:
                read, write = os.pipe()
                held.append((read, write, os.fstat(read).st_ino))
                secret = self.rng.randbytes(20)
                os.write(write, secret)
                await asyncio.sleep(self.rng.choice([0, 0, 0.001]))
                if os.read(read, 100) != secret:
                    self.tally.fail("a pipe lost what was in it")
                if len(held) > self.rng.randrange(1, 20):
                    read, write, inode = held.pop(self.rng.randrange(len(held)))
                    if {os.fstat(read).st_ino, os.fstat(write).st_ino} != {inode}:
                        self.tally.fail("a descriptor number changed its owner")
                    os.close(read)
                    os.close(write)
                self.tally.counts["pipes"] += 1
        except OSError as exc:
            self.tally.fail(f"somebody closed a descriptor that was not theirs: {exc!r}")
        finally:
            for read, write, _ in held:
                os.close(read)
                os.close(write)

    async def worker(self):
        while not self.stopping and not self.tally.failures:
            chance = self.rng.random()
            if chance < 0.45:
                await self.honest()
            elif chance < 0.93:
                await self.disturbed()
            else:
                with contextlib.suppress(*EXPECTED):
                    await self.stranger()

    async def run(self, seconds, workers):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.report)
        await self.start()
        loop.call_later(seconds, setattr, self, "stopping", True)
        tasks = [loop.create_task(self.worker()) for _ in range(workers)]
        tasks.append(loop.create_task(self.pipes()))
        done, pending = await asyncio.wait(tasks, timeout=seconds + 2 * HANG)
        self.stopping = True
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                self.tally.fail(f"unexpected: {describe(task.exception())}")
        for task in pending:
            self.tally.fail(f"hangs: {task!r}")
            task.cancel()
        for server in self.servers:
            server.close()
        counts = self.tally.counts
        deadline = time.monotonic() + HANG
        # All clients are gone, so all servers' ends have to come to theirs.
        while self.handlers or counts["connections made"] != counts["connections lost"]:
            if time.monotonic() > deadline:
                self.tally.fail(
                    f"{counts['connections made']} connections made, "
                    f"{counts['connections lost']} lost, {len(self.handlers)} handlers left: "
                    f"{[(p, p.transport) for p in self.tally.alive if p.state == 'made'][:3]}"
                )
                break
            await asyncio.sleep(0.01)
        for server in self.servers:
            await asyncio.wait_for(server.wait_closed(), HANG)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left and not self.tally.failures:
            self.tally.fail(f"tasks left: {left}")

    def report(self, loop, context):
        exc = context.get("exception")
        if isinstance(exc, AttributeError) and exc.obj is None and exc.name.startswith("_"):
            # asyncio's answer to the use of a TLS transport that was closed twice, as here both
            # ends of a stream and the disturbances close it
            self.tally.counts["used after two closes"] += 1
            return
        self.tally.fail(f"reported: {context['message']} {describe(exc)} {context}")


def describe(exc):
    if exc is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(exc))[-1500:]


class _Errors(logging.Handler):
    def __init__(self, tally):
        super().__init__(logging.ERROR)
        self.tally = tally

    def emit(self, record):
        self.tally.fail(f"logged: {record.getMessage()}")


def trimmed_rss():
    """Resident memory in KiB without what the allocator only keeps."""
    collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return rss_kib()


def one_round(tally, new_event_loop, seconds, workers, contexts, ours):
    before = open_descriptors()
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        loop = new_event_loop()
        try:
            soak = Soak(tally, pathlib.Path(folder), contexts, ours)
            loop.run_until_complete(soak.run(seconds, workers))
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
    del loop, soak
    tally.issued.clear()
    collect()
    if not tally.failures:
        if tally.alive:
            tally.fail(f"{len(tally.alive)} protocols outlive their loop: {list(tally.alive)[:3]}")
        after = open_descriptors()
        if after != before:
            tally.fail(f"descriptors before: {before}\ndescriptors after: {after}")


def soak(new_event_loop, *, seconds, seed, workers=40, ours=True, show=None):
    """Run the soak for about `seconds`; the Tally. `show` is given a line after each round."""
    tally = Tally(seed)
    logger = logging.getLogger("asyncio")
    errors = _Errors(tally)
    logger.addHandler(errors)
    hook, sys.unraisablehook = (
        sys.unraisablehook,
        lambda info: tally.fail(f"unraisable: {describe(info.exc_value)} {info.object!r}"),
    )
    engine = None
    if ours:
        from asyncloop import _core as engine
    memory = []
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="soak") as folder:
            warnings.simplefilter("error", ResourceWarning)
            contexts = make_contexts(pathlib.Path(folder))
            trimmed_rss()
            rounds = max(2, min(60, int(seconds / 10)))
            for number in range(rounds):
                one_round(tally, new_event_loop, seconds / rounds, workers, contexts, ours)
                memory.append(trimmed_rss())
                if show:
                    counts = tally.counts
                    show(
                        f"round {number + 1} of {rounds}: {counts['exchanges']} exchanges, "
                        f"{counts['connections made']} connections, "
                        f"{counts['foreign bytes']} foreign bytes, {memory[-1]} KiB"
                    )
                if tally.failures:
                    break
    finally:
        sys.unraisablehook = hook
        logger.removeHandler(errors)
        if engine is not None:
            engine._tls_set_engine(None)
    tally.memory = memory
    # The first rounds fill caches and pools. A leak of 100 bytes a connection shows after that.
    # Without a GIL the collector waits, from 3.14 on, until the process has grown by a tenth, and
    # malloc_trim() does not reach the allocator: in a great process that is a great deal.
    allowed = memory[0] * (1.25 if FREE_THREADED else 1.05) + 4096
    if not tally.failures and memory[-1] > allowed:
        tally.fail(f"memory grew from round to round, in KiB: {memory}")
    return tally


def main():
    parser = argparse.ArgumentParser(
        "python -m tests.programs.soak", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=40, help="clients at a time (default: 40)")
    parser.add_argument("--loop", choices=["asyncloop", "asyncio"], default="asyncloop")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if options.loop == "asyncloop":
        from asyncloop import new_event_loop
    else:
        new_event_loop = asyncio.SelectorEventLoop
    print(f"seed {seed}, {options.loop}, Python {sys.version.split()[0]}", flush=True)
    tally = soak(
        new_event_loop,
        seconds=options.minutes * 60,
        seed=seed,
        workers=options.workers,
        ours=options.loop == "asyncloop",
        show=lambda line: print(line, flush=True),
    )
    tally.counts["foreign bytes"] += 0
    for name, count in sorted(tally.counts.items()):
        print(f"{name:>20}: {count}")
    if tally.failures:
        print(f"\nFAILED, seed {seed}:", *tally.failures, sep="\n- ")
        return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
