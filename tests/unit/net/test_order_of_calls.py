"""Protocols, buffers and handlers that write, close or ask in the middle of a call of a transport:
what is written arrives in the order in which asyncio sends it, and each call finds all of the one
around it done."""

import asyncio
import contextlib
import contextvars
import os
import random
import socket
import tempfile

import pytest

from tests.support import PY, turns, until

LARGE = b"A" * (4 << 20)


class Peer(asyncio.Protocol):
    """Notes what it is told, and does what the test puts in for it."""

    def __init__(self):
        self.events = []
        self.on_pause = self.on_resume = self.on_lost = lambda: None

    def connection_made(self, transport):
        self.transport = transport

    def note(self, what):
        self.events.append((what, self.transport.get_write_buffer_size()))

    def pause_writing(self):
        self.note("pause")
        self.on_pause()

    def resume_writing(self):
        self.note("resume")
        self.on_resume()

    def connection_lost(self, exc):
        self.events.append(("lost", exc))
        self.on_lost()

    @property
    def names(self):
        return [event[0] for event in self.events]


class Ends:
    """A transport over a socket or a pipe, and the other end."""

    def __init__(self, protocol, peer):
        self.protocol = protocol
        self.transport = protocol.transport
        self.peer = peer

    async def read(self, count):
        """As many bytes as that, or what comes before the end."""
        got = bytearray()
        while len(got) < count:
            try:
                data = os.read(self.peer.fileno(), min(count - len(got), 1 << 18))
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            if not data:
                break
            got += data
        return bytes(got)

    async def end(self):
        if not self.transport.is_closing():
            self.transport.abort()
        await until(lambda: "lost" in self.protocol.names)
        self.peer.close()


@pytest.fixture(params=["tcp", "unix", "pipe"])
def connect(request):
    async def connect():
        loop = asyncio.get_running_loop()
        protocol = Peer()
        if request.param == "pipe":
            reading, writing = os.pipe()
            peer = os.fdopen(reading, "rb", 0)
            os.set_blocking(reading, False)
            await loop.connect_write_pipe(lambda: protocol, os.fdopen(writing, "wb", 0))
            return Ends(protocol, peer)
        if request.param == "unix":
            one, peer = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                one = socket.create_connection(server.getsockname())
                peer = server.accept()[0]
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        one.setblocking(False)
        peer.setblocking(False)
        await loop.create_connection(lambda: protocol, sock=one)
        return Ends(protocol, peer)

    connect.kind = request.param
    return connect


MAKES = [bytes, bytearray, memoryview]


@pytest.mark.parametrize("make", MAKES)
def test_pause_writing_writes(run, connect, make):
    async def main():
        ends = await connect()
        ends.protocol.on_pause = lambda: ends.transport.write(b"R")
        ends.transport.write(make(LARGE))
        ends.transport.write(b"C")
        assert await ends.read(len(LARGE) + 2) == LARGE + b"RC"
        assert ends.protocol.names == ["pause", "resume"]
        await ends.end()

    run(main())


def test_writelines_is_one_piece(run, connect):
    """pause_writing() comes when all parts are queued."""

    async def main():
        ends = await connect()
        ends.protocol.on_pause = lambda: ends.transport.write(b"R")
        ends.transport.write(LARGE)
        parts = [b"1" * 10, bytearray(b"2" * 100_000), b"", memoryview(b"3" * 7)]
        ends.transport.writelines(parts)
        ends.transport.write(b"E")
        expected = LARGE + b"R" + b"1" * 10 + b"2" * 100_000 + b"3" * 7 + b"E"
        assert await ends.read(len(expected)) == expected
        await ends.end()

    run(main())


@pytest.mark.parametrize("how", ["write", "writelines"])
def test_resume_writing_writes(run, connect, how):
    """What it writes comes behind all that was written before, and may pause again."""

    async def main():
        ends = await connect()
        again = [b"B" * (2 << 20), b"C"]
        if how == "writelines" and PY > (3, 11):
            again.pop()  # asyncio's does not pause on all versions

        def resume():
            if again:
                piece = again.pop(0)
                if how == "write":
                    ends.transport.write(piece)
                else:
                    ends.transport.writelines([piece[:1], piece[1:]])

        ends.protocol.on_resume = resume
        ends.transport.write(LARGE)
        expected = LARGE + b"".join(again)
        assert await ends.read(len(expected)) == expected
        await turns(3)
        assert not again
        if how == "write" or PY == (3, 11):
            assert ends.protocol.names == ["pause", "resume", "pause", "resume"]
        await ends.end()

    run(main())


def test_a_pipe_resumes_when_it_is_empty(run, connect):
    async def main():
        ends = await connect()
        ends.transport.write(LARGE)
        await ends.read(len(LARGE))
        await turns(3)
        (_, paused), (_, resumed) = ends.protocol.events
        assert paused > 64 * 1024
        assert resumed == 0 if connect.kind == "pipe" else resumed <= 16 * 1024
        await ends.end()

    run(main())


@pytest.mark.skipif(PY < (3, 12), reason="joined and written before")
def test_writelines_tries_where_output_waits(run, connect):
    """On sockets: what has got room meanwhile goes at once, and resume_writing() comes at once."""

    async def main():
        ends = await connect()
        ends.transport.write(LARGE)
        left = ends.transport.get_write_buffer_size()
        taken = len(LARGE) - left
        ends.transport.set_write_buffer_limits(left)  # so that any progress is enough
        got = b""
        while len(got) < taken:
            got += os.read(ends.peer.fileno(), 1 << 20)
        ends.protocol.on_resume = lambda: ends.transport.write(b"R")
        ends.protocol.events.clear()
        ends.transport.set_write_buffer_limits(1 << 30, left)
        ends.transport.writelines([b"x", b"y"])
        if connect.kind == "pipe":
            assert ends.protocol.names == []
            expected = LARGE + b"xyR"
        else:
            assert ends.protocol.names == ["resume"]
            assert ends.transport.get_write_buffer_size() < left
            expected = LARGE + b"xyR"
        got += await ends.read(len(expected) - len(got))
        assert got == expected
        await ends.end()

    run(main())


@pytest.mark.parametrize("then", ["close", "abort"])
def test_the_end_inside_pause_writing(run, connect, then):
    async def main():
        ends = await connect()
        ends.protocol.on_pause = getattr(ends.transport, then)
        ends.transport.write(LARGE)
        ends.transport.write(b"dropped")
        if then == "close":
            expected = LARGE + (b"" if connect.kind == "pipe" else b"dropped")
            assert await ends.read(len(expected) + 1) == expected
        await until(lambda: "lost" in ends.protocol.names)
        assert ends.protocol.events[-1] == ("lost", None)
        ends.peer.close()

    run(main())


@pytest.mark.parametrize("then", ["close", "write_eof", "pause_reading"])
def test_more_inside_resume_writing(run, connect, then, asyncio_log):
    if connect.kind == "pipe":
        pytest.skip("where asyncio's drop what waits")

    async def main():
        ends = await connect()

        def resume():
            ends.transport.write(b"last")
            getattr(ends.transport, then)()

        ends.protocol.on_resume = resume
        ends.transport.write(LARGE)
        extra = 1 if then != "pause_reading" else 0
        assert await ends.read(len(LARGE) + 4 + extra) == LARGE + b"last"
        await ends.end()

    run(main())
    asyncio_log.take()  # asyncio ends the transport twice


def test_size_of_the_buffer_calls_nobody(run, connect):
    async def main():
        ends = await connect()
        ends.transport.write(b"1")
        ends.transport.write(b"2")
        await turns(3)
        ends.transport.write(b"3")
        assert ends.transport.get_write_buffer_size() == 0
        assert ends.protocol.events == []
        ends.transport.write(LARGE)
        before = list(ends.protocol.events)
        assert ends.transport.get_write_buffer_size() > 0
        assert ends.protocol.events == before
        assert await ends.read(len(LARGE) + 3) == b"123" + LARGE
        await ends.end()

    run(main())


# -- objects of the user's --------------------------------------------------------------


class Said:
    """Something that runs code when its bytes are wanted."""

    def __init__(self, data, before):
        self.data = data
        self.before = before

    def __buffer__(self, flags):
        self.before()
        return memoryview(self.data)


@pytest.mark.skipif(PY < (3, 12), reason="__buffer__() came in 3.12")
@pytest.mark.parametrize("then", ["write", "abort", "raise"])
@pytest.mark.parametrize("waiting", [False, True])
def test_writelines_of_objects_that_act(run, connect, then, waiting):
    """They act before anything of the call is sent or queued."""
    if connect.kind == "pipe":
        pytest.skip("joined before it is written, by join()")

    async def main():
        ends = await connect()
        before = LARGE if waiting else b""
        if waiting:
            ends.transport.write(LARGE)

        def act():
            if then == "write":
                ends.transport.write(b"<first>")
            elif then == "raise":
                raise ZeroDivisionError
            else:
                getattr(ends.transport, then)()

        parts = [b"a", Said(b"b", act), b"c"]
        if then == "raise":
            with pytest.raises(ZeroDivisionError):
                ends.transport.writelines(parts)
            ends.transport.write(b"after")
            expected = before + b"after"
        elif then == "abort":
            ends.transport.writelines(parts)
            await until(lambda: "lost" in ends.protocol.names)
            expected = None
        else:
            ends.transport.writelines(parts)
            expected = before + b"<first>abc"
        if expected is not None:
            assert await ends.read(len(expected)) == expected
        await ends.end()

    run(main())


class Truth(bytearray):
    """A bytearray that runs code when it is asked whether it is empty."""

    def __init__(self, data, before):
        super().__init__(data)
        self.before = before

    def __len__(self):
        before, self.before = self.before, lambda: None
        before()
        return super().__len__()


@pytest.mark.parametrize("then", ["write", "close", "abort"])
def test_write_of_an_object_that_acts(run, connect, then):
    if connect.kind == "pipe":
        pytest.skip("asyncio's pipes make a memoryview of it first")

    async def main():
        ends = await connect()

        def act():
            if then == "write":
                ends.transport.write(b"<first>")
            else:
                getattr(ends.transport, then)()

        ends.transport.write(Truth(b"second", act))
        if then == "write":
            assert await ends.read(13) == b"<first>second"
        await ends.end()

    run(main())


@pytest.mark.skipif(PY < (3, 12), reason="__buffer__() came in 3.12")
def test_a_released_buffer_acts(run, connect):
    """__release_buffer__() finds the write done."""
    if connect.kind == "pipe":
        pytest.skip("joined before it is written, by join()")

    class Released(bytearray):
        def __buffer__(self, flags):
            return super().__buffer__(flags)

        def __release_buffer__(self, view):
            super().__release_buffer__(view)
            calls.append(ends[0].transport.get_write_buffer_size())

    calls, ends = [], []

    async def main():
        ends.append(await connect())
        transport = ends[0].transport
        transport.write(Released(b"12345"))
        transport.writelines([Released(b"678"), b"9"])
        assert await ends[0].read(9) == b"123456789"
        await ends[0].end()
        assert set(calls) == {0}

    run(main())


# -- reports ---------------------------------------------------------------------------


def test_a_failing_pause_writing_is_told_of_when_all_is_queued(run, loop, connect):
    seen = []

    async def main():
        ends = await connect()

        def handler(loop, context):
            seen.append((context["message"], ends.transport.get_write_buffer_size()))
            ends.transport.write(b"H")

        def fail():
            raise ValueError

        loop.set_exception_handler(handler)
        ends.protocol.on_pause = fail
        ends.transport.write(LARGE)
        assert await ends.read(len(LARGE) + 1) == LARGE + b"H"
        await ends.end()

    run(main())
    assert [message for message, _ in seen] == ["protocol.pause_writing() failed"]
    assert seen[0][1] > 0


@pytest.mark.parametrize("then", ["write", "abort", "close"])
def test_the_handler_of_a_failed_callback_acts(run, loop, connect, then):
    if connect.kind == "pipe":
        pytest.skip("for reading")
    seen = []

    async def main():
        ends = await connect()

        def fail(data):
            raise ValueError

        def handler(loop, context):
            seen.append(context["message"])
            if then == "write":
                ends.transport.write(b"bye")
            else:
                getattr(ends.transport, then)()

        loop.set_exception_handler(handler)
        ends.protocol.data_received = fail
        ends.peer.send(b"x")
        await until(lambda: "lost" in ends.protocol.names)
        assert await ends.read(4) == (b"bye" if then == "write" else b"")
        assert ends.protocol.names == ["lost"]
        ends.peer.close()

    run(main())
    assert len(seen) == 1


# -- datagrams -------------------------------------------------------------------------


class Datagrams(Peer, asyncio.DatagramProtocol):
    def __init__(self):
        super().__init__()
        self.on_error = lambda exc: None

    def error_received(self, exc):
        self.events.append(("error", type(exc).__name__))
        self.on_error(exc)

    def datagram_received(self, data, address):
        self.events.append(("data", data))


def test_error_received_sends(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, local_addr=("127.0.0.1", 0)
        )
        own = transport.get_extra_info("sockname")
        protocol.on_error = lambda exc: transport.sendto(b"from inside", own)
        transport.sendto(b"x" * 70_000, own)
        transport.sendto(b"after", own)
        await until(lambda: len(protocol.events) == 3)
        assert protocol.names == ["error", "data", "data"]
        assert [data for _, data in protocol.events[1:]] == [b"from inside", b"after"]
        transport.abort()
        await turns(2)

    run(main())


async def full_endpoint():
    """A datagram endpoint whose socket takes no more, and the peer."""
    loop = asyncio.get_running_loop()
    one, peer = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    one.setblocking(False)
    peer.setblocking(False)
    with tempfile.TemporaryDirectory() as directory:
        peer.bind(directory + "/peer")
        one.connect(directory + "/peer")
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, sock=one)
    transport.set_write_buffer_limits(1 << 30)
    sent = 0
    while transport.get_write_buffer_size() == 0:
        transport.sendto(b"%d" % sent)
        sent += 1
    return transport, protocol, peer, sent


async def receive(peer, count):
    """So many datagrams, and any that should not come."""
    got = []
    while len(got) < count:
        got.append(await asyncio.get_running_loop().sock_recv(peer, 100_000))
    await asyncio.sleep(0.02)
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(peer.recv(100_000))
    return got


def test_datagrams_in_order_whoever_writes(run):
    async def main():
        transport, protocol, peer, sent = await full_endpoint()
        transport.set_write_buffer_limits(4000, 3000)  # 3.13.0 counts what has gone in part
        protocol.on_pause = lambda: transport.sendto(b"pause")
        protocol.on_resume = lambda: transport.sendto(b"resume")
        expected = [b"%d" % number for number in range(sent)]
        while "pause" not in protocol.names:
            transport.sendto(b"more")
            expected.append(b"more")
        transport.sendto(b"end")
        expected += [b"pause", b"end", b"resume"]
        assert await receive(peer, len(expected)) == expected
        assert protocol.names == ["pause", "resume"]
        transport.abort()
        await turns(2)
        peer.close()

    run(main())


def test_a_failing_datagram_in_the_queue(run):
    """error_received() comes for it, the rest with the next event, nothing twice."""

    async def main():
        transport, protocol, peer, sent = await full_endpoint()
        names = []
        protocol.on_error = lambda exc: (
            names.append(transport.get_write_buffer_size() > 0),
            transport.sendto(b"from inside"),
        )
        transport.sendto(b"x" * 1_000_000)  # larger than the send buffer
        transport.sendto(b"after")
        expected = [b"%d" % n for n in range(sent)] + [b"after", b"from inside"]
        assert await receive(peer, len(expected)) == expected
        assert protocol.names == ["error"]
        assert names == [True]
        transport.abort()
        await turns(2)
        peer.close()

    run(main())


@pytest.mark.parametrize("then", ["close", "abort"])
def test_the_end_inside_error_received(run, then):
    async def main():
        transport, protocol, peer, sent = await full_endpoint()
        protocol.on_error = lambda exc: getattr(transport, then)()
        transport.sendto(b"x" * 1_000_000)
        transport.sendto(b"after")
        expected = [b"%d" % n for n in range(sent)] + ([b"after"] if then == "close" else [])
        assert await receive(peer, len(expected)) == expected
        await until(lambda: "lost" in protocol.names)
        assert protocol.names == ["error", "lost"]
        peer.close()

    run(main())


# -- contexts ----------------------------------------------------------------------------


def test_pause_writing_runs_in_the_context_of_the_write(run, connect):
    var = contextvars.ContextVar("var", default="none")

    async def main():
        ends = await connect()
        seen = []
        ends.protocol.on_pause = lambda: seen.append(var.get())

        async def writes():
            var.set("who writes")
            while not seen:
                ends.transport.write(b"x" * 1_000_000)

        await asyncio.create_task(writes())
        assert seen == ["who writes"]
        await ends.end()

    run(main())


# -- at random ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_at_random(run, connect, seed):
    """Writes from everywhere, of all kinds and sizes, while the limits change: in order."""

    async def main():
        rng = random.Random(seed)
        ends = await connect()
        transport, wrote, got = ends.transport, bytearray(), bytearray()
        left = [400]

        def write():
            if left[0] <= 0 or transport.is_closing():
                return
            left[0] -= 1
            # what a call inside of this one writes comes behind: so it is noted first
            piece = rng.randbytes(rng.choice([1, 10, 1000, 70_000, 300_000]))
            wrote.extend(piece)
            if rng.randrange(4) == 0:
                cut = rng.randrange(len(piece) + 1)
                transport.writelines([p for p in (piece[:cut], bytearray(piece[cut:])) if p])
            else:
                transport.write(rng.choice(MAKES)(piece))

        ends.protocol.on_pause = lambda: rng.randrange(2) and write()
        ends.protocol.on_resume = lambda: rng.randrange(2) and write()
        while left[0] > 0:
            for _ in range(rng.choice([0, 1, 1, 2, 5])):
                write()
            if rng.randrange(10) == 0:
                high = rng.choice([0, 1, 1000, 100_000, None])
                transport.set_write_buffer_limits(high)
            if rng.randrange(3) == 0:
                got += await ends.read(min(len(wrote) - len(got), 1 << 18))
            else:
                await asyncio.sleep(0)
        got += await ends.read(len(wrote) - len(got))
        assert got == wrote
        await ends.end()

    run(main())
