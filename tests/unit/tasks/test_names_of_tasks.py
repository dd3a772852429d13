"""A Task without a name is called as on asyncio, which has Tasks that asyncloop does without."""

import asyncio
import sys

import pytest

from tests.compare import same


def number():
    """That of the next Task, which is taken."""
    task = asyncio.ensure_future(asyncio.sleep(0))
    return int(task.get_name().removeprefix("Task-"))


async def connections(log, loop):
    async def serve(reader, writer):
        log("served by", int(asyncio.current_task().get_name().removeprefix("Task-")) - first)
        writer.close()

    first = number()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    for _ in range(3):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        await writer.wait_closed()
        log("then", number() - first)
    server.close()


async def child(log, loop):
    first = number()
    for pipes in ({}, {"stdin": -1, "stdout": -1}, {"stderr": -1}):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", **pipes)
        log("then", number() - first)
        await process.communicate()
        log("then", number() - first)


async def other(log, loop):
    first = number()
    await asyncio.to_thread(int)
    await asyncio.wait_for(asyncio.sleep(0), 10)
    log("then", number() - first)
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    transport.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", 1, happy_eyeballs_delay=10)
    log("then", number() - first)


@pytest.mark.parametrize("program", [connections, child, other])
def test_numbers(program):
    same(program)
