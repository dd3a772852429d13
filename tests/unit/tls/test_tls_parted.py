"""What a transport keeps that close() has parted from its connection, and that programs keep."""

import asyncio
import ssl
import weakref

import pytest

from tests.support import PY, until, without_collector

pytestmark = pytest.mark.usefixtures("engine")


class Peer(asyncio.Protocol):
    """Ends the connection when it hears of anything."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.close()


class Kept(asyncio.Protocol):
    """Knows its transport, as most protocols do: the two live on for as long as somebody wants."""

    def __init__(self, context, closes):
        self.context = weakref.ref(context)
        self.closes = closes
        self.at_the_end = []

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"x")

    def eof_received(self):
        if self.closes == "before":
            asyncio.get_running_loop().call_soon(self.transport.close)

    def connection_lost(self, error):
        if self.closes == "at the end":
            self.transport.close()
        self.at_the_end.append(self.context() is None)


@pytest.mark.parametrize("closes", ["before", "at the end", "after", "never"])
def test_the_context_goes_with_a_second_close(run, server_context, certificate, closes):
    """The first is by the peer's end: then nothing leads to the connection any more."""

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Peer, "127.0.0.1", 0, ssl=server_context)
        context = ssl.create_default_context(cafile=certificate[0])
        protocol = Kept(context, closes)
        await loop.create_connection(
            lambda: protocol,
            *server.sockets[0].getsockname(),
            ssl=context,
            server_hostname="localhost",
        )
        del context
        await until(lambda: protocol.at_the_end)
        await asyncio.sleep(0)
        if closes == "after":
            protocol.transport.close()
        server.close()
        await server.wait_closed()
        return protocol

    with without_collector():
        protocol = run(main())
        if closes == "before":
            assert protocol.at_the_end == [True]
        assert (protocol.context() is None) == (closes != "never")
        if closes == "never":
            assert protocol.transport.get_extra_info("sslcontext") is protocol.context()
        else:
            with pytest.raises(AttributeError):
                protocol.transport.get_extra_info("sslcontext")


@pytest.mark.our_loop("asyncio's has another object for each of its halves")
def test_what_is_parted_and_lost_answers(run, server_context, certificate):
    """Nothing of the connection is left, and whoever asks for it by a private name is told so."""

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Peer, "127.0.0.1", 0, ssl=server_context)
        context = ssl.create_default_context(cafile=certificate[0])
        protocol = Kept(context, "before")
        transport, _ = await loop.create_connection(
            lambda: protocol,
            *server.sockets[0].getsockname(),
            ssl=context,
            server_hostname="localhost",
        )
        await until(lambda: protocol.at_the_end)
        assert transport._sslobj is transport._sslcontext is transport._extra is None
        assert transport._transport is transport._ssl_protocol is None
        for _ in range(2):
            transport.close()
            transport.abort()
            if PY >= (3, 13):
                transport._force_close(None)
            else:
                with pytest.raises(AttributeError):  # as on asyncio, which does not look
                    transport._force_close(None)
            transport.connection_lost(None)
            transport.eof_received()
            buffer = transport.get_buffer(10)
            buffer[:3] = b"abc"
            transport.buffer_updated(3)
            assert repr(transport) == "<SSLTransport closed>"
        server.close()
        await server.wait_closed()

    run(main())
