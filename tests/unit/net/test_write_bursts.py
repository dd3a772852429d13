"""Several writes in one turn of the loop: what the peer gets is what was written, in order, at the
end of the turn at the latest, whatever comes in between."""

import asyncio
import gc
import random
import socket
import time
import weakref

import pytest

from tests.protocols import Sender
from tests.support import turns, until


async def connected(kind=socket.socket):
    """A transport that has been written to twice in each of two turns, and its plain peer."""
    one, peer = socket.socketpair()
    if kind is not socket.socket:
        one = kind(fileno=one.detach())
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Sender, sock=one)
    for _ in range(2):
        transport.write(b"ab")
        transport.write(b"cd")
        await turns(1)
        assert peer.recv(100) == b"abcd"
    return transport, protocol, peer


def received(peer):
    try:
        return peer.recv(1 << 20)
    except BlockingIOError:
        return None


def test_the_turns_end_sends(run):
    async def main():
        transport, protocol, peer = await connected()
        for pieces in ([b"1", b"2", b"3"], [b"4"], [b"5", bytearray(b"6"), memoryview(b"7")]):
            for piece in pieces:
                transport.write(piece)
            await turns(1)
            assert received(peer) == b"".join(bytes(piece) for piece in pieces)
        array = bytearray(b"changed")
        transport.write(b"not ")
        transport.write(array)
        array[:] = b"xxxxxxx"
        await turns(1)
        assert received(peer) == b"not changed"
        transport.close()
        peer.close()

    run(main())


@pytest.mark.parametrize(
    "then",
    ["get_write_buffer_size", "write_eof", "close", "abort", "set_write_buffer_limits"],
)
def test_who_looks_finds_it_sent(run, then):
    async def main():
        transport, protocol, peer = await connected()
        transport.write(b"one ")
        transport.write(b"two")
        getattr(transport, then)()
        assert received(peer) == b"one two"
        transport.abort()
        await until(lambda: "lost" in protocol.events)
        assert protocol.events == ["lost"]
        peer.close()

    run(main())


def test_with_writelines(run):
    async def main():
        transport, protocol, peer = await connected()
        transport.write(b"a")
        transport.writelines([b"b", bytearray(b"c")])
        transport.write(b"d")
        await turns(1)
        got = b""
        await turns(1)
        got = received(peer)
        assert got == b"abcd"
        transport.abort()
        peer.close()

    run(main())


def test_a_send_of_its_own(run):
    """It is called for each piece, and nothing is kept behind its back."""
    calls = []

    class Own(socket.socket):
        def send(self, data):
            calls.append(bytes(data))
            return super().send(data)

    async def main():
        transport, protocol, peer = await connected(Own)
        del calls[:]
        for _ in range(2):
            for piece in (b"1", b"2", b"3"):
                transport.write(piece)
                assert received(peer) == piece
            await turns(1)
        assert calls == [b"1", b"2", b"3"] * 2
        transport.abort()
        peer.close()

    run(main())


def test_large_pieces(run):
    """More than the kernel takes: paused once, resumed once, every byte in order."""

    async def main():
        transport, protocol, peer = await connected()
        data = random.Random(1).randbytes(3 << 20)
        transport.write(b"head")
        transport.write(data)
        assert protocol.events == ["pause"]
        transport.write(b"tail")
        got = bytearray()
        while len(got) < len(data) + 8:
            got += received(peer) or b""
            await turns(1)
        assert bytes(got) == b"head" + data + b"tail"
        assert protocol.events == ["pause", "resume"]
        transport.set_write_buffer_limits(0)
        transport.write(b"x")
        transport.write(b"y")
        await turns(1)
        assert received(peer) == b"xy"
        assert protocol.events == ["pause", "resume"]
        transport.abort()
        peer.close()

    run(main())


def test_peer_is_gone(run):
    async def main():
        transport, protocol, peer = await connected()
        peer.close()
        transport.write(b"x")
        transport.write(b"y")
        await until(lambda: "lost" in protocol.events)
        assert protocol.events == ["lost"]
        transport.write(b"z")

    run(main())


@pytest.mark.filterwarnings("ignore")  # an unclosed transport
def test_dropped_at_once(run):
    """Nobody holds the transport any more: what it had taken is sent all the same."""

    async def main():
        transport, protocol, peer = await connected()
        transport.pause_reading()
        transport.write(b"last ")
        transport.write(b"words")
        reference = weakref.ref(transport)
        protocol.transport = None
        del transport, protocol
        await turns(2)
        gc.collect()
        assert received(peer) == b"last words"
        transport = reference()
        if transport is not None:
            transport.abort()
        peer.close()

    run(main())


def test_the_last_turn(impl):
    """The loop stops in the turn in which it was written."""
    loop = impl.new_event_loop()
    transport, protocol, peer = loop.run_until_complete(connected())

    def write():
        transport.write(b"be")
        transport.write(b"fore")
        loop.stop()

    loop.call_soon(write)
    loop.run_forever()
    assert received(peer) == b"before"

    def fail():
        transport.write(b"in ")
        transport.write(b"time")
        raise KeyboardInterrupt

    loop.call_soon(fail)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert received(peer) == b"in time"
    transport.write(b"no ")
    transport.write(b"loop")
    assert received(peer) == b"no loop"
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    peer.close()


def test_start_tls_after_a_burst(run):
    """The bytes before the handshake go out before it."""

    async def main():
        transport, protocol, peer = await connected()
        loop = asyncio.get_running_loop()
        transport.write(b"220 ")
        transport.write(b"go ahead\r\n")
        import ssl

        context = ssl.create_default_context()
        task = asyncio.create_task(
            loop.start_tls(transport, protocol, context, server_hostname="x")
        )
        got = b""
        while len(got) < 20:
            got += received(peer) or b""
            await turns(1)
        assert got.startswith(b"220 go ahead\r\n\x16\x03")
        task.cancel()
        await asyncio.wait([task])
        peer.close()

    run(main())


def test_at_random(run):
    async def main():
        rng = random.Random(7)
        transport, protocol, peer = await connected()
        wrote, got = bytearray(), bytearray()
        for _ in range(600):
            for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
                piece = rng.randbytes(rng.choice([1, 10, 1000, 9000, 70_000]))
                wrote += piece
                kind = rng.randrange(4)
                if kind == 3:
                    transport.writelines([piece[:5], piece[5:]])
                else:
                    transport.write([bytes, bytearray, memoryview][kind](piece))
                if rng.random() < 0.02:
                    transport.get_write_buffer_size()
            await turns(1)
            while (data := received(peer)) is not None:
                got += data
            if transport.get_write_buffer_size() == 0:
                assert len(got) == len(wrote)
        while len(got) < len(wrote):
            got += received(peer) or b""
            await turns(1)
        assert got == wrote
        transport.close()
        await until(lambda: "lost" in protocol.events)
        assert protocol.events.count("pause") == protocol.events.count("resume")
        peer.close()

    run(main())


class Answering(Sender):
    """Answers what comes, in a callback of its own, after what the test has it do."""

    def __init__(self, before, how):
        super().__init__()
        self.before = before
        self.how = how

    def data_received(self, data):
        asyncio.get_running_loop().call_soon(self.answer, data)

    def answer(self, data):
        self.before(self)
        if self.how == "write":
            self.transport.write(b"<" + data)
            self.transport.write(b">")
        else:
            self.transport.writelines([b"<", bytearray(data), b">"])


async def crowd(count, before, how="write"):
    """Connections that get a request each in the same turn: transports and plain peers."""
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(count)]
    peers = []
    for one, peer in pairs:
        peer.setblocking(False)
        await loop.create_connection(lambda: Answering(before, how), sock=one)
        peers.append(peer)
    return peers


def send_all(peers, turn):
    for number, peer in enumerate(peers):
        peer.send(b"%d.%d" % (number, turn))


@pytest.mark.parametrize("how", ["write", "writelines"])
def test_crowd(run, how):
    """Each gets its own answer, in order, by the end of the turn that answers."""
    async def main():
        answered = []
        peers = await crowd(20, answered.append, how)
        for turn in range(5):
            send_all(peers, turn)
            await until(lambda: len(answered) == 20 * (turn + 1))
            await turns(1)
            for number, peer in enumerate(peers):
                assert peer.recv(100) == b"<%d.%d>" % (number, turn)
        for protocol in answered[:20]:
            protocol.transport.close()
        await until(lambda: all(p.events == ["lost"] for p in answered[:20]))
        for peer in peers:
            assert peer.recv(100) == b""
            peer.close()

    run(main())


def test_crowd_with_long_callbacks(run):
    """An answer does not wait until all the others are computed."""
    async def main():
        answered, early = [], []

        def compute(protocol):
            answered.append(protocol)
            time.sleep(0.002)
            if len(answered) == 20:
                early.extend(received(peer) for peer in peers)

        peers = await crowd(20, compute)
        send_all(peers, 0)
        await until(lambda: len(answered) == 20)
        assert sum(answer is not None for answer in early) >= 10
        for protocol in answered:
            protocol.transport.abort()
        await until(lambda: all(p.events == ["lost"] for p in answered))
        for peer in peers:
            peer.close()

    run(main())


@pytest.mark.parametrize("end", ["abort", "close", "write_eof", "pause"])
def test_crowd_that_ends(run, end):
    """What was written in the same turn leaves before the end of the connection."""
    async def main():
        ended = []

        def finish(protocol):
            transport = protocol.transport
            ended.append(protocol)
            transport.write(b"a")
            if end == "pause":
                transport.set_write_buffer_limits(high=0)
                assert transport.get_write_buffer_size() == 0
            else:
                getattr(transport, end)()
            transport.abort()
            raise Finished

        class Finished(Exception):
            pass

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        peers = await crowd(10, finish)
        send_all(peers, 0)
        await until(lambda: len(ended) == 10 and all(p.events[-1:] == ["lost"] for p in ended))
        for peer in peers:
            assert peer.recv(100) == b"a"
            peer.close()

    run(main())
