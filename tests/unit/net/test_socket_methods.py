"""Sockets and pipes whose methods are a program's: what is called, and what it answers."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import textwrap

import pytest

from tests.support import turns

TIMEOUT = 10


class Recorder(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def make_class(log, copies=False):
    class Sock(socket.socket):
        blocked = 0

        def send(self, data):
            log.append(("send", bytes(data) if copies else data))
            if Sock.blocked:
                Sock.blocked -= 1
                raise BlockingIOError
            return super().send(data)

        def sendmsg(self, buffers):
            buffers = [bytes(each) for each in buffers]
            log.append(("sendmsg", buffers))
            return super().sendmsg(buffers)

    return Sock


async def connect(cls):
    a, b = socket.socketpair()
    sock = cls(a.family, a.type, a.proto, fileno=a.detach())
    b.settimeout(TIMEOUT)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    return transport, protocol, b


def test_send_gets_the_very_object(run):
    async def main():
        log = []
        transport, protocol, peer = await connect(make_class(log))
        with peer:
            for data in (b"bytes", bytearray(b"array"), memoryview(b"view")):
                transport.write(data)
                assert log.pop()[1] is data
            transport.close()
            await protocol.lost
            assert peer.recv(100) == b"bytesarrayview"

    run(main())


def test_several_parts_are_one_call(run):
    async def main():
        log = []
        transport, protocol, peer = await connect(make_class(log))
        with peer:
            transport.writelines([b"one", bytearray(b"two"), memoryview(b"three")])
            if sys.version_info < (3, 12):
                assert log == [("send", b"onetwothree")]
            else:
                assert log == [("sendmsg", [b"one", b"two", b"three"])]
            del log[:]
            transport.writelines([b"x"] * 100)
            assert len(log) == 1
            transport.close()
            await protocol.lost

    run(main())


@pytest.mark.parametrize(
    "parts, message",
    [
        ([b"x", 1], "expected a bytes-like object, int found"),
        ([b"x", "y"], "expected a bytes-like object, str found"),
        (
            [b"", b"", memoryview(b"abcd")[::2]],
            "sequence item 2: expected a bytes-like object, mem",
        ),
        (5, "can only join an iterable"),
        (None, "can only join an iterable"),
    ],
)
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the parts are joined up to 3.11")
def test_what_cannot_be_joined(run, parts, message):
    async def main():
        transport, protocol, peer = await connect(socket.socket)
        with peer:
            with pytest.raises(TypeError, match=message):
                transport.writelines(parts)
            assert not transport.is_closing()
            transport.abort()
            await protocol.lost

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sendmsg() gets the parts from 3.12 on")
def test_a_view_that_sendmsg_refuses_ends_the_connection(run, reports):
    async def main():
        transport, protocol, peer = await connect(socket.socket)
        with peer:
            transport.writelines([b"x", memoryview(b"abcd")[::2]])
            assert transport.is_closing()
            assert isinstance(await protocol.lost, BufferError)
            (report,) = reports
            assert report["message"] == "Fatal write error on socket transport"

    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio's does that up to 3.11")
def test_writelines_calls_write(run):
    async def main():
        transport, protocol, peer = await connect(socket.socket)
        with peer:
            log = []
            transport.write = log.append
            transport.writelines([b"one", bytearray(b"two")])
            assert log == [b"onetwo"]
            del transport.write
            transport.writelines([b"one", b"two"])
            transport.close()
            await protocol.lost
            assert peer.recv(100) == b"onetwo"

    run(main())


def test_what_waits_is_one_call(run):
    async def main():
        log = []
        cls = make_class(log, copies=True)
        transport, protocol, peer = await connect(cls)
        with peer:
            cls.blocked = 1
            transport.write(b"one")
            transport.write(bytearray(b"two"))
            assert transport.get_write_buffer_size() == 6
            while transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
            if sys.version_info < (3, 12):
                assert log == [("send", b"one"), ("send", b"onetwo")]
            else:
                assert log == [("send", b"one"), ("sendmsg", [b"one", b"two"])]
            transport.close()
            await protocol.lost

    run(main())


@pytest.mark.parametrize("answer, left", [(0, 3), (2, 1), (3, 0), (7, 0), (-1, 1), (None, 3)])
def test_what_send_answers_is_the_beginning_of_a_slice(run, answer, left):
    async def main():
        class Sock(socket.socket):
            def send(self, data):
                return answer

        transport, protocol, peer = await connect(Sock)
        with peer:
            transport.write(b"abc")
            assert transport.get_write_buffer_size() == left
            assert not transport.is_closing()
            transport.abort()
            assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("answer", ["1", 1.5, []])
def test_an_answer_that_is_no_number_is_raised(run, answer):
    async def main():
        class Sock(socket.socket):
            def send(self, data):
                return answer

        transport, protocol, peer = await connect(Sock)
        with peer:
            with pytest.raises(TypeError, match="slice indices must be integers"):
                transport.write(b"abc")
            assert not transport.is_closing()
            transport.abort()
            await protocol.lost

    run(main())


def test_a_class_that_changes_right_after_its_socket_was_given(run):
    """Before anything was sent: nothing has been looked at yet."""

    async def main():
        class Sock(socket.socket):
            def send(self, data):
                return super().send(data.upper())

        transport, protocol, peer = await connect(Sock)
        with peer:
            Sock.other = 1
            transport.write(b"abc")
            transport.close()
            await protocol.lost
            assert peer.recv(100) == b"ABC"

    run(main())


def test_os_write_gets_the_very_object(run, monkeypatch):
    async def main():
        log = []
        real = os.write
        r, w = os.pipe()

        def write(fd, data):
            if fd == w:
                log.append((type(data), bytes(data)))
            return real(fd, data)

        monkeypatch.setattr(os, "write", write)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(Recorder, os.fdopen(w, "wb", 0))
        transport.write(b"bytes")
        transport.write(bytearray(b"array"))
        transport.writelines([b"one", b"two"])
        monkeypatch.undo()
        assert log == [(bytes, b"bytes"), (memoryview, b"array"), (bytes, b"onetwo")]
        transport.close()
        await protocol.lost
        assert os.read(r, 100) == b"bytesarrayonetwo"
        os.close(r)

    run(main())


# -- the end --------------------


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_write_eof_raises_what_shutdown_raises(run, error):
    async def main():
        class Sock(socket.socket):
            def shutdown(self, how):
                raise error("boom")

        transport, protocol, peer = await connect(Sock)
        with peer:
            with pytest.raises(error, match="boom"):
                transport.write_eof()
            assert not transport.is_closing()
            with pytest.raises(RuntimeError, match="after write_eof"):
                transport.write(b"x")
            transport.write_eof()
            transport.abort()
            await protocol.lost

    run(main())


def test_write_eof_to_a_peer_that_is_gone(run):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = socket.create_connection(listener.getsockname())
            b, _ = listener.accept()
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        transport.pause_reading()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        b.close()
        with pytest.raises(OSError):
            transport.write_eof()
        transport.abort()
        await protocol.lost

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed transport")
def test_an_exception_of_close_is_reported(run, reports):
    async def main():
        class Sock(socket.socket):
            def close(self):
                if self.fileno() >= 0:
                    super().close()
                    raise ValueError("boom")

        transport, protocol, peer = await connect(Sock)
        with peer:
            transport.close()
            await protocol.lost
            await turns(2)
        (report,) = reports
        assert "_call_connection_lost(" in report["message"]
        assert str(report["exception"]) == "boom"

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed transport")  # asyncio's, whose close() has failed
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_exception_of_close_leaves_the_loop(loop, error):
    class Sock(socket.socket):
        def close(self):
            if self.fileno() >= 0:
                super().close()
                raise error("boom")

    async def main():
        transport, protocol, peer = await connect(Sock)
        with peer:
            transport.close()
            await protocol.lost
            await asyncio.sleep(TIMEOUT)

    task = loop.create_task(main())
    with pytest.raises(error, match="boom"):
        loop.run_until_complete(task)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))


# -- what write() has taken is the kernel's --------------------

PROGRAM = """
    import asyncio, os, socket, sys
    sys.path[:0] = [{path!r}]
    {imports}

    async def main():
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=int(sys.argv[1]))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        if {how!r} == "sendall":
            loop.call_soon(os._exit, 0)
            await loop.sock_sendall(sock, bytes({size}))
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        if {how!r} == "write":
            transport.write(bytes({size}))
        else:
            transport.writelines([bytes({size} // 4)] * 4)
        os._exit(0)

    loop = {loop}
    loop.run_until_complete(main())
"""


@pytest.mark.parametrize("how", ["write", "writelines", "sendall"])
def test_a_large_write_is_with_the_kernel_when_the_process_ends(impl, how):
    """As much as the kernel takes, however much that is."""
    size = 2 << 20
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * size)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    taken = 0
    with ours, theirs:
        try:
            while True:
                taken += ours.send(bytes(size))
        except BlockingIOError:
            pass
        theirs.settimeout(TIMEOUT)
        left = taken
        while left:
            left -= len(theirs.recv(left))
        if taken < size + (size >> 1):
            pytest.skip("this kernel takes no more than a budget")
        program = textwrap.dedent(PROGRAM).format(
            path=os.getcwd(),
            size=size,
            how=how,
            imports="import asyncloop" if impl.ours else "",
            loop="asyncloop.new_event_loop()" if impl.ours else "asyncio.SelectorEventLoop()",
        )
        ours.setblocking(True)
        subprocess.run(
            [sys.executable, "-c", program, str(ours.fileno())],
            pass_fds=[ours.fileno()],
            check=True,
            timeout=60,
        )
        ours.close()
        got = 0
        while data := theirs.recv(1 << 20):
            got += len(data)
        assert got == size
