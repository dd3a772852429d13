"""`_add_reader()` and its kin, replaced on the loop or overridden: transports, servers and `sock_*`
call them. And the methods of transports that they are given, called by hand."""

import asyncio
import gc
import os
import socket
import sys
import weakref
from unittest import mock

import pytest

from tests.protocols import Log, connected
from tests.support import turns, until

PRIVATE = ("_add_reader", "_remove_reader", "_add_writer", "_remove_writer")
NAMES = (*PRIVATE, "add_reader", "remove_reader", "add_writer", "remove_writer")
LARGE = 8_000_000


class Calls:
    """The names of what was called since it was asked last."""

    def __init__(self):
        self.names = []

    def __call__(self):
        names, self.names[:] = list(self.names), []
        return names

    def around(self, function, name):
        def called(*args, **kwargs):
            self.names.append(name)
            return function(*args, **kwargs)

        return called


def watch_instance(loop):
    calls = Calls()
    for name in NAMES:
        setattr(loop, name, calls.around(getattr(loop, name), name))
    return calls


async def receive(sock, size):
    while size > 0:
        try:
            size -= len(sock.recv(1_000_000))
        except BlockingIOError:
            await asyncio.sleep(0)


def test_stream_transport(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = watch_instance(loop)
        transport, protocol, theirs = await connected(loop)
        assert calls() == ["_add_reader"]
        theirs.send(b"x")
        await until(lambda: b"x" in protocol.log)
        transport.pause_reading()
        assert calls() == ["_remove_reader"]
        transport.resume_reading()
        assert calls() == ["_add_reader"]
        transport.write(b"x")
        assert calls() == []
        transport.write(b"x" * LARGE)
        assert calls() == ["_add_writer"]
        assert "write=<polling" in repr(transport)
        await receive(theirs, LARGE + 1)
        await until(lambda: transport.get_write_buffer_size() == 0)
        assert calls() == ["_remove_writer"]
        transport.close()
        assert calls() == ["_remove_reader", "_remove_writer"]
        await turns(3)
        assert protocol.log == ["made", b"x", "lost None"]
        assert calls() == []
        theirs.close()

    run(main())


def test_abort_with_output(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = watch_instance(loop)
        transport, protocol, theirs = await connected(loop)
        transport.write(b"x" * LARGE)
        calls()
        transport.abort()
        assert calls() == ["_remove_writer", "_remove_reader"]
        await turns(3)
        assert protocol.log == ["made", "lost None"]
        theirs.close()

    run(main())


def test_subclass(impl):
    calls = Calls()
    methods = {name: calls.around(getattr(impl.Loop, name), name) for name in PRIVATE}
    loop = type("Loop", (impl.Loop,), methods)()

    async def main():
        calls()
        transport, protocol, theirs = await connected(loop)
        assert calls() == ["_add_reader"]
        theirs.close()
        await until(lambda: "lost None" in protocol.log)
        assert calls() == ["_remove_reader", "_remove_writer"]
        read_end, write_end = os.pipe()
        reading, received = await loop.connect_read_pipe(Log, os.fdopen(read_end, "rb", 0))
        assert calls() == ["_add_reader"]
        writing, _ = await loop.connect_write_pipe(Log, os.fdopen(write_end, "wb", 0))
        assert calls() == ["_add_reader"]
        writing.write(b"x" * 200_000)
        assert calls() == ["_add_writer"]
        await until(lambda: writing.get_write_buffer_size() == 0)
        writing.close()
        await until(lambda: "lost None" in received.log)
        assert sum(map(len, filter(bytes.__instancecheck__, received.log))) == 200_000

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_operations(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = watch_instance(loop)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        theirs.send(b"x")
        assert await loop.sock_recv(ours, 5) == b"x"
        assert calls() == []
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 5))
        await asyncio.sleep(0)
        assert calls() == ["_add_reader"]
        theirs.send(b"y")
        assert await receiving == b"y"
        assert calls() == ["remove_reader", "_remove_reader"]
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 5))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        assert calls() == ["_add_reader", "remove_reader", "_remove_reader"]
        sending = asyncio.ensure_future(loop.sock_sendall(ours, b"x" * LARGE))
        await asyncio.sleep(0)
        assert calls() == ["_add_writer"]
        await receive(theirs, LARGE)
        await sending
        assert {"remove_writer", "_remove_writer"} <= set(calls())
        ours.close()
        theirs.close()

    run(main())


@pytest.mark.parametrize("how", ["cancelled", "ready"])
def test_operation_by_a_double_that_gives_no_handle(run, how):
    """As asyncio's _add_reader() up to 3.9: who has the place then is the operation."""

    async def main():
        loop = asyncio.get_running_loop()
        add, calls = loop._add_reader, watch_instance(loop)

        def add_reader(*args, **kwargs):
            add(*args, **kwargs)

        loop._add_reader = add_reader
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 5))
        await asyncio.sleep(0)
        if how == "ready":
            theirs.send(b"x")
        else:
            receiving.cancel()
        await asyncio.wait([receiving])
        assert calls() == ["remove_reader", "_remove_reader"]
        for name in NAMES:
            delattr(loop, name)
        ours.close()
        theirs.close()

    run(main())


def test_server_and_connect(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = watch_instance(loop)
        made = []
        server = await loop.create_server(
            lambda: made.append(Log()) or made[-1], "127.0.0.1", 0
        )
        assert calls() == ["_add_reader"]
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.send(b"x")
            await until(lambda: made and b"x" in made[0].log)
            assert calls() == ["_add_reader"]
            server.close()
            assert calls() == ["_remove_reader"]
        await until(lambda: "lost None" in made[0].log)

    run(main())


def test_datagrams(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = watch_instance(loop)
        received = loop.create_future()

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                received.set_result(data)

        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        assert calls() == ["_add_reader"]
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        assert await received == b"x"
        transport.close()
        assert calls() == ["_remove_reader", "_remove_writer"]
        await turns(2)

    run(main())


def test_public_methods_call_the_private_ones(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = watch_instance(loop)
        ours, theirs = socket.socketpair()
        found = []
        loop.add_reader(ours, found.append, 1)
        theirs.send(b"x")
        await until(lambda: found)
        assert loop.remove_reader(ours) is True
        assert loop.remove_reader(ours) is False
        loop.add_writer(ours.fileno(), int)
        assert loop.remove_writer(ours) is True
        assert calls() == [
            *("add_reader", "_add_reader", "remove_reader", "_remove_reader"),
            *("remove_reader", "_remove_reader"),
            *("add_writer", "_add_writer", "remove_writer", "_remove_writer"),
        ]
        ours.close()
        theirs.close()

    run(main())


def test_a_double_that_keeps_the_callback(impl, run):
    """It says when there is something to read; the transport reads."""

    async def main():
        loop = asyncio.get_running_loop()
        given = {}

        def add_reader(fd, callback, *args, **kwargs):
            given[fd] = callback, args

        loop._add_reader = add_reader
        transport, protocol, theirs = await connected(loop)
        callback, args = given[transport._sock_fd]
        assert callback.__self__ is transport
        theirs.send(b"hello")
        await turns(5)
        assert protocol.log == ["made"]
        callback(*args)
        assert protocol.log == ["made", b"hello"]
        theirs.close()
        callback(*args)
        assert protocol.log == ["made", b"hello", "eof"]
        await turns(2)
        assert protocol.log == ["made", b"hello", "eof", "lost None"]
        if impl.ours:
            callback(*args)  # without effect

    run(main())


def test_a_double_that_calls_at_once(run):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        def add_reader(fd, callback, *args, **kwargs):
            theirs.send(b"now")
            callback(*args)
            return mock.Mock()

        loop._add_reader = add_reader
        assert await asyncio.wait_for(loop.sock_recv(ours, 10), 10) == b"now"
        del loop._add_reader
        ours.close()
        theirs.close()

    run(main())


def test_what_removing_does(impl, run):
    """It may close, abort and write: the connection is lost once."""
    if not impl.ours:
        pytest.skip("asyncio's transport is lost twice then")

    async def main():
        loop = asyncio.get_running_loop()
        for method in ("close", "abort"):
            for inner in ("close", "abort"):
                transport, protocol, theirs = await connected(loop)
                remove = loop._remove_reader

                def removed(fd, remove=remove, transport=transport, inner=inner):
                    getattr(transport, inner)()
                    transport.write(b"x")
                    return remove(fd)

                loop._remove_reader = removed
                getattr(transport, method)()
                del loop._remove_reader
                await turns(3)
                assert protocol.log == ["made", "lost None"]
                theirs.close()

    run(main())


def test_nothing_stays_alive(run):
    async def main():
        loop = asyncio.get_running_loop()
        watch_instance(loop)
        transport, protocol, theirs = await connected(loop)
        references = [weakref.ref(transport), weakref.ref(protocol)]
        transport.close()
        theirs.close()
        del transport, protocol
        await turns(3)
        gc.collect()
        assert [reference() for reference in references] == [None, None]
        receiving = asyncio.ensure_future(loop.sock_recv(*(await a_socket())))
        await asyncio.sleep(0)
        receiving.cancel()

    async def a_socket():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        keep.extend((ours, theirs))
        return ours, 5

    keep = []
    run(main())
    for sock in keep:
        sock.close()


@pytest.mark.filterwarnings("ignore")
def test_loop_is_closed_while_somebody_else_watches(impl):
    loop = impl.new_event_loop()
    watch_instance(loop)

    async def main():
        return await connected(loop)

    transport, _, theirs = loop.run_until_complete(main())
    loop.close()
    theirs.close()
    transport._sock.close()
    del transport
    gc.collect()


# -- by hand ---------------------------------------------------------------------------------


def test_reading_by_hand(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        theirs.send(b"hello")
        transport._read_ready()
        assert protocol.log == ["made", b"hello"]
        transport._read_ready()
        theirs.send(b"again")
        transport._read_ready__data_received()
        assert protocol.log == ["made", b"hello", b"again"]
        theirs.close()
        transport._read_ready_cb()
        assert protocol.log[3:] == ["eof"]
        await turns(2)
        assert protocol.log[3:] == ["eof", "lost None"]

    run(main())


def test_what_the_protocol_raises_by_hand(run, reports):
    class Protocol(Log):
        def data_received(self, data):
            raise {b"1": ValueError, b"2": KeyboardInterrupt}[data]

    async def main():
        loop = asyncio.get_running_loop()
        for data in (b"1", b"2"):
            ours, theirs = socket.socketpair()
            transport, protocol = await loop.create_connection(Protocol, sock=ours)
            theirs.send(data)
            if data == b"2":
                with pytest.raises(KeyboardInterrupt):
                    transport._read_ready()
            else:
                transport._read_ready()
                assert isinstance(reports[0]["exception"], ValueError)
            transport.abort()
            await turns(2)
            theirs.close()

    run(main())


def test_writing_by_hand(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        transport.write(b"z" * LARGE)
        before = transport.get_write_buffer_size()
        theirs.recv(1_000_000)
        transport._write_ready()
        assert transport.get_write_buffer_size() < before
        transport.abort()
        await turns(2)
        theirs.close()

    run(main())


@pytest.mark.parametrize("exc", [None, OSError("gone")])
def test_losing_by_hand(run, exc):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        loop._remove_reader(transport._sock_fd)
        transport._call_connection_lost(exc)
        assert protocol.log == ["made", f"lost {exc!r}"]
        assert (transport._sock, transport._protocol, transport._loop) == (None, None, None)
        await turns(2)
        assert protocol.log == ["made", f"lost {exc!r}"]
        theirs.close()

    run(main())


def test_key_of_a_transport(run):
    """The selector's key leads to the transport that waits."""

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        key = loop._selector.get_key(transport._sock_fd)
        reader, writer = key.data
        assert reader._callback.__self__ is transport
        assert writer is None
        theirs.send(b"x")
        reader._run()
        assert protocol.log == ["made", b"x"]
        transport.close()
        await turns(2)
        theirs.close()

    run(main())


def test_size_of_a_piece(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        assert transport.max_size == 256 * 1024
        transport.max_size = 3
        theirs.send(b"abcdefgh")
        await until(lambda: b"gh" in protocol.log)
        assert protocol.log == ["made", b"abc", b"def", b"gh"]
        transport.close()
        await turns(2)
        theirs.close()

    run(main())


# -- attributes --------------------------------------------------------------------------------


def test_a_double_of_the_socket(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        real = transport._sock
        double = mock.Mock(wraps=real)
        double.recv = lambda size: real.recv(size) + b"!"
        transport._sock = double
        theirs.send(b"x")
        await until(lambda: len(protocol.log) > 1)
        assert protocol.log == ["made", b"x!"]
        transport.write(b"y")
        double.send.assert_called_once_with(b"y")
        assert transport.get_extra_info("peername") == real.getpeername()
        transport.close()
        await turns(2)
        double.close.assert_called_once_with()
        assert real.fileno() == -1
        theirs.close()

    run(main())


def test_flags(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        transport._paused = True
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        transport._closing = True
        assert transport.is_closing()
        transport._closing = False
        transport._high_water = 10
        transport._low_water = 2
        assert transport.get_write_buffer_limits() == (2, 10)
        transport._extra = {"some": "thing"}
        assert transport.get_extra_info("some") == "thing"
        assert transport.get_extra_info("socket") is None
        transport._eof = True
        with pytest.raises(RuntimeError):
            transport.write(b"x")
        transport._eof = False
        transport._conn_lost = 1
        transport.write(b"dropped")
        assert transport._conn_lost == 2
        transport._call_connection_lost(None)
        await turns(2)
        theirs.close()

    run(main())


def test_steps_of_asyncio(run):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        future = loop.create_future()
        theirs.send(b"x")
        loop._sock_recv(future, ours, 10)
        assert await future == b"x"
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        made = []
        with socket.create_connection(listening.getsockname()):
            loop._accept_connection(lambda: made.append(Log()) or made[-1], listening)
            await until(lambda: made and made[0].log)
        await until(lambda: made[0].log[-1] == "lost None")
        for sock in (ours, theirs, listening):
            sock.close()

    if sys.platform == "linux":
        run(main())
