"""Numbers that come from outside: each is what asyncio takes, or asyncio's exception."""

import asyncio
import contextlib
import decimal
import fractions
import os
import resource
import socket
import tempfile

import pytest

from tests.compare import same, shown_error
from tests.support import plain_repr, spin, turns


class Double:
    """Something like a socket, with any fileno()."""

    family, type, proto = socket.AF_UNIX, socket.SOCK_STREAM, 0

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def fileno(self):
        number = self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]
        if isinstance(number, Exception):
            raise type(number)(*number.args)  # one that is kept would keep its frames
        return number

    def gettimeout(self):
        return 0

    def getsockopt(self, *args):
        return 0

    def wait(self, *args):
        raise BlockingIOError

    recv = send = accept = connect = recv_into = recvfrom = recvfrom_into = sendto = wait


NUMBERS = [
    -1,
    -5,
    -(1 << 31),
    -(1 << 70),
    500,
    100_000,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) + 3,
    1 << 70,
    1.5,
    "7",
    "x",
    b"7",
    None,
    OSError("fileno"),
    ValueError("fileno"),
    RuntimeError("fileno"),
    AttributeError("fileno"),
]

OPERATIONS = {
    "sock_recv": (10,),
    "sock_recv_into": (bytearray(5),),
    "sock_recvfrom": (5,),
    "sock_recvfrom_into": (bytearray(5),),
    "sock_sendall": (b"x",),
    "sock_sendto": (b"x", "/nowhere"),
    "sock_accept": (),
    "sock_connect": ("/nowhere",),
}


async def operation(log, loop, name, number):
    await log.wait(name, getattr(loop, name), Double(number), *OPERATIONS[name], seconds=0.01)


@pytest.mark.parametrize("number", NUMBERS, ids=plain_repr)
@pytest.mark.parametrize("name", OPERATIONS)
def test_descriptor_of_a_double(name, number):
    same(operation, name, number)


async def readers(log, loop, number, form):
    what = number if form == "number" else Double(number)
    for method, args in [
        ("add_reader", (print,)),
        ("add_writer", (print,)),
        ("remove_reader", ()),
        ("remove_writer", ()),
    ]:
        log.call(method, getattr(loop, method), what, *args)
    await asyncio.sleep(0)


@pytest.mark.parametrize("number", NUMBERS, ids=plain_repr)
@pytest.mark.parametrize("form", ["number", "fileno method"])
def test_descriptor_of_a_reader(number, form):
    same(readers, number, form)


@pytest.mark.parametrize("name", OPERATIONS)
def test_fileno_that_changes(impl, name):
    """Asked again and again, it never leads to memory that is not ours."""
    loop = impl.new_event_loop()
    one, other = socket.socketpair()

    async def main():
        for numbers in [(one.fileno(), -5), (-5, one.fileno()), (one.fileno(), 1 << 31, -1)]:
            try:
                operation = getattr(loop, name)(Double(*numbers), *OPERATIONS[name])
                await asyncio.wait_for(operation, 0.01)
            except (TimeoutError, ValueError, OverflowError, OSError):
                pass

    with one, other:
        loop.run_until_complete(main())
        loop.close()


def test_high_descriptor(loop):
    """It works, and costs no table of its size in the core."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = min(hard, 1 << 20) - 1
    if high < 10_000:
        pytest.skip("no high descriptors here")
    one, other = socket.socketpair()
    resource.setrlimit(resource.RLIMIT_NOFILE, (high + 1, hard))
    try:
        os.dup2(one.fileno(), high)
        seen = []
        loop.add_reader(high, lambda: seen.append(os.read(high, 10)))
        other.send(b"x")
        while not seen:
            spin(loop)
        assert loop.remove_reader(high) is True
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        one.close()
        other.close()


# -- numbers that are no descriptors ------------------------------------------------------------


class Index:
    def __index__(self):
        return 3


class FailingIndex:
    def __index__(self):
        raise KeyError("index")


WHOLE = [0, 1, -1, True, 65_536, -(1 << 31) - 1, 1 << 31, 1 << 63, -(1 << 63) - 1, 1 << 100]
ODD = [0.5, -1.0, float("nan"), float("inf"), "5", b"5", None, [], 1j]
ODD += [fractions.Fraction(1, 2), Index(), FailingIndex()]
VALUES = WHOLE + ODD
# What asyncio takes for a time and fails of in its next turn, or for good.
POISON = (complex, decimal.Decimal)


async def times(log, loop):
    for value in VALUES:
        if isinstance(value, POISON) or value != value:
            continue
        for name in ("call_later", "call_at"):
            if name == "call_at" and not isinstance(value, (int, float, fractions.Fraction)):
                continue
            handle = log.call(name, getattr(loop, name), value, int)
            if handle is not None:
                when = handle.when()
                log(type(when).__name__, name == "call_later" or when, type(handle._when).__name__)
                handle.cancel()


async def sizes(log, loop):
    for value in [*VALUES, bytearray(3), memoryview(b"abc"), b"abc"]:
        for name, args in [
            ("sock_recv", (value,)),
            ("sock_recvfrom", (value,)),
            ("sock_recv_into", (value,)),
            ("sock_recvfrom_into", (value,)),
            ("sock_recvfrom_into", (bytearray(10), value)),
            ("sock_sendall", (value,)),
        ]:
            one, other = socket.socketpair()
            one.setblocking(False)
            other.setblocking(False)
            other.send(b"hello")
            await log.wait(name, getattr(loop, name), one, *args, seconds=1)
            with contextlib.suppress(BlockingIOError):
                log(other.recv(100))
            one.close()
            other.close()


ADDRESSES = [("127.0.0.1", value) for value in VALUES]
ADDRESSES += [("127.0.0.1",), ("127.0.0.1", 9, 1), (b"127.0.0.1", 9), ("256.0.0.1", 9)]
ADDRESSES += [("127.0.0.1\0", 9), 5, None, "x", ["127.0.0.1", 9], ()]
ADDRESSES_6 = [("::1", 9, value) for value in VALUES] + [("::1", 9, 0, value) for value in VALUES]
ADDRESSES_6 += [("::1",), ("::1", 9, 0, 0, 0), ("::1%nowhere", 9)]
PATHS = ["x" * 200, "", "/nowhere", b"/nowhere", b"\0x", None, 5, "/a\0b"]


async def addresses(log, loop, family, values):
    for value in values:
        for kind, name, args in [
            (socket.SOCK_STREAM, "sock_connect", (value,)),
            (socket.SOCK_DGRAM, "sock_sendto", (b"x", value)),
        ]:
            with socket.socket(family, kind) as sock:
                sock.setblocking(False)
                await log.wait(name, getattr(loop, name), sock, *args, seconds=5)


async def sent_datagrams(log, loop, host, values):
    class Tells(asyncio.DatagramProtocol):
        def error_received(self, exc):
            log("error", shown_error(exc))

        def connection_lost(self, exc):
            log("lost", exc and shown_error(exc))

    for value in values:
        transport, _ = await loop.create_datagram_endpoint(Tells, local_addr=(host, 0))
        log.call("sendto", transport.sendto, b"x", value)
        await turns(2)
        log(transport.is_closing())
        transport.abort()
        await turns(2)


async def ports_and_backlogs(log, loop):
    for value in VALUES:
        await log.wait(
            "connect", loop.create_connection, asyncio.Protocol, "127.0.0.1", value, seconds=5
        )
        for options in ({"port": value}, {"port": 0, "backlog": value}):
            if options["port"] in (1, True, 0.5, 3):
                continue
            made = await log.wait(
                "serve",
                lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", **options),
                seconds=5,
            )
            if made is not None:
                made.close()


async def names(log, loop):
    for value in VALUES:
        await log.wait("address", loop.getaddrinfo, "127.0.0.1", value, seconds=5)
        for option in ("family", "type", "proto", "flags"):
            await log.wait(
                option, lambda: loop.getaddrinfo("127.0.0.1", 80, **{option: value}), seconds=5
            )
        await log.wait("name", loop.getnameinfo, ("127.0.0.1", 80), value, seconds=5)
        await log.wait("name", loop.getnameinfo, ("127.0.0.1", value), 0, seconds=5)


async def signals(log, loop):
    for value in [*VALUES, 9, 64, 65, -9]:
        log.call("add", loop.add_signal_handler, value, print)
        log.call("remove", loop.remove_signal_handler, value)


async def parts_of_files(log, loop):
    # Before 3.13 a count that no size can hold fails in os.sendfile().
    for value in (value for value in VALUES if type(value) is not int or value < 1 << 63):
        for arguments in ((value,), (0, value)):
            for name in ("sock_sendfile", "sendfile"):
                one, other = socket.socketpair()
                one.setblocking(False)
                other.setblocking(False)
                with tempfile.TemporaryFile() as file:
                    file.write(b"z" * 1000)
                    file.seek(0)
                    to = one
                    if name == "sendfile":
                        to, _ = await loop.create_connection(asyncio.Protocol, sock=one)
                    await log.wait(name, getattr(loop, name), to, file, *arguments, seconds=5)
                    with contextlib.suppress(BlockingIOError):
                        log(len(other.recv(5000)))
                    log(file.tell())
                    if to is not one:
                        to.abort()
                        await turns(2)
                one.close()
                other.close()


async def read_sizes(log, loop):
    for value in VALUES:
        for name in ("read", "readexactly", "readuntil"):
            one, other = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=one)
            other.send(b"hello\nworld")
            other.shutdown(socket.SHUT_WR)
            while not reader.at_eof() and not reader._eof:
                await asyncio.sleep(0)
            await log.wait(name, getattr(reader, name), value, seconds=1)
            log(bytes(reader._buffer))
            writer.transport.abort()
            await turns(2)
            other.close()


async def limits(log, loop):
    one, other = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
    for value in [*VALUES, 10**400, fractions.Fraction(10**400)]:
        for options in ({"high": value}, {"low": value}, {"high": value, "low": value}):
            log.call("limits", lambda: transport.set_write_buffer_limits(**options))
            log(transport.get_write_buffer_limits())
            transport.set_write_buffer_limits()
    transport.abort()
    await turns(2)
    other.close()


async def buffers(log, loop, give, updated):
    class Tells(asyncio.BufferedProtocol):
        def get_buffer(self, n):
            return give

        def buffer_updated(self, n):
            log("updated", n)
            return updated

        def connection_lost(self, exc):
            log("lost", exc and shown_error(exc))

    one, other = socket.socketpair()
    transport, _ = await loop.create_connection(Tells, sock=one)
    other.send(b"hello")
    await asyncio.sleep(0.002)
    log(transport.is_closing())
    transport.abort()
    await turns(2)
    other.close()


@pytest.mark.parametrize("program", [times, sizes, signals, read_sizes, limits, names])
def test_numbers(program):
    same(program)


def test_ports_and_backlogs():
    same(ports_and_backlogs)


def test_parts_of_files():
    same(parts_of_files)


@pytest.mark.parametrize(
    "family, values",
    [(socket.AF_INET, ADDRESSES), (socket.AF_INET6, ADDRESSES_6), (socket.AF_UNIX, PATHS)],
)
def test_addresses(family, values):
    same(addresses, family, values)


@pytest.mark.parametrize("host, values", [("127.0.0.1", ADDRESSES), ("::1", ADDRESSES_6)])
def test_addresses_of_datagrams(host, values):
    same(sent_datagrams, host, values)


@pytest.mark.parametrize(
    "give",
    [*VALUES, bytearray(), bytearray(10), b"abc", memoryview(bytearray(10))[::2]],
    ids=plain_repr,
)
def test_buffer_of_a_protocol(give):
    same(buffers, give, None)


def test_slow_callback_duration(loop):
    for value in (0, 1, True, 0.5, fractions.Fraction(1, 2), 1 << 100, float("inf")):
        loop.slow_callback_duration = value
        assert loop.slow_callback_duration is value or loop.slow_callback_duration == value
        assert type(loop.slow_callback_duration) is type(value)


class Limit:
    """Nobody asks for its number before there is a time to compare."""

    def __init__(self):
        self.compared = 0

    def __float__(self):
        raise KeyboardInterrupt

    def __le__(self, seconds):
        self.compared += 1
        return False


def test_slow_callback_duration_that_is_no_number(loop):
    loop.slow_callback_duration = limit = Limit()
    spin(loop)
    assert limit.compared == 0
    loop.set_debug(True)
    spin(loop)
    assert limit.compared > 0


def test_slow_callback_duration_that_no_float_can_hold(loop):
    loop.set_debug(True)
    for value in (10**400, -(10**400)):
        loop.slow_callback_duration = value
        assert loop.slow_callback_duration == value
