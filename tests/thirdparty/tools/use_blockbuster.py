"""blockbuster finds a blocking call in a coroutine."""

import asyncio
import time

from blockbuster import BlockingError, blockbuster_ctx
from looped import run


async def main():
    with blockbuster_ctx():
        await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        try:
            time.sleep(0.01)
        except BlockingError:
            return
    raise AssertionError("not found")


async def echo(reader, writer):
    writer.write(await reader.read(1))
    writer.close()


async def both():
    global server
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    await main()
    server.close()


run(both())
print("works")
