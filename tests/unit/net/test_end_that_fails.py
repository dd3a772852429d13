"""connection_lost(), or what asyncio's _call_connection_lost() does after it, raises."""

import asyncio
import contextlib
import os
import socket

import pytest

from tests.support import turns, until


class Failing(asyncio.Protocol, asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        raise ZeroDivisionError


async def stream(loop, stack):
    near, far = socket.socketpair()
    stack.enter_context(far)
    return await loop.create_connection(Failing, sock=near)


async def datagrams(loop, stack):
    return await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))


async def read_pipe(loop, stack):
    reading, writing = os.pipe()
    stack.callback(os.close, writing)
    return await loop.connect_read_pipe(Failing, os.fdopen(reading, "rb", 0))


async def write_pipe(loop, stack):
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    return await loop.connect_write_pipe(Failing, os.fdopen(writing, "wb", 0))


@pytest.fixture(params=[stream, datagrams, read_pipe, write_pipe], ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def is_over(transport):
    file = transport._pipe if hasattr(transport, "_pipe") else transport._sock
    return file is None and transport._loop is None and transport._protocol is None


def test_everything_is_closed_when_the_report_comes(run, loop, kind):
    reports = []

    async def main():
        with contextlib.ExitStack() as stack:
            transport, protocol = await kind(loop, stack)
            loop.set_exception_handler(
                lambda _, context: reports.append((context, is_over(transport)))
            )
            transport.close()
            await until(lambda: reports)
        ((context, over),) = reports
        assert over
        assert isinstance(context["exception"], ZeroDivisionError)
        assert "._call_connection_lost(" in context["message"]

    run(main())


def test_called_by_hand(run, loop, kind, reports):
    async def main():
        with contextlib.ExitStack() as stack:
            transport, protocol = await kind(loop, stack)
            if hasattr(transport, "_fileno"):
                loop.remove_reader(transport._fileno)  # a pipe's is there until close()
            with pytest.raises(ZeroDivisionError):
                transport._call_connection_lost(None)
            assert is_over(transport)
            await turns(2)
        assert not reports

    run(main())


def test_after_the_last_of_the_output(run, loop, reports):
    """asyncio's handle has lost its callback by then, so that its report names none."""

    async def main():
        near, far = socket.socketpair()
        with far:
            far.setblocking(False)
            transport, protocol = await loop.create_connection(Failing, sock=near)
            transport.write(bytes(1_000_000))
            transport.close()
            while await loop.sock_recv(far, 100_000):
                pass
        (report,) = reports
        assert isinstance(report["exception"], ZeroDivisionError)
        assert "_call_connection_lost" not in report["message"]
        assert is_over(transport)

    run(main())


# -- Server._detach() -----------------------------------------------------------------------------


class Quiet(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport


async def served(loop, factory, error):
    """A transport of a server whose _detach() raises `error`."""
    made = []

    def make():
        made.append(factory())
        return made[-1]

    def detach(*args):
        raise error

    server = await loop.create_server(make, "127.0.0.1", 0)
    server._detach = detach
    peer = socket.create_connection(server.sockets[0].getsockname())
    await until(lambda: made and hasattr(made[0], "transport"))
    server.close()
    return made[0].transport, peer


@pytest.mark.parametrize("factory", [Quiet, Failing])
def test_detach_raises(run, loop, reports, factory):
    async def main():
        error = ValueError()
        transport, peer = await served(loop, factory, error)
        with peer:
            transport.close()
            await until(lambda: reports)
            await turns(2)
        (report,) = reports
        assert report["exception"] is error
        assert "._call_connection_lost(" in report["message"]
        assert isinstance(error.__context__, ZeroDivisionError) is (factory is Failing)
        assert is_over(transport)

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_detach_raises_to_leave(run, loop, reports, error):
    async def main():
        transport, peer = await served(loop, Failing, error())
        with peer:
            transport.close()
            await turns(5)

    with pytest.raises(error) as caught:
        run(main())
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert not reports
