"""What is told of failures: to the exception handler, by warnings, and to the caller."""

import asyncio
import contextlib
import gc
import os
import socket
import warnings

import pytest

from tests.support import PY, until

STRIDED = memoryview(b"abcdef")[::2]


@contextlib.contextmanager
def told(loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    loop.set_exception_handler(None)


async def connected(server):
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, server.sockets[0].getsockname())
    return client


def test_callback_of_a_stream_server_raises(run):
    def failing(reader, writer):
        writer.close()
        raise ZeroDivisionError

    async def main():
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(failing, "127.0.0.1", 0)
        with told(loop) as contexts:
            client = await connected(server)
            await until(lambda: contexts)
            assert await loop.sock_recv(client, 1) == b""  # the transport lives on, until close()
        client.close()
        server.close()
        (context,) = contexts
        if "transport" in context:  # late releases of 3.14
            assert set(context) == {"message", "exception", "transport"}
            assert context["message"] == "Unhandled exception in client_connected_cb"
        else:
            assert set(context) == {"message", "exception", "handle"}
            assert context["message"].startswith(
                "Exception in callback StreamReaderProtocol.connection_made("
            )
        assert isinstance(context["exception"], ZeroDivisionError)

    run(main())


@pytest.mark.filterwarnings("ignore")  # asyncio's transport that was half made
def test_factory_that_gives_none(run):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        server = await loop.create_server(lambda: None, "127.0.0.1", 0)
        with told(loop) as contexts:
            client = await connected(server)
            await until(lambda: contexts)
        client.close()
        server.close()
        assert set(contexts[0]) == {"message", "exception"}
        contexts.clear()
        gc.collect()

    run(main())


def test_unclosed_tls(impl, contexts):
    serving, calling = contexts

    async def forget():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        accepting = loop.create_task(
            loop.connect_accepted_socket(asyncio.Protocol, theirs, ssl=serving)
        )
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=ours, ssl=calling, server_hostname="localhost"
        )
        other, _ = await accepting
        del transport
        other.abort()

    loop = impl.new_event_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(forget())
        loop.close()
        del loop
        gc.collect()
    told = [warning for warning in caught if "_SSLProtocolTransport" in str(warning.message)]
    for warning in told:
        assert str(warning.message) == ("unclosed transport <asyncio._SSLProtocolTransport object>")
        assert warning.filename.endswith("sslproto.py")
        assert warning.source is None
    assert told


def test_listening_socket_closed_by_somebody(run):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # asyncio says nothing of it
        listening = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(asyncio.Protocol, sock=listening)
        listening.close()
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            server.close()
        assert server.sockets == ()

    run(main())


@pytest.mark.skipif(
    "ASYNCLOOP_LONG_WAYS" in os.environ, reason="a program's _add_reader() has the former one, too"
)
def test_number_of_a_listening_socket_is_reused(impl, run):
    if not impl.ours:
        pytest.skip("asyncio's selector goes on to hold the former socket")

    async def main():
        loop = asyncio.get_running_loop()
        former, latter = [], []

        def protocol(made):
            made.append(asyncio.Protocol())
            return made[-1]

        with told(loop) as contexts:
            listening = socket.create_server(("127.0.0.1", 0))
            number = listening.fileno()
            server = await loop.create_server(lambda: protocol(former), sock=listening)
            waiting = socket.create_server(("127.0.0.1", 0))
            listening.close()
            os.dup2(waiting.fileno(), number)
            other = await loop.create_server(
                lambda: protocol(latter), sock=socket.socket(fileno=number)
            )
            waiting.close()
            client = await connected(other)
            await until(lambda: latter)
        assert not former
        with pytest.raises(ValueError):
            server.close()
        again = await connected(other)
        await until(lambda: len(latter) == 2)
        for sock in (client, again):
            sock.close()
        other.close()
        del contexts

    run(main())


async def pipe(fill):
    reading, writing = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(
        asyncio.BaseProtocol, os.fdopen(writing, "wb", 0)
    )
    if fill:
        transport.set_write_buffer_limits(1 << 30)
        transport.write(bytes(1 << 20))
    return transport, reading


@pytest.mark.parametrize("fill", [False, True], ids=["empty", "full"])
@pytest.mark.parametrize(
    "pieces, words",
    [
        (None, "can only join an iterable"),
        (0, "can only join an iterable"),
        ([b"a", STRIDED], "sequence item 1: expected a bytes-like object, memoryview found"),
        ([b"a", 5], "sequence item 1: expected a bytes-like object, int found"),
        (["text"], "sequence item 0: expected a bytes-like object, str found"),
    ],
)
def test_wrong_pieces_for_a_pipe(run, fill, pieces, words):
    async def main():
        transport, reading = await pipe(fill)
        size = transport.get_write_buffer_size()
        with pytest.raises(TypeError, match=words):
            transport.writelines(pieces)
        assert transport.get_write_buffer_size() == size
        assert not transport.is_closing()
        transport.abort()
        os.close(reading)
        await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("replaced", [False, True])
def test_not_contiguous_behind_what_waits_in_a_pipe(run, monkeypatch, replaced):
    async def main():
        transport, reading = await pipe(True)
        if replaced:
            write = os.write
            monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data))
        with pytest.raises(TypeError, match="can't concat memoryview to bytearray"):
            transport.write(STRIDED)
        assert not transport.is_closing()
        transport.abort()
        os.close(reading)
        await asyncio.sleep(0)

    run(main())


def test_repr_of_a_pipe_after_the_loop(impl):
    loop = impl.new_event_loop()
    transport, reading = loop.run_until_complete(pipe(False))
    loop.close()
    assert repr(transport).endswith(" open>")
    transport._pipe.close()
    os.close(reading)
    with pytest.warns(ResourceWarning):
        del transport
        gc.collect()


def test_wrong_pieces_after_the_end(run):
    """What comes is not looked at any more."""
    if PY < (3, 14):
        pytest.skip("asyncio has looked at the pieces first")

    async def main():
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=ours
        )
        transport.abort()
        transport.writelines(["text"])
        transport.writelines(5)
        theirs.close()

    run(main())


@pytest.mark.parametrize("answer", [None, [], ()])
def test_no_address(run, loop, answer):
    async def getaddrinfo(*args, **kwargs):
        return answer

    async def main():
        with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list") as told:
            await loop.create_connection(asyncio.Protocol, "name.invalid", 1)
        assert told.value.__context__ is None

    loop.getaddrinfo = getaddrinfo
    run(main())


def test_sendfile_that_is_not_available(run):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs, open("/dev/null", "rb") as file:
            with pytest.raises(asyncio.SendfileNotAvailableError) as told:
                await loop.sock_sendfile(ours, file, 0, 5, fallback=False)
            assert told.value.__cause__ is None
            assert told.value.__context__ is None

    run(main())


class Nothing(bytes):
    def __bool__(self):
        return False


def test_datagram_that_says_it_is_nothing(run):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.setblocking(False)
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=other.getsockname()
            )
            transport.sendto(Nothing(b"something"))
            transport.sendto(b"end")
            received = [await loop.sock_recv(other, 100)]
            if received[-1] != b"end":
                received.append(await loop.sock_recv(other, 100))
            transport.close()
        assert received == ([b"something"] if PY >= (3, 13) else []) + [b"end"]

    run(main())
