"""What a program finds that looks closely at transports and what they call: as asyncio has it."""

import asyncio
import functools
import inspect
import logging
import os
import socket
from asyncio import selector_events

import pytest

from tests.compare import same
from tests.protocols import Log, connected
from tests.support import turns, until

LARGE = 8_000_000


# -- write(data=...) ------------------------------------------------------------------------------


def test_write_by_name(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, _, theirs = await connected(loop)
        assert str(inspect.signature(transport.write)) == "(data)"
        for _ in range(20):  # often enough for the interpreter to know this call
            transport.write(data=b"1")
            transport.write(b"2")
            type(transport).write(transport, data=b"3")
            type(transport).write(transport, b"4")
        with pytest.raises(TypeError):
            transport.write()
        with pytest.raises(TypeError):
            transport.write(b"5", data=b"6")
        with pytest.raises(TypeError):
            transport.write(date=b"7")
        with pytest.raises(TypeError):
            transport.write(data="8")
        with pytest.raises(TypeError):
            transport.write(data=b"9", date=b"10")
        with pytest.raises((TypeError, AttributeError)):
            type(transport).write(object(), data=b"11")
        assert await loop.sock_recv(theirs, 1000) == b"1234" * 20
        transport.close()
        theirs.close()
        await turns(3)

    run(main())


# -- call_soon() ----------------------------------------------------------------------------------


def name_of(callback):
    while isinstance(callback, functools.partial):
        callback = callback.func
    return getattr(callback, "__name__", type(callback).__name__)


async def make_stream(loop, factory):
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(factory, sock=ours)
    return transport, theirs


async def make_read_pipe(loop, factory):
    reads, writes = os.pipe()
    transport, _ = await loop.connect_read_pipe(factory, open(reads, "rb", 0))
    return transport, open(writes, "wb", 0)


async def make_write_pipe(loop, factory):
    reads, writes = os.pipe()
    transport, _ = await loop.connect_write_pipe(factory, open(writes, "wb", 0))
    return transport, open(reads, "rb", 0)


async def make_datagrams(loop, factory):
    transport, _ = await loop.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0))
    return transport, open(os.devnull)


class All(Log):
    def datagram_received(self, data, address):
        self.data_received(data)


MAKERS = [make_stream, make_read_pipe, make_write_pipe, make_datagrams]


@pytest.mark.our_loop("runs both loops itself")
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("how", ["instance", "class"])
def test_calls_of_call_soon(make, how):
    """As many as asyncio makes, of the same, in the same order; and what they schedule works."""

    async def program(log, loop):
        target = loop if how == "instance" else type(loop)
        theirs = target.call_soon
        names = []

        def call_soon(*args, **keywords):
            callback = args[how == "class"]
            if name_of(callback) not in ("TaskStepMethWrapper", "task_step", "step", "task_wakeup"):
                names.append((name_of(callback), len(args) - (how == "class"), sorted(keywords)))
            return theirs(*args, **keywords)

        there = "call_soon" in vars(target)
        target.call_soon = call_soon
        try:
            made = []
            transport, other = await make(loop, lambda: made.append(All()) or made[0])
        finally:
            if there:
                target.call_soon = theirs
            else:
                del target.call_soon
        for name in names:
            log(name)
        with other:
            if make is make_stream:
                other.send(b"x")
                await until(lambda: b"x" in made[0].log)
                transport.pause_reading()
                other.send(b"y")
                await turns(3)
                assert b"y" not in made[0].log
                transport.resume_reading()
                await until(lambda: b"y" in made[0].log)
            elif make is make_read_pipe:
                other.write(b"x")
                await until(lambda: b"x" in made[0].log)
            elif make is make_write_pipe:
                transport.write(b"x")
                log(other.read(1))
            transport.close()
            await turns(3)
        log(made[0].log)

    same(program)


@pytest.mark.our_loop("runs both loops itself")
def test_connections_accepted_by_call_soon():
    async def program(log, loop):
        theirs = loop.call_soon
        names = []

        def call_soon(callback, *args, **keywords):
            names.append(name_of(callback))
            return theirs(callback, *args, **keywords)

        made = []
        server = await loop.create_server(lambda: made.append(Log()) or made[-1], "127.0.0.1", 0)
        loop.call_soon = call_soon
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.send(b"x")
            await until(lambda: made and b"x" in made[0].log)
        await until(lambda: "lost None" in made[0].log)
        del loop.call_soon
        server.close()
        await turns(2)
        log([name for name in names if name in ("connection_made", "_add_reader")])
        log(made[0].log)

    same(program)


def test_call_soon_that_drops_what_it_gets(run):
    """Then nothing of it comes, and nothing breaks."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            protocol = Log()
            theirs.send(b"x")
            call_soon = loop.call_soon
            loop.call_soon = lambda callback, *args, **keywords: call_soon(int)
            transport = loop._make_socket_transport(ours, protocol)
            del loop.call_soon
            await turns(4)
            assert protocol.log == []
            transport.abort()
            await turns(2)
            assert protocol.log == ["lost None"]

    run(main())


# -- get_debug(), and what removes ----------------------------------------------------------------


@pytest.mark.our_loop("runs both loops itself")
@pytest.mark.parametrize("set_to", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_get_debug_of_a_program_decides_what_transports_log(make, set_to, monkeypatch):
    async def program(log, loop):
        class Handler(logging.Handler):
            def emit(self, record):
                text = record.getMessage()
                if "reading" in text or "EOF" in text or "closed by peer" in text:
                    log(text.partition(">")[2] if set_to else text.split(">")[-1])

        logger = logging.getLogger("asyncio")
        handler = Handler()
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        logger.manager._clear_cache()
        logger.addHandler(handler)
        try:
            transport, other = await make(loop, All)
            loop.set_debug(not set_to)
            loop.get_debug = lambda: set_to
            if make is not make_write_pipe:
                transport.pause_reading()
                transport.resume_reading()
            other.close()
            await turns(4)
            del loop.get_debug
            loop.set_debug(False)
            transport.close()
            await turns(3)
        finally:
            logger.removeHandler(handler)
            monkeypatch.undo()
            logger.manager._clear_cache()

    same(program)


@pytest.mark.our_loop("runs both loops itself")
@pytest.mark.parametrize("name", ["_remove_reader", "_remove_writer"])
@pytest.mark.parametrize("make", MAKERS)
def test_removing_that_raises(make, name):
    """Comes out of the transport's method that has removed, or goes to the exception handler."""

    async def program(log, loop):
        transport, other = await make(loop, All)
        theirs = getattr(loop, name)

        def removes(fd):
            theirs(fd)
            raise ZeroDivisionError(name)

        if make is not make_write_pipe:
            setattr(loop, name, removes)
            log.call("pause", transport.pause_reading)
            log.call("resume", transport.resume_reading)
            delattr(loop, name)
        if make in (make_stream, make_write_pipe):
            transport.write(bytes(LARGE))
        setattr(loop, name, removes)
        if make is not make_read_pipe:
            log.call("abort", transport.abort)
        else:
            log.call("close", transport.close)
        delattr(loop, name)
        await turns(3)
        other.close()

    # asyncio's goes no further: it is never closed.
    same(program, only=lambda line: not line.startswith("warned"))


# -- flow control ---------------------------------------------------------------------------------


@pytest.mark.our_loop("runs both loops itself")
@pytest.mark.parametrize("make", [make_stream, make_write_pipe])
@pytest.mark.parametrize("name", ["get_write_buffer_size", "_maybe_pause_protocol"])
def test_flow_control_that_is_replaced_on_the_class(make, name):
    class Told(Log):
        def pause_writing(self):
            self.log.append("pause")

        def resume_writing(self):
            self.log.append("resume")

    async def program(log, loop):
        made = []
        transport, other = await make(loop, lambda: made.append(Told()) or made[0])
        kind = type(transport)
        transport.write(bytes(LARGE))  # so that the class was looked at before
        before = vars(kind).get(name)
        theirs = getattr(kind, name)
        setattr(kind, name, lambda self: 0 if name == "get_write_buffer_size" else log(name))
        try:
            transport.set_write_buffer_limits(1)
            log(made[0].log)
            made[0].log.clear()
            transport.write(bytes(LARGE))
            log(made[0].log)
        finally:
            if before is None:
                delattr(kind, name)
            else:
                setattr(kind, name, before)
        assert getattr(kind, name) == theirs
        transport.write(bytes(LARGE))
        log(made[0].log)
        transport.abort()
        other.close()
        await turns(3)

    same(program)


# -- pipes ----------------------------------------------------------------------------------------


IN_INSTANCES = """
    _buffer _buffer_size _closing _conn_lost _context _empty_waiter _eof _extra _fileno
    _header_size _high_water _loop _low_water _paused _pipe _protocol _protocol_connected
    _protocol_paused _server _sock _sock_fd
"""


@pytest.mark.our_loop("runs both loops itself")
@pytest.mark.parametrize("make", [make_read_pipe, make_write_pipe])
def test_names_of_pipes(make):
    """hasattr() says of each name of other transports what it says with asyncio."""

    async def program(log, loop):
        transport, other = await make(loop, Log)
        for name in sorted(names):
            log(name, hasattr(transport, name))
        for name in ("_sock", "_force_close", "_sock_fd"):
            setattr(transport, name, 1)
            log.call(name, getattr, transport, name)
            delattr(transport, name)
            log.call(name, getattr, transport, name)
        transport.close()
        other.close()
        await turns(3)

    names = set(dir(selector_events._SelectorSocketTransport))
    names |= set(dir(selector_events._SelectorDatagramTransport))
    names |= set(IN_INSTANCES.split())
    names = {name for name in names if not name.startswith("__")}
    same(program)


@pytest.mark.our_loop("runs both loops itself")
def test_pipe_that_is_lost_is_aborted():
    async def program(log, loop):
        transport, other = await make_write_pipe(loop, Log)
        transport.close()
        await turns(3)
        log.call("abort", transport.abort)
        log.call("close", transport.close)
        other.close()

    same(program)


# -- fileno() -------------------------------------------------------------------------------------


@pytest.mark.our_loop("runs both loops itself")
def test_fileno_is_replaced_on_the_class(monkeypatch):
    """Who makes a transport asks the socket for its number."""

    async def program(log, loop):
        asked = []
        theirs = socket.socket.fileno

        def fileno(self):
            asked.append(self)
            return theirs(self)

        made = []
        server = await loop.create_server(lambda: made.append(Log()) or made[-1], "127.0.0.1", 0)
        monkeypatch.setattr(socket.socket, "fileno", fileno, raising=False)
        try:
            transport, _ = await loop.create_connection(Log, *server.sockets[0].getsockname())
            sock = transport.get_extra_info("socket")._sock
            log("client", sock in asked)
            await until(lambda: made and made[0].log)
            log("others", any(each is not sock and each not in server.sockets for each in asked))
            transport.close()
            server.close()
            await until(lambda: "lost None" in made[0].log)
        finally:
            monkeypatch.undo()

    same(program)


# -- connections that came together ---------------------------------------------------------------


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("count", [2, 60])
def test_all_that_wait_are_accepted_although_the_first_closes_the_server(impl, run, streams, count):
    if impl.ours:
        import asyncloop

        if "constants" in asyncloop.build_info():
            pytest.skip("an event accepts one: tuning.h")

    async def main():
        loop = asyncio.get_running_loop()
        made = []

        class Closes(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)
                server.close()

        async def closes(_, writer):
            made.append(writer)
            server.close()

        listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(count)]
        server = await (
            asyncio.start_server(closes, sock=listening)
            if streams
            else loop.create_server(Closes, sock=listening)
        )
        await until(lambda: made)
        await turns(5)
        assert len(made) == count
        for transport in made:
            transport.close()
        for client in clients:
            client.close()
        await turns(5)

    run(main())
