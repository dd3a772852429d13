"""Protocols that several test files use."""

import asyncio
import socket


class Echo(asyncio.Protocol):
    """Writes what comes."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Log(asyncio.Protocol):
    """Keeps in `log`, in order, what its transport tells it; no loop has to run yet."""

    def __init__(self):
        self.log = []

    def connection_made(self, transport):
        self.log.append("made")

    def data_received(self, data):
        self.log.append(data)

    def eof_received(self):
        self.log.append("eof")

    def connection_lost(self, exc):
        self.log.append(f"lost {exc!r}")


async def connected(loop, factory=Log):
    """(transport, protocol, the socket at the other end, which does not block)"""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, protocol = await loop.create_connection(factory, sock=ours)
    return transport, protocol, theirs


class Recorder(asyncio.Protocol):
    """Keeps everything that its transport tells it: names of calls in `events`, and the bytes.

    `made` is done with the transport, `closed` with what connection_lost() is given.
    """

    def __init__(self):
        self.events = []
        self.data = bytearray()
        self.transport = None
        self.lost = None  # the exception
        self.eof_answer = None
        loop = asyncio.get_running_loop()
        self.made = loop.create_future()
        self.closed = loop.create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport
        if not self.made.done():
            self.made.set_result(transport)

    def data_received(self, data):
        assert type(data) is bytes
        assert data
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.eof_answer

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost = exc
        assert self.events.count("lost") == 1
        if not self.closed.done():  # a waiter may have been cancelled, and it with it
            self.closed.set_result(exc)


class EchoingRecorder(Recorder):
    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


class Sender(asyncio.Protocol):
    """What a protocol that only writes is told."""

    lost = None  # the exception

    def __init__(self):
        self.events = []

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost = exc


class OfAnotherKind(asyncio.BufferedProtocol):
    """Has buffers, and the method of a protocol without: what that gets is put into `told`."""

    def __init__(self, told):
        self.told = told

    def get_buffer(self, hint):
        return bytearray(100)

    def data_received(self, data):
        self.told.append(data)

    def connection_lost(self, exc):
        self.told.append(exc)
