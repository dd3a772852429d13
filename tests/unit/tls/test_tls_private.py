"""What libraries read in private attributes of asyncio: `transport._ssl_protocol` and below."""

import asyncio

import pytest

from tests.support import turns, until

NAMES = (
    "_app_protocol_is_buffer",
    "_app_reading_paused",
    "_app_transport_created",
    "_app_writing_paused",
    "_conn_lost",
    "_eof_received",
    "_incoming_high_water",
    "_incoming_low_water",
    "_outgoing_high_water",
    "_outgoing_low_water",
    "_server_hostname",
    "_server_side",
    "_ssl_handshake_timeout",
    "_ssl_reading_paused",
    "_ssl_shutdown_timeout",
    "_ssl_writing_paused",
    "_write_buffer_size",
    "max_size",
)


class Told(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.first = transport._ssl_protocol._state.name


@pytest.mark.usefixtures("engine")
def test_private_attributes(run, contexts):
    async def main():
        loop = asyncio.get_running_loop()
        theirs = Told()
        server = await loop.create_server(lambda: theirs, "127.0.0.1", 0, ssl=contexts[0])
        transport, ours = await loop.create_connection(
            Told,
            *server.sockets[0].getsockname(),
            ssl=contexts[1],
            server_hostname="localhost",
            ssl_handshake_timeout=50,
            ssl_shutdown_timeout=20,
        )
        await until(lambda: hasattr(theirs, "first"))
        server.close()
        tls, other = transport._ssl_protocol, theirs.transport._ssl_protocol
        assert {name: getattr(tls, name) for name in NAMES} == dict(
            dict.fromkeys(NAMES, False),
            _app_transport_created=True,
            _conn_lost=0,
            _incoming_high_water=256 * 1024,
            _incoming_low_water=64 * 1024,
            _outgoing_high_water=512 * 1024,
            _outgoing_low_water=128 * 1024,
            _server_hostname="localhost",
            _ssl_handshake_timeout=50,
            _ssl_shutdown_timeout=20,
            _write_buffer_size=0,
            max_size=256 * 1024,
        )
        assert (other._server_hostname, other._server_side) == (None, True)
        assert (other._ssl_handshake_timeout, other._ssl_shutdown_timeout) == (60.0, 30.0)
        assert ours.first == theirs.first == "WRAPPED"
        assert (tls._state.name, tls._app_state.name) == ("WRAPPED", "STATE_CON_MADE")
        assert list(tls._write_backlog) == [] and tls._handshake_timeout_handle is None
        assert tls._shutdown_timeout_handle is None and tls._handshake_start_time is None
        theirs.transport.pause_reading()
        assert other._app_reading_paused
        transport.close()
        assert tls._state.name in ("FLUSHING", "SHUTDOWN")
        assert isinstance(tls._shutdown_timeout_handle, asyncio.TimerHandle)
        transport.abort()
        theirs.transport.abort()
        await turns(5)
        assert (tls._state.name, tls._app_state.name) == ("UNWRAPPED", "STATE_CON_LOST")

    run(main())
