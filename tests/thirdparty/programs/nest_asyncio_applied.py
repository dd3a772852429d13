"""nest_asyncio, which many libraries apply at import: applied, and nothing nested."""

import nest_asyncio

loop = new_event_loop()
asyncio.set_event_loop(loop)
nest_asyncio.apply()


async def work():
    await asyncio.sleep(0.001)
    return await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3)))


async def serve(reader, writer):
    writer.write(await reader.readline())
    writer.close()


async def talk():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\n")
    assert await reader.read() == b"line\n"
    writer.close()
    server.close()
    await server.wait_closed()


assert loop.run_until_complete(work()) == [0, 1, 2]
loop.run_until_complete(talk())
other = new_event_loop()
assert other.run_until_complete(work()) == [0, 1, 2]
assert asyncio.run(work()) == [0, 1, 2]
other.close()
loop.close()
