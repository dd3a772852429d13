"""Run by anyio's pytest plugin in a child process: its own primitives on the loop under test."""

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading

import anyio
import anyio.from_thread
import anyio.to_process
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener, TLSStream

pytestmark = pytest.mark.anyio

if os.environ["LOOP_UNDER_TEST"] == "asyncloop":
    import asyncloop

    OPTIONS = {"loop_factory": asyncloop.new_event_loop}
else:
    OPTIONS = {}


@pytest.fixture(
    params=[
        pytest.param(("asyncio", OPTIONS), id="plain"),
        pytest.param(("asyncio", {**OPTIONS, "debug": True}), id="debug"),
    ],
    scope="module",
)
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
async def shared():
    """A fixture for the whole module lives in the same loop as its tests."""
    async with anyio.create_task_group() as group:
        yield asyncio.get_running_loop()
        group.cancel_scope.cancel()


async def test_loop(shared):
    kind = type(shared)
    assert f"{kind.__module__}.{kind.__qualname__}" == os.environ["EXPECTED_LOOP"]
    assert asyncio.get_running_loop() is shared


async def test_task_group_and_scopes():
    events = []

    async def child(name, *, task_status):
        task_status.started(name)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
                events.append(name)

    async with anyio.create_task_group() as group:
        assert [await group.start(child, n) for n in ("a", "b")] == ["a", "b"]
        group.cancel_scope.cancel()
    assert sorted(events) == ["a", "b"]

    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.01):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)

    async def fail():
        raise ValueError("one")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(anyio.sleep_forever)
    assert caught.group_contains(ValueError, match="one")

    # Cancelled again and again while it does not want to be.
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(5):
            try:
                await anyio.sleep(0)
            except anyio.get_cancelled_exc_class():
                pass
        await anyio.sleep(0)
        pytest.fail("not cancelled")


async def test_streams_and_locks():
    send, receive = anyio.create_memory_object_stream(3)
    got = []

    async def producer(mine, first):
        async with mine:
            for n in range(first, first + 50):
                await mine.send(n)

    async with anyio.create_task_group() as group:
        for first in (0, 100, 200):
            group.start_soon(producer, send.clone(), first)
        send.close()
        async with receive:
            async for n in receive:
                got.append(n)
    assert len(got) == 150 and sorted(set(got)) == sorted(got)

    limiter, peak, now = anyio.CapacityLimiter(3), 0, 0

    async def limited():
        nonlocal peak, now
        async with limiter:
            now += 1
            peak = max(peak, now)
            await anyio.sleep(0.001)
            now -= 1

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(limited)
    assert peak == 3


async def serve_and_echo(listener, connect):
    async def handle(stream):
        async with stream:
            try:
                async for data in stream:
                    await stream.send(data)
            except (anyio.BrokenResourceError, ssl.SSLError):
                pass

    body = bytes(range(256)) * 4000

    async def talk():
        async with await connect() as stream:
            got = bytearray()
            async with anyio.create_task_group() as group:
                group.start_soon(stream.send, body)
                while len(got) < len(body):
                    got += await stream.receive()
            assert got == body

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        async with anyio.create_task_group() as clients:
            for _ in range(8):
                clients.start_soon(talk)
        group.cancel_scope.cancel()


async def test_tcp():
    listener = await anyio.create_tcp_listener(local_host="localhost")
    port = listener.extra(SocketAttribute.local_port)
    await serve_and_echo(listener, lambda: anyio.connect_tcp("localhost", port))
    with pytest.raises(OSError):
        await anyio.connect_tcp("127.0.0.1", port)


async def test_unix(tmp_path):
    path = tmp_path / "socket"
    await serve_and_echo(
        await anyio.create_unix_listener(path), lambda: anyio.connect_unix(path)
    )


async def test_tls(tmp_path):
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    await anyio.run_process(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        " -addext keyUsage=digitalSignature,keyCertSign".split()
        + ["-out", certificate, "-keyout", key]
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = plain.extra(SocketAttribute.local_port)

    async def connect():
        stream = await anyio.connect_tcp("127.0.0.1", port)
        return await TLSStream.wrap(stream, hostname="localhost", ssl_context=client)

    await serve_and_echo(TLSListener(plain, server), connect)


async def test_udp():
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as server:
        port = server.extra(SocketAttribute.local_port)
        async with await anyio.create_connected_udp_socket("127.0.0.1", port) as client:
            for n in range(50):
                await client.send(b"%d" % n)
                data, (host, back) = await server.receive()
                await server.sendto(data * 2, host, back)
                assert await client.receive() == b"%d" % n * 2


async def test_sockets():
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        async with anyio.create_task_group() as group:

            async def write_later():
                await anyio.sleep(0.005)
                other.send(b"x")

            group.start_soon(write_later)
            await anyio.wait_readable(one)
            assert one.recv(1) == b"x"
        await anyio.wait_writable(one)


async def test_processes():
    done = await anyio.run_process(["tr", "a-z", "A-Z"], input=b"through a pipe")
    assert done.stdout == b"THROUGH A PIPE"
    async with await anyio.open_process(["sleep", "3600"]) as process:
        process.terminate()
        assert await process.wait() == -signal.SIGTERM
    with pytest.raises(Exception) as failed:
        await anyio.run_process(["false"])
    assert failed.value.returncode == 1


async def test_process_pool():
    assert await anyio.to_process.run_sync(sum, range(1000)) == 499_500
    assert await anyio.to_process.run_sync(os.getpid) != os.getpid()


async def test_signals():
    with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await anext(signals) == signal.SIGUSR1
        os.kill(os.getpid(), signal.SIGUSR2)
        assert await anext(signals) == signal.SIGUSR2


async def test_threads():
    async def back_on_the_loop(n):
        await anyio.sleep(0)
        return n, threading.get_ident()

    def in_thread(n):
        return anyio.from_thread.run(back_on_the_loop, n), threading.get_ident()

    (n, loop_thread), worker = await anyio.to_thread.run_sync(in_thread, 5)
    assert n == 5 and loop_thread == threading.get_ident() != worker

    def use_portal(portal):
        return portal.call(anyio.sleep, 0), portal.start_task_soon(back_on_the_loop, 1).result()[0]

    async with anyio.from_thread.BlockingPortal() as portal:
        assert await anyio.to_thread.run_sync(use_portal, portal) == (None, 1)


def test_portal_of_its_own(anyio_backend):
    name, options = anyio_backend
    with anyio.from_thread.start_blocking_portal(name, options) as portal:
        future, value = portal.start_task(starts_with_value)
        assert value == "started" and future.result(30) == "ended"


async def starts_with_value(*, task_status):
    task_status.started("started")
    await anyio.sleep(0.001)
    return "ended"


async def test_files(tmp_path):
    path = anyio.Path(tmp_path, "file")
    await path.write_text("one\ntwo\n")
    async with await anyio.open_file(path) as file:
        assert [line async for line in file] == ["one\n", "two\n"]
    assert [one.name async for one in anyio.Path(tmp_path).iterdir()] == ["file"]


if sys.version_info >= (3, 12):

    async def test_eager_tasks():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(anyio.sleep, 0)
        finally:
            loop.set_task_factory(None)
