"""What the exception handler is told of a TLS connection: transports and protocols as asyncio."""

import asyncio
import socket
import ssl

import pytest

from tests.support import until


class Raising(asyncio.Protocol):
    """Raises `error` in the method named by `where`."""

    def __init__(self, where="", error=None):
        self.where, self.error, self.lost = where, error, []

    def connection_made(self, transport):
        self.transport = transport
        self.reach("connection_made")

    def reach(self, where):
        if where == self.where:
            raise self.error(where)

    def data_received(self, data):
        self.reach("data_received")

    def eof_received(self):
        self.reach("eof_received")

    def pause_writing(self):
        self.reach("pause_writing")

    def connection_lost(self, exc):
        self.lost.append(exc)


async def connect(contexts, protocol):
    """A server whose end of the connection has this protocol, and the client's transport."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=contexts[0])
    try:
        transport, _ = await loop.create_connection(
            asyncio.Protocol,
            *server.sockets[0].getsockname(),
            ssl=contexts[1],
            server_hostname="localhost",
        )
        await until(lambda: hasattr(protocol, "transport"))
        return transport
    finally:
        server.close()


def told(reports):
    """message, and the kinds of what is told: the socket's transport, TLS, or the user's."""

    def kind(thing):
        name = type(thing).__name__
        return "tls" if "SSL" in name else "user" if isinstance(thing, Raising) else "socket"

    return [
        (list(context), context["message"], kind(context["transport"]), kind(context["protocol"]))
        for context in reports
    ]


@pytest.mark.parametrize(
    "where, error, message",
    [
        ("data_received", ValueError, "Fatal error on SSL protocol"),
        ("data_received", GeneratorExit, "Fatal error: protocol.buffer_updated() call failed."),
        (
            "data_received",
            asyncio.CancelledError,
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
        (
            "connection_made",
            ValueError,
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
        (
            "connection_made",
            asyncio.CancelledError,
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
        ("eof_received", ValueError, "Error calling eof_received()"),
    ],
)
@pytest.mark.usefixtures("engine")
def test_report_names_the_transport_below(run, contexts, reports, where, error, message):
    async def main():
        protocol = Raising(where, error)
        transport = await connect(contexts, protocol)
        if where == "data_received":
            transport.write(b"data")
        elif where == "eof_received":
            transport.close()
        await until(lambda: protocol.lost)
        [reason] = protocol.lost
        assert type(reason) is error
        assert told(reports) == [
            (["message", "exception", "transport", "protocol"], message, "socket", "tls")
        ]
        assert reports[0]["exception"] is reason
        assert reports[0]["transport"].get_protocol() is None
        transport.abort()

    run(main())
    reports.clear()


@pytest.mark.usefixtures("engine")
def test_report_of_pause_writing(run, contexts, reports):
    async def main():
        protocol = Raising("pause_writing", ValueError)
        transport = await connect(contexts, protocol)
        transport.pause_reading()
        protocol.transport.set_write_buffer_limits(high=0)
        protocol.transport.write(b"x" * (8 << 20))
        assert told(reports)[0] == (
            ["message", "exception", "transport", "protocol"],
            "protocol.pause_writing() failed",
            "tls",
            "tls",
        )
        protocol.transport.abort()
        transport.abort()

    run(main())
    reports.clear()


@pytest.mark.usefixtures("engine")
def test_get_buffer_closes_and_raises(run, contexts, reports):
    """The first failure is the reason of the end, whatever comes to light on the way."""

    class Buffered(asyncio.BufferedProtocol):
        lost = None

        def connection_made(self, transport):
            self.transport = transport

        def get_buffer(self, size):
            if not size:
                return bytearray(100)
            self.transport.close()
            raise ValueError("no buffer")

        def connection_lost(self, exc):
            self.lost = (exc,)

    async def main():
        protocol = Buffered()
        transport = await connect(contexts, protocol)
        transport.write(b"data")
        await until(lambda: protocol.lost is not None)
        assert isinstance(protocol.lost[0], ValueError)
        transport.abort()

    run(main())
    assert {context["message"] for context in reports} == {"Fatal error on SSL protocol"}
    reports.clear()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("server_side", [False, True])
def test_handshake_over_what_cannot_be_written(run, contexts, reports, server_side):
    """start_tls() after write_eof(): who calls for the handshake's bytes gets the exception."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
            transport.write_eof()
            task = loop.create_task(
                loop.start_tls(transport, protocol, contexts[0], server_side=True)
                if server_side
                else loop.start_tls(transport, protocol, contexts[1], server_hostname="localhost")
            )
            if server_side:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                client = contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
                with pytest.raises(ssl.SSLWantReadError):
                    client.do_handshake()
                theirs.sendall(outgoing.read())
            await until(lambda: reports)
            assert [str(context["exception"]) for context in reports] == [
                "Cannot call write() after write_eof()"
            ]
            if server_side:
                assert told(reports)[0][1:] == (
                    "Fatal error: protocol.buffer_updated() call failed.",
                    "socket",
                    "tls",
                )
            else:
                assert reports[0]["message"].startswith("Exception in callback SSL")
                assert "handle" in reports[0] and not transport.is_closing()
            task.cancel()
            await asyncio.wait([task])
            transport.abort()

    run(main())
    reports.clear()
