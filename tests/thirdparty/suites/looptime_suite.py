"""Run in a child process with looptime's plugin: the loop's clock jumps to the next deadline."""

import asyncio
import os
import time

import looptime
import pytest

EXPECTED = os.environ["EXPECTED_LOOP"]


def test_loop_patched_by_hand():
    loop = looptime.patch_event_loop(asyncio.new_event_loop(), start=10, _enabled=True)
    assert any(f"{kind.__module__}.{kind.__qualname__}" == EXPECTED for kind in type(loop).__mro__)

    async def main():
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return loop.time()

    started = time.monotonic()
    assert loop.run_until_complete(main()) == 3670
    assert time.monotonic() - started < 30
    loop.close()


@pytest.mark.asyncio
@pytest.mark.looptime(start=100)
async def test_sleep(looptime):
    loop = asyncio.get_running_loop()
    assert any(f"{kind.__module__}.{kind.__qualname__}" == EXPECTED for kind in type(loop).__mro__)
    assert looptime == 100
    await asyncio.sleep(1000)
    assert looptime == 1100
    told = []
    for delay in (30, 10, 20):
        loop.call_later(delay, told.append, delay)
    await asyncio.sleep(40)
    assert told == [10, 20, 30]
    assert looptime == 1140


@pytest.mark.asyncio
@pytest.mark.looptime(start=0)
async def test_io_goes_on(looptime):
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"text\n")
    assert await reader.read() == b"text\n"
    writer.close()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(5)
    assert looptime >= 5


@pytest.mark.asyncio
@pytest.mark.looptime(start=0, end=10)
async def test_end_of_time():
    with pytest.raises(looptime.LoopTimeoutError):
        await asyncio.sleep(1000)
