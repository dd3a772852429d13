"""writelines() with pieces that are empty, or false: asyncio's answer on each version."""

import socket
import sys

import pytest

from tests.compare import same
from tests.support import turns
from tests.transports import stream

pytestmark = pytest.mark.skipif(
    (3, 15) <= sys.version_info < (3, 15, 0, "final"),
    reason="the release candidates of 3.15 do not leave out false pieces yet",
)


class Quiet(bytes):
    def __bool__(self):
        return False


class Torn(bytes):
    def __bool__(self):
        raise ZeroDivisionError


PIECES = {
    "nothing": None,
    "no text": "",
    "zero": 0,
    "empty list": [],
    "empty bytearray": bytearray(),
    "empty view": memoryview(b""),
    "false": Quiet(b"false"),
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "behind others"])
def test_pieces_that_are_false(piece, waits):
    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        if waits:
            transport.write(bytes(1 << 20))
        log.call("writelines", transport.writelines, [b"A", PIECES[piece], b"Z"])
        log.call("writelines", transport.writelines, [PIECES[piece]])
        if not waits:
            try:
                log(other.recv(100, socket.MSG_DONTWAIT))
            except BlockingIOError:
                log("nothing came")
        transport.abort()
        await turns(3)
        other.close()

    same(program)


def test_piece_that_has_no_truth():
    """What was before it is not sent: what asyncio does with that later differs by version."""

    async def program(log, loop):
        transport, _, other = await stream(log, loop)
        log.call("writelines", transport.writelines, [Torn(b"torn")])
        transport.abort()
        await turns(3)
        other.close()

    same(program)
