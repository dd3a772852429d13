"""libev without memory: it would end the process; a loop has a reserve for it, or refuses."""

import asyncio
import random
import socket

import pytest

from tests.support import check_script

pytestmark = pytest.mark.skipif(
    not __import__("sys").platform.startswith(("linux", "darwin")), reason="no size of a block"
)


@pytest.fixture
def memory(impl):
    """memory(system, blocks): whether libev gets memory of the system, and its reserve."""
    if not impl.ours:
        pytest.skip("the standard loop has no libev")
    from asyncloop import _core

    yield _core._libev_memory
    _core._libev_memory(True, True)


@pytest.fixture
def pairs():
    made = []

    def make(count):
        for _ in range(count):
            one, other = socket.socketpair()
            made.extend((one, other))
            yield one, other

    yield make
    for sock in made:
        sock.close()


@pytest.mark.our_loop("asyncio has no libev")
def test_everything_from_the_reserve(impl, memory, pairs, size):
    """The system refuses from the first loop on: it works, whatever grows when."""
    memory(False, True)
    loop = impl.new_event_loop()

    async def main():
        got = []
        count = size(300, 450)
        for one, other in pairs(count):
            loop.add_reader(one, lambda one=one: got.append(one.recv(10)))
            loop.add_writer(other, int)
            other.send(b"x")
        while len(got) < count:
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)

    loop.run_until_complete(main())
    loop.close()


@pytest.mark.our_loop("asyncio has no libev")
def test_refused_without_a_reserve(impl, memory, pairs):
    loop = impl.new_event_loop()

    async def main():
        before = list(pairs(15))
        for one, _ in before:
            loop.add_reader(one, int)
        memory(False, False)
        watched, refused = before, 0
        for one, other in pairs(200):
            try:
                loop.add_reader(one, int)
            except MemoryError:
                refused += 1
                assert loop.remove_reader(one) is False
        assert refused == 200 and len(watched) == 15
        # What is there goes on, all at once.
        got = []
        for one, other in watched:
            loop.add_reader(one, lambda one=one: got.append(one.recv(10)))
            other.send(b"x")
        while len(got) < len(watched):
            await asyncio.sleep(0)
        with pytest.raises(MemoryError):
            for one, other in pairs(200):
                loop.add_reader(one, int)
        memory(True, True)
        for one, other in pairs(50):
            loop.add_reader(one, lambda one=one: got.append(one.recv(10)))
            other.send(b"y")
        while got.count(b"y") < 50:
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.close()


@pytest.mark.our_loop("asyncio has no libev")
def test_no_loop_without_a_reserve(impl, memory):
    memory(False, False)
    with pytest.raises(MemoryError):
        impl.new_event_loop()
    memory(True, True)
    impl.new_event_loop().close()


@pytest.mark.our_loop("asyncio has no libev")
def test_connections_come_and_go_without_memory(impl, memory, size):
    """At random: the system, the reserve, both, none."""
    chance = random.Random(3)
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)

    async def serve(reader, writer):
        try:
            writer.write(await reader.readline())
            await writer.drain()
        except (OSError, MemoryError):
            pass
        finally:
            writer.close()

    async def client(address):
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"hello\n")
                assert await reader.readline() in (b"hello\n", b"")
                writer.close()
        except (OSError, MemoryError, TimeoutError):
            pass

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=500)
        address = server.sockets[0].getsockname()
        for _ in range(size(10, 100)):
            memory(chance.random() < 0.3, chance.random() < 0.5)
            await asyncio.gather(*(client(address) for _ in range(chance.randrange(1, 60))))
        memory(True, True)
        await client(address)
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    loop.close()


def test_forked_child_without_memory(impl):
    check_script(
        impl,
        """
if LOOP == "asyncloop":
    from asyncloop import _core
    _core._libev_memory(False, True)
loop = new_event_loop()
one, other = socket.socketpair()
loop.add_reader(one, loop.stop)
loop.call_soon(loop.stop)
loop.run_forever()
pid = os.fork()
if pid == 0:
    loop = new_event_loop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
other.send(b"x")
loop.run_forever()
loop.remove_reader(one)
loop.close()
print("ok")
""",
        "ok",
        flags=("-W", "ignore"),
    )
