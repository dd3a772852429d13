"""The websockets package: server and client, broadcast, keep-alive, closing, TLS, Unix sockets."""

import asyncio
import contextlib

import pytest
import websockets
from websockets.asyncio.client import connect, unix_connect
from websockets.asyncio.server import broadcast, serve, unix_serve


async def echo(connection):
    async for message in connection:
        if message == "close":
            await connection.close(4000, "as you wish")
        elif message == "fail":
            raise RuntimeError("on purpose")
        else:
            await connection.send(message)


def address(server, scheme="ws"):
    return f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"


async def talk(connection):
    for message in ("text", b"\0binary\xff", "é" * 100_000, b"z" * 900_000, ""):
        await connection.send(message)
        assert await connection.recv() == message
    await connection.send(["in ", "three ", "pieces"])
    assert await connection.recv() == "in three pieces"
    assert (await (await connection.ping())) >= 0
    for n in range(200):
        await connection.send(str(n))
    assert [await connection.recv() for _ in range(200)] == [str(n) for n in range(200)]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_echo(run, compression):
    async def main():
        async with serve(echo, "127.0.0.1", 0, compression=compression) as server:
            async with connect(address(server), compression=compression, proxy=None) as one:
                await talk(one)
                await one.send("close")
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await one.recv()
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "as you wish")

    run(main())


def test_tls_and_unix(run, tls, tmp_path):
    async def main():
        async with serve(echo, "127.0.0.1", 0, ssl=tls.server) as server:
            async with connect(address(server, "wss"), ssl=tls.client, proxy=None) as one:
                await talk(one)
            with pytest.raises(OSError):
                await connect(address(server, "wss"), proxy=None)
        path = str(tmp_path / "socket")
        async with unix_serve(echo, path):
            async with unix_connect(path) as one:
                await talk(one)

    run(main())


def test_broadcast_and_concurrency(run):
    async def main():
        connected = set()
        everyone = asyncio.Event()

        async def member(connection):
            connected.add(connection)
            if len(connected) == 50:
                everyone.set()
            await connection.wait_closed()

        async with serve(member, "127.0.0.1", 0) as server:
            async with contextlib.AsyncExitStack() as stack:
                clients = [connect(address(server), proxy=None) for _ in range(50)]
                members = await asyncio.gather(*map(stack.enter_async_context, clients))
                await everyone.wait()
                broadcast(connected, "to all of you")
                heard = await asyncio.gather(*(one.recv() for one in members))
                assert heard == ["to all of you"] * 50

    run(main())


def test_back_pressure(run):
    """A reader that is slow holds up the writer, and nothing is lost."""

    async def main():
        async def flood(connection):
            for n in range(300):
                await connection.send(b"%d " % n + b"x" * 20_000)

        async with serve(flood, "127.0.0.1", 0, compression=None) as server:
            async with connect(
                address(server), proxy=None, max_queue=(4, 1), compression=None
            ) as one:
                await asyncio.sleep(0.05)
                got = [message async for message in one]
                assert [int(m.split()[0]) for m in got] == list(range(300))

    run(main())


def test_lost_peers(run, caplog):
    async def main():
        async with serve(echo, "127.0.0.1", 0, ping_interval=0.02, ping_timeout=0.05) as server:
            # A handler that raises closes with 1011; the server goes on.
            async with connect(address(server), proxy=None) as one:
                await one.send("fail")
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await one.recv()
                assert closed.value.rcvd.code == 1011
            # One that goes away without a word.
            one = await connect(address(server), proxy=None)
            one.transport.abort()
            await one.wait_closed()
            # One that is not heard of any more: pings time out on the server's side.
            one = await connect(address(server), proxy=None, ping_interval=None)
            one.transport.pause_reading()
            while server.connections:
                await asyncio.sleep(0.005)
            one.transport.resume_reading()
            await one.wait_closed()

            # Not a WebSocket at all.
            reader, writer = await asyncio.open_connection("127.0.0.1", address(server)[-5:])
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 426")
            writer.close()
            await writer.wait_closed()

            # Closing the server closes its connections with 1001.
            one = await connect(address(server), proxy=None)
            server.close()
            with pytest.raises(websockets.ConnectionClosedOK) as closed:
                await one.recv()
            assert closed.value.rcvd.code == 1001
            await one.wait_closed()

    run(main())


def test_reconnect(run):
    async def main():
        served = []

        async def once(connection):
            served.append(1)
            await connection.send(str(len(served)))

        async with serve(once, "127.0.0.1", 0) as server:
            seen = []
            async for connection in connect(address(server), proxy=None):
                seen.append(await connection.recv())
                await connection.close()
                if len(seen) == 3:
                    break
            assert seen == ["1", "2", "3"]

    run(main())
