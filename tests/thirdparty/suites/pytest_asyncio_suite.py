"""Run by pytest-asyncio in a child process: scopes, fixtures, failures, on the loop under test.

The folder's conftest.py may name the loop; else it is the default of the process.
"""

import asyncio
import os

import pytest
import pytest_asyncio

EXPECTED = os.environ["EXPECTED_LOOP"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server():
    async def echo(reader, writer):
        async for line in reader:
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()


@pytest_asyncio.fixture
async def resource():
    await asyncio.sleep(0)
    held = asyncio.Event()
    yield held
    assert held.is_set()


@pytest.mark.asyncio
async def test_kind_of_loop(resource):
    loop = type(asyncio.get_running_loop())
    assert f"{loop.__module__}.{loop.__qualname__}" == EXPECTED
    resource.set()


loops = []


@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(3))
async def test_a_loop_for_each_test(number, resource):
    loops.append(asyncio.get_running_loop())
    assert len(set(map(id, loops))) == number + 1
    assert all(loop.is_closed() for loop in loops[:-1])
    resource.set()


@pytest.mark.asyncio(loop_scope="module")
class TestModuleLoop:
    seen = set()

    async def test_first(self, server):
        self.seen.add(asyncio.get_running_loop())
        reader, writer = await asyncio.open_connection(*server)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()

    async def test_second(self, server):
        self.seen.add(asyncio.get_running_loop())
        assert len(self.seen) == 1

    async def test_leaves_a_task(self):
        # Cancelled by the runner at the end of the module.
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))


@pytest.mark.asyncio
@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
async def test_failure():
    await asyncio.gather(asyncio.sleep(0), fails())


async def fails():
    raise ZeroDivisionError


@pytest.mark.asyncio
async def test_timeout_and_subprocess():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"hi\n"
