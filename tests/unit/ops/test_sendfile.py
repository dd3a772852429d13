"""sock_sendfile and sendfile."""

import asyncio
import io
import os
import socket
import struct
import sys

import pytest

from tests.support import tcp_pair, turns, until

DATA = os.urandom(1 << 16) * 64  # more than the small buffers below take at once


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as opened:
        yield opened


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


async def receive_all(loop, sock):
    received = bytearray()
    while data := await loop.sock_recv(sock, 1 << 16):
        received += data
    return bytes(received)


@pytest.mark.parametrize(
    "offset, count",
    [(0, None), (1000, None), (0, 5000), (70000, 300000), (0, len(DATA)), (0, 2 * len(DATA))],
)
def test_sock_sendfile(run, loop, pair, file, offset, count):
    one, other = pair

    async def main():
        receiving = asyncio.create_task(receive_all(loop, other))
        sent = await loop.sock_sendfile(one, file, offset, count, fallback=False)
        one.close()
        return sent, await receiving

    expected = DATA[offset:] if count is None else DATA[offset : offset + count]
    sent, received = run(main())
    assert (sent, received) == (len(expected), expected)
    assert file.tell() == offset + len(expected)


def test_sock_sendfile_empty_file(run, loop, pair, tmp_path):
    path = tmp_path / "empty"
    path.touch()
    with path.open("rb") as empty:
        assert run(loop.sock_sendfile(pair[0], empty)) == 0


def test_sock_sendfile_not_a_file(run, loop, pair):
    async def main():
        with pytest.raises(asyncio.SendfileNotAvailableError) as told:
            await loop.sock_sendfile(pair[0], io.BytesIO(b"abc"), fallback=False)
        assert isinstance(told.value.__context__, io.UnsupportedOperation)
        assert told.value.__cause__ is None
        assert not told.value.__suppress_context__
        sent = await loop.sock_sendfile(pair[0], io.BytesIO(b"abc"))
        return sent, await loop.sock_recv(pair[1], 100)

    assert run(main()) == (3, b"abc")


@pytest.mark.our_loop("asyncio leaves the position of the file where it was")
def test_sock_sendfile_cancelled(run, loop, pair, file):
    one, other = pair

    async def main():
        task = asyncio.create_task(loop.sock_sendfile(one, file))
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        position = file.tell()
        one.close()
        assert await receive_all(loop, other) == DATA[:position]

    run(main())


def test_sock_sendfile_descriptor_of_a_transport(run, loop, file):
    async def main():
        one, other = tcp_pair()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with other:
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_sendfile(one, file)
            transport.abort()
            await turns(3)

    run(main())


class Sender(asyncio.Protocol):
    def __init__(self):
        self.received = b""
        self.lost = None

    def data_received(self, data):
        self.received += data

    def connection_lost(self, exc):
        self.lost = (exc,)


async def connected(loop):
    """A transport, its protocol, and the other end's socket."""
    one, other = tcp_pair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    other.setblocking(False)
    transport, protocol = await loop.connect_accepted_socket(Sender, one)
    return transport, protocol, other


def test_sendfile_after_buffered_writes(run, loop, file):
    async def main():
        transport, protocol, other = await connected(loop)
        with other:
            before = b"before" * 500000
            transport.write(before)
            assert transport.get_write_buffer_size() > 0
            receiving = asyncio.create_task(receive_all(loop, other))
            sent = await loop.sendfile(transport, file, fallback=False)
            assert sent == len(DATA)
            transport.write(b"after")
            transport.close()
            assert await receiving == before + DATA + b"after"
            await until(lambda: protocol.lost)
            assert protocol.lost == (None,)

    run(main())


@pytest.mark.parametrize("offset, count", [(0, None), (100, 5000), (len(DATA), 100)])
def test_sendfile_part(run, loop, file, offset, count):
    async def main():
        transport, _, other = await connected(loop)
        with other:
            receiving = asyncio.create_task(receive_all(loop, other))
            sent = await loop.sendfile(transport, file, offset, count)
            transport.close()
            return sent, await receiving

    expected = DATA[offset:] if count is None else DATA[offset : offset + count]
    assert run(main()) == (len(expected), expected)


def test_no_write_in_between(run, loop, file):
    async def main():
        transport, _, other = await connected(loop)
        with other:
            task = asyncio.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0.01)
            assert not task.done()
            with pytest.raises(RuntimeError):
                transport.write(b"x")
            receiving = asyncio.create_task(receive_all(loop, other))
            await task
            transport.write(b"y")
            transport.close()
            assert await receiving == DATA + b"y"

    run(main())


def test_reading_goes_on_afterwards(run, loop, file):
    async def main():
        transport, protocol, other = await connected(loop)
        with other:
            task = asyncio.create_task(loop.sendfile(transport, file, 0, 10))
            await task
            assert transport.is_reading()
            await loop.sock_sendall(other, b"hello")
            await until(lambda: protocol.received == b"hello")
            transport.pause_reading()
            await loop.sendfile(transport, file, 0, 10)
            assert not transport.is_reading()
            transport.close()
            await turns(3)

    run(main())


def test_sendfile_not_a_file(run, loop):
    async def main():
        transport, _, other = await connected(loop)
        with other:
            with pytest.raises((asyncio.SendfileNotAvailableError, RuntimeError)):
                await loop.sendfile(transport, io.BytesIO(b"abc"), fallback=False)
            assert await loop.sendfile(transport, io.BytesIO(b"abc")) == 3
            transport.close()
            assert await receive_all(loop, other) == b"abc"

    run(main())


def test_peer_goes_away(run, loop, file):
    async def main():
        transport, protocol, other = await connected(loop)
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0.01)
        other.close()
        with pytest.raises(ConnectionError):
            await task
        transport.abort()
        await until(lambda: protocol.lost)

    run(main())


@pytest.mark.parametrize("kind", ["usual", "of its own"])
def test_the_peer_resets_while_sendfile_waits_for_earlier_output(run, loop, file, kind, reports):
    """(asyncio tells the waiter twice, and reports the second time.)"""

    class Future(asyncio.Future):
        pass

    async def main():
        transport, protocol, other = await connected(loop)
        transport.write(b"before" * 500000)
        assert transport.get_write_buffer_size() > 0
        if kind == "of its own":
            loop.create_future = lambda: Future(loop=loop)
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        with pytest.raises(ConnectionError):
            await task
        await until(lambda: protocol.lost)
        transport.abort()

    run(main())


@pytest.mark.our_loop("asyncio leaves the position of the file where it was")
def test_sendfile_cancelled_then_written(run, loop, file):
    async def main():
        transport, _, other = await connected(loop)
        with other:
            task = asyncio.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            position = file.tell()
            transport.write(b"end")
            transport.close()
            assert await receive_all(loop, other) == DATA[:position] + b"end"

    run(main())


def test_closing_transport(run, loop, file):
    async def main():
        transport, _, other = await connected(loop)
        with other:
            transport.close()
            with pytest.raises(RuntimeError, match="closing"):
                await loop.sendfile(transport, file)
            await turns(3)

    run(main())


@pytest.mark.parametrize("offset, count", [(-1, None), (0, 0), (0, -5), (0.5, None), (0, "1")])
def test_bad_arguments(run, loop, pair, file, offset, count):
    with pytest.raises((TypeError, ValueError)):
        run(loop.sock_sendfile(pair[0], file, offset, count))


@pytest.mark.parametrize("count", [1 << 63, 1 << 64, 10**40])
def test_a_count_beyond_every_size(run, loop, file, pair, count):
    """os.sendfile() does not take it; from 3.13 on asyncio asks for less at once."""

    async def main():
        one, other = pair
        receiving = asyncio.ensure_future(receive_all(loop, other))
        if sys.version_info < (3, 13):
            with pytest.raises(OverflowError):
                await loop.sock_sendfile(one, file, 0, count)
        else:
            assert await loop.sock_sendfile(one, file, 0, count) == len(DATA)
        one.shutdown(socket.SHUT_WR)
        await receiving

    run(main())


@pytest.mark.parametrize("way", ["sock_sendfile", "_sock_sendfile_native"])
def test_sendfile_calls_the_method_for_sockets(loop, run, pair, tmp_path, way):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    calls, own = [], getattr(loop, way)

    async def wrapped(sock, *args, **kwargs):
        calls.append(sock.fileno())
        return await own(sock, *args, **kwargs)

    async def instead(sock, *args, **kwargs):
        return 7

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair[0])
        received = asyncio.create_task(receive_all(loop, pair[1]))
        setattr(loop, way, wrapped)
        with path.open("rb") as file:
            assert await loop.sendfile(transport, file) == 300_000
            assert calls == [pair[0].fileno()]
            setattr(loop, way, instead)
            assert await loop.sendfile(transport, file) == 7
        transport.close()
        assert len(await received) == 300_000

    run(main())
