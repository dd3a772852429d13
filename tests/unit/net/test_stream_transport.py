"""TCP and Unix stream transports under Protocol and BufferedProtocol."""

import asyncio
import contextlib
import contextvars
import gc
import os
import random
import socket
import struct
import sys
import warnings
import weakref

import pytest

from tests.protocols import Echo, Recorder
from tests.support import (
    PY,
    collect,
    listening,
    plain_repr,
    spin,
    tcp_pair,
    turns,
    until,
    without_collector,
)

MIB = 1 << 20


class Boom(Exception):
    pass


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """The same through get_buffer and buffer_updated."""

    size = 1000

    def __init__(self):
        Recorder.__init__(self)
        self.buffer = bytearray(self.size)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        assert nbytes > 0
        self.data += self.buffer[:nbytes]


def make_peer(family):
    if family == "unix":
        return socket.socketpair()
    return tcp_pair()


@contextlib.asynccontextmanager
async def connection(factory=Recorder, family="unix"):
    """(transport, protocol, blocking peer socket); everything closed afterwards."""
    loop = asyncio.get_running_loop()
    mine, peer = make_peer(family)
    mine.setblocking(False)
    peer.setblocking(False)
    transport, protocol = await loop.connect_accepted_socket(factory, mine)
    try:
        yield transport, protocol, peer
    finally:
        peer.close()
        if not isinstance(protocol, Recorder):
            transport.abort()
        elif not protocol.closed.done():
            transport.abort()
            await protocol.closed
        await turns(2)


@contextlib.asynccontextmanager
async def both_ends(left=Recorder, right=Recorder, family="tcp", tmp_path=None):
    """Two connected transports of this loop."""
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()

    def factory():
        protocol = right()
        accepted.set_result(protocol)
        return protocol

    if family == "tcp":
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        client, one = await loop.create_connection(left, *address)
    else:
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(factory, path)
        client, one = await loop.create_unix_connection(left, path)
    two = await accepted
    await two.made
    try:
        yield one, two
    finally:
        for protocol in (one, two):
            if not protocol.closed.done():
                protocol.transport.abort()
                await protocol.closed
        server.close()
        await server.wait_closed()
        await turns(2)


async def receive(peer, size=None):
    """Read `size` bytes, or to the end, from the plain peer socket."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while size is None or len(data) < size:
        chunk = await loop.run_in_executor(None, blocking_recv, peer)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def blocking_recv(peer):
    dup = peer.dup()
    try:
        dup.setblocking(True)
        return dup.recv(65536)
    finally:
        dup.close()


FAMILIES = ["tcp", "unix"]
BOTH = [Recorder, BufferedRecorder]


# Data


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("factory", BOTH)
def test_receive(run, family, factory):
    async def main():
        async with connection(factory, family) as (transport, protocol, peer):
            peer.send(b"hello")
            await until(lambda: protocol.data == b"hello")
            peer.send(b"x" * 50_000)
            await until(lambda: len(protocol.data) == 50_005)

    run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_send(run, family):
    async def main():
        async with connection(Recorder, family) as (transport, protocol, peer):
            transport.write(b"hello")
            transport.writelines([b" ", b"world"])
            assert await receive(peer, 11) == b"hello world"

    run(main())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("left", BOTH)
@pytest.mark.parametrize("right", BOTH)
def test_large_both_ways(run, family, left, right, tmp_path):
    payload = random.Random(1).randbytes(4 * MIB)

    async def main():
        async with both_ends(left, right, family, tmp_path) as (one, two):
            one.transport.write(payload)
            two.transport.write(payload)
            await until(lambda: len(one.data) == len(two.data) == len(payload))
            assert one.data == payload
            assert two.data == payload

    run(main())


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_large_packets_stay_what_they_were(run, keep):
    """Packets whose size keeps changing, of which the protocol keeps none, all, or each third."""
    sizes = [262144] * 6 + [65536] * 12 + [1000] * 8 + [100_000, 40_000, 700_000] * 4 + [33_000] * 9
    whole = random.Random(1).randbytes(sum(sizes))

    class Keeper(asyncio.Protocol):
        def __init__(self):
            self.position = self.count = 0
            self.kept = []

        def data_received(self, data):
            assert data == whole[self.position : self.position + len(data)]
            self.count += 1
            if keep and self.count % keep == 0:
                self.kept.append((self.position, data, hash(data)))
            self.position += len(data)

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        with peer:
            peer.setblocking(False)
            transport, protocol = await loop.create_connection(Keeper, sock=ours)
            position = 0
            for size in sizes:
                await loop.sock_sendall(peer, whole[position : position + size])
                position += size
                await until(lambda: protocol.position == position)
            for start, data, number in protocol.kept:
                assert data == whole[start : start + len(data)]
                assert hash(data) == number
            transport.abort()
            await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_writes_keep_their_order(run, family, tmp_path):
    rng = random.Random(5)
    pieces = [rng.randbytes(rng.choice([0, 1, 10, 1000, 70_000])) for _ in range(300)]

    async def main():
        async with both_ends(family=family, tmp_path=tmp_path) as (one, two):
            index = 0
            while index < len(pieces):
                count = rng.randrange(1, 6)
                batch = pieces[index : index + count]
                index += count
                kind = rng.randrange(4)
                if kind == 0:
                    one.transport.writelines(batch)
                elif kind == 1:
                    one.transport.writelines(iter(map(bytearray, batch)))
                elif kind == 2:
                    for piece in batch:
                        one.transport.write(memoryview(piece))
                else:
                    for piece in batch:
                        one.transport.write(piece)
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
            expected = b"".join(pieces)
            await until(lambda: len(two.data) == len(expected))
            assert two.data == expected

    run(main())


def test_writelines_above_iov_max(run):
    pieces = [bytes([i % 251]) * 7 for i in range(5000)]

    async def main():
        async with both_ends() as (one, two):
            one.transport.write(b"s" * (4 * MIB))  # so that the list is queued
            one.transport.writelines(pieces)
            expected = b"s" * (4 * MIB) + b"".join(pieces)
            await until(lambda: len(two.data) == len(expected))
            assert two.data == expected

    run(main())


@pytest.mark.parametrize("length", [4095, 4096, 4097])
@pytest.mark.parametrize("count", [2, 3, 17])
def test_writelines_of_short_pieces(run, length, count):
    """About as long together as what leaves in one piece."""
    step = length // count + 1
    expected = random.Random(length).randbytes(length)
    pieces = [expected[i : i + step] for i in range(0, length, step)]

    async def main():
        async with both_ends() as (one, two):
            one.transport.writelines(pieces)
            one.transport.writelines(map(bytearray, pieces))
            await until(lambda: len(two.data) == 2 * length)
            assert two.data == 2 * expected

    run(main())


@pytest.mark.our_loop("some releases never pause after writelines")
def test_writelines_to_a_slow_reader(run):
    """Nothing of the tail is lost, and the protocol is told to pause."""
    pieces = [bytes([i]) * 6500 for i in range(100)]

    async def main():
        async with connection() as (transport, protocol, peer):
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
            )
            transport.writelines(pieces)
            assert "pause" in protocol.events
            assert transport.get_write_buffer_size() > 64 * 1024
            assert await receive(peer, 650_000) == b"".join(pieces)
            await until(lambda: "resume" in protocol.events)
            assert transport.get_write_buffer_size() == 0

    run(main())


def test_writelines_odd_arguments(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.writelines([])
            transport.writelines([b"", b""])
            transport.writelines((b"tuple",))
            transport.writelines(x for x in [b"generator"])
            assert await receive(peer, 14) == b"tuplegenerator"
            with pytest.raises(TypeError):
                transport.writelines(3)
            with pytest.raises(TypeError):
                transport.writelines([b"a", 3])
            with pytest.raises(TypeError):
                transport.writelines(["text"])
            await turns(3)

    run(main())


@pytest.mark.parametrize("bad", [None, 3, "text", [b"x"], object()], ids=plain_repr)
def test_write_bad_arguments(run, bad):
    async def main():
        async with connection() as (transport, protocol, peer):
            with pytest.raises(TypeError):
                transport.write(bad)
            transport.write(b"fine")
            assert await receive(peer, 4) == b"fine"

    run(main())


def test_empty_write(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            for empty in (b"", bytearray(), memoryview(b"")):
                transport.write(empty)
            transport.write(b"x")
            assert await receive(peer, 1) == b"x"
            assert transport.get_write_buffer_size() == 0

    run(main())


def fill(transport):
    """Write until the kernel takes no more, so that what follows is queued."""
    total = 0
    while transport.get_write_buffer_size() == 0:
        transport.write(b"f" * 65536)
        total += 65536
    return total


@pytest.mark.our_loop("sends what the buffer holds later, from 3.12 on")
@pytest.mark.parametrize("how", ["write", "writelines"])
def test_mutation_after_write(run, how):
    """What is on the wire is what the buffer held at the call."""

    class BytesSubclass(bytes):
        pass

    async def main():
        async with connection() as (transport, protocol, peer):
            filled = fill(transport)
            buffer = bytearray(b"a" * 1000)
            view = memoryview(bytearray(b"b" * 1000))
            sub = BytesSubclass(b"c" * 1000)
            if how == "write":
                for item in (buffer, view, sub):
                    transport.write(item)
            else:
                transport.writelines([buffer, view, sub])
            buffer[:] = b"X" * 1000
            buffer.extend(b"resized")
            view[:] = b"Y" * 1000
            data = await receive(peer, filled + 3000)
            assert data[filled:] == b"a" * 1000 + b"b" * 1000 + b"c" * 1000

    run(main())


def test_write_of_wide_memoryview(run):
    """The unit of the lengths is the byte, whatever the items are."""
    import array

    async def main():
        async with connection() as (transport, protocol, peer):
            numbers = array.array("I", range(100))
            transport.write(memoryview(numbers))
            transport.write(memoryview(b"abcdefgh").cast("B", (2, 4)))
            assert await receive(peer, 408) == numbers.tobytes() + b"abcdefgh"

    run(main())


def test_write_of_strided_memoryview(run, reports):
    """It can't be sent: fatal to the connection, as any other failing write."""

    async def main():
        async with connection() as (transport, protocol, peer):
            try:
                transport.write(memoryview(b"abcdef")[::2])
            except BufferError:
                return
            assert isinstance(await protocol.closed, BufferError)
            assert isinstance(reports.pop()["exception"], BufferError)

    run(main())


def test_one_byte_segments(run):
    async def main():
        async with connection(family="tcp") as (transport, protocol, peer):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(500):
                peer.send(bytes([i % 256]))
                if i % 50 == 0:
                    await turns(1)
            await until(lambda: len(protocol.data) == 500)
            assert protocol.data == bytes(i % 256 for i in range(500))

    run(main())


# Flow control


def test_pause_and_resume_writing(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=100_000, low=10_000)
            assert transport.get_write_buffer_limits() == (10_000, 100_000)
            sent = 0
            while "pause" not in protocol.events:
                assert transport.get_write_buffer_size() <= 100_000
                transport.write(b"x" * 10_000)
                sent += 10_000
            assert transport.get_write_buffer_size() > 100_000
            received = 0
            while "resume" not in protocol.events:
                received += len(await receive(peer, 1))
            assert transport.get_write_buffer_size() <= 10_000
            received += len(await receive(peer, sent - received))
            assert received == sent
            assert protocol.events == ["made", "pause", "resume"]

    run(main())


def test_write_buffer_limits(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            low, high = transport.get_write_buffer_limits()
            assert (low, high) == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_limits() == (250, 1000)
            transport.set_write_buffer_limits(low=1000)
            assert transport.get_write_buffer_limits() == (1000, 4000)
            transport.set_write_buffer_limits(0)
            assert transport.get_write_buffer_limits() == (0, 0)
            for args in (dict(high=1, low=2), dict(high=-1), dict(low=-1), dict(high=5, low=-1)):
                with pytest.raises(ValueError):
                    transport.set_write_buffer_limits(**args)
            transport.set_write_buffer_limits()
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)

    run(main())


def test_limits_take_effect_at_once_or_with_the_next_write(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            fill(transport)
            transport.write(b"x" * 20_000)
            transport.set_write_buffer_limits(high=0)
            transport.write(b"x")
            assert protocol.events.count("pause") == 1

    run(main())


def test_failing_pause_and_resume_writing(run, reports):
    class Fails(Recorder):
        def pause_writing(self):
            super().pause_writing()
            raise Boom("pause")

        def resume_writing(self):
            super().resume_writing()
            raise Boom("resume")

    async def main():
        async with connection(Fails) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            total = fill(transport)
            assert len(await receive(peer, total)) == total
            await until(lambda: "resume" in protocol.events)
            transport.write(b"on")
            assert await receive(peer, 2) == b"on"

    run(main())
    messages = [report["message"] for report in reports]
    assert any("pause_writing() failed" in m for m in messages)
    assert any("resume_writing() failed" in m for m in messages)
    assert {type(r["exception"]) for r in reports} == {Boom}


def test_exit_out_of_pause_writing(run):
    class Leaves(Recorder):
        def pause_writing(self):
            raise KeyboardInterrupt

    async def main():
        async with connection(Leaves) as (transport, protocol, peer):
            with pytest.raises(KeyboardInterrupt):
                fill(transport)
                transport.write(b"x" * 200_000)

    run(main())


def test_write_from_resume_writing(run):
    class Echo(Recorder):
        def resume_writing(self):
            super().resume_writing()
            if self.events.count("resume") < 3:
                self.transport.write(b"y" * 500_000)

    async def main():
        async with connection(Echo) as (transport, protocol, peer):
            transport.write(b"x" * 500_000)
            data = await receive(peer, 1_500_000)
            assert data == b"x" * 500_000 + b"y" * 1_000_000

    run(main())


def test_pause_reading(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            assert transport.is_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            transport.pause_reading()
            peer.send(b"later")
            await turns(5)
            assert not protocol.data
            transport.resume_reading()
            assert transport.is_reading()
            transport.resume_reading()
            await until(lambda: protocol.data == b"later")

    run(main())


def test_pause_reading_from_data_received(run):
    class OneAtATime(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        async with connection(OneAtATime) as (transport, protocol, peer):
            peer.send(b"a" * 10)
            await until(lambda: protocol.data)
            peer.send(b"b" * 10)
            await turns(5)
            assert protocol.data == b"a" * 10
            transport.resume_reading()
            await until(lambda: len(protocol.data) == 20)

    run(main())


def test_end_while_paused(run):
    """The peer leaves while reading is paused: the data comes, then the end, once."""

    async def main():
        async with connection() as (transport, protocol, peer):
            transport.pause_reading()
            peer.send(b"last words")
            peer.shutdown(socket.SHUT_WR)
            await turns(5)
            assert protocol.events == ["made"]
            transport.resume_reading()
            await protocol.closed
            assert protocol.data == b"last words"
            assert protocol.events == ["made", "eof", "lost"]

    run(main())


def test_pause_and_resume_after_close(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.close()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            await protocol.closed
            transport.pause_reading()
            transport.resume_reading()

    run(main())


# The end


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", [None, False, 0])
def test_end_closes(run, family, answer):
    async def main():
        async with connection(Recorder, family) as (transport, protocol, peer):
            protocol.eof_answer = answer
            peer.send(b"x")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.closed is None
            assert protocol.data == b"x"
            assert protocol.events == ["made", "eof", "lost"]
            assert peer.recv(1) == b""

    run(main())


@pytest.mark.parametrize("factory", BOTH)
@pytest.mark.parametrize("family", FAMILIES)
def test_half_open(run, family, factory):
    """eof_received answers True: this side goes on writing."""

    async def main():
        async with connection(factory, family) as (transport, protocol, peer):
            protocol.eof_answer = True
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.events)
            await turns(5)
            assert protocol.events == ["made", "eof"]
            assert not transport.is_closing()
            transport.write(b"still here")
            assert await receive(peer, 10) == b"still here"
            await turns(5)
            transport.close()
            assert await protocol.closed is None
            assert protocol.events == ["made", "eof", "lost"]
            assert peer.recv(1) == b""

    run(main())


def test_half_open_paused_and_resumed(run):
    """Whoever is the protocol when reading is resumed hears of the end."""

    async def main():
        async with connection() as (transport, protocol, peer):
            protocol.eof_answer = True
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.events)
            transport.pause_reading()
            transport.resume_reading()
            await until(lambda: protocol.events == ["made", "eof", "eof"])
            successor = Recorder()
            successor.eof_answer = True
            transport.pause_reading()
            transport.set_protocol(successor)
            transport.resume_reading()
            await until(lambda: successor.events)
            assert successor.events == ["eof"]
            transport.set_protocol(protocol)

    run(main())


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_eof_received_leaves_the_loop(loop, leaving):
    """The end is told again when the loop goes on."""

    class Leaving(Recorder):
        eof_answer = True

        def eof_received(self):
            super().eof_received()
            if len(self.events) < 4:
                raise leaving
            return True

    async def main():
        async with connection(Leaving) as (_, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.events == ["made", "eof", "eof", "eof"])
            await turns(5)
            assert protocol.events == ["made", "eof", "eof", "eof"]

    task = loop.create_task(main())
    for _ in range(2):
        with pytest.raises(leaving):
            loop.run_until_complete(task)
    loop.run_until_complete(task)


@pytest.mark.parametrize("family", FAMILIES)
def test_write_eof(run, family):
    async def main():
        async with connection(Recorder, family) as (transport, protocol, peer):
            assert transport.can_write_eof()
            transport.write(b"abc")
            transport.write_eof()
            transport.write_eof()
            assert await receive(peer) == b"abc"
            with pytest.raises(RuntimeError, match="Cannot call write\\(\\) after write_eof"):
                transport.write(b"x")
            with pytest.raises(RuntimeError, match="after write_eof"):
                transport.writelines([b"x"])
            peer.send(b"answer")
            await until(lambda: protocol.data == b"answer")

    run(main())


def test_write_eof_after_queued_data(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            payload = b"z" * (3 * MIB)
            transport.write(payload)
            transport.write_eof()
            assert await receive(peer) == payload
            assert not transport.is_closing()

    run(main())


def test_both_half_close(run):
    class Keep(Recorder):
        def __init__(self):
            super().__init__()
            self.eof_answer = True

    async def main():
        async with both_ends(Keep, Keep) as (one, two):
            one.transport.write(b"1" * MIB)
            one.transport.write_eof()
            await until(lambda: "eof" in two.events)
            assert len(two.data) == MIB
            two.transport.write(b"2" * MIB)
            two.transport.write_eof()
            await until(lambda: "eof" in one.events)
            assert len(one.data) == MIB
            one.transport.close()
            two.transport.close()
            await one.closed
            await two.closed

    run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_close_flushes(run, family):
    async def main():
        async with connection(Recorder, family) as (transport, protocol, peer):
            payload = b"w" * (3 * MIB)
            transport.write(payload)
            transport.close()
            assert transport.is_closing()
            assert protocol.events in (["made"], ["made", "pause"])
            assert await receive(peer) == payload
            assert await protocol.closed is None

    run(main())


def test_close_calls_connection_lost_later(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            assert not transport.is_closing()
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert protocol.events == ["made"]
            await turns(1)
            assert protocol.events == ["made", "lost"]
            transport.close()
            assert peer.recv(1) == b""

    run(main())


def test_close_stops_reading(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.write(b"x" * MIB)
            transport.close()
            peer.send(b"ignored")
            await turns(5)
            assert not protocol.data
            await receive(peer, MIB)

    run(main())


def test_abort(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            total = fill(transport)
            before = transport.get_write_buffer_size()
            transport.write(b"never sent" * 1000)
            transport.abort()
            transport.abort()
            assert transport.is_closing()
            assert protocol.closed.done() is False
            assert await protocol.closed is None
            assert transport.get_write_buffer_size() == 0
            data = bytearray()
            with contextlib.suppress(ConnectionResetError):
                data = await receive(peer)
            assert len(data) <= total - before
            assert b"never" not in data

    run(main())


def test_abort_after_close(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            fill(transport)
            transport.close()
            await turns(3)
            assert protocol.events[-1] != "lost"
            transport.abort()
            assert await protocol.closed is None

    run(main())


WRITELINES = lambda t: t.writelines([b"x", b"y"])
CALLS = [
    lambda t: t.write(b"x"),
    lambda t: t.write(bytearray(b"x" * 100_000)),
    WRITELINES,
    lambda t: t.write_eof(),
    lambda t: t.close(),
    lambda t: t.abort(),
    lambda t: t.is_closing(),
    lambda t: t.pause_reading(),
    lambda t: t.resume_reading(),
    lambda t: t.is_reading(),
    lambda t: t.can_write_eof(),
    lambda t: t.get_write_buffer_size(),
    lambda t: t.get_write_buffer_limits(),
    lambda t: t.set_write_buffer_limits(10),
    lambda t: t.get_protocol(),
    lambda t: t.set_protocol(t.get_protocol()),
    lambda t: t.get_extra_info("socket"),
    lambda t: t.get_extra_info("peername"),
    lambda t: t.get_extra_info("no such thing", 1),
    lambda t: repr(t),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["close", "abort", "reset", "peer end"])
def test_everything_after_the_end(run, impl, family, end, asyncio_log):
    """No method of a closed transport raises, at any moment of its closing."""
    calls = CALLS
    if not impl.ours:
        # The standard transport does raise here: writelines from 3.12 on, and
        # the calls that need its loop once connection_lost has been called.
        calls = [call for call in CALLS if call is not WRITELINES]

    async def main():
        async with connection(Recorder, family) as (transport, protocol, peer):
            if end == "close":
                transport.close()
            elif end == "abort":
                transport.abort()
            elif end == "reset":
                reset(peer)
                await until(lambda: transport.is_closing())
            else:
                peer.close()
                await until(lambda: transport.is_closing())
            for _ in range(4):
                for call in calls:
                    try:
                        call(transport)
                    except RuntimeError as exc:
                        # only the explicit order write_eof, then write
                        assert "after write_eof" in str(exc)
                    except AttributeError:
                        assert not impl.ours and protocol.closed.done()
                await turns(1)
            assert protocol.events.count("lost") == 1

    run(main())
    assert all("socket.send() raised exception" in m for m in asyncio_log.take())


def reset(peer):
    """Close so that the other side sees a reset (TCP) or an end (Unix)."""
    if peer.family != socket.AF_UNIX:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_writes_after_close_warn_after_five(run, asyncio_log):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.abort()
            for _ in range(4):
                transport.write(b"x")
            assert asyncio_log.messages() == []
            transport.write(b"x")
            assert asyncio_log.take() == ["socket.send() raised exception."]

    run(main())


def test_write_after_close_is_dropped(run, impl):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.write(b"before")
            transport.close()
            transport.write(b"after")
            if impl.ours or PY < (3, 12):  # the standard one raises
                transport.writelines([b"after"])
            assert (await receive(peer)).startswith(b"before")

    run(main())


def test_peer_reset_while_reading(run):
    async def main():
        async with connection(Recorder, "tcp") as (transport, protocol, peer):
            reset(peer)
            assert isinstance(await protocol.closed, ConnectionResetError)
            assert protocol.events == ["made", "lost"]

    run(main())


def test_peer_reset_while_writing(run):
    async def main():
        async with connection(Recorder, "tcp") as (transport, protocol, peer):
            fill(transport)
            reset(peer)
            exc = await protocol.closed
            assert isinstance(exc, (ConnectionResetError, BrokenPipeError))
            assert protocol.events.count("lost") == 1

    run(main())


def test_write_to_closed_peer(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            transport.pause_reading()
            peer.close()
            transport.write(b"x")
            exc = await protocol.closed
            assert isinstance(exc, (BrokenPipeError, ConnectionResetError))

    run(main())


def test_unread_data_does_not_swallow_the_end(run):
    """Closing with unread data in the socket: the peer sees an end or a reset."""

    async def main():
        async with connection(Recorder, "tcp") as (transport, protocol, peer):
            transport.pause_reading()
            peer.send(b"unread" * 100)
            await turns(2)
            transport.close()
            await protocol.closed
            await turns(2)
            try:
                assert await receive(peer) == b""
            except ConnectionResetError:
                pass

    run(main())


# Protocols that fail


@pytest.mark.parametrize("where", ["data_received", "buffer_updated", "get_buffer"])
def test_failing_receiver(run, reports, where):
    def fail(self, *args):
        raise Boom(where)

    base = Recorder if where == "data_received" else BufferedRecorder
    Failing = type("Failing", (base,), {where: fail})

    async def main():
        async with connection(Failing) as (transport, protocol, peer):
            peer.send(b"x" * 10)
            exc = await protocol.closed
            assert isinstance(exc, Boom)
            peer.setblocking(False)
            with contextlib.suppress(OSError):
                peer.send(b"more")
            await turns(3)
            assert protocol.events == ["made", "lost"]

    run(main())
    (report,) = reports
    assert isinstance(report["exception"], Boom)
    assert "Fatal error" in report["message"]
    assert report["protocol"] and report["transport"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["data_received", "buffer_updated", "get_buffer", "eof_received"])
def test_exit_out_of_a_receiver(loop, kind, where):
    """It leaves run_forever, and the loop is usable afterwards."""

    def leave(self, *args):
        raise kind

    base = BufferedRecorder if where in ("buffer_updated", "get_buffer") else Recorder
    Leaves = type("Leaves", (base,), {where: leave})
    mine, peer = socket.socketpair()

    async def start():
        return await loop.connect_accepted_socket(Leaves, mine)

    transport, protocol = loop.run_until_complete(start())
    if where == "eof_received":
        peer.shutdown(socket.SHUT_WR)
    else:
        peer.send(b"x")
    with pytest.raises(kind):
        loop.run_forever()
    transport.abort()
    spin(loop, 2)
    assert protocol.events.count("lost") == 1
    peer.close()


@pytest.mark.parametrize(
    "buffer",
    [b"read only", bytearray(), memoryview(bytearray()), None, 3, "x", memoryview(b"ro")],
    ids=plain_repr,
)
def test_bad_buffer(run, reports, buffer):
    class Bad(BufferedRecorder):
        def get_buffer(self, sizehint):
            return buffer

    async def main():
        async with connection(Bad) as (transport, protocol, peer):
            peer.send(b"x" * 10)
            exc = await protocol.closed
            assert isinstance(exc, (RuntimeError, TypeError, BufferError, ValueError))
            assert protocol.events == ["made", "lost"]

    run(main())
    assert len(reports) == 1


def test_buffer_counts(run):
    """buffer_updated() gets an int of its own length, for lengths that repeat and that change."""
    lengths = [1000, 1000, 7, 1000, 1000, 999, 70000, 1000, 1, 1]

    class Counting(BufferedRecorder):
        def __init__(self):
            super().__init__()
            self.counts = []
            self.store = bytearray(100_000)

        def get_buffer(self, sizehint):
            return self.store

        def buffer_updated(self, nbytes):
            assert type(nbytes) is int
            self.counts.append(nbytes)

    async def main():
        async with connection(Counting) as (transport, protocol, peer):
            peer.setblocking(True)
            for i, length in enumerate(lengths, 1):
                peer.sendall(bytes(length))
                await until(lambda i=i: sum(protocol.counts) == sum(lengths[:i]))
            assert all(n > 0 for n in protocol.counts)
            assert protocol.counts[:6] == lengths[:6]

    run(main())


def test_buffer_kinds(run):
    """Slices, arrays, and a size hint of -1 or more."""
    import array

    hints = []

    class Odd(BufferedRecorder):
        def __init__(self):
            super().__init__()
            self.store = array.array("B", bytes(64))
            self.turn = 0

        def get_buffer(self, sizehint):
            hints.append(sizehint)
            self.turn += 1
            if self.turn % 2:
                self.current = memoryview(self.store)[10:20]
            else:
                self.current = self.store
            return self.current

        def buffer_updated(self, nbytes):
            self.data += memoryview(self.current)[:nbytes].tobytes()

    payload = bytes(range(256)) * 20

    async def main():
        async with connection(Odd) as (transport, protocol, peer):
            peer.sendall(payload)
            await until(lambda: len(protocol.data) == len(payload))
            assert protocol.data == payload

    run(main())
    assert all(isinstance(h, int) for h in hints)


def test_buffer_is_released_after_each_read(run):
    """A bytearray given by get_buffer may be resized in buffer_updated."""

    class Resizes(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            del self.buffer[:]
            self.buffer.extend(bytes(random.randrange(1, 50)))

    async def main():
        async with connection(Resizes) as (transport, protocol, peer):
            for _ in range(20):
                peer.send(b"q" * 100)
                await turns(1)
            await until(lambda: len(protocol.data) == 2000)

    run(main())


def test_failing_eof_received(run, reports):
    class Fails(Recorder):
        def eof_received(self):
            super().eof_received()
            raise Boom

    async def main():
        async with connection(Fails) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            assert isinstance(await protocol.closed, Boom)

    run(main())
    assert len(reports) == 1


def test_failing_connection_lost(run, reports):
    lost = []

    class Fails(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.append(exc)
            raise Boom

    async def main():
        async with connection(Fails) as (transport, protocol, peer):
            transport.close()
            await turns(3)
            assert transport.get_extra_info("socket").fileno() == -1
            assert peer.recv(1) == b""

    run(main())
    assert lost == [None]
    assert isinstance(reports.pop()["exception"], Boom)


def test_failing_connection_made(run, reports):
    """Reported; the connection still works or is closed, with one connection_lost."""

    class Fails(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise Boom

    async def main():
        loop = asyncio.get_running_loop()
        one, peer = socket.socketpair()
        protocols = []

        def factory():
            protocols.append(Fails())
            return protocols[0]

        try:
            transport, protocol = await loop.connect_accepted_socket(factory, one)
        except Boom:
            transport = None
        await turns(3)
        if transport is not None:
            transport.abort()
        elif protocols[0].transport is not None:
            protocols[0].transport.abort()
        await turns(3)
        peer.close()
        one.close()

    run(main())
    assert all(isinstance(r["exception"], Boom) for r in reports)


@pytest.mark.our_loop("leaves the socket to the garbage collector")
def test_failing_factory(run):
    def factory():
        raise Boom

    async def main():
        loop = asyncio.get_running_loop()
        with listening() as server:
            with pytest.raises(Boom):
                await loop.create_connection(factory, *server.getsockname())
            sock = socket.create_connection(server.getsockname())
            with pytest.raises(Boom):
                await loop.create_connection(factory, sock=sock)
            # closed once or left to the caller, never half
            sock.close()
            one, two = socket.socketpair()
            with pytest.raises(Boom):
                await loop.connect_accepted_socket(factory, one)
            one.close()
            two.close()
        await turns(3)
        collect()

    run(main())


# The protocol in place


def test_set_protocol(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            assert transport.get_protocol() is protocol
            peer.send(b"one")
            await until(lambda: protocol.data == b"one")
            second = BufferedRecorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            peer.send(b"two")
            await until(lambda: second.data == b"two")
            third = Recorder()
            transport.set_protocol(third)
            peer.send(b"three")
            await until(lambda: third.data == b"three")
            assert protocol.data == b"one" and second.data == b"two"
            peer.shutdown(socket.SHUT_WR)
            await third.closed
            assert third.events == ["eof", "lost"]
            assert protocol.events == ["made"]
            protocol.closed.set_result(None)

    run(main())


def test_set_protocol_from_data_received(run):
    class First(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.next = Recorder()
            self.transport.set_protocol(self.next)

    async def main():
        async with connection(First) as (transport, protocol, peer):
            peer.send(b"1")
            await until(lambda: protocol.data)
            peer.send(b"2")
            await until(lambda: protocol.next.data == b"2")
            assert protocol.data == b"1"
            transport.abort()
            await protocol.next.closed
            protocol.closed.set_result(None)

    run(main())


def test_methods_of_the_protocol_replaced_later(run):
    """Replaced on the instance before the next event, as mocks do."""

    async def main():
        async with connection() as (transport, protocol, peer):
            seen = []
            protocol.connection_lost = lambda exc: (
                seen.append("lost"),
                protocol.closed.set_result(exc),
            )
            transport.close()
            await protocol.closed
            assert seen == ["lost"]

    run(main())


# Re-entrance


@pytest.mark.parametrize("action", ["close", "abort", "pause_reading", "write_eof"])
def test_called_from_data_received(run, action):
    class Acts(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"reply")
            getattr(self.transport, action)()

    async def main():
        async with connection(Acts) as (transport, protocol, peer):
            peer.send(b"x")
            assert await receive(peer, 5) == b"reply" if action != "abort" else True
            if action in ("close", "abort"):
                await protocol.closed
            assert protocol.data == b"x"

    run(main())


def test_close_from_buffer_callbacks(run):
    class Closes(BufferedRecorder):
        def get_buffer(self, hint):
            self.transport.abort()
            return super().get_buffer(hint)

    async def main():
        async with connection(Closes) as (transport, protocol, peer):
            peer.send(b"x")
            await protocol.closed

    run(main())


def test_write_from_connection_lost_and_made(run):
    class Writes(Recorder):
        def connection_made(self, transport):
            transport.write(b"hi")
            super().connection_made(transport)

        def connection_lost(self, exc):
            self.transport.write(b"too late")
            self.transport.close()
            super().connection_lost(exc)

    async def main():
        async with connection(Writes) as (transport, protocol, peer):
            assert await receive(peer, 2) == b"hi"
            transport.close()
            await protocol.closed

    run(main())


def test_close_from_connection_made(run):
    class Closes(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async def main():
        async with connection(Closes) as (transport, protocol, peer):
            await protocol.closed
            assert protocol.events == ["made", "lost"]
            assert peer.recv(1) == b""

    run(main())


# What a transport tells


def test_extra_info(run):
    async def main():
        async with both_ends() as (one, two):
            a, b = one.transport, two.transport
            assert a.get_extra_info("peername") == b.get_extra_info("sockname")
            assert a.get_extra_info("sockname") == b.get_extra_info("peername")
            assert a.get_extra_info("nothing") is None
            assert a.get_extra_info("nothing", 5) == 5
            names = a.get_extra_info("peername"), a.get_extra_info("sockname")
            a.abort()
            await one.closed
            assert (a.get_extra_info("peername"), a.get_extra_info("sockname")) == names

    run(main())


def test_extra_info_unix(run, tmp_path):
    async def main():
        async with both_ends(family="unix", tmp_path=tmp_path) as (one, two):
            assert one.transport.get_extra_info("peername") == str(tmp_path / "socket")
            assert two.transport.get_extra_info("sockname") == str(tmp_path / "socket")
            assert two.transport.get_extra_info("peername") == ""

    run(main())


def test_socket_is_a_real_transport_socket(run):
    async def main():
        async with connection(Recorder, "tcp") as (transport, protocol, peer):
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock.family == socket.AF_INET
            assert sock.type == socket.SOCK_STREAM
            assert sock.getpeername() == peer.getsockname()
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert sock.fileno() >= 0
            sock.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b"" or True
            transport.abort()
            await protocol.closed
            assert sock.fileno() == -1

    run(main())


def test_tcp_no_delay_is_set(run):
    async def main():
        async with both_ends() as (one, two):
            for end in (one, two):
                sock = end.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


def test_types(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.transports._FlowControlMixin)
            assert weakref.ref(transport)() is transport

    run(main())


def test_methods_replaceable_on_the_instance(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            seen = []
            transport.write = seen.append
            transport.write(b"x")
            assert seen == [b"x"]
            del transport.write
            transport.write(b"y")
            assert await receive(peer, 1) == b"y"
            transport.anything = 3
            assert transport.anything == 3

    run(main())


def test_streams_use_a_replaced_write(run):
    async def main():
        one, two = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one)
        seen = []
        writer.transport.write = seen.append
        writer.write(b"x")
        assert seen == [b"x"]
        writer.close()
        await writer.wait_closed()
        two.close()

    run(main())


def test_repr(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            text = repr(transport)
            assert "fd=" in text
            assert "read=polling" in text or "read=idle" in text
            transport.abort()
            await protocol.closed
            await turns(1)
            assert "closed" in repr(transport)

    run(main())


def test_private_names_that_libraries_read(run):
    async def main():
        async with connection() as (transport, protocol, peer):
            for name in ("_loop", "_protocol", "_sock_fd", "_closing", "_extra"):
                assert hasattr(transport, name), name

    run(main())


# Contexts


def test_callbacks_run_in_the_context_of_creation(loop, impl):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    class Watches(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(("made", var.get()))

        def data_received(self, data):
            seen.append(("data", var.get()))

        def eof_received(self):
            seen.append(("eof", var.get()))

        def connection_lost(self, exc):
            seen.append(("lost", var.get()))

    async def main():
        var.set("creator")
        one, peer = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(Watches, one)

        async def other():
            var.set("other task")
            transport.pause_reading()
            await asyncio.sleep(0)
            transport.resume_reading()

        peer.send(b"1")
        await until(lambda: len(seen) >= 2)
        await loop.create_task(other())
        peer.send(b"2")
        await until(lambda: len(seen) >= 3)
        peer.close()
        await until(lambda: "lost" in dict(seen))

    loop.run_until_complete(main())
    assert [name for name, _ in seen] == ["made", "data", "data", "eof", "lost"]
    assert seen[0][1] == seen[1][1] == "creator"
    if impl.ours:  # resume_reading brings the caller's context on the standard loop
        assert {value for _, value in seen} == {"creator"}


# Descriptors and memory


def test_unclosed_transport_warns(loop):
    async def main():
        one, peer = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
        transport.pause_reading()
        await turns(2)
        return peer

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peer = loop.run_until_complete(main())
        loop.close()
        collect()
    assert any("unclosed transport" in str(w.message) for w in caught)
    assert all(w.category is ResourceWarning for w in caught)
    assert peer.recv(1) == b""
    peer.close()


def test_paused_transport_without_references_is_freed(loop):
    """Nobody holds it, nothing can reach it: it warns and closes its socket."""

    async def main():
        one, peer = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
        transport.pause_reading()
        ref = weakref.ref(transport)
        await turns(3)
        del transport
        return ref, peer

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ref, peer = loop.run_until_complete(main())
        spin(loop, 2)
        collect()
        if ref() is not None:  # the loop may hold it until it is closed
            loop.close()
            collect()
    assert any("unclosed transport" in str(w.message) for w in caught)
    caught.clear()  # a warning holds its source
    if not loop.is_closed():
        spin(loop, 2)
    collect()
    peer.close()
    assert ref() is None


def test_closed_transport_is_freed_without_the_collector(run, impl):
    if not impl.ours and PY < (3, 12):
        pytest.skip("the standard transport is in a cycle on 3.11")

    async def main():
        loop = asyncio.get_running_loop()
        one, peer = socket.socketpair()

        class Small(asyncio.Protocol):
            pass

        transport, protocol = await loop.connect_accepted_socket(Small, one)
        refs = weakref.ref(transport), weakref.ref(protocol)
        transport.close()
        await turns(3)
        del transport, protocol
        peer.close()
        return refs

    with without_collector():
        refs = run(main())
        run(turns(3))
        assert [ref() for ref in refs] == [None, None]


def test_failed_connect_leaves_no_cycles(run):
    async def main():
        with listening() as server:
            address = server.getsockname()
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(asyncio.Protocol, *address)
        except OSError as exc:
            return weakref.ref(exc) if hasattr(exc, "__weakref__") else exc

    exc = run(main())
    exc.__traceback__ = None
    collect()
    holders = [x for x in gc.get_referrers(exc) if type(x).__name__ != "frame"]
    assert holders == []


def test_reference_counts(run):
    """A hundred connections leave the counts of shared objects as they were."""

    async def once():
        async with both_ends() as (one, two):
            one.transport.write(b"x" * 1000)
            two.transport.writelines([b"y"] * 10)
            await until(lambda: len(two.data) == 1000 and len(one.data) == 10)

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await once()
        collect()
        before = sys.getrefcount(loop), sys.getrefcount(Recorder)
        for _ in range(30):
            await once()
        await turns(3)
        collect()
        after = sys.getrefcount(loop), sys.getrefcount(Recorder)
        assert abs(after[0] - before[0]) <= 2
        assert abs(after[1] - before[1]) <= 2

    run(main())


async def connect_and_cancel(address, ticks, via_sock):
    """Cancel create_connection after a number of turns; tell who owns the socket."""
    loop = asyncio.get_running_loop()
    sock = None
    if via_sock:
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(address)
        fd = sock.fileno()
        coro = loop.create_connection(asyncio.Protocol, sock=sock)
    else:
        coro = loop.create_connection(asyncio.Protocol, *address)
    task = loop.create_task(coro)
    await turns(ticks)
    cancelled = task.cancel()
    try:
        transport, _ = await task
    except asyncio.CancelledError:
        transport = None
    except OSError:
        transport = None
    # New files take the freed numbers: a second close would hit one of them.
    fresh = [os.pipe() for _ in range(3)]
    await turns(5)
    if sock is not None:
        assert sock.fileno() in (-1, fd)
        if transport is None:
            sock.close()
        del sock
    if transport is not None:
        transport.abort()
    del task, transport
    await turns(5)
    collect()
    for pair in fresh:
        for number in pair:
            os.fstat(number)
            os.close(number)
    return cancelled


@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.parametrize("via_sock", [False, True])
def test_cancelled_connect_owns_each_descriptor_once(run, via_sock):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for ticks in range(12):
            await connect_and_cancel(address, ticks, via_sock)
        # the loop's tables are in order: honest connections work
        for _ in range(5):
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            transport.close()
        await turns(5)
        server.close()
        await turns(5)

    run(main())


def test_cancelled_unix_connect(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "s")
        server = await loop.create_unix_server(Recorder, path)
        for ticks in range(8):
            task = loop.create_task(loop.create_unix_connection(Recorder, path))
            await turns(ticks)
            task.cancel()
            try:
                transport, protocol = await task
            except asyncio.CancelledError:
                continue
            transport.abort()
            await protocol.closed
        await turns(5)
        server.close()
        await turns(3)

    run(main())


def test_many_connects_with_tiny_timeouts(run):
    async def main():
        loop = asyncio.get_running_loop()

        class Quiet(asyncio.Protocol):
            pass

        server = await loop.create_server(Quiet, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def attempt(i):
            try:
                async with asyncio.timeout(0.0005 * (i % 5)):
                    transport, _ = await loop.create_connection(Quiet, *address)
            except TimeoutError:
                return 0
            transport.close()
            return 1

        for _ in range(4):
            await asyncio.gather(*map(attempt, range(50)))
        transport, _ = await loop.create_connection(Quiet, *address)
        transport.close()
        await turns(5)
        server.close()
        await turns(5)
        collect()

    run(main())


def test_no_foreign_byte(run):
    """Each connection has its own secret; random aborts; nobody sees another's."""
    rng = random.Random(11)

    async def main():
        loop = asyncio.get_running_loop()
        wrong = []

        class Client(Recorder):
            secret = b""

            def data_received(self, data):
                if set(data) - set(self.secret):
                    wrong.append((self.secret, data))
                super().data_received(data)

        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def client(number):
            transport, protocol = await loop.create_connection(Client, *address)
            protocol.secret = bytes([number % 256])
            for _ in range(5):
                transport.write(protocol.secret * rng.randrange(1, 2000))
                await asyncio.sleep(rng.choice([0, 0, 0.001]))
                if rng.random() < 0.1:
                    transport.abort()
                    break
            transport.close()
            await protocol.closed

        for _ in range(5):
            tasks = [loop.create_task(client(i)) for i in range(40)]
            for task in rng.sample(tasks, 5):
                loop.call_later(rng.random() * 0.003, task.cancel)
            await asyncio.gather(*tasks, return_exceptions=True)
        collect()
        server.close()
        await turns(5)
        assert wrong == []
        # those that were cancelled in the middle are closed by their owner here
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    run(closing_forgotten(main()))


async def closing_forgotten(coro):
    """Run, with transports whose owner was cancelled aborted at the end."""
    loop = asyncio.get_running_loop()
    made = []
    original = loop._make_socket_transport

    def recording(*args, **kwargs):
        transport = original(*args, **kwargs)
        made.append(weakref.ref(transport))
        return transport

    loop._make_socket_transport = recording
    try:
        await coro
    finally:
        del loop._make_socket_transport
        for ref in made:
            transport = ref()
            if transport is not None:
                transport.abort()
        await turns(5)


# create_connection


def test_connect_refused(run):
    async def main():
        with listening() as server:
            address = server.getsockname()
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, *address)

    run(main())


def test_connect_arguments(run):
    async def main():
        loop = asyncio.get_running_loop()
        for kwargs in (
            dict(),
            dict(host="127.0.0.1", port=1, sock=object()),
            dict(host="127.0.0.1", port=1, server_hostname="x"),
        ):
            with pytest.raises((ValueError, TypeError)):
                await loop.create_connection(Recorder, **kwargs)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="Stream Socket was expected"):
                await loop.create_connection(Recorder, sock=sock)
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(Recorder, "/no/such/socket")
        with pytest.raises(ValueError):
            await loop.create_unix_connection(Recorder)

    run(main())


def test_connect_local_address(run):
    async def main():
        loop = asyncio.get_running_loop()
        with listening() as server:
            transport, protocol = await loop.create_connection(
                Recorder, *server.getsockname(), local_addr=("127.0.0.1", 0)
            )
            assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
            transport.abort()
            await protocol.closed

    run(main())


def test_connect_ipv6(run):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback")

    async def main():
        loop = asyncio.get_running_loop()
        port = server.getsockname()[1]
        transport, protocol = await loop.create_connection(Recorder, "::1", port)
        assert transport.get_extra_info("peername")[:2] == ("::1", port)
        transport.abort()
        await protocol.closed

    with server:
        run(main())


def test_localhost_by_name(run):
    async def main():
        loop = asyncio.get_running_loop()
        with listening() as server:
            transport, protocol = await loop.create_connection(
                Recorder, "localhost", server.getsockname()[1]
            )
            transport.abort()
            await protocol.closed

    run(main())


def test_connection_made_before_create_connection_returns(run):
    async def main():
        async with both_ends() as (one, two):
            assert one.events == ["made"]
            assert one.transport is one.made.result()

    run(main())


def test_unix_abstract_and_bytes_path(run, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = os.fsencode(str(tmp_path / "s"))
        server = await loop.create_unix_server(Recorder, path)
        transport, protocol = await loop.create_unix_connection(Recorder, path)
        peer = protocol
        transport.close()
        await peer.closed
        server.close()
        await turns(5)

    run(main())


# A peer that leaves at every moment


@pytest.mark.parametrize("family", FAMILIES)
def test_peer_leaves_during_a_large_write(run, family):
    async def main():
        for taken in (0, 1, 100_000):
            async with connection(Recorder, family) as (transport, protocol, peer):
                transport.write(b"x" * (8 * MIB))
                if taken:
                    await receive(peer, taken)
                peer.close()
                exc = await protocol.closed
                assert isinstance(exc, (BrokenPipeError, ConnectionResetError))
                assert transport.get_write_buffer_size() == 0

    run(main())


def test_thousand_short_connections(run):
    async def main():
        loop = asyncio.get_running_loop()
        lost = []

        class Quick(asyncio.Protocol):
            def connection_made(self, transport):
                transport.write(b"bye")
                transport.close()

            def connection_lost(self, exc):
                lost.append(exc)

        server = await loop.create_server(Quick, "127.0.0.1", 0, backlog=1000)
        address = server.sockets[0].getsockname()

        async def client():
            transport, protocol = await loop.create_connection(Recorder, *address)
            await protocol.closed
            assert protocol.data == b"bye"

        for _ in range(10):
            await asyncio.gather(*(client() for _ in range(50)))
        await until(lambda: len(lost) == 500)
        server.close()
        await turns(3)

    run(main())


def test_version_is_known():
    assert PY >= (3, 11)


@pytest.mark.our_loop("asyncio keeps the caller's buffer until it is sent, from 3.12 on")
@pytest.mark.parametrize("how", ["write", "writelines"])
@pytest.mark.parametrize("send", ["the kernel's", "replaced"])
def test_buffer_is_free_when_writing_pauses(run, how, send, monkeypatch):
    data = bytearray(1_000_000)
    if send == "replaced":
        own = socket.socket.send
        mine = lambda self, piece: own(self, piece)
        monkeypatch.setattr(socket.socket, "send", mine, raising=False)

    class Shrinks(Recorder):
        def pause_writing(self):
            super().pause_writing()
            data.clear()  # BufferError while somebody holds a view

    async def main():
        async with connection(Shrinks) as (transport, protocol, peer):
            getattr(transport, how)(data if how == "write" else [data])
            assert not data
            assert await receive(peer, 1_000_000) == bytes(1_000_000)

    run(main())
