"""Methods of transports, sockets and of the module os, replaced by a program."""

import asyncio
import contextlib
import os
import socket

import pytest

from tests.support import turns, until

# -- transports -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(contexts=None):
    """(reader, writer) of a server's connection, and a plain socket or a transport as its peer."""
    handed = []

    async def connected(reader, writer):
        handed.append((reader, writer))

    server = await asyncio.start_server(
        connected, "127.0.0.1", 0, ssl=contexts and contexts[0]
    )
    loop = asyncio.get_running_loop()
    address = server.sockets[0].getsockname()
    options = {"ssl": contexts[1], "server_hostname": "localhost"} if contexts else {}
    client, _ = await loop.create_connection(asyncio.Protocol, *address, **options)
    await until(lambda: handed)
    try:
        yield handed[0]
    finally:
        client.abort()
        handed[0][1].transport.abort()
        server.close()
        await turns(5)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("where", ["instance", "class", "dict"])
def test_writer_calls_the_transports_methods(run, contexts, monkeypatch, secure, where):
    async def main():
        async with served(contexts if secure else None) as (_, writer):
            transport = writer.transport
            log = []
            for name in ("write", "is_closing", "get_extra_info", "close", "writelines"):
                function = getattr(transport, name)

                def noted(*args, name=name, function=function):
                    log.append(name)
                    return function(*args[where == "class" :])

                if where == "instance":
                    setattr(transport, name, noted)
                elif where == "dict":
                    vars(transport)[name] = noted
                else:
                    monkeypatch.setattr(type(transport), name, noted)
            writer.write(b"data")
            await writer.drain()
            writer.get_extra_info("peername")
            writer.writelines([b"a", b"b"])
            writer.close()
            monkeypatch.undo()
            return log

    log = run(main())
    log = [name for i, name in enumerate(log) if i == 0 or log[i - 1] != name]
    # up to 3.12 asyncio's drain() waits for a turn if the transport closes; it always asks
    assert log[:3] == ["write", "is_closing", "get_extra_info"]
    assert "writelines" in log and log[-1] == "close"


def test_tls_calls_write_of_the_transport_below(run, contexts):
    async def main():
        async with served(contexts) as (_, writer):
            protocol = writer.transport._ssl_protocol
            below, log = protocol._transport, []
            write = below.write

            def noted(data):
                log.append(len(data))
                write(data)

            below.write = noted
            writer.write(b"data")
            await turns(3)
            assert log
            del below.write
            count = len(log)
            writer.write(b"data")
            await turns(3)
            assert len(log) == count

    run(main())


# -- sockets --------------------------------------------------------------------------------------

NAMES = ["recv", "recv_into", "send", "sendmsg", "shutdown"]


class Plain(asyncio.Protocol):
    def __init__(self):
        self.received = b""

    def data_received(self, data):
        self.received += data

    def eof_received(self):
        return True


class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.received = b""
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, count):
        self.received += self.buffer[:count]

    def eof_received(self):
        return True


def noting_methods(names, log):
    space = {}
    for name in names:

        def method(self, *args, name=name):
            log.append(name)
            return getattr(super(space["class"], self), name)(*args)

        space[name] = method
    space["class"] = type("Noting", (socket.socket,), dict(space))
    return space["class"]


@pytest.mark.parametrize("where", ["subclass", "class"])
@pytest.mark.parametrize("make", [Plain, Buffered])
def test_transport_calls_the_sockets_methods(run, monkeypatch, make, where):
    log = []

    async def main():
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        if where == "subclass":
            near = noting_methods(NAMES, log)(fileno=near.detach())
        transport, protocol = await loop.create_connection(make, sock=near)
        far.send(b"one")
        await until(lambda: protocol.received)
        transport.write(b"first")
        assert far.recv(100) == b"first"
        if where == "class":
            number = near.fileno()
            for name in NAMES:
                function = getattr(socket.socket, name)

                def noted(self, *args, name=name, function=function):
                    if self.fileno() == number:
                        log.append(name)
                    return function(self, *args)

                monkeypatch.setattr(socket.socket, name, noted)
        log.clear()
        far.send(b"two")
        await until(lambda: protocol.received == b"onetwo")
        assert log == ["recv" if make is Plain else "recv_into"]
        log.clear()
        transport.write(b"second")
        assert log == ["send"]
        assert far.recv(100) == b"second"
        large = bytes(1 << 20)
        transport.write(large)
        assert "send" in log
        got = 0
        far.setblocking(False)
        while got < len(large):
            with contextlib.suppress(BlockingIOError):
                got += len(far.recv(1 << 16))
            await asyncio.sleep(0)
        transport.write_eof()
        await turns(3)
        assert "shutdown" in log
        monkeypatch.undo()
        transport.abort()
        far.close()
        await turns(3)

    run(main())


def test_what_a_sockets_method_raises(run, reports):
    class Failing(socket.socket):
        fails = False

        def recv(self, *args):
            if self.fails:
                raise ZeroDivisionError
            return super().recv(*args)

    lost = []

    class Protocol(Plain):
        def connection_lost(self, exc):
            lost.append(type(exc))

    async def main():
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near = Failing(fileno=near.detach())
        await loop.create_connection(Protocol, sock=near)
        near.fails = True
        far.send(b"x")
        await until(lambda: lost)
        far.close()

    run(main())
    assert lost == [ZeroDivisionError]
    assert [r["message"] for r in reports] == ["Fatal read error on socket transport"]


@pytest.mark.parametrize("action", ["abort", "close", "write"])
def test_a_sockets_method_does_something_to_its_transport(run, action):
    """send() that closes, aborts or writes: nothing is sent twice or out of order."""

    class Meddling(socket.socket):
        transport = None

        def send(self, data):
            transport, self.transport = self.transport, None
            if transport is not None:
                getattr(transport, action)(*[b"inner"] * (action == "write"))
            return super().send(data)

    async def main():
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near = Meddling(fileno=near.detach())
        transport, _ = await loop.create_connection(Plain, sock=near)
        near.transport = transport
        transport.write(b"outer")
        await turns(3)
        assert far.recv(100) == (b"innerouter" if action == "write" else b"outer")
        transport.abort()
        far.close()
        await turns(3)

    run(main())


SOCK_CALLS = {
    "recv": lambda loop, near, far: loop.sock_recv(near, 10),
    "recv_into": lambda loop, near, far: loop.sock_recv_into(near, bytearray(10)),
    "recvfrom": lambda loop, near, far: loop.sock_recvfrom(near, 10),
    "send": lambda loop, near, far: loop.sock_sendall(near, b"data"),
}


@pytest.mark.parametrize("name", SOCK_CALLS)
@pytest.mark.parametrize("where", ["subclass", "class"])
def test_sock_methods_call_the_sockets_methods(run, loop, monkeypatch, name, where):
    log = []

    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)
        far.send(b"x")
        if where == "subclass":
            near = noting_methods([name], log)(fileno=near.detach())
        else:
            await SOCK_CALLS[name](loop, near, far)
            far.send(b"x")
            function = getattr(socket.socket, name)

            def noted(self, *args):
                log.append(name)
                return function(self, *args)

            monkeypatch.setattr(socket.socket, name, noted)
        await SOCK_CALLS[name](loop, near, far)
        assert log == [name]
        monkeypatch.undo()
        near.close()
        far.close()

    run(main())


class Refused(Exception):
    pass


@pytest.mark.parametrize("kind", ["open_connection", "sock_connect", "datagram"])
def test_connect_of_the_class_is_replaced(run, loop, monkeypatch, kind):
    """As a guard does that lets tests connect to nobody."""

    def guard(self, address):
        raise Refused

    async def main():
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            address = listening.getsockname()
            monkeypatch.setattr(socket.socket, "connect", guard)
            with pytest.raises(Refused):
                if kind == "open_connection":
                    await asyncio.open_connection(*address)
                elif kind == "sock_connect":
                    with socket.socket() as sock:
                        sock.setblocking(False)
                        await loop.sock_connect(sock, address)
                else:
                    await loop.create_datagram_endpoint(
                        asyncio.DatagramProtocol, remote_addr=address
                    )
            monkeypatch.undo()
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)

    run(main())


@pytest.mark.parametrize("way", ["transport", "sock_accept"])
@pytest.mark.parametrize("what", ["accept", "class"])
def test_accepting_calls_accept(run, loop, monkeypatch, way, what):
    log = []
    function = socket.socket.accept

    def noted(self):
        answer = function(self)
        log.append(type(answer[0]).__name__)
        return answer

    class Other(socket.socket):
        pass

    async def main():
        listening = socket.socket()
        listening.setblocking(False)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        made = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport.get_extra_info("socket")._sock)
                transport.abort()

        if way == "transport":
            server = await loop.create_server(Protocol, sock=listening)
        if what == "accept":
            monkeypatch.setattr(socket.socket, "accept", noted)
        else:
            monkeypatch.setattr(socket, "socket", Other)
        client = socket.create_connection(listening.getsockname())
        if way == "transport":
            await until(lambda: made)
            server.close()
        else:
            made.append((await loop.sock_accept(listening))[0])
            listening.close()
        monkeypatch.undo()
        await turns(3)
        client.close()
        made[0].close()
        return made[0]

    conn = run(main())
    if what == "accept":
        assert log == ["socket"]
    else:
        assert type(conn) is Other


@pytest.mark.parametrize("where", ["os", "unix_events"])
def test_pipes_call_os_functions(run, loop, monkeypatch, where):
    log = []

    def noting(name):
        function = getattr(os, name)

        def noted(*args):
            log.append(name)
            return function(*args)

        return noted

    async def main():
        read, write = os.pipe()
        protocol = Plain()
        reading, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(read, "rb", 0))
        writing, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(write, "wb", 0)
        )
        writing.write(b"one")
        await until(lambda: protocol.received == b"one")
        for name in ("read", "write"):
            monkeypatch.setattr(os, name, noting(name))
        writing.write(b"two")
        await until(lambda: protocol.received == b"onetwo")
        monkeypatch.undo()
        assert log == ["write", "read"]
        writing.close()
        await turns(5)
        reading.close()
        await turns(3)

    run(main())


# -- datagrams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["subclass", "class"])
def test_datagrams_call_the_sockets_methods(run, loop, monkeypatch, where):
    log = []
    received = []

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            received.append(data)

    async def main():
        near = socket.socket(type=socket.SOCK_DGRAM)
        if where == "subclass":
            near = noting_methods(["recvfrom", "sendto"], log)(fileno=near.detach())
        near.bind(("127.0.0.1", 0))
        near.setblocking(False)
        far = socket.socket(type=socket.SOCK_DGRAM)
        far.bind(("127.0.0.1", 0))
        transport, _ = await loop.create_datagram_endpoint(Protocol, sock=near)
        if where == "class":
            for name in ("recvfrom", "sendto"):
                function = getattr(socket.socket, name)

                def noted(self, *args, name=name, function=function):
                    if self is near:
                        log.append(name)
                    return function(self, *args)

                monkeypatch.setattr(socket.socket, name, noted)
        transport.sendto(b"x", far.getsockname())
        assert far.recv(10) == b"x"
        far.sendto(b"y", near.getsockname())
        await until(lambda: received)
        monkeypatch.undo()
        transport.close()
        far.close()
        await turns(3)

    run(main())
    assert log[:2] == ["sendto", "recvfrom"]
