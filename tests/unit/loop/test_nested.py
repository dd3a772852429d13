"""`asyncloop.allow_nested()`: a loop that is run inside of a run.

The standard loop refuses that, so the tests are about asyncloop alone.
"""

import asyncio
import contextvars
import gc
import os
import sys
import threading

import pytest

import asyncloop

pytestmark = pytest.mark.our_loop("asyncio refuses to run a loop inside of a run")


@pytest.fixture(autouse=True)
def nesting():
    asyncloop.allow_nested()
    yield
    asyncloop.allow_nested(False)


async def deep(loop, depth):
    await asyncio.sleep(0)
    me = asyncio.current_task()
    below = loop.run_until_complete(deep(loop, depth - 1)) if depth else 0
    assert asyncio.current_task() is me
    assert asyncio.get_running_loop() is loop
    await asyncio.sleep(0)
    return below + 1


def test_off_by_default(loop):
    asyncloop.allow_nested(False)

    async def main():
        coroutine = deep(loop, 0)
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(coroutine)
        coroutine.close()
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_forever()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_depth(loop):
    assert loop.run_until_complete(deep(loop, 50)) == 51


def test_no_growth(loop):
    def memory():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(5):
        loop.run_until_complete(deep(loop, 50))
    gc.collect()
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("memory is looked up in /proc")
    descriptors, before = len(os.listdir("/proc/self/fd")), memory()
    for _ in range(20):
        loop.run_until_complete(deep(loop, 50))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert memory() - before < 2 << 20


def test_everything_goes_on_inside(loop):
    """Timers, sockets, threads and other tasks, also what the outer run has begun."""

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def talk(address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"line\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        begun = asyncio.create_task(asyncio.sleep(0.001, "begun outside"))
        address = server.sockets[0].getsockname()
        assert loop.run_until_complete(talk(address)) == b"line\n"
        assert loop.run_until_complete(begun) == "begun outside"
        assert loop.run_until_complete(loop.run_in_executor(None, threading.get_ident))
        assert await talk(address) == b"line\n"
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_outer_is_done_first(loop):
    """A run ends after those inside of it, whatever becomes of what it waits for."""
    seen = []

    async def inner():
        loop.run_until_complete(asyncio.sleep(0.02))
        seen.append("inner")

    async def main():
        task = asyncio.create_task(inner())
        await asyncio.sleep(0.001)
        seen.append("main")
        return task

    task = loop.run_until_complete(main())
    assert seen == ["main", "inner"]
    loop.run_until_complete(task)


def test_two_that_overlap(loop):
    async def wait(seconds):
        return loop.run_until_complete(asyncio.sleep(seconds, seconds))

    async def main():
        return await asyncio.gather(wait(0.02), wait(0.01), wait(0.005))

    assert loop.run_until_complete(main()) == [0.02, 0.01, 0.005]


def test_middle_is_done_first(loop):
    """Three runs, of which the middle one has nothing to wait for any more."""
    order = []

    async def main():
        middle = loop.create_future()

        async def innermost():
            loop.call_soon(middle.set_result, "middle")
            loop.run_until_complete(asyncio.sleep(0.01))
            order.append("innermost")

        task = asyncio.create_task(innermost())
        assert loop.run_until_complete(middle) == "middle"
        order.append("middle")
        await task

    loop.run_until_complete(main())
    assert order == ["innermost", "middle"]


def test_done_already(loop):
    async def main():
        future = loop.create_future()
        future.set_result(3)
        return loop.run_until_complete(future)

    assert loop.run_until_complete(main()) == 3


def test_exception(loop):
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("inside")

    async def main():
        with pytest.raises(KeyError, match="inside"):
            loop.run_until_complete(fail())
        return asyncio.current_task()

    assert isinstance(loop.run_until_complete(main()), asyncio.Task)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exception_that_leaves(loop, kind):
    async def fail():
        raise kind("inside")

    async def main():
        with pytest.raises(kind):
            loop.run_until_complete(fail())
        await asyncio.sleep(0)
        return "goes on"

    assert loop.run_until_complete(main()) == "goes on"


def test_cancelled_inside(loop):
    async def main():
        me = asyncio.current_task()
        loop.call_soon(me.cancel)
        loop.run_until_complete(asyncio.sleep(0.001))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(10)
        return "was cancelled"

    assert loop.run_until_complete(main()) == "was cancelled"


def test_stop_inside(loop):
    """stop() ends the inner run and the outer one, up to the next run_forever()."""

    async def main():
        loop.call_soon(loop.stop)
        future = loop.create_future()
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            loop.run_until_complete(future)
        future.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    task = loop.create_task(main())
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


def test_run_forever_inside(loop):
    async def main():
        seen = []
        loop.call_later(0.001, seen.append, "timer")
        loop.call_later(0.002, loop.stop)
        loop.run_forever()
        assert seen == ["timer"]
        await asyncio.sleep(0)
        return "goes on"

    assert loop.run_until_complete(main()) == "goes on"


def test_inside_of_a_callback(loop):
    seen = []

    def call():
        seen.append(loop.run_until_complete(asyncio.sleep(0.001, "inside")))
        assert asyncio.current_task(loop) is None

    async def main():
        loop.call_soon(call)
        loop.call_soon(seen.append, "ready as well")
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    assert seen == ["ready as well", "inside"]


def test_another_loop(loop):
    other = asyncloop.new_event_loop()

    async def in_other():
        assert asyncio.get_running_loop() is other
        return loop.run_until_complete(asyncio.sleep(0.001, "back"))

    async def main():
        me = asyncio.current_task()
        assert other.run_until_complete(asyncio.sleep(0.001, "other")) == "other"
        assert not other.is_running()
        assert other.run_until_complete(in_other()) == "back"
        assert asyncio.current_task() is me
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())
    other.close()


def test_inside_of_asyncios_loop():
    ours = asyncloop.new_event_loop()

    async def main():
        me = asyncio.current_task()
        assert ours.run_until_complete(asyncio.sleep(0, 5)) == 5
        assert asyncio.current_task() is me
        await asyncio.sleep(0)

    asyncio.run(main())
    ours.close()


def test_one_that_another_thread_runs(loop):
    """That is no nesting, and stays an error."""
    other = asyncloop.new_event_loop()
    runs = threading.Event()
    other.call_soon(runs.set)
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    runs.wait(10)

    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            other.run_forever()

    loop.run_until_complete(main())
    other.call_soon_threadsafe(other.stop)
    thread.join()
    other.close()


def test_entered_context(loop):
    """What has to run in a context that is entered further up waits for the inner run's end."""
    context = contextvars.copy_context()
    seen = []

    async def shares():
        seen.append("task")

    async def main():
        loop.call_soon(seen.append, "first", context=context)
        sharing = loop.create_task(shares(), context=context)
        loop.call_soon(seen.append, "last", context=context)
        loop.run_until_complete(asyncio.sleep(0.005))
        assert seen == []
        await sharing
        await asyncio.sleep(0)
        assert seen == ["first", "task", "last"]

    loop.run_until_complete(loop.create_task(main(), context=context))


def test_async_generators(loop):
    """The hooks of the outer run are there again."""
    closed = []

    async def numbers():
        try:
            yield 1
        finally:
            closed.append(1)

    async def main():
        hooks = sys.get_asyncgen_hooks()

        async def inner():
            async for _ in numbers():
                break
            gc.collect()
            await asyncio.sleep(0.001)

        loop.run_until_complete(inner())
        assert sys.get_asyncgen_hooks() == hooks
        assert closed == [1]

    loop.run_until_complete(main())


def test_debug_mode(loop):
    loop.set_debug(True)
    assert loop.run_until_complete(deep(loop, 3)) == 4
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_eager_tasks(loop):
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came in 3.12")

    async def child():
        return loop.run_until_complete(asyncio.sleep(0.001, 4))

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = loop.create_task(child())
        assert task.done()
        me = asyncio.current_task()
        assert await task == 4
        assert asyncio.current_task() is me

    loop.run_until_complete(main())


def test_stock_task(loop):
    """A Task of asyncio's own that runs the loop stays the current one."""

    async def main():
        me = asyncio.current_task()
        assert type(me) is asyncio.Task
        assert loop.run_until_complete(deep(loop, 2)) == 3
        assert asyncio.current_task() is me
        await asyncio.sleep(0)

    loop.run_until_complete(asyncio.Task(main(), loop=loop))


def test_turn_budget_inside(loop):
    loop.turn_budget = 1e-9
    assert loop.run_until_complete(deep(loop, 5)) == 6


def test_subclass_with_a_stop_of_its_own():
    class Own(asyncloop.Loop):
        def stop(self):
            super().stop()

    loop = Own()

    async def inner():
        loop.run_until_complete(asyncio.sleep(0.01))
        return "inner"

    async def main():
        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(main())
    assert task.done() and task.result() == "inner"
    loop.close()


@pytest.mark.parametrize("value", [None, 1, "yes", 0.5], ids=repr)
def test_bad_value(value):
    with pytest.raises(TypeError, match="True or False"):
        asyncloop.allow_nested(value)
