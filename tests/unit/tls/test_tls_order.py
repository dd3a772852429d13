"""TLS over a transport in Python: who is called when, with what, and where exceptions go."""

import asyncio
import contextlib
import itertools
import logging
import random
import ssl
import zlib

import pytest

from tests.support import turns

from .tls_below import Above, Below, Connection

pytestmark = pytest.mark.usefixtures("engine")

TIMEOUT = 10


RECORD = 22  # bytes that a record of TLS 1.3 adds


# -- random programs: the same on the standard loop --------------------

SIZES = [1, 5, 100, 1000, 5000, 16384, 16385, 40000, 70000, 200000, 300000]
WRITES = ["write", "write", "bytearray", "lines", "limits", "size", "pause", "resume"]


class Trouble(Exception):
    pass


class Random(Above):
    """Does something in each callback."""

    def __init__(self, program):
        super().__init__(program.log)
        self.program = program

    def data_received(self, data):
        super().data_received(data)
        self.program.act()

    def eof_received(self):
        super().eof_received()
        self.program.act()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.program.act()

    def pause_writing(self):
        super().pause_writing()
        self.program.act()

    def resume_writing(self):
        super().resume_writing()
        self.program.act()


class RandomBuffered(Random, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.log.append(("get_buffer", hint))
        return memoryview(bytearray(self.program.buffer))

    def buffer_updated(self, n):
        self.log.append(("updated", n))
        self.program.act()


class Program:
    """What is done is a function of the seed, and of what happens."""

    def __init__(self, loop, contexts, seed):
        self.rng = rng = random.Random(seed)
        self.loop = loop
        self.depth, self.left, self.pieces = 0, 25, itertools.count()
        self.buffer = rng.choice([50, 1000, 65536])
        self.buffered = rng.random() < 0.3
        self.raises = rng.random() < 0.2
        self.fails = rng.random() < 0.3
        extra = [[], [], ["close"], ["close", "abort"], ["read_limits"]]
        self.actions = WRITES + rng.choice(extra)
        self.ends = rng.choice([[], ["notify"], ["eof"], ["notify", "eof"], ["lose"]])
        self.log = None
        self.connection = Connection(
            loop, contexts, now=rng.random() < 0.5, protocol=self.make_protocol
        )
        self.paused = False
        self.transport = None

    def make_protocol(self, log):
        self.log = log
        return (RandomBuffered if self.buffered else Random)(self)

    def payload(self, size):
        return (b"%d," % next(self.pieces) * size)[:size]

    def act(self):
        if self.transport is None or self.depth >= 3 or self.left <= 0:
            return
        self.left -= 1
        self.depth += 1
        try:
            for _ in range(self.rng.choice([0, 0, 1, 1, 2])):
                self.do(self.rng.choice(self.actions))
            if self.raises and self.rng.random() < 0.03:
                self.log.append("raises")
                raise Trouble
        finally:
            self.depth -= 1

    def do(self, what):
        rng, transport, below = self.rng, self.transport, self.connection.below
        self.log.append("> " + what)
        try:
            if what == "write":
                transport.write(self.payload(rng.choice(SIZES)))
            elif what == "bytearray":
                transport.write(bytearray(self.payload(rng.choice(SIZES))))
            elif what == "lines":
                transport.writelines(
                    rng.choice([bytes, bytearray])(self.payload(rng.choice(SIZES[:7])))
                    for _ in range(rng.randrange(1, 8))
                )
            elif what == "pause":
                transport.pause_reading()
            elif what == "resume":
                transport.resume_reading()
            elif what == "close" and not transport.is_closing():
                transport.close()  # twice is an AttributeError with asyncio
            elif what == "abort":
                transport.abort()
            elif below.lost:
                return
            elif what == "limits":
                transport.set_write_buffer_limits(rng.choice([0, 10, 1000, 100000, None]))
            elif what == "read_limits":
                transport.set_read_buffer_limits(rng.choice([0, 100, None]))
        except Exception as exc:
            self.log.append(("raised", repr(exc)))
        self.note()

    def note(self):
        with contextlib.suppress(AttributeError):
            self.log.append(
                (self.transport.get_write_buffer_size(), self.transport.get_read_buffer_size())
            )

    def step(self, what):
        rng, below, peer = self.rng, self.connection.below, self.connection.peer
        if what in ("notify", "eof"):
            # asyncio loses what waits at the end
            if self.paused and not below.lost:
                self.paused = False
                below.protocol.resume_writing()
            if self.buffered and self.transport.get_read_buffer_size() > 0:
                return
        self.log.append("step " + what)
        if what == "act":
            self.do(rng.choice(self.actions))
        elif what == "say":
            for _ in range(rng.choice([1, 1, 3])):
                with contextlib.suppress(ssl.SSLError):
                    peer.object.write(b"s" * rng.choice(SIZES))
            below.deliver()
        elif what == "pause" and not self.paused and not below.lost:
            self.paused = True
            below.protocol.pause_writing()
        elif what == "resume" and self.paused and not below.lost:
            self.paused = False
            below.protocol.resume_writing()
        elif what == "fail" and self.fails:
            below.failures.append(rng.choice([Trouble(), OSError()]))
        elif what == "notify":
            peer.close_notify()
            below.deliver()
        elif what == "eof":
            below.eof()
        elif what == "lose" and not below.lost:
            below.lost = True
            below.protocol.connection_lost(rng.choice([None, ConnectionResetError()]))

    def on_error(self, loop, context):
        self.log.append(("handler", type(context.get("exception")).__name__))

    async def main(self):
        self.loop.set_exception_handler(self.on_error)
        async with self.connection as connection:
            self.transport = connection.transport
            steps = ["act", "act", "act", "say", "say", "pause", "resume", "fail", *self.ends]
            for _ in range(14):
                what = self.rng.choice(steps)
                try:
                    self.step(what)
                except Exception as exc:
                    self.log.append(("step raised", repr(exc)))
                await turns(10)
                if "step eof" in self.log:
                    break
            await turns(10)
            self.log.append((zlib.crc32(connection.peer.got), repr(connection.peer.end)))
            self.left = 0
            return list(self.log)


def play(factory, contexts, seed):
    loop = factory()
    try:
        return loop.run_until_complete(Program(loop, contexts, seed).main())
    finally:
        loop.close()


def assert_same(got, expected, seed):
    for ours, asyncios in zip(got, expected):
        if ours != asyncios:
            # asyncio loses what waits when the connection ends: here it leaves before
            assert ours[0] == "below.write", f"seed {seed}: {ours}, not {asyncios}"
            assert asyncios == ("below.close", "NoneType"), f"seed {seed}"
            return
    assert len(got) == len(expected), f"seed {seed}"


@pytest.fixture
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", range(8))
def test_at_random(impl, contexts, quiet, part, size):
    count = size(15, 400)
    for seed in range(part * count, (part + 1) * count):
        expected = play(asyncio.SelectorEventLoop, contexts, seed)
        assert_same(play(impl.new_event_loop, contexts, seed), expected, seed)


# -- writing --------------------


class Writer(Above):
    """Writes something when it may write again, or may not."""

    def pause_writing(self):
        super().pause_writing()
        if self.when == "pause":
            self.transport.write(b"P" * 50)

    def resume_writing(self):
        super().resume_writing()
        if self.when == "resume" and self.log.count("resume") == 1:
            self.transport.write(b"R" * 100)


@pytest.mark.parametrize("when", ["pause", "resume"])
@pytest.mark.parametrize("how", ["write", "bytearray", "writelines"])
def test_a_callback_does_not_overtake(run, connection, how, when):
    async def main():
        async with connection(protocol=Writer) as it:
            it.protocol.when = when
            it.transport.write(b"1" * 100)
            it.transport.set_write_buffer_limits(0)
            if how == "writelines":
                wanted = b"A" * 100 + b"B" * 20000 + b"C" * 100
                it.transport.writelines([b"A" * 100, bytearray(b"B" * 20000), b"C" * 100])
            else:
                wanted = b"A" * 20000
                it.transport.write(wanted if how == "write" else bytearray(wanted))
            await turns(4)
            assert wanted in bytes(it.peer.got)
            if when == "resume":
                assert it.peer.got.endswith(b"R" * 100)

    run(main())


def test_a_callback_may_change_the_buffer_that_is_written(run, connection):
    data = bytearray(b"d" * 1000)

    class Shrinking(Above):
        def pause_writing(self):
            del data[:]

    async def main():
        async with connection(protocol=Shrinking) as it:
            it.below.protocol.pause_writing()
            it.transport.set_write_buffer_limits(500)
            it.transport.write(data)
            assert data == b""
            it.below.protocol.resume_writing()
            assert it.peer.got == b"d" * 1000

    run(main())


def test_get_write_buffer_size_calls_nobody(run, connection):
    async def main():
        async with connection() as it:
            it.below.protocol.pause_writing()
            it.transport.set_write_buffer_limits(10)
            it.transport.write(b"x" * 100)
            assert it.log == ["pause"]
            assert it.transport.get_write_buffer_size() == 100 + RECORD
            assert it.log == ["pause"]
            it.below.protocol.resume_writing()
            assert it.log == ["pause", ("below.write", 122), "resume"]

    run(main())


def test_parts_leave_in_one_call(run, connection):
    async def main():
        async with connection() as it:
            it.transport.writelines([b"a" * 10, b"", bytearray(b"b" * 20), memoryview(b"c" * 30)])
            assert it.log == [("below.write", 60 + 3 * RECORD)]
            it.log.clear()
            it.transport.write(b"z" * 100_000)
            assert it.log == [("below.write", 100_000 + 7 * RECORD)]

    run(main())


def test_what_is_written_has_left_before_the_callback_goes_on(run, connection):
    async def main():
        async with connection() as it:
            it.transport.write(b"now")
            assert it.peer.got == b"now"
            it.transport.writelines([b" and", b" then"])
            assert it.peer.got == b"now and then"

    run(main())


def test_an_answer_inside_write(run, connection):
    """The transport below delivers the answer before write() returns, and so on."""

    class Echo(Above):
        def data_received(self, data):
            super().data_received(data)
            if len(self.log) < 40:
                self.transport.write(b"again" * 100)

    async def main():
        async with connection(now=True, protocol=Echo) as it:
            feed = it.peer.feed

            def answering(data):
                feed(data)
                it.peer.object.write(b"answer")

            it.peer.feed = answering
            it.transport.writelines([b"x" * 5000, b"y" * 30000])
            it.peer.feed = feed
            got = bytes(it.peer.got)
            assert got == b"x" * 5000 + b"y" * 30000 + b"again" * (len(got) // 5 - 7000)
            assert it.log.count(("data", 6)) >= 10

    run(main())


# -- exceptions --------------------


class Raising(Below):
    """One of its methods raises, once."""

    armed = None

    def raises(self, name):
        if self.armed is not None and self.armed[0] == name:
            exc, self.armed = self.armed[1], None
            raise exc

    def write(self, data):
        self.raises("write")
        super().write(data)

    def close(self):
        self.raises("close")
        super().close()

    def abort(self):
        self.raises("abort")
        super().abort()

    def _force_close(self, exc):
        self.raises("abort")
        super()._force_close(exc)

    def pause_reading(self):
        self.raises("pause_reading")
        super().pause_reading()

    def resume_reading(self):
        self.raises("resume_reading")
        super().resume_reading()


def provoke(it, name):
    if name == "write":
        it.transport.write(b"data")
    elif name == "close":
        it.peer.close_notify()
        it.below.deliver()
    elif name == "abort":
        it.transport.abort()
    elif name == "pause_reading":
        it.transport.pause_reading()
        it.transport.set_read_buffer_limits(100)
        it.say(1000)
    elif name == "resume_reading":
        it.transport.resume_reading()


METHODS = ["write", "close", "abort", "pause_reading", "resume_reading"]


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", METHODS)
def test_an_exit_leaves_the_loop(loop, connection, unraisable, name, exc):
    made = []

    async def main():
        async with connection(below=Raising) as it:
            made.append(it)
            if name == "resume_reading":
                provoke(it, "pause_reading")
            it.below.armed = name, exc()
            asyncio.get_running_loop().call_soon(provoke, it, name)
            await asyncio.sleep(60)

    task = loop.create_task(main())
    with pytest.raises(exc):
        loop.run_until_complete(task)
    assert made[0].below.armed is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert unraisable == []


@pytest.mark.parametrize("name", METHODS)
def test_an_exception_goes_where_asyncio_lets_it_go(run, connection, reports, name):
    async def main():
        async with connection(below=Raising) as it:
            if name == "resume_reading":
                provoke(it, "pause_reading")
            it.log.clear()
            it.below.armed = name, ZeroDivisionError()
            if name == "abort":
                with pytest.raises(ZeroDivisionError):
                    provoke(it, name)
            else:
                provoke(it, name)
            await turns(6)
            assert it.below.armed is None
            if name == "close":
                assert it.log[-1] == ("below.write", 24)
                assert len(reports) == 1
            elif name == "abort":
                assert it.log == []
            else:
                assert ("below._force_close", "ZeroDivisionError") in it.log
                assert it.log[-1] == ("lost", "ZeroDivisionError")
                assert [r["message"] for r in reports] == ["Fatal error on SSL protocol"]
            reports.clear()

    run(main())


def test_an_os_error_of_the_transport_below_is_not_reported(run, connection):
    async def main():
        async with connection() as it:
            it.below.failures.append(BrokenPipeError())
            it.transport.write(b"data")
            await turns(4)
            assert it.log[-2:] == [
                ("below._force_close", "BrokenPipeError"),
                ("lost", "BrokenPipeError"),
            ]

    run(main())


def test_cancelled_error_out_of_the_transport_below(run, connection):
    """It is no Exception: write() lets it pass, and the connection goes on."""

    async def main():
        async with connection() as it:
            it.below.failures.append(asyncio.CancelledError())
            with pytest.raises(asyncio.CancelledError):
                it.transport.write(b"data")
            await turns(4)
            assert [event for event in it.log if event[0] != "below.write"] == []

    run(main())


class Poor(Below):
    """Lacks what asyncio's transports have and do not document."""

    _force_close = property()
    is_closing = property()
    get_extra_info = property()


@pytest.mark.our_loop("AttributeError: asyncio takes for granted that there is a _force_close()")
def test_a_transport_below_with_few_methods(run, connection):
    async def main():
        async with connection(below=Poor) as it:
            it.transport.write(b"data")
            it.transport.abort()
            await turns(4)
            assert it.log[-1] == ("lost", "NoneType")

    run(main())


def test_flow_control_callbacks_that_raise(run, connection, reports):
    class Failing(Above):
        def pause_writing(self):
            raise ZeroDivisionError

        def resume_writing(self):
            raise asyncio.CancelledError

    async def main():
        async with connection(protocol=Failing) as it:
            it.below.protocol.pause_writing()
            it.transport.set_write_buffer_limits(10)
            it.transport.write(b"x" * 100)
            it.below.protocol.resume_writing()
            assert [r["message"] for r in reports] == [
                "protocol.pause_writing() failed",
                "protocol.resume_writing() failed",
            ]
            reports.clear()
            it.transport.write(b"y")
            assert it.peer.got == b"x" * 100 + b"y"

    run(main())


# -- the connection ends inside a call --------------------


@pytest.mark.parametrize("what", ["lost", "eof", "abort", "close"])
@pytest.mark.parametrize("how", ["write", "writelines", "close"])
def test_the_end_inside_a_call_of_the_transport_below(run, connection, how, what):
    class Ending(Below):
        armed = False

        def write(self, data):
            super().write(data)
            if self.armed:
                self.armed = False
                self.finish()

        def finish(self):
            if what == "lost":
                self.lost = True
                self.protocol.connection_lost(None)
            elif what == "eof":
                self.eof()
            elif what == "abort":
                self.log.transport.abort()
            elif not self.log.transport.is_closing():
                self.log.transport.close()

    class Log(list):
        pass

    async def main():
        it = connection(below=Ending)
        it.log = it.below.log = it.protocol.log = Log()
        async with it:
            it.log.transport = it.transport
            it.below.armed = True
            if how == "write":
                it.transport.write(b"x" * 100_000)
            elif how == "writelines":
                it.transport.writelines([b"x" * 50_000, b"y" * 50_000])
            else:
                it.transport.close()
            for _ in range(3):
                it.transport.write(b"more")
            await turns(6)
            if what in ("lost", "abort", "eof"):
                assert [event for event in it.log if event[0] == "lost"] == [
                    ("lost", "NoneType")
                ]
            if how != "close":
                assert len(it.peer.got) >= 100_000

    run(main())


# -- what the protocol is told at the end --------------------


@pytest.mark.parametrize("paused", [False, True])
def test_data_after_close_is_no_orderly_end(run, connection, paused):
    async def main():
        async with connection() as it:
            if paused:
                it.transport.pause_reading()
                it.say(5000)
                it.transport.close()
            else:
                it.transport.close()
                it.say(5000)
            it.peer.close_notify()
            it.below.deliver()
            it.below.eof()
            await turns(6)
            assert "eof" not in it.log
            assert it.log[-1] == ("lost", "SSLError")
            assert it.protocol.reason.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"

    run(main())


@pytest.mark.our_loop("asyncio waits for a resume_reading() that nobody makes")
@pytest.mark.parametrize("unread", [True, False])
def test_close_after_the_wire_has_ended_while_reading_is_paused(run, connection, unread):
    async def main():
        async with connection() as it:
            it.transport.pause_reading()
            if unread:
                it.say(5000)
            it.below.eof()
            it.transport.close()
            await turns(6)
            if unread:
                assert "eof" not in it.log
                assert it.log[-1] == ("lost", "SSLError")
            else:
                assert it.log[-2:] == [("below.close", "NoneType"), ("lost", "NoneType")]

    run(main())


@pytest.mark.parametrize("how", ["close_notify", "eof"])
def test_the_end_while_reading_is_paused_comes_after_the_data(run, connection, how):
    async def main():
        async with connection() as it:
            it.transport.pause_reading()
            it.say(5000)
            if how == "close_notify":
                it.peer.close_notify()
                it.below.deliver()
            it.below.eof()
            await turns(6)
            assert it.log == []
            it.transport.resume_reading()
            await turns(6)
            assert it.log[:2] == [("data", 5000), "eof"]
            assert it.log[-1] == ("lost", "NoneType")

    run(main())


def test_what_resume_reading_promised_comes_in_close(run, connection):
    async def main():
        async with connection() as it:
            it.transport.pause_reading()
            it.say(5000)
            it.transport.resume_reading()
            it.transport.close()
            assert it.log[0] == ("data", 5000)

    run(main())


class Small(Above, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.buffer = memoryview(bytearray(100))
        return self.buffer

    def buffer_updated(self, n):
        self.log.append(("data", n))


@pytest.mark.our_loop("asyncio drops what did not fit into the last buffer")
def test_a_small_buffer_gets_everything_before_the_end_of_the_wire(run, connection):
    async def main():
        async with connection(protocol=Small) as it:
            it.say(1000)
            it.below.eof()
            await turns(30)
            assert sum(e[1] for e in it.log if e[0] == "data") == 1000
            assert it.log[-1] == ("lost", "NoneType")
            assert "eof" in it.log

    run(main())


@pytest.mark.our_loop("asyncio loses what waits while the transport below has enough")
@pytest.mark.parametrize("how", ["close_notify", "eof"])
def test_what_was_written_goes_out_before_the_end(run, connection, how):
    async def main():
        async with connection() as it:
            it.below.protocol.pause_writing()
            it.transport.write(b"last words")
            if how == "close_notify":
                it.peer.close_notify()
                it.below.deliver()
            else:
                it.below.eof()
            await turns(6)
            assert it.peer.got == b"last words"
            assert it.log[-1] == ("lost", "NoneType")

    run(main())


def test_reading_is_paused_below_when_enough_waits(run, connection):
    async def main():
        async with connection() as it:
            it.transport.pause_reading()
            it.say(100_000)
            assert it.log == []
            assert 100_000 < it.transport.get_read_buffer_size() < 101_000
            it.say(200_000)
            assert it.log == ["below.pause_reading"]
            it.transport.resume_reading()
            await turns(4)
            assert sum(e[1] for e in it.log if e[0] == "data") == 300_000
            assert "below.resume_reading" in it.log
            assert it.transport.get_read_buffer_size() == 0

    run(main())


def test_a_reset_is_noticed_while_reading_is_paused(run, connection):
    async def main():
        async with connection() as it:
            it.transport.pause_reading()
            it.below.lost = True
            it.below.protocol.connection_lost(ConnectionResetError())
            await turns(3)
            assert it.log == [("lost", "ConnectionResetError")]

    run(main())


def test_a_transport_that_knows_get_buffer_only(run, connection):
    """asyncio's own protocol is a BufferedProtocol."""

    class Buffered(Below):
        def give(self, data):
            while data:
                buffer = self.protocol.get_buffer(1000)
                n = min(len(buffer), len(data), 777)
                buffer[:n] = data[:n]
                self.protocol.buffer_updated(n)
                data = data[n:]

    async def main():
        async with connection(below=Buffered) as it:
            it.transport.write(b"hello")
            assert it.peer.got == b"hello"
            it.say(50_000)
            await turns(3)
            assert sum(e[1] for e in it.log if e[0] == "data") == 50_000

    run(main())


def test_a_transport_below_may_reuse_its_memory(run, contexts):
    """What data_received() was given is the transport's again afterwards, and meanwhile too."""
    async def main():
        memory = bytearray(200_000)

        class Reusing(Below):
            def give(self, data):
                memory[: len(data)] = data
                with memoryview(memory)[: len(data)] as view:
                    if hasattr(self.protocol, "data_received"):
                        self.protocol.data_received(view)
                    else:
                        self.protocol.get_buffer(len(data))[: len(data)] = data
                        self.protocol.buffer_updated(len(data))

        class Asking(Above):
            def data_received(self, data):
                assert data == b"s" * len(data)
                super().data_received(data)
                memory[:] = bytes(len(memory))
                if len(self.log) < 10:
                    self.transport.write(b"more")

        it = Connection(asyncio.get_running_loop(), contexts, True, Reusing, Asking)
        async with it:
            feed = it.peer.feed

            def answering(data):
                feed(data)
                it.peer.object.write(b"s" * 20_000)

            it.peer.feed = answering
            it.say(60_000)
            it.peer.feed = feed
            await turns(3)
            assert [e for e in it.log if e[0] == "lost"] == []
            assert sum(e[1] for e in it.log if e[0] == "data") >= 60_000

    run(main())
