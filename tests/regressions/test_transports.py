"""What goes through transports: regressions 5 to 11 and 16."""

import asyncio
import contextlib
import mmap
import os
import random
import socket
import struct
import subprocess
import threading

import pytest

from tests import protocols
from tests.support import ROOT, check_script, turns, until

TIMEOUT = 30


class Recorder(protocols.Recorder):
    """Of any kind of transport."""

    def datagram_received(self, data, address):
        pass

    def error_received(self, exc):
        pass

    def pipe_data_received(self, fd, data):
        self.data += data

    def pipe_connection_lost(self, fd, exc):
        pass

    def process_exited(self):
        pass


@contextlib.asynccontextmanager
async def pair(contexts=None, family="tcp", factory=Recorder, server_factory=Recorder, path=None):
    """(protocol of the client, protocol of the server) of one connection."""
    loop = asyncio.get_running_loop()
    made = loop.create_future()

    def accept():
        protocol = server_factory()
        made.set_result(protocol)
        return protocol

    server_ssl, client_ssl = contexts or (None, None)
    host = {"server_hostname": "localhost"} if contexts else {}
    if family == "unix":
        server = await loop.create_unix_server(accept, path, ssl=server_ssl)
        _, client = await loop.create_unix_connection(factory, path, ssl=client_ssl, **host)
    else:
        server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_ssl)
        address = server.sockets[0].getsockname()
        _, client = await loop.create_connection(factory, *address, ssl=client_ssl, **host)
    other = await made
    await until(lambda: other.transport)
    try:
        yield client, other
    finally:
        server.close()
        for protocol in (client, other):
            protocol.transport.abort()
            await asyncio.wait_for(protocol.closed, TIMEOUT)
        await turns(3)


def reset(transport):
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# -- 5 --------------------------------------------------------------------------------------------

CALLS = [
    lambda t: t.write(b"x"),
    lambda t: t.write(bytearray(b"x" * 100)),
    lambda t: t.write(b""),
    lambda t: t.writelines([b"x", memoryview(b"y")]),
    lambda t: t.writelines([]),
    lambda t: t.write_eof(),
    lambda t: t.sendto(b"x"),
    lambda t: t.close(),
    lambda t: t.is_closing(),
    lambda t: t.get_write_buffer_size(),
    lambda t: t.set_write_buffer_limits(high=1000),
    lambda t: t.get_extra_info("socket"),
    lambda t: t.get_extra_info("peername"),
    lambda t: t.pause_reading(),
    lambda t: t.resume_reading(),
    lambda t: t.is_reading(),
    repr,
    lambda t: t.abort(),
    lambda t: t.close(),
]


def call_everything(transport):
    """No call may raise RuntimeError, the "handler is closed" of the reports."""
    for call in CALLS:
        try:
            call(transport)
        except AttributeError:
            assert not hasattr(transport, "write_eof") or not hasattr(transport, "sendto")
        except NotImplementedError:
            pass  # write_eof() over TLS
        except RuntimeError as exc:
            # after an explicit write_eof() of this very list
            assert "after write_eof" in str(exc) or "eof" in str(exc).lower()


KINDS = ["tcp", "unix", "tls", "datagram", "read pipe", "write pipe", "child"]


@pytest.mark.our_loop("the standard transports raise, which of them depends on the release")
@pytest.mark.parametrize("end", ["close", "abort", "peer resets"])
@pytest.mark.parametrize("kind", KINDS)
def test_05_calls_after_close(run, loop, engine, contexts, tmp_path, asyncio_log, kind, end):
    """uvloop #506, #685, uvicorn #1251, websockets #1511, zuvloop #17: writing to a transport that
    is closed raised RuntimeError instead of doing nothing."""
    if engine == "portable" and kind != "tls":
        pytest.skip("no TLS, no engine")

    async def check(transport, lost, peer_resets):
        if end == "close":
            transport.close()
        elif end == "abort":
            getattr(transport, "abort", transport.close)()
        else:
            peer_resets()
            await until(lambda: transport.is_closing() or lost.done())
        for _ in range(3):
            call_everything(transport)
            await turns(1)
        await asyncio.wait_for(asyncio.shield(lost), TIMEOUT)
        call_everything(transport)

    async def main():
        if kind in ("tcp", "unix", "tls"):
            family = "unix" if kind == "unix" else "tcp"
            tls = contexts if kind == "tls" else None
            async with pair(tls, family, path=str(tmp_path / "s")) as (client, other):
                client.transport.write(b"before")
                await check(client.transport, client.closed, lambda: reset(other.transport))
                assert client.events.count("lost") == 1
        elif kind == "datagram":
            # With a fixed target: without one asyncio's, and so ours, is an AttributeError.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                transport, protocol = await loop.create_datagram_endpoint(
                    Recorder, remote_addr=peer.getsockname()
                )
                await check(transport, protocol.closed, transport.abort)
        elif kind.endswith("pipe"):
            read, write = os.pipe()
            mine, other = (read, write) if kind == "read pipe" else (write, read)
            connect = getattr(loop, "connect_" + kind.replace(" ", "_"))
            file = open(mine, "rb" if kind == "read pipe" else "wb", 0)
            transport, protocol = await connect(Recorder, file)
            ended = []

            def peer_ends():
                ended.append(os.close(other))

            await check(transport, protocol.closed, peer_ends)
            if not ended:
                os.close(other)
        else:
            transport, protocol = await loop.subprocess_exec(
                Recorder, "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stdin = transport.get_pipe_transport(0)
            if end == "peer resets":
                transport.kill()
            elif end == "close":
                stdin.close()
            else:
                stdin.abort()
            for _ in range(5):
                call_everything(stdin)
                await turns(1)
            await asyncio.wait_for(protocol.closed, TIMEOUT)
            call_everything(stdin)
            transport.close()

    run(main())
    asyncio_log.take()


# -- 6, 7, 8 --------------------------------------------------------------------------------------


def tls_peer(context, work):
    """A blocking TLS server for one connection, in a thread: (address, thread)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def body():
        with listener:
            conn, _ = listener.accept()
        conn.settimeout(TIMEOUT)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        with conn:
            work(conn)

    thread = threading.Thread(target=body)
    thread.start()
    return listener.getsockname(), thread


def test_06_tls_close_under_a_stream_of_data(run, loop, engine, contexts):
    """uvloop #471, aiohttp #6762: after close() the rest of the download was still received, for
    30 seconds. What the peer can send after it is what fits into the kernel's buffers."""
    sent = []

    def stream(conn):
        total = 0
        with contextlib.suppress(OSError), contexts[0].wrap_socket(conn, server_side=True) as tls:
            for _ in range(1 << 14):  # a gibibyte
                tls.sendall(bytes(65536))
                total += 65536
                sent.append(total)

    class Closing(Recorder):
        after = 0

        def data_received(self, data):
            if self.transport.is_closing():
                self.after += len(data)
            self.transport.close()

    async def main():
        address, thread = tls_peer(contexts[0], stream)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        _, protocol = await loop.create_connection(
            Closing, sock=sock, ssl=contexts[1], server_hostname="localhost"
        )
        await asyncio.wait_for(protocol.closed, TIMEOUT)
        assert protocol.after == 0
        await asyncio.to_thread(thread.join)

    run(main())
    assert (sent or [0])[-1] < 4 << 20


LINE = b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"


@pytest.mark.our_loop("before 3.14 asyncio loses what it has received already (gh-142352)")
def test_07_line_and_client_hello_in_one_segment(run, loop, engine, contexts):
    """cpython gh-142352, uvloop #707, zuvloop #85: start_tls() lost the ClientHello that had come
    together with the line before it. Both ends are ours, and the client does not wait."""

    async def serve(reader, writer):
        assert await reader.readline() == LINE
        await asyncio.sleep(0.01)
        await writer.start_tls(contexts[0])
        writer.write(await reader.readexactly(5))
        await writer.drain()
        assert await reader.read() == b""
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(LINE)
        await asyncio.wait_for(
            writer.start_tls(contexts[1], server_hostname="localhost"), TIMEOUT
        )
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), TIMEOUT) == b"hello"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.our_loop("asyncio drops what is queued when the peer's data meets its close_notify")
@pytest.mark.parametrize("seed", range(3))
def test_08_tls_calls_from_inside_callbacks(run, loop, engine, contexts, seed):
    """picows #40, bitfinex-api-py #197, uvloop #255: write() and close() from inside the callbacks
    of a large write ended in IndexError. Everything has to arrive, in order."""
    rng = random.Random(seed)
    total = 3_000_000
    data = rng.randbytes(total)

    class Sender(Recorder):
        offset = 0

        def send(self):
            for _ in range(rng.randrange(1, 4)):
                size = rng.choice([1, 1000, 70_000, 300_000])
                piece = data[self.offset : self.offset + size]
                if piece:
                    self.offset += len(piece)
                    if rng.random() < 0.5:
                        self.transport.write(piece)
                    else:
                        self.transport.writelines([piece[:3], piece[3:10], b"", piece[10:]])
            if self.offset == total:
                self.transport.close()

        def connection_made(self, transport):
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=rng.choice([0, 1000, 200_000]))
            self.send()

        def data_received(self, data):
            self.send()

        def resume_writing(self):
            self.send()

    class Receiver(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if not self.transport.is_closing():
                self.transport.write(b"more")
            if rng.random() < 0.3:
                self.transport.pause_reading()
                loop.call_soon(self.transport.resume_reading)

        def eof_received(self):
            self.events.append("eof")

    async def main():
        async with pair(contexts, factory=Sender, server_factory=Receiver) as (sender, receiver):
            await asyncio.wait_for(asyncio.gather(receiver.closed, sender.closed), TIMEOUT)
            assert len(receiver.data) == total
            assert receiver.data == data
            assert receiver.events.count("lost") == sender.events.count("lost") == 1

    run(main())


# -- 9 --------------------------------------------------------------------------------------------

FLOOD = """
import pathlib, tempfile
from tests.certificates import make_contexts
from tests.support import rss_kib
COUNT = {count}
if LOOP == "asyncloop":
    asyncloop._core._tls_set_engine({engine!r})
with tempfile.TemporaryDirectory() as folder:
    server_ssl, client_ssl = make_contexts(pathlib.Path(folder))
loop = new_event_loop()
alive = set()

class Quiet(asyncio.Protocol):
    def __init__(self):
        alive.add(id(self))
    def __del__(self):
        alive.discard(id(self))

async def one(port, half):
    if half:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes.fromhex("160301020001")[: half % 7])
        await asyncio.sleep(0)
    else:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_ssl, server_hostname="localhost")
    writer.transport.abort()

async def main():
    server = await loop.create_server(Quiet, "127.0.0.1", 0, ssl=server_ssl)
    port = server.sockets[0].getsockname()[1]
    async def wave(count):
        for start in range(0, count, 20):
            await asyncio.gather(*(one(port, n % 2 and n + 1) for n in range(start, start + 20)))
        while alive:
            await asyncio.sleep(0.001)
    await wave(400)
    gc.collect()
    gc.disable()
    before = rss_kib()
    await wave(COUNT)
    grown = rss_kib() - before
    assert grown < COUNT * 1 + 1024, grown
    server.close()

loop.run_until_complete(main())
loop.close()
print("ok")
"""


@pytest.mark.our_loop("asyncio needs the collector, or the handshake's time limit")
def test_09_tls_flood(impl, engine, size):
    """cpython gh-109534, uvloop #565: 15,000 handshakes took 8.4 GB that never came back. Dead
    connections are freed without the collector, those in the middle of the handshake as well."""
    env = {}
    if engine == "portable":
        env["ASYNCLOOP_TLS"] = "portable"
    env["PYTHONPATH"] = str(ROOT)
    name = "portable" if engine == "portable" else None
    check_script(impl, FLOOD.format(count=size(400, 4000), engine=name), "ok", env=env)


# -- 10, 11 ---------------------------------------------------------------------------------------


@pytest.mark.our_loop("releases of asyncio lose the tail, or never pause after writelines()")
@pytest.mark.parametrize("tls", [False, True])
def test_10_writelines_to_a_slow_reader(run, loop, engine, contexts, size, tls):
    """cpython gh-103462, gh-127655: writelines() lost the tail of its list, and did not tell the
    protocol to pause. One list of many mebibytes, in more buffers than one system call takes.

    Over TLS, as with asyncio, all of the list is encrypted and given to the transport below, and
    what is written next finds that one full."""
    if engine == "portable" and not tls:
        pytest.skip("no TLS, no engine")
    pieces = [bytes([n % 251]) * 6500 for n in range(size(1500, 10_000))]

    async def main():
        async with pair(contexts if tls else None) as (client, other):
            other.transport.pause_reading()
            client.transport.writelines(pieces)
            whole = b"".join(pieces)
            while tls and "pause" not in client.events:
                client.transport.write(bytes(100_000))
                whole += bytes(100_000)
            assert "pause" in client.events
            while len(other.data) < len(whole):
                other.transport.resume_reading()
                await turns(3)
                other.transport.pause_reading()
                await turns(1)
            assert other.data == whole
            await until(lambda: "resume" in client.events)
            assert client.transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.our_loop("from 3.12 on asyncio keeps a view of the caller's buffer")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("how", ["write", "writelines"])
def test_11_buffers_changed_after_write(run, loop, engine, contexts, how, tls):
    """zuvloop #61: what the caller did to his buffer after write() changed what was sent, or the
    buffer could never be resized again."""
    if engine == "portable" and not tls:
        pytest.skip("no TLS, no engine")

    class Bytes(bytes):
        pass

    async def main():
        async with pair(contexts if tls else None) as (client, other):
            other.transport.pause_reading()
            transport = client.transport
            filled = 0
            while transport.get_write_buffer_size() < 200_000:
                transport.write(b"f" * 100_000)
                filled += 100_000
            array = bytearray(b"a" * 1000)
            memory = mmap.mmap(-1, 4096)
            memory[:] = b"m" * 4096
            view = memoryview(memory)[:1000]
            base = bytearray(b"v" * 2000)
            wide = memoryview(base).cast("I")
            sub = Bytes(b"s" * 1000)
            items = [array, view, wide, sub]
            if how == "write":
                for item in items:
                    transport.write(item)
            else:
                transport.writelines(items)
            array[:] = b"X" * 1000
            memory[:] = b"X" * 4096
            base[:] = b"X" * 2000
            view.release()
            wide.release()
            del items
            array.extend(b"resized")  # BufferError while somebody holds the memory
            base.clear()
            memory.close()
            expected = b"a" * 1000 + b"m" * 1000 + b"v" * 2000 + b"s" * 1000
            other.transport.resume_reading()
            await until(lambda: len(other.data) >= filled + len(expected))
            assert other.data[filled:] == expected

    run(main())


# -- 16 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("where", ["data_received", "buffer_updated", "get_buffer", "no room"])
def test_16_failing_receiver(run, loop, impl, engine, contexts, reports, where, tls):
    """zuvloop #23: a protocol whose callback raised was fed on. It gets one connection_lost() with
    the exception and nothing after it, and the loop goes on."""
    # Over TLS it is asked for memory again, as with asyncio: what was received is decrypted before
    # the transport below tells of its end.
    asked_again = tls and where != "data_received"
    if engine == "portable" and not tls:
        pytest.skip("no TLS, no engine")

    class Boom(Exception):
        pass

    class Failing(Recorder):
        def data_received(self, data):
            self.events.append("data")
            raise Boom

    class Buffered(Recorder, asyncio.BufferedProtocol):
        def get_buffer(self, hint):
            # TLS may ask for memory before there is any data
            if where == "buffer_updated":
                assert asked_again or "data" not in self.events
                return bytearray(100)
            self.events.append("data")
            if where == "get_buffer":
                raise Boom
            return bytearray(0)

        def buffer_updated(self, size):
            self.events.append("data")
            raise Boom

    async def main():
        factory = Failing if where == "data_received" else Buffered
        async with pair(contexts if tls else None, server_factory=factory) as (client, other):
            for _ in range(5):
                client.transport.write(b"x" * 1000)
            exc = await asyncio.wait_for(asyncio.shield(other.closed), TIMEOUT)
            await turns(5)
            if tls and where == "no room":  # taken for the end of the connection
                assert exc is None and reports == []
                return
            assert isinstance(exc, RuntimeError if where == "no room" else Boom)
            times = other.events.count("data")
            assert times == 1 or asked_again
            assert other.events == ["made"] + ["data"] * times + ["lost"]
            assert len(reports) == times

    run(main())


