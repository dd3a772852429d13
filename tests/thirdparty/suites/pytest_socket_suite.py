"""Run in a child process with pytest-socket's plugin: what it forbids is forbidden to the loop."""

import asyncio
import os
import socket

import pytest
import pytest_socket

EXPECTED = os.environ["EXPECTED_LOOP"]
NOWHERE = "192.0.2.1"  # for documentation


async def through_streams():
    await asyncio.wait_for(asyncio.open_connection(NOWHERE, 80), 1)


async def through_a_transport():
    loop = asyncio.get_running_loop()
    await asyncio.wait_for(loop.create_connection(asyncio.Protocol, NOWHERE, 80), 1)


async def through_a_socket():
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.wait_for(loop.sock_connect(sock, (NOWHERE, 80)), 1)


async def through_datagrams():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(NOWHERE, 80))


WAYS = [through_streams, through_a_transport, through_a_socket, through_datagrams]


def checked(way):
    async def main():
        loop = type(asyncio.get_running_loop())
        assert f"{loop.__module__}.{loop.__qualname__}" == EXPECTED
        await way()

    return main()


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("way", WAYS)
def test_host(way):
    with pytest.raises(pytest_socket.SocketConnectBlockedError, match=NOWHERE):
        asyncio.run(checked(way))


@pytest.mark.parametrize("way", WAYS)
def test_every_socket(way, socket_enabled):
    async def main():
        pytest_socket.disable_socket(allow_unix_socket=True)
        try:
            await way()
        finally:
            pytest_socket.enable_socket()

    with pytest.raises(pytest_socket.SocketBlockedError):
        asyncio.run(checked(main))


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_what_is_allowed():
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"text\n")
        assert await reader.read() == b"text\n"
        writer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
