"""How much one readable event brings, and what runs before the next: on both loops the same."""

import asyncio
import os
import socket

import pytest

from tests.compare import same
from tests.support import turns


class Counts(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes what comes, and what runs between."""

    schedules = True

    def __init__(self, log, name, size=0):
        self.log = log
        self.name = name
        self.buffer = bytearray(size)
        self.loop = asyncio.get_running_loop()

    def note(self, *items):
        self.log(self.name, *items)
        if self.schedules:
            self.loop.call_soon(self.log, "a turn after", self.name, *items)

    def data_received(self, data):
        self.note("data", len(data))

    def datagram_received(self, data, address):
        self.note("datagram", data)

    def eof_received(self):
        self.log(self.name, "eof")


class Fills(asyncio.BufferedProtocol, Counts):
    def get_buffer(self, hint):
        self.note("buffer")
        return self.buffer

    def buffer_updated(self, n):
        self.note("updated", n)


def pair(room=0):
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        if room:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    return ends


async def quiet_turns(n):
    """Turns in which nothing of the test's own comes between."""
    await turns(n)
    await asyncio.sleep(0.005)


async def small_buffers(log, loop, size):
    transports, peers = [], []
    for name in "AB":
        one, other = pair()
        transport, _ = await loop.create_connection(
            lambda name=name: Fills(log, name, size), sock=one
        )
        transports.append(transport)
        peers.append(other)
    await quiet_turns(3)
    for peer in peers:
        peer.send(b"x" * 10)
    await quiet_turns(9)
    for transport, peer in zip(transports, peers, strict=True):
        peer.close()
        transport.close()
    await quiet_turns(3)


@pytest.mark.parametrize("size", [1, 4, 5, 10, 11])
def test_small_buffers(size):
    same(small_buffers, size)


async def large(log, loop, protocol, messages):
    one, other = pair(4_000_000)
    transport, _ = await loop.create_connection(lambda: protocol(log, "A", 1_000_000), sock=one)
    await quiet_turns(3)
    for length in messages:
        log("--", length)
        sent = other.send(b"x" * length)
        log(sent == length)
        await quiet_turns(12)
    transport.close()
    other.close()
    await quiet_turns(3)


@pytest.mark.parametrize("protocol", [Counts, Fills])
@pytest.mark.parametrize(
    "messages",
    [
        (10, 300_000),
        (40_000, 40_000, 45_000, 200_000, 10, 100_000),
        (70_000, 90_000, 78_000, 77_999, 262_144, 262_145, 600_000),
        (250_000,) * 3 + (900_000, 10),
    ],
)
def test_large_messages(protocol, messages):
    same(large, protocol, messages)


async def large_pipe(log, loop):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    transport, _ = await loop.connect_read_pipe(
        lambda: Counts(log, "pipe"), os.fdopen(reading, "rb", 0)
    )
    for length in (10, 40_000, 40_000, 65_536, 10):
        log(os.write(writing, b"x" * length))
        await quiet_turns(9)
    os.close(writing)
    await quiet_turns(3)
    transport.close()
    await quiet_turns(3)


def test_pipe():
    same(large_pipe)


class Lines(Counts):
    """Some messages schedule something, others do not."""

    schedules = False

    def datagram_received(self, data, address):
        self.log(self.name, data)
        for byte in data:
            if byte == ord("s"):
                self.loop.call_soon(self.log, "soon", self.name)
            elif byte == ord("t"):
                self.loop.create_task(self.task())
            elif byte == ord("p"):
                self.transport.pause_reading()
                self.loop.call_later(0.001, self.transport.resume_reading)
            elif byte == ord("r"):
                one, other = pair()
                other.send(b"x")
                self.loop.add_reader(one, self.read, one, other)
            elif byte == ord("x"):
                raise ZeroDivisionError
            elif byte == ord("c"):
                self.transport.close()
            elif byte == ord("w"):
                # What is not told yet is in the kernel.
                sock = self.transport.get_extra_info("socket").dup()
                sock.setblocking(False)
                try:
                    self.log("taken", sock.recv(100))
                except BlockingIOError:
                    self.log("nothing to take")
                sock.close()

    async def task(self):
        self.log("task", self.name)

    def read(self, one, other):
        self.log("reader")
        self.loop.remove_reader(one)
        one.close()
        other.close()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.log("lost", self.name)


async def datagrams(log, loop, messages, endpoints):
    transports = []
    for i in range(endpoints):
        transport, _ = await loop.create_datagram_endpoint(
            lambda i=i: Lines(log, i), ("127.0.0.1", 0)
        )
        transports.append(transport)
    await quiet_turns(3)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for message in messages.split():
            for transport in transports:
                sender.sendto(message.encode(), transport.get_extra_info("sockname"))
    for _ in range(4):
        await quiet_turns(20)
    for transport in transports:
        transport.close()
    await quiet_turns(3)


@pytest.mark.parametrize("endpoints", [1, 2])
@pytest.mark.parametrize(
    "messages",
    ["1 2 3 4 5 6 7", "s1 s2 s3 s4 s5", "1 t 2 t 3 4 5", "1 p 2 3 p 4 5 6", "1 x 2 x 3",
     "1 r 2 3 4", "1 2 c 3 4", "1 w 2 3 4 w w 5 6", "s 1 2 t 3 p w 4 5 r 6 7 c 8"],
)  # fmt: skip
def test_datagrams(messages, endpoints):
    if endpoints > 1 and "p" in messages:
        pytest.skip("the timers of two are in no order")
    # The words of the report are others.
    same(datagrams, messages, endpoints, only=lambda line: not line.startswith("reported"))


async def many_datagrams(log, loop):
    """More than are told at once where nothing else waits."""
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Lines(log, "A"), ("127.0.0.1", 0)
    )
    await quiet_turns(3)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for i in range(60):
            sender.sendto(b"%d" % i, transport.get_extra_info("sockname"))
    await asyncio.sleep(0.02)
    transport.close()
    await quiet_turns(3)


def test_many_datagrams():
    same(many_datagrams)


async def stopped(log, loop):
    transport, _ = await loop.create_datagram_endpoint(lambda: Stops(log, "A"), ("127.0.0.1", 0))
    return transport


class Stops(Lines):
    def datagram_received(self, data, address):
        self.log(data)
        self.loop.stop()

    def connection_lost(self, exc):
        pass


@pytest.mark.parametrize("by_hand", [False, True])
def test_datagrams_of_one_iteration(impl, by_hand):
    """stop() ends the run after this one, and _run_once() tells one."""
    lines = []
    loop = impl.new_event_loop()
    try:
        transport = loop.run_until_complete(stopped(lines.append, loop))
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for i in range(4):
                sender.sendto(b"%d" % i, transport.get_extra_info("sockname"))
        for i in range(1, 5):
            if by_hand:
                loop._run_once()
            else:
                loop.run_forever()
            assert lines == [b"%d" % n for n in range(i)]
        transport.close()
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()
    finally:
        loop.close()
