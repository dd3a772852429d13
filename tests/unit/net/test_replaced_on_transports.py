"""What a program puts on a transport or a socket, and the names by which it calls."""

import asyncio
import os
import socket
import ssl

import pytest

from tests.certificates import make_certificate
from tests.compare import same
from tests.support import turns, until
from tests.transports import Tells, read_pipe, stream, write_pipe


@pytest.mark.parametrize("make", [stream, read_pipe])
def test_read_ready_of_its_own(make):
    """It counts from resume_reading() on, where asyncio hands it to the loop."""

    async def program(log, loop):
        transport, _, other = await make(log, loop)
        await turns(2)
        own = transport._read_ready

        def ready():
            log("ready")
            own()

        transport._read_ready = ready
        transport.pause_reading()
        transport.resume_reading()
        os.write(other.fileno(), b"x")
        await until(lambda: any("data" in str(line) for line in log.lines))
        del transport._read_ready
        transport.pause_reading()
        transport.resume_reading()
        os.write(other.fileno(), b"y")
        await until(lambda: sum("data" in str(line) for line in log.lines) == 2)
        transport.close()
        await turns(3)
        other.close()

    same(program)


@pytest.mark.parametrize("made", ["pipe", "stream"])
@pytest.mark.parametrize("pauses", ["", "before", "after"])
def test_read_ready_that_connection_made_puts_there(made, pauses):
    """asyncio has handed its own to the loop by then, and does so after connection_made()."""

    async def program(log, loop):
        class Puts(Tells):
            def connection_made(self, transport):
                def pause():
                    transport.pause_reading()
                    transport.resume_reading()

                own = transport._read_ready

                def ready():
                    log("ready")
                    own()

                if pauses == "before":
                    pause()
                transport._read_ready = ready
                if pauses == "after":
                    pause()

        def came():
            return sum("data" in str(line) for line in log.lines)

        if made == "stream":
            one, other = socket.socketpair()
            transport, _ = await loop.create_connection(lambda: Puts(log), sock=one)
        else:
            one, other = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb")))
            transport, _ = await loop.connect_read_pipe(lambda: Puts(log), one)
        os.write(other.fileno(), b"x")
        await until(lambda: came() == 1)
        transport.pause_reading()
        transport.resume_reading()
        os.write(other.fileno(), b"y")
        await until(lambda: came() == 2)
        transport.close()
        await turns(3)
        other.close()

    same(program)


@pytest.mark.parametrize("sends", ["by the core", "by a method"])
def test_write_ready_of_its_own(monkeypatch, sends):
    if sends == "by a method":
        send = socket.socket.send
        monkeypatch.setattr(socket.socket, "send", lambda self, data: send(self, data))

    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        own = transport._write_ready
        seen = []

        def ready():
            seen.append(1)
            own()

        transport._write_ready = ready
        data = bytes(3_000_000)
        transport.write(data)
        transport.write(bytearray(1000))
        size, other_size = len(data) + 1000, 0
        other.setblocking(False)
        while other_size < size:
            other_size += len(await loop.sock_recv(other, 1 << 20))
        await until(lambda: transport.get_write_buffer_size() == 0)
        log("called", bool(seen))
        transport.close()
        await turns(3)
        other.close()

    same(program)


@pytest.mark.parametrize("make", [stream, read_pipe, write_pipe])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_call_connection_lost_of_its_own(make, how):
    async def program(log, loop):
        transport, _, other = await make(log, loop)
        own = transport._call_connection_lost

        def lost(exc):
            log("lost", repr(exc))
            own(exc)

        transport._call_connection_lost = lost
        getattr(transport, how if hasattr(transport, how) else "close")()
        await turns(4)
        other.close()

    same(program)


def test_setsockopt_is_replaced(monkeypatch):
    async def program(log, loop):
        with monkeypatch.context() as patch:
            own = socket.socket.setsockopt

            def setsockopt(self, level, *args):
                if level == socket.IPPROTO_TCP:
                    log("setsockopt", *args)
                return own(self, level, *args)

            accepted = []
            server = await loop.create_server(
                lambda: accepted.append(1) or asyncio.Protocol(), "127.0.0.1", 0
            )
            patch.setattr(socket.socket, "setsockopt", setsockopt)
            address = server.sockets[0].getsockname()
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            await until(lambda: accepted)
            transport.close()
            server.close()
            await turns(3)

    same(program)


@pytest.mark.parametrize("tls", [False, True])
def test_write_by_keyword(run, tls, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        came = []

        class Server(asyncio.Protocol):
            def data_received(self, data):
                came.append(data)

        mine = theirs = None
        if tls:
            certificate = make_certificate(tmp_path)
            mine = ssl.create_default_context(cafile=certificate[0])
            theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            theirs.load_cert_chain(*certificate)
        server = await loop.create_server(Server, "127.0.0.1", 0, ssl=theirs)
        transport, _ = await loop.create_connection(
            asyncio.Protocol,
            *server.sockets[0].getsockname(),
            ssl=mine,
            server_hostname="localhost" if tls else None,
        )
        transport.write(data=b"a")
        transport.writelines(list_of_data=[b"b"])
        await until(lambda: b"".join(came) == b"ab")
        for wrong in (
            lambda: transport.write(),
            lambda: transport.write(dat=b""),
            lambda: transport.write(b"", b""),
            lambda: transport.write(b"", data=b""),
        ):
            with pytest.raises(TypeError):
                wrong()
        transport.close()
        server.close()
        await turns(3)

    run(main())


def test_private_names_of_transports(run, loop):
    async def main():
        left, right = socket.socketpair()
        datagrams, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        if hasattr(datagrams, "_header_size"):  # these came one by one up to 3.15
            assert datagrams._header_size == 8
        if hasattr(datagrams, "_buffer_size"):
            assert datagrams._buffer_size == 0
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        if hasattr(transport, "_call_soon"):
            seen = []
            transport._call_soon(seen.append, 1)
            await turns(2)
            assert seen == [1]
            transport._add_writer(left.fileno(), seen.append, 2)
            await until(lambda: len(seen) > 1)
            loop._remove_writer(left.fileno())
        datagrams.close()
        transport.close()
        right.close()
        await turns(2)

    run(main())
