"""StreamReader and StreamWriter over this loop's transports."""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import weakref

import pytest

from tests.support import PY, check_script, listening, turns, until

MIB = 1 << 20


class Pair:
    """A stream connection of this loop and the plain socket at its other end."""

    def __init__(self, limit=2**16):
        self.limit = limit

    async def __aenter__(self):
        one, self.peer = socket.socketpair()
        self.reader, self.writer = await asyncio.open_connection(sock=one, limit=self.limit)
        self.peer.setblocking(False)
        return self.reader, self.writer, self.peer

    async def __aexit__(self, *exc):
        self.peer.close()
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except Exception:
            pass
        await turns(2)


def test_open_connection_and_start_server(run):
    async def main():
        handled = []

        async def handle(reader, writer):
            handled.append(writer.get_extra_info("peername"))
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address)
            assert isinstance(reader, asyncio.StreamReader)
            assert isinstance(writer, asyncio.StreamWriter)
            for word in (b"one\n", b"two\n"):
                writer.write(word)
                await writer.drain()
                assert await reader.readline() == word.upper()
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert len(handled) == 3

    run(main())


def test_unix(run, tmp_path):
    async def main():
        async def handle(reader, writer):
            writer.write(await reader.read(100))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        path = str(tmp_path / "socket")
        server = await asyncio.start_unix_server(handle, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_synchronous_callback(run):
    async def main():
        seen = []

        def handle(reader, writer):
            seen.append(writer)
            writer.write(b"x")
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b"x"
        writer.close()
        await writer.wait_closed()
        server.close()
        await turns(3)
        assert len(seen) == 1

    run(main())


def test_read(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            peer.send(b"hello")
            assert await reader.read(3) == b"hel"
            assert await reader.read(100) == b"lo"
            assert await reader.read(0) == b""
            task = asyncio.ensure_future(reader.read(10))
            await turns(2)
            peer.send(b"later")
            assert await task == b"later"
            peer.shutdown(socket.SHUT_WR)
            assert await reader.read(10) == b""
            assert await reader.read() == b""
            assert reader.at_eof()

    run(main())


def test_read_to_the_end(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            task = asyncio.ensure_future(reader.read())
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer, b"x" * MIB)
            peer.shutdown(socket.SHUT_WR)
            assert len(await task) == MIB

    run(main())


def test_readline(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            peer.send(b"one\ntwo\nthr")
            assert await reader.readline() == b"one\n"
            assert await reader.readline() == b"two\n"
            task = asyncio.ensure_future(reader.readline())
            await turns(3)
            assert not task.done()
            peer.send(b"ee\nrest")
            assert await task == b"three\n"
            peer.shutdown(socket.SHUT_WR)
            assert await reader.readline() == b"rest"
            assert await reader.readline() == b""

    run(main())


def test_iteration(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            peer.send(b"a\nb\nc")
            peer.shutdown(socket.SHUT_WR)
            assert [line async for line in reader] == [b"a\n", b"b\n", b"c"]

    run(main())


def test_readexactly(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            peer.send(b"12345678")
            assert await reader.readexactly(3) == b"123"
            assert await reader.readexactly(0) == b""
            assert await reader.readexactly(5) == b"45678"
            with pytest.raises(ValueError):
                await reader.readexactly(-1)
            peer.send(b"ab")
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as info:
                await reader.readexactly(5)
            assert info.value.partial == b"ab"
            assert info.value.expected == 5

    run(main())


def test_readexactly_large(run):
    async def main():
        async with Pair(limit=1000) as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            sender = asyncio.ensure_future(loop.sock_sendall(peer, b"z" * (2 * MIB)))
            assert len(await reader.readexactly(2 * MIB)) == 2 * MIB
            await sender

    run(main())


def test_readuntil(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            peer.send(b"head\r\n\r\nbody")
            assert await reader.readuntil(b"\r\n\r\n") == b"head\r\n\r\n"
            with pytest.raises(ValueError):
                await reader.readuntil(b"")
            peer.send(b"tail")
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as info:
                await reader.readuntil(b"|")
            assert info.value.partial == b"bodytail"

    run(main())


def test_limits(run):
    async def main():
        async with Pair(limit=10) as (reader, writer, peer):
            peer.send(b"x" * 30 + b"\nnext\n")
            with pytest.raises(ValueError):
                await reader.readline()
            assert await reader.readline() == b"next\n"
            peer.send(b"y" * 30)
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b"|")
            assert (await reader.read(100)).startswith(b"y")

    run(main())


def test_reading_pauses_at_twice_the_limit(run):
    async def main():
        async with Pair(limit=1000) as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            sender = asyncio.ensure_future(loop.sock_sendall(peer, b"x" * (2 * MIB)))
            await until(lambda: not writer.transport.is_reading())
            buffered = len(reader._buffer)
            await turns(5)
            assert len(reader._buffer) == buffered
            total = 0
            while total < 2 * MIB:
                total += len(await reader.read(100_000))
            await sender
            assert writer.transport.is_reading()

    run(main())


# --- large messages: received straight into the reader's buffer ------------------------


def pattern(length, start=0):
    """Bytes that tell where they lie: a piece that is lost or comes twice shows."""
    words = range(start, start + length // 4 + 1)
    return b"".join(n.to_bytes(4, "big") for n in words)[:length]


@pytest.mark.parametrize("connect", ["unix", "tcp"])
def test_large_messages_come_whole(run, connect):
    """Of many lengths, one behind the other, with short ones in between."""
    lengths = [300_000, MIB, 5, 1, 40_000, 700_001, 2 * MIB + 17, 32 * 1024, 100, MIB]
    sent = [pattern(n, start=i << 20) for i, n in enumerate(lengths)]

    async def check(reader, peer):
        loop = asyncio.get_running_loop()
        for together in (True, False, True):
            sender = None
            if together:
                sender = asyncio.ensure_future(loop.sock_sendall(peer, b"".join(sent)))
            for message in sent:
                if not together:
                    sender = asyncio.ensure_future(loop.sock_sendall(peer, message))
                got = await reader.readexactly(len(message))
                assert type(got) is bytes
                assert got == message
                if not together:
                    await sender
                    assert reader._buffer == b""
            await sender
        assert reader._buffer == b""
        assert reader._waiter is None
        assert not reader._paused

    async def main():
        if connect == "unix":
            async with Pair() as (reader, writer, peer):
                await check(reader, peer)
            return
        with listening() as sock:
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            peer, _ = sock.accept()
            with peer:
                peer.setblocking(False)
                await check(reader, peer)
            writer.close()
            await writer.wait_closed()

    run(main())


@contextlib.asynccontextmanager
async def large_messages():
    """A Pair on which one has come: from now on they may go straight into the buffer."""
    async with Pair() as (reader, writer, peer):
        loop = asyncio.get_running_loop()
        await asyncio.gather(loop.sock_sendall(peer, bytes(MIB)), reader.readexactly(MIB))
        yield reader, writer, peer


def test_cancelled_in_the_middle_of_a_large_message(run):
    """What has come by then stays in the buffer, and reading goes on after it."""
    message = pattern(MIB)

    async def main():
        async with Pair() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            await asyncio.gather(loop.sock_sendall(peer, message), reader.readexactly(MIB))
            for method in (reader.readexactly, reader.read):
                task = asyncio.ensure_future(reader.readexactly(MIB))
                await loop.sock_sendall(peer, message[:600_000])
                await until(lambda: len(reader._buffer) == 600_000)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert reader._waiter is None
                assert reader._buffer == message[:600_000]
                sender = asyncio.ensure_future(loop.sock_sendall(peer, message[600_000:]))
                got = b""
                while len(got) < MIB:
                    got += await method(MIB - len(got))
                assert got == message
                await sender
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.readexactly(10 * MIB), 0.01)
            assert await asyncio.gather(
                reader.readexactly(MIB), loop.sock_sendall(peer, message)
            ) == [message, None]

    run(main())


@pytest.mark.parametrize("asked", [MIB, 1 << 45])
def test_the_end_in_a_large_message(run, asked):
    """However much is asked for: memory is taken only for what comes."""

    async def main():
        async with large_messages() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(reader.readexactly(asked))
            await loop.sock_sendall(peer, pattern(700_000))
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await task
            assert caught.value.partial == pattern(700_000)
            assert caught.value.expected == asked
            assert reader.at_eof()

    run(main())


def test_a_lost_connection_in_a_large_message(run):
    async def main():
        async with large_messages() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(reader.readexactly(MIB))
            await loop.sock_sendall(peer, bytes(500_000))
            await until(lambda: len(reader._buffer) == 500_000)
            writer.transport.abort()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await task
            assert len(caught.value.partial) == 500_000

    run(main())


def test_fed_by_hand_while_a_large_message_is_awaited(run):
    async def main():
        async with large_messages() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(reader.readexactly(600_000))
            await loop.sock_sendall(peer, b"a" * 300_000)
            await until(lambda: len(reader._buffer) == 300_000)
            reader.feed_data(b"b" * 100_000)
            await turns(3)
            assert not task.done()
            await loop.sock_sendall(peer, b"c" * 200_000)
            assert await task == b"a" * 300_000 + b"b" * 100_000 + b"c" * 200_000

    run(main())


def test_a_buffer_that_is_looked_at_cannot_grow(run, reports):
    """A memoryview of a reader's buffer is the end of the connection, large message or not."""

    async def main():
        async with large_messages() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(reader.readexactly(MIB))
            await loop.sock_sendall(peer, bytes(200_000))
            await until(lambda: len(reader._buffer) == 200_000)
            with memoryview(reader._buffer):
                sender = asyncio.ensure_future(loop.sock_sendall(peer, bytes(MIB)))
                with pytest.raises(BufferError):
                    await task
            assert writer.transport.is_closing()
            await asyncio.wait([sender])
            assert isinstance(sender.exception(), ConnectionError)

    run(main())
    assert len(reports) == 1


def test_what_follows_a_large_message_pauses(run):
    async def main():
        async with Pair(limit=1000) as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            sender = asyncio.ensure_future(loop.sock_sendall(peer, b"x" * (4 * MIB)))
            assert await reader.readexactly(MIB) == b"x" * MIB
            assert await reader.readexactly(MIB) == b"x" * MIB
            await until(lambda: not writer.transport.is_reading())
            buffered = len(reader._buffer)
            await turns(5)
            assert len(reader._buffer) == buffered < MIB
            assert await reader.readexactly(2 * MIB) == b"x" * (2 * MIB)
            await sender

    run(main())


OUT_OF_MEMORY = """
import resource
from pathlib import Path

MESSAGE = b"".join(n.to_bytes(4, "big") for n in range(10 << 18))    # 10 MiB

async def main():
    loop = asyncio.get_running_loop()
    one, peer = socket.socketpair()
    peer.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=one)
    await asyncio.gather(loop.sock_sendall(peer, bytes(1 << 20)), reader.readexactly(1 << 20))
    task = asyncio.ensure_future(reader.readexactly(1 << 30))
    await asyncio.sleep(0)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), limits[1]))
    try:
        for _ in range(4):
            await loop.sock_sendall(peer, MESSAGE)
    except ConnectionError:
        pass
    for _ in range(10):
        await asyncio.sleep(0)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    peer.close()
    try:
        await task
    except MemoryError:
        pass
    except asyncio.IncompleteReadError as exc:
        assert exc.partial == 4 * MESSAGE
    else:
        raise AssertionError
    writer.close()

loop = new_event_loop()
loop.set_exception_handler(lambda loop, context: None)
loop.run_until_complete(main())
loop.close()
print("ok")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer takes all of the addresses")
def test_no_memory_for_a_large_message(impl):
    """It comes whole, as long as there is memory, or MemoryError does: never other bytes."""
    check_script(impl, OUT_OF_MEMORY, "ok")


def test_visible_state(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            assert not reader.at_eof()
            assert reader.exception() is None
            peer.send(b"abc")
            await until(lambda: reader._buffer)
            assert bytes(reader._buffer) == b"abc"
            assert "StreamReader" in repr(reader)
            assert "StreamWriter" in repr(writer)
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: reader._eof)
            assert not reader.at_eof()
            assert await reader.read(3) == b"abc"
            assert reader.at_eof()

    run(main())


def test_two_readers_at_once(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            task = asyncio.ensure_future(reader.read(1))
            await turns(1)
            with pytest.raises(RuntimeError, match="already waiting for incoming data"):
                await reader.read(1)
            peer.send(b"x")
            assert await task == b"x"

    run(main())


def test_cancelled_read_loses_nothing(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            for method in (reader.readline, lambda: reader.readexactly(5), reader.read):
                task = asyncio.ensure_future(method())
                await turns(2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            peer.send(b"line\n")
            assert await reader.readline() == b"line\n"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(5), 0.001)
            peer.send(b"12345")
            assert await reader.readexactly(5) == b"12345"

    run(main())


def test_large_message_in_small_packets_is_not_copied_for_each(run):
    """The buffer gets more room now and then, not with each packet."""
    async def main():
        async with Pair() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(reader.readexactly(8 * MIB))
            packet = bytes(MIB // 32)    # half of what a read takes, or less
            rooms = set()
            for sent in range(len(packet), 8 * MIB + 1, len(packet)):
                await loop.sock_sendall(peer, packet)
                await until(lambda sent=sent: len(reader._buffer) == sent or task.done())
                rooms.add(reader._buffer.__alloc__())
            assert len(await task) == 8 * MIB
            assert len(rooms) < 100, len(rooms)

    run(main())


def test_drain_waits_for_the_reader(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            writer.write(b"x" * (4 * MIB))
            task = asyncio.ensure_future(writer.drain())
            other = asyncio.ensure_future(writer.drain())
            await turns(5)
            assert not task.done() and not other.done()
            loop = asyncio.get_running_loop()
            total = 0
            while total < 4 * MIB:
                total += len(await loop.sock_recv(peer, 1 << 18))
            await task
            await other
            await writer.drain()

    run(main())


def test_drain_after_the_peer_left(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            writer.write(b"x" * (4 * MIB))
            task = asyncio.ensure_future(writer.drain())
            await turns(2)
            peer.close()
            with pytest.raises(ConnectionError):
                await task
            with pytest.raises(ConnectionError):
                for _ in range(10):
                    writer.write(b"y")
                    await writer.drain()

    run(main())


def test_drain_cancelled(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            writer.write(b"x" * (4 * MIB))
            task = asyncio.ensure_future(writer.drain())
            await turns(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            loop = asyncio.get_running_loop()
            total = 0
            while total < 4 * MIB:
                total += len(await loop.sock_recv(peer, 1 << 18))
            await writer.drain()

    run(main())


def test_writer(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            loop = asyncio.get_running_loop()
            assert writer.can_write_eof()
            assert not writer.is_closing()
            assert writer.get_extra_info("socket") is not None
            writer.writelines([b"a", b"b"])
            writer.write(b"c")
            await writer.drain()
            assert await loop.sock_recv(peer, 10) == b"abc"
            writer.write_eof()
            assert await loop.sock_recv(peer, 10) == b""
            writer.close()
            assert writer.is_closing()
            await writer.wait_closed()

    run(main())


def test_peer_reset(run):
    async def main():
        with listening() as server:
            address = server.getsockname()
            reader, writer = await asyncio.open_connection(*address)
            peer, _ = server.accept()
            task = asyncio.ensure_future(reader.read(10))
            await turns(2)
            import struct

            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            with pytest.raises(ConnectionResetError):
                await task
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert isinstance(reader.exception(), ConnectionResetError)
            writer.close()
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()

    run(main())


def test_failing_handler_is_reported(run, reports):
    async def main():
        async def handle(reader, writer):
            try:
                raise LookupError("handler")
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await turns(5)

    run(main())
    if PY >= (3, 12):
        assert any(isinstance(r.get("exception"), LookupError) for r in reports)


def test_echo_of_many_clients(run):
    async def main():
        async def handle(reader, writer):
            try:
                while True:
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    body = await reader.readexactly(size)
                    writer.write(size.to_bytes(4, "big"))
                    writer.write(body)
                    await writer.drain()
            except asyncio.IncompleteReadError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def client(number):
            reader, writer = await asyncio.open_connection(*address)
            for size in (0, 1, 100, 10_000, 200_000):
                body = bytes([number]) * size
                writer.write(size.to_bytes(4, "big") + body)
                await writer.drain()
                assert await reader.readexactly(4) == size.to_bytes(4, "big")
                assert await reader.readexactly(size) == body
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*map(client, range(30)))
        server.close()
        await server.wait_closed()

    run(main())


def test_subclassed_protocol_and_reader(run):
    """What is not exactly the standard class goes the ordinary way."""

    class MyReader(asyncio.StreamReader):
        fed = 0

        def feed_data(self, data):
            self.fed += len(data)
            super().feed_data(data)

        def feed_eof(self):
            self.ended = True
            super().feed_eof()

    class MyProtocol(asyncio.StreamReaderProtocol):
        received = 0

        def data_received(self, data):
            self.received += len(data)
            super().data_received(data)

    async def main():
        loop = asyncio.get_running_loop()
        one, peer = socket.socketpair()
        reader = MyReader(loop=loop)
        transport, protocol = await loop.create_connection(
            lambda: MyProtocol(reader, loop=loop), sock=one
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        peer.send(b"12345")
        assert await reader.readexactly(5) == b"12345"
        assert (reader.fed, protocol.received) == (5, 5)
        peer.close()
        assert await reader.read() == b""
        assert reader.ended
        writer.close()
        await writer.wait_closed()

    run(main())


def test_feed_data_replaced_on_the_instance(run):
    async def main():
        async with Pair() as (reader, writer, peer):
            seen = []
            original = reader.feed_data
            reader.feed_data = lambda data: (seen.append(bytes(data)), original(data))
            peer.send(b"x")
            assert await reader.read(1) == b"x"
            assert seen == [b"x"]

    run(main())


def test_set_exception_and_feed_by_hand(run):
    async def main():
        reader = asyncio.StreamReader()
        task = asyncio.ensure_future(reader.read(3))
        await turns(1)
        reader.feed_data(b"abc")
        assert await task == b"abc"
        task = asyncio.ensure_future(reader.readline())
        await turns(1)
        reader.set_exception(LookupError())
        with pytest.raises(LookupError):
            await task

    run(main())


def test_closed_streams_are_freed(run):
    async def main():
        one, peer = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one)
        refs = weakref.ref(reader), weakref.ref(writer), weakref.ref(writer.transport)
        peer.send(b"x")
        assert await reader.read(1) == b"x"
        peer.close()
        writer.close()
        await writer.wait_closed()
        del reader, writer
        return refs

    refs = run(main())
    run(turns(3))
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_connection_kept_by_its_handler_task(run):
    """The server side lives although nobody holds reader and writer but the task."""

    async def main():
        async def handle(reader, writer):
            gc.collect()
            writer.write(await reader.readexactly(1))
            await asyncio.sleep(0)
            gc.collect()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        gc.collect()
        writer.write(b"x")
        assert await reader.read() == b"x"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_bad_open_connection(run):
    async def main():
        with listening() as server:
            address = server.getsockname()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        with pytest.raises(ValueError):
            await asyncio.open_connection("127.0.0.1", 1, limit=0)

    run(main())
