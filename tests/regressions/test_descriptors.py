"""Who owns a descriptor: regressions 1 to 4."""

import asyncio
import contextlib
import errno
import io
import os
import socket

import pytest

from tests.protocols import Echo
from tests.support import collect, listening, open_descriptors, turns, until


class Refused(Exception):
    pass


def refuse():
    raise Refused


@contextlib.asynccontextmanager
async def echo_server(family, path, ssl):
    loop = asyncio.get_running_loop()
    if family == "unix":
        server = await loop.create_unix_server(Echo, path, ssl=ssl)
        address = path
    else:
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=ssl)
        address = server.sockets[0].getsockname()
    try:
        yield address
    finally:
        server.close()
        await turns(5)


def own_socket(family, address):
    sock = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    sock.connect(address)
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("end", ["cancelled", "factory raises"])
def test_01_descriptor_closed_twice(run, impl, engine, contexts, tmp_path, family, tls, end):
    """uvloop #738, #645: a cancelled create_connection(sock=) closed the descriptor, and the
    socket object closed it once more, when it was another connection's already."""
    if not tls and engine == "portable":
        pytest.skip("no TLS, no engine")
    if not impl.ours and tls and end == "cancelled":
        pytest.skip("the standard loop ends a cancelled TLS connection later")
    server_ssl, client_ssl = contexts if tls else (None, None)

    async def one(address, ticks):
        loop = asyncio.get_running_loop()
        sock = own_socket(family, address)
        number = sock.fileno()
        create = loop.create_unix_connection if family == "unix" else loop.create_connection
        extra = {"ssl": client_ssl, "server_hostname": "localhost"} if tls else {}
        factory = refuse if end == "factory raises" else Echo
        task = loop.create_task(create(factory, sock=sock, **extra))
        await turns(ticks)
        task.cancel()
        transport = None
        try:
            transport, _ = await task
        except (asyncio.CancelledError, Refused):
            assert sock.fileno() in (-1, number)
            sock.close()  # as careful callers do
        # somebody else gets the number, and the old owner's last traces go
        pipes = [os.pipe() for _ in range(3)]
        del sock, task
        if transport is not None:
            transport.abort()
        collect()
        await turns(5)
        for index, (read, write) in enumerate(pipes):
            os.write(write, b"%d" % index)
        for index, (read, write) in enumerate(pipes):
            assert os.read(read, 10) == b"%d" % index
            os.close(read)
            os.close(write)

    async def main():
        async with echo_server(family, str(tmp_path / "s"), server_ssl) as address:
            for ticks in range(14 if end == "cancelled" else 2):
                await one(address, ticks)
            reader, writer = (
                await asyncio.open_unix_connection(address, ssl=client_ssl, **host(tls))
                if family == "unix"
                else await asyncio.open_connection(*address, ssl=client_ssl, **host(tls))
            )
            writer.write(b"works")
            assert await reader.readexactly(5) == b"works"
            writer.close()
            await writer.wait_closed()

    run(main())


def host(tls):
    return {"server_hostname": "localhost"} if tls else {}


@pytest.mark.our_loop("the standard loop ends such a transport with its next call only")
@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_01_number_of_a_closed_socket_is_nobodys(run, loop, kind):
    """uvloop #738: the user's socket is closed under its transport and the number comes again.
    The transport neither reads nor writes the new owner's bytes, nor is it in its way."""

    class Old(asyncio.Protocol, asyncio.DatagramProtocol):
        got = b""
        lost = False

        def data_received(self, data):
            self.got += data

        def datagram_received(self, data, address):
            self.got += data

        def error_received(self, exc):
            pass

        def connection_lost(self, exc):
            self.lost = True

    async def main():
        kind_of = socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
        for write_first in (True, False):
            old, old_peer = socket.socketpair(type=kind_of)
            number = old.fileno()
            old.setblocking(False)
            if kind == "stream":
                transport, protocol = await loop.connect_accepted_socket(Old, old)
                write = transport.write
            else:
                transport, protocol = await loop.create_datagram_endpoint(Old, sock=old)
                write = transport.sendto
            await turns(3)
            old.close()
            new, peer = socket.socketpair(type=kind_of)
            if peer.fileno() == number:
                new, peer = peer, new
            assert new.fileno() == number
            new.setblocking(False)
            peer.setblocking(False)
            if write_first:
                write(b"for the old peer")
            waiting = asyncio.ensure_future(loop.sock_recv(new, 100))
            await turns(3)
            peer.send(b"for the new owner")
            assert await waiting == b"for the new owner"
            with pytest.raises(BlockingIOError):
                peer.recv(100)
            transport.abort()
            await turns(3)
            assert protocol.got == b""
            assert protocol.lost
            os.fstat(number)
            for sock in (old_peer, new, peer):
                sock.close()

    run(main())


def test_02_poisoned_descriptor(run, loop, size):
    """uvloop #653, NVIDIA-NeMo/Gym #3521: each connect that ran into its time limit left its
    number in the loop's table, and later connections on that number failed for ever."""

    async def echo_all_the_time(address, stop):
        reader, writer = await asyncio.open_connection(*address)
        while not stop.is_set():
            writer.write(b"x" * 100)
            assert await reader.readexactly(100) == b"x" * 100
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    async def attempt(address):
        with socket.socket() as sock:
            sock.setblocking(False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await loop.sock_connect(sock, address)
                    return 0
        return 1

    async def main(full):
        before = open_descriptors()
        # A listener whose queue is full does not answer: that is what a dead address looks like.
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full)
        async with echo_server("tcp", None, None) as address:
            stop = asyncio.Event()
            echoes = [asyncio.create_task(echo_all_the_time(address, stop)) for _ in range(5)]
            timed_out = 0
            for _ in range(size(20, 200)):
                timed_out += sum(await asyncio.gather(*(attempt(full) for _ in range(10))))
            assert timed_out > size(100, 1000)
            for _ in range(size(100, 1000)):
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
                transport.close()
            stop.set()
            await asyncio.gather(*echoes)
            await turns(5)
        for filler in fillers:
            filler.close()
        for number in set(range(3, 300)) - set(before):
            assert loop.remove_reader(number) is False
            assert loop.remove_writer(number) is False

    with listening(backlog=0) as server:
        run(main(server.getsockname()))


class Counted(io.FileIO):
    closes = 0

    def close(self):
        if not self.closed:
            type(self).closes += 1
        super().close()


@pytest.mark.parametrize("how", ["close", "abort", "peer ends", "factory raises"])
@pytest.mark.parametrize("side", ["read", "write"])
def test_03_pipe_closed_twice(run, loop, side, how):
    """uvloop #763, #414: the loop closed the number of a pipe, the file object closed it again."""

    class Pipe(asyncio.Protocol):
        lost = False

        def connection_lost(self, exc):
            self.lost = True

    class File(Counted):
        pass

    async def main():
        for _ in range(10):
            read, write = os.pipe()
            mine, other = (read, write) if side == "read" else (write, read)
            file = File(mine, "r" if side == "read" else "w")
            connect = loop.connect_read_pipe if side == "read" else loop.connect_write_pipe
            if how == "factory raises":
                with pytest.raises(Refused):
                    await connect(refuse, file)
                file.close()
                os.close(other)
            else:
                transport, protocol = await connect(Pipe, file)
                if how == "peer ends":
                    os.close(other)
                elif how == "abort" and side == "write":
                    transport.abort()
                else:
                    transport.close()
                await until(lambda: protocol.lost)
                assert file.closed
                if how != "peer ends":
                    os.close(other)
                del transport, protocol
            one, two = os.pipe()  # these numbers are free now
            file.close()
            del file
            collect()
            await turns(3)
            os.fstat(one)
            os.fstat(two)
            os.close(one)
            os.close(two)

    run(main())
    assert File.closes == 10


@pytest.mark.parametrize("what", ["sock_accept", "sock_recv", "sock_sendall", "add_reader"])
def test_04_socket_closed_while_in_use(run, loop, impl, what):
    """uvloop #100, #424, gevent #2100, #191: closing a socket that the loop waits for aborted the
    process, or made the waiter hang for ever; then the number comes again."""
    if not impl.ours and what != "add_reader":
        pytest.skip("the standard loop waits for ever")

    async def main():
        one, other = socket.socketpair()
        if what == "sock_accept":
            one.close()
            one = socket.create_server(("127.0.0.1", 0))
        one.setblocking(False)
        number = one.fileno()
        waiting = None
        if what == "add_reader":
            loop.add_reader(one, lambda: None)
        elif what == "sock_sendall":
            waiting = loop.create_task(loop.sock_sendall(one, bytes(10 << 20)))
        else:
            arguments = (one, 100) if what == "sock_recv" else (one,)
            waiting = loop.create_task(getattr(loop, what)(*arguments))
        await turns(3)
        one.close()
        held = []
        while True:  # until somebody has the number
            pair = socket.socketpair()
            held += pair
            if number in (pair[0].fileno(), pair[1].fileno()):
                break
        new, peer = pair if pair[0].fileno() == number else pair[::-1]
        new.setblocking(False)
        if what == "add_reader":
            loop.remove_reader(number)
        receiving = loop.create_task(loop.sock_recv(new, 100))
        await turns(3)
        peer.send(b"hello")
        assert await receiving == b"hello"
        if waiting is not None:
            with pytest.raises(OSError) as caught:
                await waiting
            assert caught.value.errno == errno.EBADF
        for sock in (*held, other):
            sock.close()

    run(main())
