"""Names of sockets: which forms those of other families have, and when one is asked for."""

import asyncio
import socket
import struct

import pytest

from tests.support import until


class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.senders = []

    def datagram_received(self, data, address):
        self.senders.append(address)


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="a family of Linux")
def test_sender_of_a_family_that_has_its_own_addresses(run, loop):
    list_links = struct.pack("=IHHIIBBHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0, 0)

    async def main():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM)
        transport, protocol = await loop.create_datagram_endpoint(Receiver, sock=sock)
        transport.sendto(list_links, (0, 0))
        await until(lambda: protocol.senders)
        assert set(protocol.senders) == {(0, 0)}
        transport.close()

    run(main())


@pytest.mark.parametrize("closed", [False, True])
def test_own_name_is_that_before_the_first_datagram(run, loop, closed):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            transport, _ = await loop.create_datagram_endpoint(Receiver, family=socket.AF_INET)
            transport.sendto(b"x", peer.getsockname())  # binds it
            if closed:
                transport.close()
                await until(lambda: transport.get_extra_info("socket").fileno() < 0)
            assert transport.get_extra_info("sockname") == ("0.0.0.0", 0)
            transport.close()

    run(main())


def test_own_name_is_that_before_connect(run, loop):
    async def main():
        with (
            socket.socket(type=socket.SOCK_DGRAM) as peer,
            socket.socket(type=socket.SOCK_DGRAM) as sock,
        ):
            peer.bind(("127.0.0.1", 0))
            transport, _ = await loop.create_datagram_endpoint(Receiver, sock=sock)
            sock.connect(peer.getsockname())
            assert transport.get_extra_info("sockname") == ("0.0.0.0", 0)
            assert transport.get_extra_info("peername") is None
            transport.close()

    run(main())


def test_own_name_is_that_before_bind(run, loop, tmp_path):
    async def main():
        near, far = socket.socketpair()
        with far:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            near.bind(str(tmp_path / "name"))
            assert transport.get_extra_info("sockname") in ("", None)
            transport.close()

    run(main())
