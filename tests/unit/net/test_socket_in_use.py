"""A socket that has a transport, and is given away once more."""

import asyncio
import socket
import sys

import pytest

from tests.compare import same
from tests.support import turns, until
from tests.transports import Tells, datagrams, stream

# asyncio does not look on 3.11, and closes the socket of a connection from 3.14 on.
REFUSES = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio takes it")


async def again(log, loop, transport, how):
    sock = transport.get_extra_info("socket")._sock
    try:
        if how == "connection":
            await loop.create_connection(asyncio.Protocol, sock=sock)
        elif how == "accepted":
            await loop.connect_accepted_socket(asyncio.Protocol, sock)
        else:
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
    except RuntimeError as exc:
        log("refused", "is used by transport" in str(exc))


@REFUSES
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("how", ["connection", "accepted"])
def test_the_first_transport_of_a_connection(how, paused):
    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        if paused:
            transport.pause_reading()
        await again(log, loop, transport, how)
        if sys.version_info < (3, 14):
            transport.write(b"goes on")
            log(other.recv(100))
            other.send(b"both ways")
            if paused:
                transport.resume_reading()
            await until(lambda: "data b'both ways'" in log.lines)
        transport.abort()
        await turns(3)
        other.close()

    same(program)


@REFUSES
def test_the_first_transport_of_datagrams():
    async def program(log, loop):
        transport, _, other = await datagrams(log, loop)
        await again(log, loop, transport, "datagrams")
        transport.sendto(b"goes on")
        other.setblocking(True)
        other.settimeout(20)
        log(other.recv(100))
        other.sendto(b"both ways", transport.get_extra_info("sockname"))
        await until(lambda: "datagram b'both ways'" in log.lines)
        transport.close()
        await turns(3)
        other.close()

    same(program)


def test_connection_goes_on_where_it_is_refused(loop, run, impl):
    """On 3.11, where asyncio makes two transports, ours refuses, and leaves the first alone."""
    if not impl.ours or sys.version_info >= (3, 14):
        pytest.skip("asyncio takes it, or closes the socket")
    log = []

    async def program():
        near, far = socket.socketpair()
        transport, _ = await loop.create_connection(
            lambda: Tells(lambda *items: log.append(items)), sock=near
        )
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.create_connection(asyncio.Protocol, sock=near)
        far.send(b"goes on")
        await until(lambda: ("data", b"goes on") in log)
        transport.close()
        await turns(3)
        far.close()

    run(program())
