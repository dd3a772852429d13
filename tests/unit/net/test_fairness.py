"""A connection with much to send or to receive leaves the others their turn.

Nothing here is timed: what is counted are the bytes that such a connection moves in one turn of
the loop, or while somebody else waits for a single byte.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import threading

import pytest

from tests.support import until

KIB, MIB = 1 << 10, 1 << 20
READ_BUDGET = 256 * KIB
WRITE_BUDGET = MIB
FLOOD = 32 * MIB


by_the_kernels_calls = pytest.mark.skipif(
    "ASYNCLOOP_LONG_WAYS" in os.environ,
    reason="a send() of a program's own is given all that waits, as on the standard loop",
)


@pytest.fixture(params=["plain", "direct", "portable"])
def secure(request, impl):
    """Whether the flood comes over TLS: on asyncloop with each of its engines."""
    if not impl.ours:
        if request.param == "portable":
            pytest.skip("the standard loop has no engines")
        yield request.param == "direct"
        return
    from asyncloop import _core

    _core._tls_set_engine("portable" if request.param == "portable" else None)
    yield request.param != "plain"
    _core._tls_set_engine(None)


class Flooded(asyncio.Protocol):
    """Counts what it gets."""

    received = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += len(data)


class FloodedBuffer(asyncio.BufferedProtocol):
    """The same into memory of its own, whose size is what a turn may bring."""

    received = 0

    def __init__(self):
        self.memory = bytearray(READ_BUDGET)

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.memory

    def buffer_updated(self, nbytes):
        self.received += nbytes


class Bystander(asyncio.Protocol):
    """Notes how much the flood has received when a byte comes."""

    def __init__(self, flooded):
        self.flooded = flooded
        self.seen = []

    def data_received(self, data):
        self.seen += [self.flooded.received] * len(data)


class Peer:
    """The flood's other side: a thread with a blocking socket, until it is left."""

    def __init__(self, sock, context, work):
        self.over = threading.Event()
        self.sock = sock
        self.context = context
        self.thread = threading.Thread(target=self._run, args=(work,))

    def _run(self, work):
        sock = self.sock
        with contextlib.suppress(OSError):
            if self.context is not None:
                sock = self.sock = self.context.wrap_socket(sock, server_hostname="localhost")
            work(sock, self.over)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.sock.close()


def send_flood(sock, over):
    data = bytes(MIB)
    while not over.is_set():
        sock.sendall(data)


def take_flood(sock, over):
    memory = bytearray(MIB)
    while not over.is_set() and sock.recv_into(memory):
        pass


@contextlib.asynccontextmanager
async def flooding(factory, contexts, work):
    """A connection of the loop's whose peer does `work`: (its protocol, its transport)."""
    loop = asyncio.get_running_loop()
    made = []
    server_context, client_context = contexts or (None, None)
    server = await loop.create_server(
        lambda: made.append(factory()) or made[0], "127.0.0.1", 0, ssl=server_context
    )
    try:
        sock = socket.create_connection(server.sockets[0].getsockname())
        with Peer(sock, client_context, work):
            await until(lambda: made and hasattr(made[0], "transport"))
            try:
                yield made[0], made[0].transport
            finally:
                made[0].transport.abort()
    finally:
        server.close()
        await server.wait_closed()


async def assert_waits_at_most(limit, flooded):
    """While more than 4 MiB of a flood come, somebody else's bytes wait for `limit` bytes of it."""
    ours, other = socket.socketpair()
    with other:
        transport, bystander = await asyncio.get_running_loop().create_connection(
            lambda: Bystander(flooded), sock=ours
        )
        await until(lambda: flooded.received > 4 * MIB)
        for number in range(20):
            before = flooded.received
            other.send(b"x")
            await until(lambda: len(bystander.seen) > number)
            assert bystander.seen[-1] - before <= limit
        transport.abort()


@pytest.mark.parametrize("factory", [Flooded, FloodedBuffer])
def test_a_flood_of_input_leaves_the_others_their_turn(run, secure, factory, contexts):
    """Who waits for a byte has it when the flood was served twice at most: by what the last poll
    had brought already, and before it in the next."""

    async def main():
        async with flooding(factory, contexts if secure else None, send_flood) as (flooded, _):
            await assert_waits_at_most(2 * READ_BUDGET, flooded)

    run(main())


def test_a_flood_for_streams_leaves_the_others_their_turn(run, secure, contexts):
    """A StreamReader pauses the flood and lets it go on: each time with a bounded part of it."""

    async def main():
        reader = asyncio.StreamReader()
        counter = Flooded()

        class Protocol(asyncio.StreamReaderProtocol):
            def connection_made(self, transport):
                super().connection_made(transport)
                self.transport = transport

        async def read():
            while data := await reader.read(64 * KIB):
                counter.received += len(data)

        reading = asyncio.ensure_future(read())
        async with flooding(
            lambda: Protocol(reader), contexts if secure else None, send_flood
        ) as (_, transport):
            # what the reader had already, and what one event brings
            await assert_waits_at_most(4 * READ_BUDGET, counter)
        with contextlib.suppress(OSError, ssl.SSLError):
            await reading

    run(main())


def write_one(transport):
    transport.write(bytes(FLOOD))


def write_bytearray(transport):
    transport.write(bytearray(FLOOD))


def write_lines(transport):
    transport.writelines([bytes(FLOOD // 4), bytearray(FLOOD // 4)] * 2)


def write_many(transport):
    transport.writelines([bytes(16 * KIB)] * (FLOOD // (16 * KIB)))


@by_the_kernels_calls
@pytest.mark.our_loop("the standard one gives the kernel whatever it takes")
@pytest.mark.parametrize("write", [write_one, write_bytearray, write_lines, write_many])
def test_a_flood_of_output_goes_out_in_turns(run, secure, write, contexts):
    async def main():
        async with flooding(Flooded, contexts if secure else None, take_flood) as (_, transport):
            # TLS encrypts in write(); the transport below has the turns
            below = transport._transport if secure else transport
            write(transport)  # gives the kernel what it takes
            left = below.get_write_buffer_size()
            most = 0
            while left > 0:
                await asyncio.sleep(0)
                before, left = left, below.get_write_buffer_size()
                most = max(most, before - left)
            assert most <= WRITE_BUDGET

    run(main())


@by_the_kernels_calls
@pytest.mark.our_loop("the standard one gives the kernel whatever it takes")
@pytest.mark.parametrize("convert", [bytes, bytearray])
def test_sock_sendall_goes_out_in_turns(run, convert):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            other = socket.create_connection(listener.getsockname())
            sock, _ = listener.accept()
        with sock, Peer(other, None, take_flood):
            sock.setblocking(False)
            sending = asyncio.ensure_future(loop.sock_sendall(sock, convert(FLOOD)))
            turns = 0
            while not sending.done():
                turns += 1
                await asyncio.sleep(0)
            assert turns >= FLOOD // WRITE_BUDGET - 1

    run(main())


@pytest.mark.our_loop("the standard one fails when data comes after its close_notify")
def test_a_close_waits_for_the_turns(run, secure, contexts):
    """close() after much output: all of it arrives, and then the end. Over TLS also at a peer that
    still says something meanwhile."""
    got = []

    def take_all(sock, over):
        total = 0
        memory = bytearray(MIB)
        while n := sock.recv_into(memory):
            total += n
            if secure and total < FLOOD:
                sock.send(b"and")
        got.append(total)

    async def main():
        async with flooding(Flooded, contexts if secure else None, take_all) as (_, transport):
            transport.write(bytes(FLOOD))
            transport.close()
            await until(lambda: got)

    run(main())
    assert got == [FLOOD]
