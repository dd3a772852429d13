"""A transport of each kind, with a protocol that notes all it is told: for tests/compare.py.

Each maker gives (transport, protocol, other end): a socket that does not block, or a file over the
pipe's other end.
"""

import asyncio
import os
import socket

from .compare import shown_error


class Tells(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes in `log` what its transport tells it. `keep_open`: what eof_received() answers."""

    def __init__(self, log, keep_open=False):
        self.log = log
        self.keep_open = keep_open

    def connection_made(self, transport):
        self.log("made")

    def connection_lost(self, exc):
        self.log("lost", exc and shown_error(exc))

    def data_received(self, data):
        self.log("data", data)

    def eof_received(self):
        self.log("eof")
        return self.keep_open

    def datagram_received(self, data, address):
        self.log("datagram", data)

    def error_received(self, exc):
        self.log("error", shown_error(exc))

    def pause_writing(self):
        self.log("pause")

    def resume_writing(self):
        self.log("resume")


async def stream(log, loop):
    one, other = socket.socketpair()
    other.setblocking(False)
    transport, protocol = await loop.create_connection(lambda: Tells(log), sock=one)
    return transport, protocol, other


async def datagrams(log, loop):
    other = socket.socket(type=socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", 0))
    other.setblocking(False)
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Tells(log), remote_addr=other.getsockname()
    )
    return transport, protocol, other


async def read_pipe(log, loop):
    reading, writing = os.pipe()
    file = os.fdopen(reading, "rb", 0)
    transport, protocol = await loop.connect_read_pipe(lambda: Tells(log), file)
    return transport, protocol, os.fdopen(writing, "wb", 0)


async def write_pipe(log, loop):
    reading, writing = os.pipe()
    file = os.fdopen(writing, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(lambda: Tells(log), file)
    return transport, protocol, os.fdopen(reading, "rb", 0)
