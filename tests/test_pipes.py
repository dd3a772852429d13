"""connect_read_pipe and connect_write_pipe."""

import asyncio
import contextlib
import io
import os
import pty
import socket
import tty

import pytest

from .support import check_script, turns, until


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
