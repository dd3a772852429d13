"""Transports of what has the number of no open descriptor: a double of a socket, mostly."""

import asyncio
import socket

import pytest


class Double:
    """As tests put in the place of a socket."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, 0

    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number

    def setblocking(self, flag):
        pass

    def gettimeout(self):
        return 0

    def getsockname(self):
        return ("here", 1)

    def getpeername(self):
        raise OSError

    def send(self, data):
        raise BrokenPipeError

    def recv(self, size):
        raise BlockingIOError

    def detach(self):
        return self.number

    def close(self):
        pass


def unused(low):
    """A number from `low` on that is no descriptor."""
    number = low
    while True:
        try:
            socket.socket(fileno=number).detach()
        except OSError as error:
            if error.errno == 9:
                return number
        number += 1


@pytest.mark.parametrize("low", [20, 12345, 60_000])
def test_the_transport_is_made(loop, run, asyncio_log, low):
    """That the number cannot be watched is told later, as by asyncio: by a report, or the end."""
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        number = unused(low)
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=Double(number))
        assert transport.get_extra_info("peername") is None
        assert transport.get_protocol() is protocol
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_reader(number, print)
        assert not loop.remove_reader(number)

    run(main())
