"""The address of a datagram transport that a library sets, and sockets with names of their own."""

import asyncio
import socket
from unittest import mock

import pytest

from tests.support import turns, until


class Recorder(asyncio.DatagramProtocol):
    def __init__(self):
        self.messages = []
        self.errors = []

    def datagram_received(self, data, address):
        self.messages.append(data)

    def error_received(self, exc):
        self.errors.append(exc)


async def make(**kwargs):
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(
        Recorder, **(kwargs or {"local_addr": ("127.0.0.1", 0)})
    )


def name_of(transport):
    return transport.get_extra_info("sockname")


async def arrives(transport, protocol, data, *address):
    transport.sendto(data, *address)
    await until(lambda: protocol.messages)
    assert protocol.messages == [data]
    protocol.messages.clear()


def test_address_of_an_endpoint_without_one(run):
    async def main():
        one, own = await make()
        other, theirs = await make()
        assert one._address is None
        one._address = name_of(other)
        assert one._address == name_of(other)
        await arrives(one, theirs, b"to the address")
        await arrives(one, theirs, b"to the same", name_of(other))
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            one.sendto(b"x", name_of(one))
        one._address = name_of(one)
        await arrives(one, own, b"to another")
        for nothing in None, "", ():
            one._address = nothing
            assert not one._address
            await arrives(one, theirs, b"as at first", name_of(other))
        one.close()
        other.close()
        await turns(2)

    run(main())


def test_address_is_set_for_a_while(run):
    async def main():
        one, own = await make()
        other, theirs = await make()
        with mock.patch.object(one, "_address", name_of(other)):
            await arrives(one, theirs, b"patched")
        assert one._address is None
        await arrives(one, own, b"restored", name_of(one))
        del one._address
        assert not hasattr(one, "_address")
        one._address = name_of(other)
        await arrives(one, theirs, b"again")
        one.close()
        other.close()
        await turns(2)

    run(main())


def test_address_of_a_socket_that_was_connected(run):
    """As libraries do with sockets that come connected: sendto() then takes the peer's address."""

    async def main():
        other, theirs = await make()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(name_of(other))
        one, _ = await make(sock=sock)
        assert one._address is None
        one._address = one.get_extra_info("peername")
        await arrives(one, theirs, b"to the peer")
        await arrives(one, theirs, b"by its name", name_of(other))
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            one.sendto(b"x", ("127.0.0.1", 1))
        one.abort()
        await turns(2)
        for _ in range(3):
            one.sendto(b"dropped")
        assert one._conn_lost == 4
        other.close()
        await turns(2)
        assert theirs.messages == []

    run(main())


def test_address_is_set_while_addresses_are_compared(run):
    async def main():
        one, _ = await make()
        other, theirs = await make()

        class Address(tuple):
            __hash__ = None

            def __eq__(self, theirs):
                one._address = name_of(other)
                return True

        one._address = (*"it is gone",)
        await arrives(one, theirs, b"to the new one", Address(name_of(one)))
        one.close()
        other.close()
        await turns(2)

    run(main())


def test_the_truth_of_an_address_fails(run):
    class Address:
        def __bool__(self):
            raise ZeroDivisionError

    async def main():
        one, _ = await make()
        with pytest.raises(ZeroDivisionError):  # asyncio asks in sendto()
            one._address = Address()
            one.sendto(b"x")
        one.abort()
        await turns(2)

    run(main())


# -- names -----------------------------------------------------------------------------------


class Named(socket.socket):
    def getsockname(self):
        return "me", 1

    def getpeername(self):
        return "you", 2


class Nameless(socket.socket):
    def getsockname(self):
        raise OSError("no name")

    getpeername = getsockname


class Broken(socket.socket):
    def getsockname(self):
        raise ZeroDivisionError


async def over(kind, kind_of_socket):
    """A transport over a socket of that class."""
    loop = asyncio.get_running_loop()
    sock = kind_of_socket(socket.AF_INET, kind)
    sock.setblocking(False)
    if kind == socket.SOCK_DGRAM:
        sock.bind(("127.0.0.1", 0))
        return (await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock))[0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        await loop.sock_connect(sock, server.getsockname())
        return (await loop.create_connection(asyncio.Protocol, sock=sock))[0]


KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])


@KINDS
@pytest.mark.parametrize(
    ("kind_of_socket", "own", "peer"),
    [(Named, ("me", 1), ("you", 2)), (Nameless, None, None)],
)
def test_names_are_the_sockets(run, kind, kind_of_socket, own, peer):
    async def main():
        transport = await over(kind, kind_of_socket)
        assert transport.get_extra_info("sockname") == own
        assert transport.get_extra_info("peername") == peer
        assert transport._extra["peername"] == peer
        transport.abort()
        await turns(2)
        assert transport.get_extra_info("sockname") == own

    run(main())


@KINDS
def test_names_fail(run, kind):
    async def main():
        with pytest.raises(ZeroDivisionError):
            await over(kind, Broken)

    run(main())


def test_names_are_replaced_on_the_class(run, monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        made = loop.create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                made.set_result(transport)

        server = await loop.create_server(Server, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        monkeypatch.setattr(socket.socket, "getsockname", lambda self: "own", raising=False)
        monkeypatch.setattr(socket.socket, "getpeername", lambda self: "peer", raising=False)
        client, _ = await loop.create_connection(asyncio.Protocol, *address)
        theirs = await made
        monkeypatch.undo()
        assert client.get_extra_info("sockname") == "own"
        assert client.get_extra_info("peername") == "peer"
        assert theirs.get_extra_info("sockname") == "own"
        # accept() has told it
        assert theirs.get_extra_info("peername") == client.get_extra_info("socket").getsockname()
        client.close()
        theirs.close()
        server.close()
        await turns(3)

    run(main())
