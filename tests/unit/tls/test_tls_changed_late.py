"""What a program changes of a connection under way: its SSLObject's methods, its socket's send."""

import asyncio
import socket
import ssl

import pytest

from tests.protocols import EchoingRecorder, OfAnotherKind, Recorder
from tests.support import until

from .tls_below import Below

pytestmark = pytest.mark.usefixtures("engine")


@pytest.mark.parametrize("name", ["getpeercert", "cipher", "compression"])
def test_what_is_asked_after_the_handshake_raises(run, connection, monkeypatch, name, reports):
    class Patching(Below):
        def write(self, data):
            monkeypatch.setattr(ssl.SSLObject, name, lambda *args: 1 / 0)
            super().write(data)

    async def main():
        with pytest.raises(ZeroDivisionError):
            async with connection(below=Patching):
                pass

    run(main())


async def connect(loop, contexts, sock=None):
    """(transport, protocol, server) of a connection to an echo; `sock`: the client's class."""
    server = await loop.create_server(EchoingRecorder, "127.0.0.1", 0, ssl=contexts[0])
    address = server.sockets[0].getsockname()
    options = {"ssl": contexts[1], "server_hostname": "localhost"}
    if sock is None:
        made = await loop.create_connection(Recorder, *address, **options)
    else:
        one = sock()
        one.setblocking(False)
        await loop.sock_connect(one, address)
        made = await loop.create_connection(Recorder, sock=one, **options)
    return *made, server


def test_read_gives_the_transport_a_protocol_of_another_kind(run, contexts):
    """What it has read is for the new one, by the method that those of the old kind have."""
    told = []

    async def main():
        transport, protocol, server = await connect(asyncio.get_running_loop(), contexts)
        ssl_object = transport.get_extra_info("ssl_object")
        read = ssl_object.read

        def replacing(*args):
            data = read(*args)
            transport.set_protocol(OfAnotherKind(told))
            return data

        ssl_object.read = replacing
        transport.write(b"echo")
        await until(lambda: told)
        del ssl_object.read
        transport.abort()
        server.close()
        for _ in range(5):
            await asyncio.sleep(0.001)

    run(main())
    assert told == [b"echo", None]


def test_many_writes_in_a_turn_by_a_send_of_its_own(run, contexts):
    calls = []

    class Own(socket.socket):
        def send(self, data):
            calls.append(len(data))
            return super().send(data)

    async def main():
        transport, protocol, server = await connect(asyncio.get_running_loop(), contexts, Own)
        for turn in range(1, 4):
            del calls[:]
            for piece in (b"one ", b"two ", b"three "):
                transport.write(piece)
            assert len(calls) == 3
            await until(lambda: bytes(protocol.data) == b"one two three " * turn)
        transport.abort()
        await protocol.closed
        server.close()

    run(main())
