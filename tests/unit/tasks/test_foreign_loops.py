"""Futures and tasks of a loop that another thread runs: asyncio's error, at once, never a hang."""

import asyncio
import gc
import threading

import pytest

from tests.support import PY

DIFFERENT_LOOP = "attached to a different loop"


@pytest.fixture
def elsewhere(impl, loop_factory):
    """A loop that another thread runs."""
    loop = loop_factory()
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started.wait()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def in_loop(loop, function):
    """What the function returns when the loop's thread calls it."""

    async def call():
        return function()

    return asyncio.run_coroutine_threadsafe(call(), loop).result()


async def refused(awaitable):
    with pytest.raises(RuntimeError, match=DIFFERENT_LOOP):
        await awaitable


def test_future_of_a_running_loop_is_awaited_here(impl, run, elsewhere):
    future = in_loop(elsewhere, elsewhere.create_future)

    async def main():
        await refused(future)
        with pytest.raises((RuntimeError, ValueError), match="loop"):
            asyncio.gather(future, asyncio.get_running_loop().create_future())
        # Nothing of it is left: the future has nobody to wake.
        in_loop(elsewhere, lambda: future.set_result(1))

    run(main())
    assert future.result() == 1


def test_task_of_a_running_loop_is_awaited_here(impl, run, elsewhere):
    async def sleep():
        await asyncio.sleep(3600)

    task = in_loop(elsewhere, lambda: elsewhere.create_task(sleep()))

    async def main():
        await asyncio.create_task(refused(task))

    run(main())

    async def end():
        task.cancel()
        await asyncio.wait([task])

    asyncio.run_coroutine_threadsafe(end(), elsewhere).result()
    assert task.cancelled()


@pytest.mark.skipif(PY < (3, 12), reason="eager tasks came in 3.12")
def test_eager_task_of_a_loop_that_runs_elsewhere(impl, run, elsewhere, asyncio_log):
    """Its first step would be made in the wrong thread."""
    if not impl.ours and PY < (3, 14):
        pytest.skip("makes the step")
    stepped = []

    async def step():
        stepped.append(threading.get_ident())

    async def main():
        coroutine = step()
        with pytest.raises(RuntimeError, match="loop"):
            impl.Task(coroutine, loop=elsewhere, eager_start=True)
        coroutine.close()

    run(main())
    assert not stepped
    gc.collect()
    if PY >= (3, 14):
        (told,) = asyncio_log.take()
        assert told.startswith("Task was destroyed but it is pending!")
