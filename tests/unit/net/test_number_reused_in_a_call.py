"""A number or a buffer that the user gives runs Python when it is asked, and closes the socket that
the call is about. The number of its descriptor belongs to another file then: nothing is read from
there, nothing is sent there."""

import array
import asyncio
import contextlib
import logging
import os
import socket

import pytest

from tests.support import PY

needs_exporters = pytest.mark.skipif(PY < (3, 12), reason="__buffer__() came in 3.12")


class Asked:
    """A number and a buffer."""

    def __init__(self, act):
        self.act = act
        self.data = bytearray(b"secret")

    def __index__(self):
        self.act()
        return 100

    def __buffer__(self, flags):
        self.act()
        return memoryview(self.data)

    def __len__(self):
        return len(self.data)


class AskedBytes(bytearray):
    act = None

    def __buffer__(self, flags):
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().__buffer__(flags)


class Other:
    """Takes the number of a socket that it closes."""

    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.number = None

    def take(self, number):
        if self.number is None:
            self.number = number
            os.dup2(self.near.fileno(), number)
            self.far.send(b"foreign")

    def check(self, data=b""):
        """Nothing came to the far end, nothing that it has sent was read."""
        assert b"foreign" not in bytes(data)
        with contextlib.suppress(BlockingIOError):
            pytest.fail(f"{self.far.recv(100)} was sent there")
        assert self.near.recv(100, socket.MSG_DONTWAIT) == b"foreign"

    def close(self):
        os.close(self.number)
        self.near.close()
        self.far.close()


@pytest.fixture
def other():
    with contextlib.closing(Other()) as other:
        yield other


@pytest.mark.parametrize(
    "method",
    [
        "sock_recv",
        "sock_recvfrom",
        pytest.param("sock_recv_into", marks=needs_exporters),
        pytest.param("sock_sendall", marks=needs_exporters),
    ],
)
def test_socket_is_closed_by_its_argument(run, loop, other, method):
    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)

        def act():
            number = near.fileno()
            if number >= 0:
                near.close()
                other.take(number)

        argument = Asked(act)
        with far, pytest.raises(OSError, match="Bad file descriptor"):
            await getattr(loop, method)(near, argument)
        other.check(argument.data)

    run(main())


class Protocol(asyncio.BufferedProtocol):
    buffer = bytearray(100)

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, size):
        pass

    def datagram_received(self, data, address):
        pass


def ending(transport, other):
    """A buffer that ends the transport when it is asked for."""

    def act():
        number = transport.get_extra_info("socket").fileno()
        transport.abort()
        transport._call_connection_lost(None)
        other.take(number)

    buffer = AskedBytes(b"secret")
    buffer.act = act
    return buffer


@needs_exporters
@pytest.mark.our_loop("to end it so breaks asyncio's transports")
@pytest.mark.parametrize("method", ["write", "writelines", "get_buffer"])
def test_stream_is_ended_by_its_argument(run, loop, other, method):
    async def main():
        near, far = socket.socketpair()
        transport, protocol = await loop.create_connection(Protocol, sock=near)
        buffer = ending(transport, other)
        if method == "get_buffer":
            protocol.buffer = buffer
            far.send(b"mine")
            while other.number is None:
                await asyncio.sleep(0.001)
        else:
            getattr(transport, method)([buffer] if method == "writelines" else buffer)
        far.close()
        other.check(buffer)

    run(main())


@needs_exporters
@pytest.mark.our_loop("to end it so breaks asyncio's transports")
def test_datagrams_are_ended_by_their_argument(run, loop, other):
    async def main():
        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            transport.sendto(ending(transport, other), far.getsockname())
        other.check()

    run(main())


@needs_exporters
@pytest.mark.our_loop("asyncio waits for ever")
def test_buffer_is_shorter_the_second_time(run, loop):
    """What lies behind it is not sent."""

    class Shrinks:
        data = b"x" * 3_000_000

        def __buffer__(self, flags):
            data, self.data = self.data, b"y"
            return memoryview(data)

        def __len__(self):
            return 3_000_000

    async def main():
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            task = loop.create_task(loop.sock_sendall(near, Shrinks()))
            while not task.done():
                with contextlib.suppress(BlockingIOError):
                    assert set(far.recv(1 << 20)) <= {ord("x")}
                await asyncio.sleep(0)
            with pytest.raises(BufferError):
                await task

    run(main())


class Slow(socket.socket):
    """Takes seven bytes at a time, or all."""

    most = None

    def send(self, data, *flags):
        return super().send(memoryview(data).cast("B")[: self.most], *flags)


@pytest.mark.our_loop(
    "asyncio counts items for bytes, and waits for ever or reports success too early"
)
@pytest.mark.parametrize("most", [7, 10, None])
@pytest.mark.parametrize("as_view", [False, True])
def test_items_larger_than_a_byte_are_sent_whole(run, loop, most, as_view):
    async def main():
        near, far = socket.socketpair()
        with far, Slow(fileno=near.detach()) as near:
            near.setblocking(False)
            near.most = most
            numbers = array.array("i", range(10))
            await loop.sock_sendall(near, memoryview(numbers) if as_view else numbers)
            assert far.recv(1000) == numbers.tobytes()

    run(main())


# -- before there is a transport -------------------------------------------------------------------


def protocol_that_closes(sock, other, base, seen):
    """It is asked for its class, and closes the socket of the transport to be."""

    class Closes(base):
        @property
        def __class__(self):
            number = sock.fileno()
            if number >= 0:
                sock.close()
                other.take(number)
            return base

        def connection_made(self, transport):
            seen.transport = transport
            if base is asyncio.Protocol:
                transport.write(b"secret")

        def data_received(self, data, *address):
            seen.data += data

        datagram_received = data_received

    return Closes()


class Seen:
    def __init__(self):
        self.data = b""
        self.transport = None

    async def nothing_of(self, other):
        """Fails if bytes of the other file have come or gone; ends the transport."""
        for _ in range(5):
            await asyncio.sleep(0.001)
        other.check(self.data)
        if self.transport is not None:
            self.transport.abort()


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_socket_is_closed_by_the_protocols_class(run, loop, other, method):
    async def main():
        seen = Seen()
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            protocol = protocol_that_closes(near, other, asyncio.Protocol, seen)
            with contextlib.suppress(OSError):
                await asyncio.wait_for(getattr(loop, method)(lambda: protocol, sock=near), 5)
            await seen.nothing_of(other)

    run(main())


@pytest.mark.our_loop("asyncio looks for no other file behind a socket")
def test_datagram_socket_is_closed_by_the_protocols_class(run, loop, other):
    async def main():
        seen = Seen()
        near = socket.socket(type=socket.SOCK_DGRAM)
        near.bind(("127.0.0.1", 0))
        near.setblocking(False)
        protocol = protocol_that_closes(near, other, asyncio.DatagramProtocol, seen)
        with contextlib.suppress(OSError):
            await loop.create_datagram_endpoint(lambda: protocol, sock=near)
        await seen.nothing_of(other)

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_accepted_socket_is_closed_by_a_filter_of_logging(run, loop, other, fails):
    """In debug mode the log gets the socket before anybody has it."""

    async def main():
        seen, reports = Seen(), []
        loop.set_debug(True)
        loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))

        class Protocol(asyncio.Protocol):
            def data_received(self, data):
                seen.data += data

        def look(record):
            if "got a new connection" in record.msg:
                sock = record.args[2]
                number = sock.fileno()
                sock.close()
                other.take(number)
                if fails:
                    raise LookupError
            return False

        logger = logging.getLogger("asyncio")
        level = logger.level
        logger.addFilter(look)
        logger.setLevel(logging.DEBUG)
        try:
            server = await loop.create_server(Protocol, "127.0.0.1", 0)
            with socket.create_connection(server.sockets[0].getsockname()):
                while not reports:
                    await asyncio.sleep(0.001)
            server.close()
        finally:
            logger.removeFilter(look)
            logger.setLevel(level)
        other.check(seen.data)
        assert isinstance(reports[0], LookupError if fails else (OSError, ValueError))

    run(main())


def test_address_of_a_socket_that_was_closed_is_not_anothers(run, loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            number, name = near.fileno(), near.getsockname()
            with socket.socket() as another:
                another.bind(("127.0.0.1", 0))
                near.close()
                os.dup2(another.fileno(), number)
                # asyncio has asked at once, as we do where a socket has methods of a program's.
                assert transport.get_extra_info("sockname") in (None, name)
            os.close(number)
            transport.abort()
            await asyncio.sleep(0)

    run(main())
