"""A filter of asyncio's logger, or the loop's exception handler, raises: the function of asyncio
that logs or reports lets that out, wherever it was called from.

Each test runs a small program on the standard loop and on asyncloop, and compares what it was told.
"""

import asyncio
import contextlib
import functools
import logging
import socket

import pytest

from tests.compare import same
from tests.support import PY, collect, turns, until
from tests.transports import Tells, datagrams, read_pipe, stream, write_pipe

LOGGER = logging.getLogger("asyncio")


@contextlib.contextmanager
def raising(log, words, times, error=ValueError):
    """The logger raises at messages with these words, so many times."""
    left = [times]

    def look(record):
        message = record.getMessage()
        if words in message and left[0] > 0:
            left[0] -= 1
            log("logged", record.levelname)
            raise error(words)
        return False

    level = LOGGER.level
    LOGGER.addFilter(look)
    LOGGER.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        LOGGER.removeFilter(look)
        LOGGER.setLevel(level)


@pytest.mark.parametrize("make", [stream, datagrams, write_pipe])
def test_warning_of_a_dropped_write(make):
    async def program(log, loop):
        transport, _, far = await make(log, loop)
        transport.abort()
        await turns(3)
        write = getattr(transport, "sendto", None) or transport.write
        with raising(log, "raised exception", 3):
            for _ in range(10):
                log.call("write", write, b"x")
                log(getattr(transport, "_conn_lost", None))
            log.call("write", write, bytearray(b"x"))
            if PY < (3, 12) and hasattr(transport, "writelines"):  # later by release
                log.call("writelines", transport.writelines, [b"x"])
        far.close()

    same(program)


@pytest.mark.parametrize("what", ["pause_reading", "resume_reading"])
@pytest.mark.parametrize("make", [stream, read_pipe])
def test_debug_line_of_a_method(make, what):
    async def program(log, loop):
        loop.set_debug(True)
        transport, _, far = await make(log, loop)
        with raising(log, " reading", 1):
            if what == "resume_reading":
                with contextlib.suppress(ValueError):
                    transport.pause_reading()
                with raising(log, "resumes reading", 1):
                    log.call("resume", transport.resume_reading)
            else:
                log.call("pause", transport.pause_reading)
        log(transport.is_reading())
        transport.close()
        far.close()
        await turns(3)

    same(program)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("make", [stream, read_pipe, write_pipe])
def test_debug_line_of_the_end(make, times):
    """The callback has failed with that, and asks again."""

    async def program(log, loop):
        loop.set_debug(True)
        transport, _, far = await make(log, loop)
        with raising(log, "was closed by peer" if make is not stream else "EOF", times):
            far.close()
            await until(transport.is_closing)
        await turns(3)

    same(program)


def test_handshake_lines_are_no_place_to_raise(contexts):
    """It breaks off what it is about."""

    async def program(log, loop):
        near, far = socket.socketpair()
        theirs = loop.create_task(
            loop.connect_accepted_socket(asyncio.Protocol, far, ssl=contexts[0])
        )
        await turns(5)
        loop.set_debug(True)
        with raising(log, "SSL handshake took", 2):
            await log.wait(
                "connect",
                lambda: loop.create_connection(
                    lambda: Tells(log), sock=near, ssl=contexts[1], server_hostname="localhost"
                ),
                seconds=0.5,
            )
        theirs.cancel()
        await turns(3)
        far.close()

    same(program, only=lambda line: "made" not in line and "warned" not in line)


class Fails(Tells):
    """Raises in everything that it is told."""

    def data_received(self, data):
        raise ArithmeticError("data")

    def datagram_received(self, data, address):
        raise OSError("datagram")

    def pause_writing(self):
        raise OSError("pause")

    def resume_writing(self):
        raise OSError("resume")

    def connection_lost(self, exc):
        raise OSError("lost")


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("kind", ["stream", "datagrams"])
@pytest.mark.parametrize("lost", [False, True])
def test_exception_handler_raises(kind, times, lost):
    """Out of a transport it is reported again, by the Handle; out of that it leaves the run."""

    def run(make):
        lines = []
        left = [times]
        loop = make()

        def handler(context):
            error = str(context["exception"])
            lines.append(("called", context["message"].partition(" ")[0], error))
            if left[0] > 0:
                left[0] -= 1
                raise LookupError("handler")

        loop.call_exception_handler = handler
        silent = functools.partial(Fails, lambda *items: None)
        pairs = []

        async def main():
            if kind == "stream":
                near, far = socket.socketpair()
                transport, _ = await loop.create_connection(silent, sock=near)
            else:
                far = socket.socket(type=socket.SOCK_DGRAM)
                transport, _ = await loop.create_datagram_endpoint(
                    silent, local_addr=("127.0.0.1", 0)
                )
                far.connect(transport.get_extra_info("sockname"))
            pairs.append((transport, far))
            far.send(b"x")
            await until(lambda: lines)
            if lost:
                transport.abort()
                await turns(4)
            transport.set_write_buffer_limits(0)
            lines.append(("closing", transport.is_closing()))

        task = loop.create_task(main())
        while not task.done():
            try:
                loop.run_until_complete(task)
            except LookupError as exc:
                lines.append(("left", str(exc)))
        left[0] = 0
        transport, far = pairs[0]
        transport.abort()
        far.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return lines

    import asyncloop

    assert run(asyncloop.new_event_loop) == run(asyncio.SelectorEventLoop)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # asyncio lets go of it
@pytest.mark.parametrize("error", [SystemExit, ValueError])
@pytest.mark.parametrize("by_method", [False, True])
def test_debug_line_of_a_connection(reports, monkeypatch, loop, error, by_method):
    """What is to leave the loop does so, and the next connection is accepted."""
    if by_method:
        own = socket.socket.accept
        monkeypatch.setattr(socket.socket, "accept", lambda self: own(self))
    made = []
    server = loop.run_until_complete(
        loop.create_server(lambda: made.append(1) or asyncio.Protocol(), "127.0.0.1", 0)
    )
    loop.set_debug(True)
    address = server.sockets[0].getsockname()
    with (
        raising(lambda *items: None, "got a new connection", 1, error),
        socket.create_connection(address),
    ):
        if error is SystemExit:
            with pytest.raises(SystemExit):
                loop.run_forever()
        else:
            loop.run_until_complete(until(lambda: reports))
            assert isinstance(reports.pop()["exception"], ValueError) and not reports
    collect()
    assert not made
    with socket.create_connection(address):
        loop.run_until_complete(until(lambda: made))
    server.close()
    loop.run_until_complete(turns(5))


def test_slow_callbacks_warning_leaves_the_run(impl):
    loop = impl.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    seen = []
    with raising(lambda *items: None, "Executing", 1, LookupError):
        loop.call_soon(seen.append, 1)
        loop.call_soon(seen.append, 2)
        loop.call_soon(loop.stop)
        with pytest.raises(LookupError):
            loop.run_forever()
        assert seen == [1]
        loop.run_forever()
        assert seen == [1, 2]
    loop.close()


def test_writing_reports_to_a_handler_that_raises():
    """What pause_writing() raises is reported out of write()."""

    async def program(log, loop):
        near, far = socket.socketpair()
        transport, protocol = await loop.create_connection(lambda: Tells(log), sock=near)
        protocol.pause_writing = lambda: 1 / 0
        with raising(log, "pause_writing", 2):
            loop.set_exception_handler(None)
            transport.set_write_buffer_limits(0)
            log.call("write", transport.write, b"x" * 3_000_000)
        transport.abort()
        far.close()
        await turns(3)

    same(program)
