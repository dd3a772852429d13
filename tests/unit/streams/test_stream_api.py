"""The methods of streams that asyncloop has in C, on a server's reader and writer."""

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import socket
import sys
import warnings

import pytest

from tests.support import turns, until


class Served:
    """A server's reader and writer, and the plain socket at the client's end."""

    def __init__(self, limit=2**16, **options):
        self.limit = limit
        self.options = options

    async def __aenter__(self):
        made = asyncio.get_running_loop().create_future()
        self.done = asyncio.Event()

        async def handle(reader, writer):
            made.set_result((reader, writer))
            await self.done.wait()

        self.server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=self.limit)
        self.peer = socket.create_connection(self.server.sockets[0].getsockname())
        self.peer.setblocking(False)
        self.reader, self.writer = await made
        return self.reader, self.writer, self.peer

    async def __aexit__(self, *exc):
        self.done.set()
        self.peer.close()
        self.writer.close()
        self.server.close()
        await turns(5)


def test_they_are_streams(run):
    async def main():
        async with Served() as (reader, writer, peer):
            assert isinstance(reader, asyncio.StreamReader)
            assert isinstance(writer, asyncio.StreamWriter)
            assert type(reader).__name__ == "StreamReader"
            assert "StreamReader" in repr(reader) and "StreamWriter" in repr(writer)
            for call in (reader.read(1), reader.readline(), writer.drain()):
                assert asyncio.iscoroutine(call)
                assert inspect.isawaitable(call)
                assert isinstance(call, collections.abc.Coroutine)
                call.close()
            reader.mine = writer.mine = 1
            assert vars(reader)["mine"] == vars(writer)["mine"] == 1

    run(main())


def test_reading_in_pieces(run):
    async def main():
        async with Served() as (reader, writer, peer):
            for method, argument, pieces, expected in [
                (reader.readexactly, (6,), [b"ab", b"cd", b"ef"], b"abcdef"),
                (reader.readline, (), [b"no", b"w\nrest"], b"now\n"),
                (reader.readexactly, (4,), [], b"rest"),
                (reader.readuntil, (), [b"x", b"\n"], b"x\n"),
                (reader.readuntil, (b"\r\n\r\n",), [b"a\r", b"\n\r", b"\nb"], b"a\r\n\r\n"),
                (reader.readuntil, (b"b",), [], b"b"),
                (reader.read, (3,), [b"12345"], b"123"),
                (reader.read, (100,), [], b"45"),
            ]:
                task = asyncio.create_task(method(*argument))
                for piece in pieces:
                    await turns(2)
                    assert not task.done()
                    peer.sendall(piece)
                    before = len(reader._buffer)
                    await until(lambda n=before: task.done() or len(reader._buffer) > n)
                assert await task == expected
                assert reader._waiter is None
            assert not reader._buffer

    run(main())


def test_arguments(run):
    async def main():
        async with Served() as (reader, writer, peer):
            assert await reader.read(0) == b""
            assert await reader.readexactly(0) == b""
            with pytest.raises(ValueError):
                await reader.readexactly(-1)
            with pytest.raises(ValueError):
                await reader.readuntil(b"")
            for wrong in ("x", None):
                with pytest.raises(TypeError):
                    await reader.readexactly(wrong)
            for call in (lambda: reader.readexactly(), lambda: reader.readline(1),
                         lambda: reader.readexactly(1, 2), lambda: reader.read(m=1),
                         lambda: writer.write(), lambda: writer.drain(1)):
                with pytest.raises(TypeError):
                    call()
            peer.sendall(b"one two three\n")
            assert await reader.readuntil(separator=b" ") == b"one "
            assert await reader.read(n=4) == b"two "
            assert await reader.readexactly(n=2) == b"th"
            assert await reader.readuntil(bytearray(b"e")) == b"re"
            assert await reader.read(True) == b"e"
            assert await reader.read(1 << 100) == b"\n"

    run(main())


def test_the_end(run):
    async def main():
        async with Served() as (reader, writer, peer):
            peer.sendall(b"partial")
            task = asyncio.create_task(reader.readexactly(10))
            await until(lambda: len(reader._buffer) == 7)
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await task
            assert (caught.value.partial, caught.value.expected) == (b"partial", 10)
            assert await reader.read(10) == b"" and await reader.readline() == b""
            with pytest.raises(asyncio.IncompleteReadError):
                await reader.readuntil()
            assert reader.at_eof()
            writer.write(b"still open")
            await writer.drain()
            await until(lambda: peer.recv(100, socket.MSG_PEEK) == b"still open")

        async with Served() as (reader, writer, peer):
            task = asyncio.create_task(reader.readline())
            peer.sendall(b"no newline")
            peer.shutdown(socket.SHUT_WR)
            assert await task == b"no newline"

        async with Served() as (reader, writer, peer):
            task = asyncio.create_task(reader.read())
            peer.sendall(b"everything")
            peer.shutdown(socket.SHUT_WR)
            assert await task == b"everything"

    run(main())


def test_limits(run):
    async def main():
        async with Served(limit=16) as (reader, writer, peer):
            peer.sendall(b"x" * 20 + b"\nabc\n")
            await until(lambda: len(reader._buffer) == 25)
            with pytest.raises(asyncio.LimitOverrunError) as caught:
                await reader.readuntil()
            assert caught.value.consumed == 20
            with pytest.raises(ValueError, match="longer than limit"):
                await reader.readline()
            assert await reader.readline() == b"abc\n"
            peer.sendall(b"y" * 20)
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b"||")
            assert await reader.readexactly(20) == b"y" * 20
            # far more than twice the limit: reading pauses, and is resumed
            peer.sendall(b"z" * 1000)
            assert await reader.readexactly(1000) == b"z" * 1000
            assert not reader._paused

    run(main())


def test_two_at_once(run):
    async def main():
        async with Served() as (reader, writer, peer):
            first = asyncio.create_task(reader.readline())
            await turns(2)
            with pytest.raises(RuntimeError, match="read\\(\\) called while another coroutine"):
                await reader.read(1)
            peer.sendall(b"line\n")
            assert await first == b"line\n"

    run(main())


def test_cancelled(run):
    async def main():
        async with Served() as (reader, writer, peer):
            for method in (lambda: reader.readexactly(3), reader.readline, lambda: reader.read(3)):
                task = asyncio.create_task(method())
                await turns(2)
                assert reader._waiter is not None
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert reader._waiter is None
            # cancelled when the bytes are there already: nothing is lost
            task = asyncio.create_task(reader.readexactly(3))
            await turns(2)
            peer.sendall(b"abc")
            await until(lambda t=task: t.done() or len(reader._buffer) == 3)
            if not task.done():
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await reader.readexactly(3) == b"abc"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.readline(), 0.01)
            assert reader._waiter is None
            call = reader.readline()
            call.send(None)
            assert reader._waiter is not None
            call.close()
            assert reader._waiter is None
            call = reader.readline()
            waiter = call.send(None)
            del call
            gc.collect()
            assert reader._waiter is None and not waiter.done()

    run(main())


def test_exception_set(run):
    async def main():
        async with Served() as (reader, writer, peer):
            task = asyncio.create_task(reader.readline())
            await turns(2)
            reader.set_exception(ZeroDivisionError("mine"))
            with pytest.raises(ZeroDivisionError):
                await task
            for call in (reader.read(1), reader.readexactly(1), reader.readline(),
                         reader.readuntil(), writer.drain()):
                with pytest.raises(ZeroDivisionError):
                    await call

    run(main())


def test_drain(run):
    async def main():
        async with Served() as (reader, writer, peer):
            await writer.drain()
            blob = b"x" * (1 << 20)
            # Well above the high-water mark: the kernel may take a little more yet.
            while writer.transport.get_write_buffer_size() < len(blob):
                writer.write(blob)
            task = asyncio.create_task(writer.drain())
            await turns(3)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            task = asyncio.create_task(writer.drain())
            # What drain() waits for may be less than all; close() would wait for the rest.
            while not task.done() or writer.transport.get_write_buffer_size():
                await turns(1)
                with contextlib.suppress(BlockingIOError):
                    peer.recv(1 << 20)
            await task
            writer.close()
            with pytest.raises(ConnectionResetError):
                await writer.drain()

        async with Served() as (reader, writer, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            with pytest.raises(ConnectionResetError):
                while True:
                    writer.write(b"x" * 1000)
                    await writer.drain()
                    await turns(1)

    run(main())


def test_write_refuses(run):
    async def main():
        async with Served() as (reader, writer, peer):
            for wrong in ("text", 1, None):
                with pytest.raises(TypeError):
                    writer.write(wrong)
            assert writer.write(bytearray(b"array ")) is None
            writer.write(memoryview(b"view"))
            await until(lambda: peer.recv(100, socket.MSG_PEEK) == b"array view")
            writer.write_eof()
            with pytest.raises(RuntimeError):
                writer.write(b"more")

    run(main())


def test_never_awaited(run):
    async def main():
        async with Served() as (reader, writer, peer):
            for method in (reader.readline, writer.drain):
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    method()
                    gc.collect()
                assert [w.category for w in seen] == [RuntimeWarning]
                assert "was never awaited" in str(seen[0].message)
                assert method.__name__ in str(seen[0].message)
            reader.readline().close()

    run(main())


def test_awaited_twice(run):
    async def main():
        async with Served() as (reader, writer, peer):
            call = writer.drain()
            await call
            with pytest.raises(RuntimeError, match="already awaited"):
                await call

    run(main())


def test_methods_replaced(run, monkeypatch):
    async def readline(self):
        return b"replaced"

    async def main():
        async with Served() as (reader, writer, peer):
            with monkeypatch.context() as patch:
                patch.setattr(asyncio.StreamReader, "readline", readline)
                assert await reader.readline() == b"replaced"
            with monkeypatch.context() as patch:
                patch.setattr(asyncio.StreamWriter, "write", lambda self, data: len(data))
                assert writer.write(b"1234") == 4
            reader.readexactly = lambda n: "mine"
            assert reader.readexactly(3) == "mine"
            peer.sendall(b"still\n")
            assert await reader.readline() == b"still\n"

    run(main())


def test_state_changed_by_hand(run):
    async def main():
        async with Served() as (reader, writer, peer):
            reader._buffer.extend(b"put in\nmore")
            assert await reader.readline() == b"put in\n"
            reader.feed_data(b" and more")
            assert await reader.readexactly(13) == b"more and more"
            task = asyncio.create_task(reader.readexactly(2))
            await turns(2)
            reader.feed_data(b"ok")
            assert await task == b"ok"
            reader.feed_data(b"held")
            with memoryview(reader._buffer):
                with pytest.raises(BufferError):
                    await reader.readexactly(4)
            assert await reader.readexactly(4) == b"held"
            reader.feed_eof()
            assert await reader.read(1) == b""

    run(main())


def test_replaced_server_callback(run):
    """The protocol is left with the callback that it had."""

    async def main():
        seen = asyncio.get_running_loop().create_future()

        def handle(reader, writer):
            seen.set_result(writer)

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            writer = await seen
            protocol = writer.transport.get_protocol()
            assert protocol._client_connected_cb is handle
            assert isinstance(writer, asyncio.StreamWriter)
        writer.close()
        server.close()

    run(main())


def test_nothing_is_kept(run):
    """Counts references: a conversation leaves none behind."""

    async def main():
        async with Served() as (reader, writer, peer):
            await turns(3)

            async def converse():
                for _ in range(50):
                    peer.sendall(b"12345678\n")
                    assert await reader.readline() == b"12345678\n"
                    writer.write(b"1" * 2000)
                    await writer.drain()
                    task = asyncio.create_task(reader.readexactly(1))
                    await turns(1)
                    task.cancel()
                    await asyncio.wait([task])
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(reader.read(10), 0.0001)
                    try:
                        while peer.recv(1 << 16):
                            pass
                    except BlockingIOError:
                        pass

            await converse()
            gc.collect()
            before = [sys.getrefcount(x) for x in (reader, writer, writer.transport)]
            objects = len(gc.get_objects())
            await converse()
            gc.collect()
            assert [sys.getrefcount(x) for x in (reader, writer, writer.transport)] == before
            assert abs(len(gc.get_objects()) - objects) < 40

    run(main())
