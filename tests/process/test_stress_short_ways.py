"""Short ways that rely on the thread of the loop, while other threads use the same objects.

As in test_stress_threads.py: what is looked for is a crash, a hang, a lost byte or, under
ThreadSanitizer, a data race. src/short_ways.md says which of them relies on what.
"""

import asyncio
import contextlib
import sys
import threading
import time
import warnings

import pytest

from tests.support import FREE_THREADED, turns
from tests.threads import SCALE, Threads, loop_in_thread, quiet, refused, switch_often  # noqa: F401

pytestmark = pytest.mark.our_loop("asyncio promises none of this")

SAFE_BYTEARRAY = not FREE_THREADED or sys.version_info >= (3, 14)
"""Before, two threads that use one bytearray end the process without a GIL, whatever the loop."""


def look_at_streams(reader, writer):
    reader.at_eof()
    reader.exception()
    with contextlib.suppress(TypeError):  # asyncio's text of a future asks twice for its callbacks
        repr(reader)
        repr(writer)
    writer.get_extra_info("peername")
    writer.is_closing()
    note = f"note_{threading.get_ident()}"
    setattr(reader, note, object())    # its dict has one more, and one less
    delattr(reader, note)
    vars(reader)
    if SAFE_BYTEARRAY:
        # bytes() of it would lend it, and refuse to have bytes taken out meanwhile
        reader._buffer.copy()
        len(reader._buffer)


def use_streams(reader, writer):
    """What belongs to the loop's thread: done there, or refused, but for nothing."""
    if FREE_THREADED:
        refused(writer.write, b"")
    for method in (reader.read, reader.readline, writer.drain):
        refused(method().close)    # one that was refused is dropped here


def test_streams_seen_from_other_threads(impl):
    """An echo over streams loses nothing while others look at its reader and writer."""
    current = []
    stop = threading.Event()
    with loop_in_thread(impl, quiet) as loop:

        async def serve(reader, writer):
            current.append((reader, writer))
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    line = await reader.readuntil(b"\n")
                    writer.write(line + await reader.readexactly(1000))
                    await writer.drain()
            writer.close()

        async def exchange(number):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            current.append((reader, writer))
            for i in range(20):
                data = b"%d %d\n" % (number, i) + bytes([i]) * 1000
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
            writer.close()
            server.close()
            current.clear()

        def until_the_end(use):
            while not stop.is_set():
                for streams in list(current):
                    use(*streams)

        threads = Threads()
        for use in (look_at_streams, look_at_streams, use_streams):
            threads.add(until_the_end, use)
        with warnings.catch_warnings(), threads.during():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited")
            try:
                for number in range(5 * SCALE):
                    asyncio.run_coroutine_threadsafe(exchange(number), loop).result()
            finally:
                stop.set()


def connected_streams(loop):
    """(reader, its writer, the writer of the other end) on a loop that another thread runs."""

    async def connect():
        accepted = loop.create_future()
        server = await asyncio.start_server(
            lambda *streams: accepted.set_result(streams), "127.0.0.1", 0
        )
        _, other = await asyncio.open_connection(*server.sockets[0].getsockname())
        streams = await accepted
        server.close()
        return *streams, other

    return asyncio.run_coroutine_threadsafe(connect(), loop).result()


def close_streams(loop, *writers):
    async def close():
        for writer in writers:
            writer.close()
        await turns(5)

    asyncio.run_coroutine_threadsafe(close(), loop).result()


@pytest.mark.skipif(not SAFE_BYTEARRAY, reason="bytearray is not safe there by itself")
def test_reader_fed_by_other_threads(impl):
    """Bytes that other threads put into a reader while the loop's takes them: each comes once."""
    feeders, pieces, piece = 3, 20 * SCALE, 64 * 1024
    fed = []

    async def take(reader):
        total = 0
        while len(fed) < feeders or reader._buffer:
            # The buffer grows without the reader being told: it is looked into again and again.
            if len(reader._buffer) >= piece:
                total += (await reader.readexactly(piece)).count(b"x")
            if reader._buffer:
                total += (await reader.read(4 * piece)).count(b"x")
            await asyncio.sleep(0)
        return total

    with loop_in_thread(impl, quiet) as loop:
        reader, *writers = connected_streams(loop)

        def feed():
            for _ in range(pieces):
                reader._buffer.extend(b"x" * piece)
            fed.append(True)

        taken = asyncio.run_coroutine_threadsafe(take(reader), loop)
        threads = Threads()
        for _ in range(feeders):
            threads.add(feed)
        with threads.during():
            pass
        assert taken.result() == feeders * pieces * piece
        close_streams(loop, *writers)


def test_tasks_that_wait_for_a_reader_end_in_other_threads(impl):
    """What waits for bytes is cancelled elsewhere while they come."""
    with loop_in_thread(impl, quiet) as loop:
        for _ in range(10 * SCALE):
            reader, *writers = connected_streams(loop)
            waiting = asyncio.run_coroutine_threadsafe(reader.readexactly(10**6), loop)
            threads = Threads()
            threads.add(waiting.cancel)
            for _ in range(20):
                loop.call_soon_threadsafe(writers[1].write, b"x" * 1000)
            with threads.during():
                pass
            close_streams(loop, *writers)


def look_at_tls(transport):
    transport.is_closing()
    repr(transport)
    for name in ("ssl_object", "peercert", "cipher", "compression", "sslcontext", "peername"):
        transport.get_extra_info(name)


def look_at_ssl_object(transport):
    """Methods of it that move no bytes may be called at any time."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return
    ssl_object.version()
    ssl_object.cipher()
    ssl_object.shared_ciphers()
    ssl_object.selected_alpn_protocol()
    ssl_object.getpeercert(binary_form=True)
    ssl_object.session  # noqa: B018
    ssl_object.session_reused  # noqa: B018
    ssl_object.pending()
    with contextlib.suppress(ValueError):    # not with TLS 1.3, before OpenSSL 3
        ssl_object.get_channel_binding("tls-unique")
    note = f"note_{threading.get_ident()}"
    setattr(ssl_object, note, object())    # its dict has one more, and one less
    delattr(ssl_object, note)


def use_tls(transport):
    """What belongs to the loop's thread."""
    refused(transport.get_write_buffer_size)
    refused(transport.get_protocol)
    if FREE_THREADED:
        refused(transport.write, b"")
        refused(transport.writelines, [])


def test_tls_seen_from_other_threads(impl, contexts):
    """An echo over TLS loses nothing while others look at its transports and their SSLObjects."""
    server_context, client_context = contexts
    current = []
    stop = threading.Event()
    with loop_in_thread(impl, quiet) as loop:

        async def serve(reader, writer):
            current.append(writer.transport)
            while data := await reader.read(100_000):
                writer.write(data)
            writer.close()

        async def exchange(number):
            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
            )
            current.append(writer.transport)
            for i in range(20):
                data = bytes([number % 256, i]) * (1000 * (i + 1))
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            server.close()
            current.clear()

        def until_the_end(use):
            while not stop.is_set():
                for transport in list(current):
                    # asyncio's, of one that was closed twice
                    with contextlib.suppress(AttributeError):
                        use(transport)

        threads = Threads()
        for use in (look_at_tls, look_at_ssl_object, look_at_ssl_object, use_tls):
            threads.add(until_the_end, use)
        with threads.during():
            try:
                for number in range(3 * SCALE):
                    asyncio.run_coroutine_threadsafe(exchange(number), loop).result()
            finally:
                stop.set()


def test_threads_look_at_once_at_what_is_replaced(impl):
    """What has been replaced counts from then on, whatever other threads see just then."""
    own = time.monotonic
    stop = threading.Event()
    loop = impl.new_event_loop()
    others = [impl.new_event_loop() for _ in range(2)]

    def look(one):
        while not stop.is_set():
            one.get_debug()
            loop.get_debug()

    threads = Threads()
    for other in others:
        threads.add(look, other)
    with threads.during():
        try:
            for _ in range(100 * SCALE):
                time.monotonic = lambda: 42.0
                assert loop.time() == 42.0
                time.monotonic = own
                assert loop.time() != 42.0
        finally:
            time.monotonic = own
            stop.set()
    for each in (loop, *others):
        each.close()
