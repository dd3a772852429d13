"""writelines() where write() is replaced: up to 3.11 asyncio joins the pieces and calls it."""

import asyncio
import socket

import pytest


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_pieces_of_any_kind(loop, kind):
    async def main():
        one, peer = socket.socketpair()
        with peer:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
            write = type(transport).write
            transport.write = lambda data: write(transport, data)
            transport.writelines(kind([b"one", b"two"]))
            assert peer.recv(100) == b"onetwo"
            transport.close()
            await asyncio.sleep(0.01)

    loop.run_until_complete(main())
