"""Numbers that come from outside: each is what asyncio takes, or asyncio's exception."""

import asyncio
import os
import resource
import socket

import pytest

from .compare import same
from .support import plain_repr, spin


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
