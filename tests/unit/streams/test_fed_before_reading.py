"""A reader that a program changes before anybody has read from it."""

import asyncio


def test_own_feed_data_is_called(run):
    """A reader's feed_data() that was put there before its first read() is called."""
    log = []

    async def main():
        handed = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda *pair: handed.set_result(pair), "127.0.0.1", 0
        )
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        reader, writer = await handed
        feed = reader.feed_data
        reader.feed_data = lambda data: (log.append(bytes(data)), feed(data))
        client.write(b"first")
        assert await reader.readexactly(5) == b"first"
        client.close()
        writer.close()
        server.close()

    run(main())
    assert log == [b"first"]
