"""connect_read_pipe and connect_write_pipe."""

import array
import asyncio
import contextlib
import gc
import io
import os
import pty
import socket
import tty

import pytest

from tests.support import check_script, turns, until


class Reader(asyncio.Protocol):
    def __init__(self):
        self.events = []
        self.data = b""

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append(("lost", exc))

    @property
    def lost(self):
        return bool(self.events) and self.events[-1][0] == "lost"


class Writer(asyncio.BaseProtocol):
    def __init__(self):
        self.paused = 0
        self.resumed = 0
        self.lost = None

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.paused += 1

    def resume_writing(self):
        self.resumed += 1

    def connection_lost(self, exc):
        self.lost = (exc,)


class Recorder(io.FileIO):
    """Counts how often it is closed."""

    closes = 0

    def close(self):
        if not self.closed:
            self.closes += 1
        super().close()


@pytest.fixture
def pipe():
    """The two ends of a pipe as file objects."""
    read, write = os.pipe()
    with Recorder(read, "rb") as reader, Recorder(write, "wb") as writer:
        yield reader, writer


@pytest.fixture
def terminal():
    """Both ends of a pseudo-terminal in raw mode, as file objects."""
    master, slave = pty.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    with Recorder(master, "rb+") as one, Recorder(slave, "rb+") as other:
        yield one, other


def test_read(run, loop, pipe):
    reader, writer = pipe

    async def main():
        transport, protocol = await loop.connect_read_pipe(Reader, reader)
        assert transport.get_extra_info("pipe") is reader
        os.write(writer.fileno(), b"one")
        await until(lambda: protocol.data == b"one")
        os.write(writer.fileno(), b"two")
        await until(lambda: protocol.data == b"onetwo")
        writer.close()
        await until(lambda: protocol.lost)
        assert protocol.events == ["made", "eof", ("lost", None)]

    run(main())
    assert reader.closed
    assert reader.closes == 1


def test_close_before_the_end(run, loop, pipe):
    reader, writer = pipe

    async def main():
        transport, protocol = await loop.connect_read_pipe(Reader, reader)
        transport.close()
        transport.close()
        assert transport.is_closing()
        await until(lambda: protocol.lost)
        assert protocol.events == ["made", ("lost", None)]

    run(main())
    assert reader.closes == 1


def test_descriptor_is_closed_only_once(run, loop):
    """Another descriptor with the same number must stay open."""

    async def main():
        for _ in range(20):
            read, write = os.pipe()
            reader = Recorder(read, "rb")
            transport, protocol = await loop.connect_read_pipe(Reader, reader)
            os.close(write)
            await until(lambda protocol=protocol: protocol.lost)
            one, other = os.pipe()
            transport.close()
            reader.close()
            del transport, protocol, reader
            await turns(2)
            os.fstat(one), os.fstat(other)
            os.close(one)
            os.close(other)

    run(main())


def test_pause_and_resume_reading(run, loop, pipe):
    reader, writer = pipe

    async def main():
        transport, protocol = await loop.connect_read_pipe(Reader, reader)
        transport.pause_reading()
        os.write(writer.fileno(), b"data")
        await asyncio.sleep(0.01)
        assert protocol.data == b""
        transport.resume_reading()
        await until(lambda: protocol.data == b"data")
        transport.close()
        await until(lambda: protocol.lost)

    run(main())


def test_write(run, loop, pipe):
    reader, writer = pipe

    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, writer)
        transport.write(b"one")
        transport.writelines([b"two", bytearray(b"three")])
        assert os.read(reader.fileno(), 100) == b"onetwothree"
        transport.write_eof()
        await until(lambda: protocol.lost)
        assert os.read(reader.fileno(), 100) == b""

    run(main())
    assert writer.closes == 1


def test_write_much(run, loop, pipe):
    reader, writer = pipe
    data = os.urandom(1 << 20)

    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, writer)
        transport.write(data)
        assert transport.get_write_buffer_size() > 0
        assert protocol.paused == 1
        transport.close()
        _, other = await loop.connect_read_pipe(Reader, reader)
        await until(lambda: other.lost)
        assert other.data == data
        assert protocol.resumed == 1
        assert protocol.lost == (None,)

    run(main())


def test_both_ends(run, loop, pipe):
    reader, writer = pipe

    async def main():
        _, incoming = await loop.connect_read_pipe(Reader, reader)
        outgoing, _ = await loop.connect_write_pipe(Writer, writer)
        for number in range(100):
            outgoing.write(b"%d " % number)
            await turns(1)
        outgoing.close()
        await until(lambda: incoming.lost)
        assert incoming.data.split() == [b"%d" % number for number in range(100)]

    run(main())


def test_reader_goes_away(run, loop, pipe):
    reader, writer = pipe

    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, writer)
        reader.close()
        await until(lambda: protocol.lost)
        transport.write(b"dropped")
        transport.close()

    run(main())
    assert writer.closes == 1


def test_abort(run, loop, pipe):
    reader, writer = pipe

    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, writer)
        transport.write(b"x" * (1 << 20))
        transport.abort()
        await until(lambda: protocol.lost)
        assert transport.get_write_buffer_size() == 0

    run(main())
    assert writer.closes == 1


def test_failing_protocol_factory(run, loop, pipe):
    def fail():
        raise KeyError("no")

    async def main():
        with pytest.raises(KeyError):
            await loop.connect_read_pipe(fail, pipe[0])
        with pytest.raises(KeyError):
            await loop.connect_write_pipe(fail, pipe[1])
        assert not pipe[0].closed
        assert not pipe[1].closed

    run(main())


def test_fifo(run, loop, tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)

    async def main():
        reader = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
        _, incoming = await loop.connect_read_pipe(Reader, reader)
        writer = open(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb", 0)
        outgoing, _ = await loop.connect_write_pipe(Writer, writer)
        outgoing.write(b"through")
        await until(lambda: incoming.data == b"through")
        outgoing.close()
        await until(lambda: incoming.lost)

    run(main())


def test_socket(run, loop):
    async def main():
        one, other = socket.socketpair()
        with other:
            transport, protocol = await loop.connect_read_pipe(Reader, one)
            other.send(b"x")
            await until(lambda: protocol.data == b"x")
            other.close()
            await until(lambda: protocol.lost)
            assert one.fileno() == -1

    run(main())


def test_terminal_both_directions(run, loop, terminal):
    master, slave = terminal

    async def main():
        _, incoming = await loop.connect_read_pipe(Reader, slave)
        outgoing, _ = await loop.connect_write_pipe(Writer, open(os.dup(slave.fileno()), "wb", 0))
        os.write(master.fileno(), b"typed")
        await until(lambda: incoming.data == b"typed")
        outgoing.write(b"shown")
        await asyncio.sleep(0)
        assert os.read(master.fileno(), 100) == b"shown"
        outgoing.close()
        incoming.transport.close()
        await until(lambda: incoming.lost)

    run(main())


def test_regular_file_is_refused(run, loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")

    async def main():
        with path.open("rb") as file, pytest.raises(ValueError, match="[Pp]ipe"):
            await loop.connect_read_pipe(Reader, file)
        with path.open("wb") as file, pytest.raises(ValueError, match="[Pp]ipe"):
            await loop.connect_write_pipe(Writer, file)

    run(main())


def test_two_transports_on_one_output(run, loop, pipe):
    reader, writer = pipe

    async def main():
        first, lost1 = await loop.connect_write_pipe(Writer, open(os.dup(writer.fileno()), "wb", 0))
        second, lost2 = await loop.connect_write_pipe(
            Writer, open(os.dup(writer.fileno()), "wb", 0)
        )
        first.write(b"1")
        second.write(b"2")
        first.close()
        second.write(b"3")
        second.close()
        await until(lambda: lost1.lost and lost2.lost)
        assert os.read(reader.fileno(), 100) == b"123"

    run(main())


def test_standard_streams_as_pipes(impl):
    """Twice on the same standard output, as libraries do."""
    check_script(
        impl,
        """
async def main():
    loop = asyncio.get_running_loop()
    for word in (b"one ", b"two"):
        transport, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, open(os.dup(1), "wb", 0))
        transport.write(word)
        transport.close()
        await asyncio.sleep(0.01)
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
""",
        "one two",
    )


def test_streams(run, loop, pipe):
    reader, writer = pipe

    async def main():
        stream = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), reader
        )
        os.write(writer.fileno(), b"line 1\nline 2\n")
        assert await stream.readline() == b"line 1\n"
        writer.close()
        assert await stream.read() == b"line 2\n"
        transport.close()
        await turns(2)

    run(main())


def test_cancelled_connect(run, loop, pipe):
    async def main():
        task = asyncio.create_task(loop.connect_read_pipe(Reader, pipe[0]))
        await turns(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            transport, protocol = await task
            transport.close()
        await turns(3)

    run(main())
    assert pipe[0].closes == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_small_pieces(run, loop, impl, pipe, seed):
    """Pipes that give and take a few bytes at a time lose nothing."""
    if not impl.ours:
        pytest.skip("a switch of our core")
    from asyncloop import _core

    data = os.urandom(20_000)

    async def main():
        _, incoming = await loop.connect_read_pipe(Reader, pipe[0])
        outgoing, _ = await loop.connect_write_pipe(Writer, pipe[1])
        outgoing.write(data[:5000])
        outgoing.writelines([data[5000:6000], bytearray(data[6000:])])
        outgoing.close()
        await until(lambda: incoming.lost)
        assert incoming.data == data
        assert incoming.events == ["made", "eof", ("lost", None)]

    _core._io_set_flaky(seed)
    try:
        run(main())
    finally:
        _core._io_set_flaky(0)


def test_failing_data_received_is_reported_and_reading_goes_on(run, loop, pipe):
    class Failing(Reader):
        def data_received(self, data):
            super().data_received(data)
            if data == b"bad":
                raise KeyError(data)

    reported = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    async def main():
        _, protocol = await loop.connect_read_pipe(Failing, pipe[0])
        os.write(pipe[1].fileno(), b"bad")
        await until(lambda: reported)
        os.write(pipe[1].fileno(), b"good")
        await until(lambda: protocol.data == b"badgood")
        pipe[1].close()
        await until(lambda: protocol.lost)
        assert protocol.events == ["made", "eof", ("lost", None)]

    run(main())
    assert [type(exc) for exc in reported] == [KeyError]


def test_eof_received_cannot_keep_a_pipe_open(run, loop, pipe):
    class Keeping(Reader):
        def eof_received(self):
            super().eof_received()
            return True

    async def main():
        transport, protocol = await loop.connect_read_pipe(Keeping, pipe[0])
        pipe[1].close()
        await until(lambda: protocol.lost)
        assert protocol.events == ["made", "eof", ("lost", None)]
        assert transport.is_closing()

    run(main())
    assert pipe[0].closes == 1


def test_terminal_whose_other_side_is_closed(run, loop, terminal):
    master, slave = terminal

    async def main():
        _, protocol = await loop.connect_read_pipe(Reader, master)
        slave.close()
        await until(lambda: protocol.lost)
        assert isinstance(protocol.events[-1][1], OSError)
        assert protocol.events[:-1] == ["made"]

    loop.set_exception_handler(lambda loop, context: pytest.fail(context["message"]))
    run(main())


def test_reader_goes_away_with_output_waiting(run, loop, pipe):
    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, pipe[1])
        transport.write(b"x" * (1 << 20))
        pipe[0].close()
        await until(lambda: protocol.lost)
        assert isinstance(protocol.lost[0], BrokenPipeError)
        assert transport.get_write_buffer_size() == 0

    run(main())


def test_input_on_a_socket_is_not_its_end(run, loop, impl):
    if not impl.ours:
        pytest.skip("the standard transport closes")

    async def main():
        one, other = socket.socketpair()
        with other:
            transport, protocol = await loop.connect_write_pipe(Writer, one)
            other.send(b"input")
            await asyncio.sleep(0.01)
            assert not transport.is_closing()
            transport.write(b"output")
            assert other.recv(100) == b"output"
            transport.close()
            await until(lambda: protocol.lost)

    run(main())


@pytest.mark.our_loop("the standard transport takes its own output for the end")
def test_fifo_that_is_open_both_ways(run, loop, tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)

    async def main():
        with open(os.open(path, os.O_RDWR), "wb", 0) as both:
            transport, protocol = await loop.connect_write_pipe(Writer, both)
            for _ in range(3):
                transport.write(b"output")
                await asyncio.sleep(0.01)
            assert not transport.is_closing()
            assert os.read(both.fileno(), 100) == b"output" * 3
            transport.close()
            await until(lambda: protocol.lost)

    run(main())


@pytest.mark.skipif(
    "ASYNCLOOP_LONG_WAYS" in os.environ, reason="by _add_reader() it takes it away here, too"
)
@pytest.mark.our_loop("add_reader() takes the descriptor away from the standard transport")
def test_reader_callback_beside_a_transport(run, loop, pipe):
    calls = []

    async def main():
        _, protocol = await loop.connect_read_pipe(Reader, pipe[0])
        loop.add_reader(pipe[0], calls.append, "readable")
        os.write(pipe[1].fileno(), b"one")
        await until(lambda: calls and protocol.data == b"one")
        assert loop.remove_reader(pipe[0])
        called = len(calls)
        os.write(pipe[1].fileno(), b"two")
        await until(lambda: protocol.data == b"onetwo")
        assert len(calls) == called
        pipe[1].close()
        await until(lambda: protocol.lost)

    run(main())


@pytest.mark.our_loop("the standard transport counts items for bytes")
def test_views_of_items_larger_than_a_byte(run, loop, pipe):
    view = memoryview(array.array("i", range(1000)))

    async def main():
        _, incoming = await loop.connect_read_pipe(Reader, pipe[0])
        outgoing, _ = await loop.connect_write_pipe(Writer, pipe[1])
        outgoing.write(view)
        outgoing.writelines([view, view])
        outgoing.close()
        await until(lambda: incoming.lost)
        assert incoming.data == bytes(view) * 3

    run(main())


@pytest.mark.parametrize("data", ["text", 3, None, array.array("b", b"x")], ids=repr)
def test_data_of_another_kind(run, loop, pipe, data):
    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, pipe[1])
        # Which of the two it is depends on -O in the standard transport.
        with pytest.raises((TypeError, AssertionError)):
            transport.write(data)
        transport.write(b"good")
        transport.close()
        await until(lambda: protocol.lost)
        assert os.read(pipe[0].fileno(), 100) == b"good"

    run(main())


def test_the_other_direction_is_refused(run, loop, pipe):
    async def main():
        incoming, _ = await loop.connect_read_pipe(Reader, pipe[0])
        outgoing, _ = await loop.connect_write_pipe(Writer, pipe[1])
        assert isinstance(incoming, asyncio.ReadTransport)
        assert isinstance(outgoing, asyncio.WriteTransport)
        for method, args in [("write", (b"x",)), ("writelines", ([b"x"],)), ("write_eof", ())]:
            with pytest.raises((NotImplementedError, AttributeError)):
                getattr(incoming, method)(*args)
        for method in ("pause_reading", "resume_reading", "is_reading"):
            with pytest.raises((NotImplementedError, AttributeError)):
                getattr(outgoing, method)()
        incoming.close()
        outgoing.close()
        await turns(3)

    run(main())


def test_socket_whose_other_end_is_closed(run, loop):
    async def main():
        one, other = socket.socketpair()
        _, protocol = await loop.connect_write_pipe(Writer, one)
        other.close()
        await until(lambda: protocol.lost)
        assert protocol.lost == (None,)
        assert one.fileno() == -1

    run(main())


def test_writes_after_the_end_are_dropped_and_warned_of(run, loop, pipe, caplog):
    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, pipe[1])
        transport.close()
        await until(lambda: protocol.lost)
        for _ in range(5):
            transport.write(b"dropped")
        assert not caplog.records
        transport.write(b"dropped")

    with caplog.at_level("WARNING", "asyncio"):
        run(main())
    assert [record.message for record in caplog.records] == [
        "pipe closed by peer or os.write(pipe, data) raised exception."
    ]


def test_a_write_that_has_failed_counts_as_dropped(run, loop, pipe, caplog):
    async def main():
        transport, protocol = await loop.connect_write_pipe(Writer, pipe[1])
        loop.set_exception_handler(lambda *args: None)
        transport.write(memoryview(b"strided")[::2])
        assert transport._conn_lost == 1
        for _ in range(4):
            transport.write(b"dropped")
        assert not caplog.records
        transport.write(b"dropped")
        await until(lambda: protocol.lost)

    with caplog.at_level("WARNING", "asyncio"):
        run(main())
    assert len(caplog.records) == 1


def test_unclosed_transport_warns_and_closes_the_file(run, loop, pipe):
    async def main():
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, pipe[1])
        transport.abort()
        await turns(2)
        null = Recorder(os.devnull, "wb")
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, null)
        with pytest.warns(ResourceWarning, match="unclosed transport <.*WritePipe.*fd="):
            del transport
            gc.collect()
        assert null.closes == 1

    run(main())


def test_descriptions(run, loop, pipe):
    async def main():
        incoming, _ = await loop.connect_read_pipe(Reader, pipe[0])
        outgoing, _ = await loop.connect_write_pipe(Writer, pipe[1])
        assert f"ReadPipeTransport fd={pipe[0].fileno()} polling>" in repr(incoming)
        assert f"WritePipeTransport fd={pipe[1].fileno()} idle bufsize=0>" in repr(outgoing)
        incoming.close()
        assert "ReadPipeTransport closing fd=" in repr(incoming)
        outgoing.close()
        await turns(3)
        assert "ReadPipeTransport closed fd=" in repr(incoming)
        assert "WritePipeTransport closed fd=" in repr(outgoing)

    run(main())


def test_buffered_protocol_is_not_for_pipes(run, loop, pipe):
    class Buffered(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint):
            pytest.fail("get_buffer() was called")

    reported = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    async def main():
        transport, _ = await loop.connect_read_pipe(Buffered, pipe[0])
        os.write(pipe[1].fileno(), b"x")
        await until(lambda: reported)
        transport.close()
        await turns(3)

    run(main())
    assert isinstance(reported[0], AttributeError)
