"""TLS: both engines of asyncloop, and the standard loop.

The certificates are made by the `openssl` command when the tests begin.
"""

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import socket
import ssl
import struct
import threading
import weakref

import pytest

import asyncloop
from tests.certificates import make_certificate
from tests.protocols import EchoingRecorder, Recorder
from tests.support import PY, check_script, turns, until, without_collector

pytestmark = pytest.mark.usefixtures("engine")

TIMEOUT = 10


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"), key="rsa:2048")


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls-other"), "other.example", "rsa:2048")


class BufferedEcho(asyncio.BufferedProtocol):
    def __init__(self, size=1000):
        self.buffer = memoryview(bytearray(size))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, n):
        self.transport.write(bytes(self.buffer[:n]))


class Pair:
    """A server and the protocols of its connections."""

    def __init__(self, server, made):
        self.server = server
        self.made = made
        self.port = server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def serving(context, factory=EchoingRecorder, **kwargs):
    made = []

    def remember():
        made.append(factory())
        return made[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(remember, "127.0.0.1", 0, ssl=context, **kwargs)
    try:
        yield Pair(server, made)
    finally:
        server.close()
        for protocol in made:
            transport = getattr(protocol, "transport", None)
            if transport is not None:
                transport.abort()
        await turns(5)
        await asyncio.wait_for(server.wait_closed(), TIMEOUT)


async def connect(port, context, factory=Recorder, **kwargs):
    kwargs.setdefault("server_hostname", "localhost")
    return await asyncio.get_running_loop().create_connection(
        factory, "127.0.0.1", port, ssl=context, **kwargs
    )


async def finish(transport, protocol):
    transport.close()
    return await asyncio.wait_for(protocol.closed, TIMEOUT)


def payload(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.fixture(autouse=True)
def debug_reports(asyncio_log):
    """In debug mode a server's failed handshakes are reported, as expected."""
    yield
    asyncio_log.records[:] = [
        record
        for record in asyncio_log.records
        if "Error on transport creation" not in record.getMessage()
    ]


# -- the plain case --------------------


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("factory", [EchoingRecorder, BufferedEcho])
def test_echo_of_many_sizes(run, server_context, client_context, version, factory):
    client_context.maximum_version = client_context.minimum_version = ssl.TLSVersion[version]

    async def main():
        async with serving(server_context, factory) as pair:
            transport, protocol = await connect(pair.port, client_context)
            for size in (1, 1024, 16384, 16385, 70000, 300000, 1 << 20):
                protocol.data = b""
                data = payload(size)
                transport.write(data)
                await until(lambda size=size: len(protocol.data) >= size)
                assert protocol.data == data
            assert transport.get_extra_info("ssl_object").version() == version.replace("_", ".")
            assert await finish(transport, protocol) is None
            assert protocol.events[0] == "made" and protocol.events[-1] == "lost"

    run(main())


@pytest.mark.our_loop("asyncio loses bytes (gh-156276)")
def test_buffered_protocol_may_offer_a_bytearray(run, server_context, client_context):
    class ByteArrayEcho(BufferedEcho):
        def get_buffer(self, hint):
            return self.buffer.obj

    async def main():
        async with serving(server_context, ByteArrayEcho) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.write(payload(100000))
            await until(lambda: len(protocol.data) == 100000)
            assert protocol.data == payload(100000)
            await finish(transport, protocol)

    run(main())


def test_streams(run, server_context, client_context):
    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
        )
        for line in (b"one\n", b"x" * 60000 + b"\n"):
            writer.write(line)
            assert await reader.readline() == line.upper()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_large_transfer_over_streams_with_a_small_limit(run, server_context, client_context):
    data = payload(5 << 20)

    async def handle(reader, writer):
        writer.write(data)
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            ssl=client_context,
            server_hostname="localhost",
            limit=4096,
        )
        got = bytearray()
        while part := await reader.read(10000):
            got += part
            await asyncio.sleep(0)
        assert got == data
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_extra_info(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            assert isinstance(transport, asyncio.Transport)
            assert transport.get_extra_info("sslcontext") is client_context
            assert transport.get_extra_info("peercert")["subject"] == (
                (("commonName", "localhost"),),
            )
            assert transport.get_extra_info("cipher")[0].startswith("TLS_")
            assert transport.get_extra_info("compression") is None
            assert transport.get_extra_info("peername") == ("127.0.0.1", pair.port)
            assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
            sock = transport.get_extra_info("socket")
            assert sock.getpeername() == ("127.0.0.1", pair.port)
            assert transport.get_extra_info("nothing", 5) == 5
            assert transport.get_protocol() is protocol
            assert transport._ssl_protocol is not None
            assert transport._ssl_protocol._sslcontext is client_context
            assert transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                transport.write_eof()
            await finish(transport, protocol)
            assert transport.get_extra_info("cipher")[0].startswith("TLS_")

    run(main())


def test_alpn_and_sni(run, server_context, client_context, other_certificate):
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    other.load_cert_chain(*other_certificate)
    other.set_alpn_protocols(["h2", "http/1.1"])
    names = []

    def choose(sslobject, name, context):
        names.append((name, context is server_context))
        sslobject.context = other

    server_context.sni_callback = choose
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    client_context.load_verify_locations(other_certificate[0])
    client_context.set_alpn_protocols(["http/1.1"])

    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(
                pair.port, client_context, server_hostname="other.example"
            )
            assert names == [("other.example", True)]
            assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert transport.get_extra_info("peercert")["subject"][0][0][1] == "other.example"
            await finish(transport, protocol)

    run(main())


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_client_certificates(
    run, server_context, client_context, other_certificate, version, engine
):
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(other_certificate[0])
    client_context.maximum_version = ssl.TLSVersion[version]

    async def main():
        async with serving(server_context) as pair:
            # without one: TLS 1.3 tells only after the client's handshake
            with pytest.raises((ssl.SSLError, ConnectionError)):
                transport, protocol = await connect(pair.port, client_context)
                exc = await asyncio.wait_for(protocol.closed, TIMEOUT)
                if engine:
                    assert isinstance(exc, ssl.SSLError)
                raise exc or ConnectionResetError  # asyncio says nothing
            client_context.load_cert_chain(*other_certificate)
            transport, protocol = await connect(pair.port, client_context)
            transport.write(b"hello")
            await until(lambda: protocol.data == b"hello")
            [served] = [one for one in pair.made if one.transport]
            peer = served.transport.get_extra_info("peercert")
            assert peer["subject"][0][0][1] == "other.example"
            await finish(transport, protocol)

    run(main())


def test_session_is_reused(run, server_context, client_context):
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2

    class WithSession(ssl.SSLContext):
        kept = None

        def wrap_bio(self, *args, **kwargs):
            return super().wrap_bio(*args, **kwargs, session=self.kept)

    async def main():
        context = WithSession(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(server_context) as pair:
            for reused in (False, True):
                transport, protocol = await connect(pair.port, context)
                sslobject = transport.get_extra_info("ssl_object")
                assert sslobject.session_reused is reused
                context.kept = sslobject.session
                transport.write(b"x")
                await until(lambda p=protocol: p.data == b"x")
                await finish(transport, protocol)

    run(main())


def test_callbacks_run_in_the_context_of_creation(run, server_context, client_context):
    var = contextvars.ContextVar("var", default="none")

    class Protocol(Recorder):
        def connection_made(self, transport):
            self.seen = [var.get()]
            super().connection_made(transport)

        def data_received(self, data):
            self.seen.append(var.get())
            super().data_received(data)

        def connection_lost(self, exc):
            self.seen.append(var.get())
            super().connection_lost(exc)

    async def main():
        async with serving(server_context) as pair:
            var.set("mine")
            transport, protocol = await connect(pair.port, client_context, Protocol)
            var.set("later")
            transport.write(b"x")
            await until(lambda: protocol.data)
            await finish(transport, protocol)
            assert protocol.seen == ["mine"] * 3

    run(main())


# -- writing --------------------


def test_write_types(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            changed = bytearray(b"bytearray ")
            transport.write(changed)
            changed[:] = b"X" * 10
            transport.write(memoryview(b"memoryview "))
            transport.writelines([b"lines", bytearray(b" of "), b"", memoryview(b"data")])
            transport.write(b"")
            transport.write(bytearray())
            transport.writelines([])
            large = bytearray(payload(100000))
            transport.write(large)
            copy = bytes(large)
            large[:] = bytes(len(large))
            wanted = b"bytearray memoryview lines of data" + copy
            await until(lambda: len(protocol.data) >= len(wanted))
            assert protocol.data == wanted
            for wrong in ("text", None, 5):
                with pytest.raises(TypeError):
                    transport.write(wrong)
            await finish(transport, protocol)

    run(main())


def test_writes_of_one_iteration_keep_their_order(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            wanted = b""
            for i in range(300):
                part = b"%d," % i * (1 + i % 50 * (i % 7 == 0) * 40)
                wanted += part
                transport.write(part)
            await until(lambda: len(protocol.data) >= len(wanted))
            assert protocol.data == wanted
            await finish(transport, protocol)

    run(main())


@pytest.mark.skipif("constants" in asyncloop.build_info(), reason="two parts at most: tuning.h")
@pytest.mark.skipif("ASYNCLOOP_LONG_WAYS" in os.environ, reason="gathering is a short way")
@pytest.mark.our_loop("asyncio makes a record of each part")
def test_small_parts_of_one_writelines_are_one_record(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.write(b"first")
            await until(lambda: protocol.data)
            wire = []
            below = pair.made[0].transport._transport
            tls = below.get_protocol()

            class Tap(asyncio.Protocol):
                def data_received(self, data):
                    wire.append(data)
                    tls.get_buffer(len(data))[: len(data)] = data
                    tls.buffer_updated(len(data))

                def __getattr__(self, name):
                    return getattr(tls, name)

            below.set_protocol(Tap())
            transport.writelines([b"0123456789"] * 100)
            assert transport.get_write_buffer_size() == 0
            await until(lambda: len(protocol.data) == 1005)
            assert len(wire) == 1 and 1000 < len(wire[0]) < 1100
            below.set_protocol(tls)
            await finish(transport, protocol)

    run(main())


def test_flow_control(run, server_context, client_context):
    class Slow(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        async with serving(server_context, Slow) as pair:
            transport, protocol = await connect(pair.port, client_context)
            assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
            data = payload(256 * 1024)
            total = 0
            for _ in range(200):
                transport.write(data)
                total += len(data)
                if "pause" in protocol.events:
                    assert transport.get_write_buffer_size() > 0
                    break
                await asyncio.sleep(0)  # the kernel may take all of it meanwhile
            assert "pause" in protocol.events
            await until(lambda: pair.made and pair.made[0].transport)
            pair.made[0].transport.resume_reading()
            await until(lambda: len(pair.made[0].data) == total)
            assert pair.made[0].data == data * (total // len(data))
            await until(lambda: "resume" in protocol.events)
            assert transport.get_write_buffer_size() == 0
            await finish(transport, protocol)

    run(main())


def test_write_buffer_limits(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_limits() == (250, 1000)
            transport.set_write_buffer_limits(low=100)
            assert transport.get_write_buffer_limits() == (100, 400)
            with pytest.raises(ValueError):
                transport.set_write_buffer_limits(high=1, low=2)
            transport.set_read_buffer_limits(high=1000)
            assert transport.get_read_buffer_limits() == (250, 1000)
            assert transport.get_read_buffer_size() == 0
            await finish(transport, protocol)

    run(main())


@pytest.mark.our_loop("AttributeError after the second close()")
def test_writes_after_close_are_dropped(run, server_context, client_context, asyncio_log):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.close()
            assert transport.is_closing()
            for _ in range(7):
                transport.write(b"dropped")
            transport.writelines([b"dropped"])
            await asyncio.wait_for(protocol.closed, TIMEOUT)
            transport.abort()
            transport.write(b"dropped")
            await turns(3)
            assert pair.made[0].data == b""

    run(main())
    assert "SSL connection is closed" in asyncio_log.take()


def test_write_then_close_delivers_everything(run, server_context, client_context):
    async def main():
        async with serving(server_context, Recorder) as pair:
            transport, protocol = await connect(pair.port, client_context)
            data = payload(3 << 20)
            transport.write(data)
            transport.write(b"the end")
            transport.close()
            await asyncio.wait_for(protocol.closed, TIMEOUT)
            await until(lambda: "eof" in pair.made[0].events)
            assert pair.made[0].data == data + b"the end"

    run(main())


# -- reading --------------------


def test_pause_and_resume_reading(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.write(b"one")
            await until(lambda: protocol.data == b"one")
            transport.pause_reading()
            assert not transport.is_reading()
            transport.write(b"two")
            await asyncio.sleep(0.05)
            assert protocol.data == b"one"
            transport.resume_reading()
            assert transport.is_reading()
            await until(lambda: protocol.data == b"onetwo")
            await finish(transport, protocol)

    run(main())


def test_pause_inside_data_received(run, server_context, client_context):
    class Pausing(Recorder):
        calls = 0

        def data_received(self, data):
            self.calls += 1
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context, Pausing)
            data = payload(1 << 20)
            transport.write(data)
            await until(lambda: len(protocol.data) == len(data))
            assert protocol.data == data
            assert protocol.calls > 1
            await finish(transport, protocol)

    run(main())


def test_eof_while_paused_comes_after_the_data(run, server_context, client_context):
    class Speaker(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"last words")
            transport.close()

    class Paused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        async with serving(server_context, Speaker) as pair:
            transport, protocol = await connect(pair.port, client_context, Paused)
            await asyncio.sleep(0.05)
            assert protocol.data == b""
            transport.resume_reading()
            assert await asyncio.wait_for(protocol.closed, TIMEOUT) is None
            assert protocol.data == b"last words"
            assert protocol.events == ["made", "eof", "lost"]

    run(main())


def test_set_protocol_in_the_middle(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, first = await connect(pair.port, client_context)
            transport.write(b"one")
            await until(lambda: first.data == b"one")
            for second in (Recorder(), Recorder()):
                transport.set_protocol(second)
                assert transport.get_protocol() is second
                transport.write(b"two")
                await until(lambda p=second: p.data == b"two")
            assert first.data == b"one"
            assert await finish(transport, second) is None

    run(main())


class Failing(Recorder):
    def data_received(self, data):
        raise ZeroDivisionError("of the test")


class BadBuffer(asyncio.BufferedProtocol):
    answer = None

    def connection_made(self, transport):
        self.transport = transport
        self.closed = asyncio.get_running_loop().create_future()

    def get_buffer(self, hint):
        if self.answer is None:
            raise ZeroDivisionError("of the test")
        return self.answer

    def buffer_updated(self, n):
        raise ZeroDivisionError("of the test")

    def connection_lost(self, exc):
        self.closed.set_result(exc)


class FailingUpdate(BadBuffer):
    answer = bytearray(100)


@pytest.mark.parametrize("factory", [Failing, BadBuffer, FailingUpdate])
def test_failing_protocol_ends_the_connection_once(
    run, reports, server_context, client_context, factory
):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context, factory)
            transport.write(b"x")
            exc = await asyncio.wait_for(protocol.closed, TIMEOUT)
            assert isinstance(exc, ZeroDivisionError)

    run(main())
    found = [type(report["exception"]) for report in reports]
    # in debug mode the server's handshake may be reported, which the client has left
    assert [one for one in found if not issubclass(one, OSError)] == [ZeroDivisionError]


@pytest.mark.parametrize("answer", [b"read only", 5, "text"])
def test_bad_get_buffer(run, reports, server_context, client_context, answer):
    class Bad(BadBuffer):
        pass

    Bad.answer = answer

    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context, Bad)
            transport.write(b"x")
            exc = await asyncio.wait_for(protocol.closed, TIMEOUT)
            assert isinstance(exc, TypeError)

    run(main())
    assert len(reports) == 1


# -- the end --------------------


@contextlib.contextmanager
def blocking_server(context, body):
    """A thread that accepts one connection and runs body(its plain socket)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        failed = []

        def serve():
            try:
                conn, _ = listener.accept()
                with conn:
                    body(conn)
            except OSError as exc:
                failed.append(exc)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def test_close_stops_reading_and_does_not_wait_for_a_stream_of_data(
    run, server_context, client_context
):
    def stream(conn):
        with server_context.wrap_socket(conn, server_side=True) as tls:
            with contextlib.suppress(OSError):
                while True:
                    tls.sendall(bytes(65536))

    class Closing(Recorder):
        after = 0

        def data_received(self, data):
            if self.transport.is_closing():
                self.after += len(data)
            self.transport.close()

    async def main():
        with blocking_server(server_context, stream) as port:
            transport, protocol = await connect(port, client_context, Closing)
            await asyncio.wait_for(protocol.closed, TIMEOUT)
            assert protocol.after == 0
            assert protocol.events[-1] == "lost"

    run(main())


def test_eof_without_close_notify(run, server_context, client_context):
    def cut(conn):
        with server_context.wrap_socket(conn, server_side=True) as tls:
            tls.sendall(b"all")
            os.close(tls.detach())

    async def main():
        with blocking_server(server_context, cut) as port:
            transport, protocol = await connect(port, client_context)
            exc = await asyncio.wait_for(protocol.closed, TIMEOUT)
            assert exc is None or isinstance(exc, ConnectionError)
            assert protocol.data == b"all"

    run(main())


def test_reset_by_the_peer_is_no_error_in_the_log(run, server_context, client_context):
    def reset(conn):
        with server_context.wrap_socket(conn, server_side=True) as tls:
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def main():
        with blocking_server(server_context, reset) as port:
            try:
                transport, protocol = await connect(port, client_context)
            except ConnectionError:
                return
            exc = await asyncio.wait_for(protocol.closed, TIMEOUT)
            assert exc is None or isinstance(exc, ConnectionError)

    run(main())


def test_shutdown_timeout(run, server_context, client_context):
    ended = threading.Event()

    def silent(conn):
        with server_context.wrap_socket(conn, server_side=True):
            ended.wait(TIMEOUT)

    async def main():
        with blocking_server(server_context, silent) as port:
            transport, protocol = await connect(port, client_context, ssl_shutdown_timeout=0.05)
            exc = await finish(transport, protocol)
            ended.set()
            assert isinstance(exc, TimeoutError)

    run(main())


def test_abort(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.write(payload(3 << 20))
            transport.abort()
            assert await asyncio.wait_for(protocol.closed, TIMEOUT) is None
            assert transport.is_closing()
            transport.abort()
            await turns(3)
            assert protocol.events.count("lost") == 1

    run(main())


@pytest.mark.parametrize("call", ["close", "abort"])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received"])
def test_ending_inside_a_callback(run, server_context, client_context, call, where):
    def ending(self, *args):
        getattr(Recorder, where)(self, *args)
        self.transport.write(b"after")
        getattr(self.transport, call)()
        self.transport.write(b"dropped")

    protocol_type = type("Ending", (Recorder,), {where: ending})

    class Peer(EchoingRecorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async def main():
        async with serving(server_context, Peer) as pair:
            transport, protocol = await connect(pair.port, client_context, protocol_type)
            transport.write(payload(200000))
            exc = await asyncio.wait_for(protocol.closed, TIMEOUT)
            assert exc is None or isinstance(exc, OSError)
            assert protocol.events.count("lost") == 1

    run(main())


def test_writing_inside_resume_writing(run, server_context, client_context):
    class Refill(Recorder):
        left = 20

        def resume_writing(self):
            if self.left:
                self.left -= 1
                self.transport.write(payload(600000))

        def pause_writing(self):
            pass

    async def main():
        async with serving(server_context, Recorder) as pair:
            transport, protocol = await connect(pair.port, client_context, Refill)
            transport.set_write_buffer_limits(high=100000)
            transport.write(payload(600000))
            await until(lambda: pair.made and len(pair.made[0].data) >= 600000)
            sent = (21 - protocol.left) * 600000
            await until(lambda: len(pair.made[0].data) >= sent)
            assert pair.made[0].data[:sent] == payload(600000) * (sent // 600000)
            await finish(transport, protocol)

    run(main())


# -- handshakes that fail --------------------


@pytest.mark.our_loop("asyncio's exceptions are part of cycles")
def test_wrong_certificate_leaves_nothing_behind(run, server_context):
    context = ssl.create_default_context()

    async def main():
        async with serving(server_context) as pair:
            with without_collector():
                try:
                    await connect(pair.port, context)
                except ssl.SSLCertVerificationError as exc:
                    caught = exc
                assert caught.verify_code
                caught.__traceback__ = None
                await asyncio.sleep(0)  # what this callback was called with may hold it until then
                # from 3.14 on this coroutine is among those that hold its local
                held = [op for op in gc.get_referrers(caught) if not asyncio.iscoroutine(op)]
                assert held == []
            assert all(one.transport is None for one in pair.made)

    run(main())


def test_wrong_hostname(run, server_context, client_context):
    async def main():
        async with serving(server_context) as pair:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(pair.port, client_context, server_hostname="elsewhere.example")

    run(main())


def test_plain_text_to_a_tls_port(run, server_context):
    async def main():
        async with serving(server_context) as pair:
            reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), TIMEOUT)
                assert answer[:1] in (b"", b"\x15")  # nothing, or an alert
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            assert all(one.transport is None for one in pair.made)

    run(main())


def test_tls_to_a_plain_port(run, client_context):
    class Plain(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"220 hello, this is no TLS\r\n")

    async def main():
        async with serving(None, Plain) as pair:
            with pytest.raises(ssl.SSLError) as caught:
                await connect(pair.port, client_context)
            assert caught.value.reason == "WRONG_VERSION_NUMBER" or caught.value.reason

    run(main())


def test_peer_closes_during_the_handshake(run, client_context):
    class Leaving(Recorder):
        def data_received(self, data):
            self.transport.close()

    async def main():
        async with serving(None, Leaving) as pair:
            with pytest.raises(ConnectionResetError):
                await connect(pair.port, client_context)

    run(main())


def test_handshake_timeout(run, client_context, server_context):
    async def main():
        async with serving(None, Recorder) as pair:
            with pytest.raises(ConnectionAbortedError, match="longer than 0.05 seconds"):
                await connect(pair.port, client_context, ssl_handshake_timeout=0.05)
        async with serving(server_context, ssl_handshake_timeout=0.05) as pair:
            reader, writer = await asyncio.open_connection("127.0.0.1", pair.port)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    run(main())


@pytest.mark.our_loop("asyncio leaves the socket open")
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_timeouts_are_checked(run, server_context, client_context, name, value):
    async def main():
        async with serving(server_context) as pair:
            with pytest.raises(ValueError):
                await connect(pair.port, client_context, **{name: value})

    run(main())


@pytest.mark.parametrize("ticks", range(12))
def test_cancelled_connect_closes_its_socket_once(run, server_context, client_context, ticks):
    async def main():
        async with serving(server_context) as pair:
            sock = socket.create_connection(("127.0.0.1", pair.port))
            loop = asyncio.get_running_loop()
            connecting = loop.create_task(
                loop.create_connection(
                    Recorder, sock=sock, ssl=client_context, server_hostname="localhost"
                )
            )
            await turns(ticks)
            connecting.cancel()
            try:
                transport, protocol = await connecting
            except asyncio.CancelledError:
                await turns(5)
                if ticks == 0:  # the coroutine has not begun: the socket is ours still
                    sock.close()
            else:
                await finish(transport, protocol)
            await turns(3)
            assert sock.fileno() == -1

    run(main())


@pytest.mark.our_loop("asyncio needs the collector, or the handshake's time limit")
def test_dead_handshakes_leave_no_transport(loop, run, server_context):
    if loop.get_debug():
        pytest.skip("pytest keeps the reports, with what they name")
    transports = weakref.WeakSet()

    class Context(ssl.SSLContext):
        def wrap_bio(self, *args, **kwargs):
            made = super().wrap_bio(*args, **kwargs)
            transports.add(made)
            return made

    async def main():
        context = Context(ssl.PROTOCOL_TLS_SERVER)
        async with serving(context) as pair:
            with without_collector():
                for i in range(40):
                    sock = socket.create_connection(("127.0.0.1", pair.port))
                    sock.sendall(b"\x16\x03\x01\x02\x00" * (i % 2))
                    await turns(3)
                    sock.close()
                await until(lambda: not transports)

    run(main())


# -- start_tls --------------------


def test_start_tls_in_both_directions(run, server_context, client_context):
    async def main():
        loop = asyncio.get_running_loop()
        upgraded = loop.create_future()

        class Server(EchoingRecorder):
            def data_received(self, data):
                if self.events == ["made"] and data == b"STARTTLS":
                    self.events.append("asked")
                    self.transport.write(b"go ahead")
                    self.task = loop.create_task(self.upgrade())
                    return
                super().data_received(data)

            async def upgrade(self):
                self.transport = await loop.start_tls(
                    self.transport, self, server_context, server_side=True
                )
                upgraded.set_result(None)

        async with serving(None, Server) as pair:
            plain, protocol = await loop.create_connection(Recorder, "127.0.0.1", pair.port)
            plain.write(b"STARTTLS")
            await until(lambda: protocol.data == b"go ahead")
            protocol.data = b""
            transport = await loop.start_tls(
                plain, protocol, client_context, server_hostname="localhost"
            )
            await upgraded
            assert transport.get_extra_info("cipher")
            transport.write(payload(100000))
            await until(lambda: len(protocol.data) == 100000)
            assert protocol.events == ["made"]
            assert await finish(transport, protocol) is None

    run(main())


@pytest.mark.our_loop("asyncio fails an assertion in resume_writing()")
def test_start_tls_sends_what_was_written_before(run, server_context, client_context):
    data = payload(16 << 20)  # more than the kernel takes at once

    def body(conn):
        conn.settimeout(TIMEOUT)
        got = b""
        while len(got) < len(data):
            got += conn.recv(len(data) - len(got))
        with server_context.wrap_socket(conn, server_side=True) as tls:
            tls.sendall(b"same" if got == data else b"different")
            with contextlib.suppress(OSError):
                tls.recv(1)

    async def main():
        loop = asyncio.get_running_loop()
        with blocking_server(server_context, body) as port:
            plain, protocol = await loop.create_connection(Recorder, "127.0.0.1", port)
            # or the kernel may take it all
            plain.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            plain.write(data)
            transport = await loop.start_tls(
                plain, protocol, client_context, server_hostname="localhost"
            )
            await until(lambda: protocol.data)
            assert protocol.data == b"same"
            # paused by the plain transport, resumed by the TLS transport
            assert protocol.events == ["made", "pause", "resume"]
            await finish(transport, protocol)

    run(main())


@pytest.mark.our_loop("before 3.14 asyncio loses what was received already (gh-142352)")
def test_start_tls_after_a_line_in_the_same_segment(run, server_context, client_context):
    async def main():
        answered = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            assert await reader.readline() == b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"
            await asyncio.sleep(0.02)  # the ClientHello is in the reader's buffer by now
            await writer.start_tls(server_context)
            writer.write(await reader.readexactly(4))
            await writer.drain()
            await reader.read()
            writer.close()
            answered.set_result(None)

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        def client():
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with socket.create_connection(address) as sock:
                sock.settimeout(TIMEOUT)
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                sock.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n" + outgoing.read())

                def pump(function, *args):
                    while True:
                        try:
                            return function(*args)
                        except ssl.SSLWantReadError:
                            sock.sendall(outgoing.read())
                            incoming.write(sock.recv(65536))

                pump(tls.do_handshake)
                tls.write(b"ping")
                return pump(tls.read, 4)

        assert await asyncio.to_thread(client) == b"ping"
        await answered
        server.close()
        await server.wait_closed()

    run(main())


def test_stream_writer_start_tls(run, server_context, client_context):
    async def handle(reader, writer):
        writer.write(await reader.readline())
        await writer.start_tls(server_context)
        writer.write(await reader.readline())
        await writer.drain()
        await reader.read()
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"plain\n")
        assert await reader.readline() == b"plain\n"
        await writer.start_tls(client_context, server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"secret\n"
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.02)
        server.close()
        await server.wait_closed()

    run(main())


def test_much_data_behind_the_handshake_of_start_tls(
    impl, run, server_context, client_context, thread
):
    """The reader, which it makes pause, learns of the new transport a moment later."""
    if not impl.ours and PY >= (3, 14):
        pytest.skip("the reader pauses the old transport and resumes the new one")
    message = bytes(range(250)) * 200
    received = []
    first_is_read = threading.Event()

    def client(port):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(b"STARTTLS\n")
            assert sock.recv(100) == b"GO\n"
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
            tls.write(message)
            sock.sendall(outgoing.read())
            first_is_read.wait(TIMEOUT)
            tls.write(message)
            sock.sendall(outgoing.read())
            while sock.recv(65536):
                pass

    async def main():
        done = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"GO\n")
            await writer.start_tls(server_context)
            await asyncio.sleep(0.01)
            received.append(await reader.readexactly(len(message)))
            first_is_read.set()
            received.append(await reader.readexactly(len(message)))
            writer.transport.abort()
            done.set_result(None)

        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1000)
        thread(client, server.sockets[0].getsockname()[1])
        await asyncio.wait_for(done, TIMEOUT)
        server.close()
        await server.wait_closed()

    run(main())
    assert received == [message, message]


def test_start_tls_checks_its_arguments(run, client_context, server_context):
    async def main():
        loop = asyncio.get_running_loop()
        async with serving(None) as pair:
            transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", pair.port)
            with pytest.raises(TypeError):
                await loop.start_tls(transport, protocol, None)
            with pytest.raises(TypeError):
                await loop.start_tls(object(), protocol, client_context)
            with pytest.raises(ValueError):
                await loop.start_tls(
                    transport,
                    protocol,
                    client_context,
                    server_hostname="localhost",
                    ssl_handshake_timeout=0,
                )
            transport.write(b"works")
            await until(lambda: protocol.data == b"works")
            await finish(transport, protocol)

    run(main())


def test_failed_and_cancelled_start_tls_close_the_connection(run, client_context):
    async def main():
        loop = asyncio.get_running_loop()
        async with serving(None, Recorder) as pair:
            plain, protocol = await loop.create_connection(Recorder, "127.0.0.1", pair.port)
            with pytest.raises(ConnectionAbortedError):
                await loop.start_tls(
                    plain,
                    protocol,
                    client_context,
                    server_hostname="localhost",
                    ssl_handshake_timeout=0.03,
                )
            for ticks in range(4):
                plain, protocol = await loop.create_connection(Recorder, "127.0.0.1", pair.port)
                task = loop.create_task(
                    loop.start_tls(plain, protocol, client_context, server_hostname="localhost")
                )
                await turns(ticks)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                if ticks == 0:
                    plain.close()
                await turns(3)
                assert plain.is_closing()

    run(main())


@pytest.mark.our_loop("with asyncio data may come before start_tls() has returned")
def test_tls_inside_tls(run, server_context, client_context):
    async def main():
        loop = asyncio.get_running_loop()

        class Server(EchoingRecorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                self.task = loop.create_task(self.upgrade())

            async def upgrade(self):
                self.transport.write(b"begin")
                self.transport = await loop.start_tls(
                    self.transport, self, server_context, server_side=True
                )

        async with serving(server_context, Server) as pair:
            outer, protocol = await connect(pair.port, client_context)
            await until(lambda: protocol.data == b"begin")
            inner = await loop.start_tls(
                outer, protocol, client_context, server_hostname="localhost"
            )
            for size in (1, 1000, 300000):
                protocol.data = b""
                inner.write(payload(size))
                await until(lambda size=size: len(protocol.data) == size)
                assert protocol.data == payload(size)
            assert await finish(inner, protocol) is None

    run(main())


# -- other sockets --------------------


def test_unix_socket(run, server_context, client_context, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(EchoingRecorder, path, ssl=server_context)
        transport, protocol = await loop.create_unix_connection(
            Recorder, path, ssl=client_context, server_hostname="localhost"
        )
        transport.write(payload(100000))
        await until(lambda: len(protocol.data) == 100000)
        await finish(transport, protocol)
        await asyncio.sleep(0.02)
        server.close()
        await server.wait_closed()

    run(main())


def test_accepted_socket(run, server_context, client_context):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connecting = loop.create_task(connect(listener.getsockname()[1], client_context))
            conn, _ = await asyncio.to_thread(listener.accept)
            serving_transport, echo = await loop.connect_accepted_socket(
                EchoingRecorder, conn, ssl=server_context
            )
            transport, protocol = await connecting
            transport.write(b"hello")
            await until(lambda: protocol.data == b"hello")
            await finish(transport, protocol)
            await asyncio.wait_for(echo.closed, TIMEOUT)

    run(main())


def test_sendfile_falls_back(run, server_context, client_context, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(payload(500000))

    async def main():
        loop = asyncio.get_running_loop()
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            transport.write(b"before")
            with path.open("rb") as file:
                assert await loop.sendfile(transport, file) == 500000
            transport.write(b"after")
            wanted = b"before" + payload(500000) + b"after"
            await until(lambda: len(protocol.data) == len(wanted))
            assert protocol.data == wanted
            await finish(transport, protocol)

    run(main())


@pytest.mark.our_loop("the switch is asyncloop's")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_over_a_flaky_socket(run, server_context, client_context, seed):
    from asyncloop import _core

    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            for size in (10, 5000, 40000):
                protocol.data = b""
                transport.write(payload(size))
                await until(lambda size=size: len(protocol.data) == size)
                assert protocol.data == payload(size)
            await finish(transport, protocol)

    _core._io_set_flaky(seed)
    try:
        run(main())
    finally:
        _core._io_set_flaky(0)


def test_many_connections_keep_their_secrets(run, server_context, client_context):
    async def one(port, number):
        transport, protocol = await connect(port, client_context)
        secret = b"%06d|" % number
        for size in (1, 300, 4000):
            protocol.data = b""
            transport.write(secret * size)
            await until(lambda: len(protocol.data) == len(secret) * size)
            assert protocol.data == secret * size
        await finish(transport, protocol)

    async def main():
        async with serving(server_context) as pair:
            await asyncio.gather(*(one(pair.port, i) for i in range(20)))

    run(main())


def test_debug_log(loop, run, server_context, client_context, asyncio_log):
    loop.set_debug(True)
    loop.slow_callback_duration = 10

    async def main():
        async with serving(server_context) as pair:
            transport, protocol = await connect(pair.port, client_context)
            await finish(transport, protocol)

    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        run(main())
    finally:
        logger.setLevel(level)
    messages = " ".join(asyncio_log.take(logging.DEBUG))
    assert "starts SSL handshake" in messages and "SSL handshake took" in messages


# -- the engines --------------------


@pytest.mark.our_loop("engines are asyncloop's")
class TestEngines:
    def test_engine_of_a_transport(self, run, server_context, client_context, engine):
        import asyncloop

        direct = asyncloop.build_info()["tls"]
        assert direct == engine or direct == "portable"

        async def main():
            async with serving(server_context) as pair:
                transport, protocol = await connect(pair.port, client_context)
                assert transport._engine == direct
                await finish(transport, protocol)
                client_context._msg_callback = lambda *args: None
                transport, protocol = await connect(pair.port, client_context)
                assert transport._engine == "portable"
                await finish(transport, protocol)

        run(main())

    def test_own_class_of_ssl_objects(self, run, server_context, client_context):
        class Object(ssl.SSLObject):
            pass

        client_context.sslobject_class = Object

        async def main():
            async with serving(server_context) as pair:
                transport, protocol = await connect(pair.port, client_context)
                assert type(transport) is asyncio.sslproto._SSLProtocolTransport
                assert type(transport.get_extra_info("ssl_object")) is Object
                transport.write(payload(50000))
                await until(lambda: len(protocol.data) == 50000)
                assert await finish(transport, protocol) is None

        run(main())

    def test_ssl_object_outlives_the_transport(self, run, server_context, client_context):
        async def main():
            async with serving(server_context) as pair:
                transport, protocol = await connect(pair.port, client_context)
                sslobject = transport.get_extra_info("ssl_object")
                await finish(transport, protocol)
                return sslobject

        sslobject = run(main())
        gc.collect()
        assert sslobject.version() == "TLSv1.3"
        with pytest.raises((ssl.SSLError, OSError)):
            sslobject.read(1)
        with contextlib.suppress(ssl.SSLError, OSError):
            sslobject.write(b"x")

    def test_environment(self, impl):
        source = "import asyncloop; print(asyncloop.build_info()['tls'])"
        check_script(impl, source, "portable", env={"ASYNCLOOP_TLS": "portable"})
