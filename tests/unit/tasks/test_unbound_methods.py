"""asyncio.Task.cancel(task): methods taken from asyncio's types, given any future or task."""

import asyncio
import sys

import pytest


async def forever():
    await asyncio.get_running_loop().create_future()


def test_all_tasks_are_cancelled(run, loop, impl):
    async def main():
        class OwnTask(impl.Task):
            pass

        tasks = [loop.create_task(forever()) for _ in range(3)]
        tasks += [impl.Task(forever(), loop=loop), OwnTask(forever(), loop=loop)]
        await asyncio.sleep(0)
        assert list(map(asyncio.Task.cancel, tasks)) == [True] * 5
        assert not any(map(asyncio.Task.done, tasks))
        assert list(map(asyncio.Task.cancelling, tasks)) == [1] * 5
        await asyncio.wait(tasks)
        assert all(map(asyncio.Task.done, tasks)) and all(map(asyncio.Task.cancelled, tasks))
        assert all(map(asyncio.Future.done, tasks)) and all(map(asyncio.Future.cancelled, tasks))
        assert list(map(asyncio.Task.cancel, tasks)) == [False] * 5

    run(main())


def test_methods_of_task(run, loop):
    async def main():
        coroutine = forever()
        task = loop.create_task(coroutine, name="first")
        assert asyncio.Task.get_name(task) == "first"
        asyncio.Task.set_name(task, "second")
        assert task.get_name() == "second"
        assert asyncio.Task.get_coro(task) is coroutine
        assert asyncio.Task.get_loop(task) is loop
        if sys.version_info >= (3, 12):
            assert asyncio.Task.get_context(task) is task.get_context()
        await asyncio.sleep(0)
        assert len(asyncio.Task.get_stack(task)) == 1
        task.cancel()
        assert asyncio.Task.uncancel(task) == 0
        task.cancel("reason")
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.CancelledError):
            asyncio.Task.result(task)

        task = loop.create_task(asyncio.sleep(0, 5))
        await task
        assert asyncio.Task.result(task) == 5 and asyncio.Task.exception(task) is None
        assert asyncio.Future.result(task) == 5

    run(main())


def test_methods_of_future(run, loop, impl):
    async def main():
        told = []
        for make in loop.create_future, lambda: impl.Future(loop=loop), asyncio.Future:
            future = make()
            assert not asyncio.Future.done(future) and not asyncio.Future.cancelled(future)
            assert asyncio.Future.get_loop(future) is loop
            for method in asyncio.Future.result, asyncio.Future.exception:
                with pytest.raises(asyncio.InvalidStateError):
                    method(future)
            asyncio.Future.add_done_callback(future, told.append)
            asyncio.Future.add_done_callback(future, print, context=None)
            assert asyncio.Future.remove_done_callback(future, print) == 1
            loop.call_soon(asyncio.Future.set_result, future, 7)
            assert await future == 7 and future.result() == 7
            assert asyncio.Future.result(future) == 7
            assert told.pop() is future

            future = make()
            asyncio.Future.set_exception(future, KeyError(3))
            assert asyncio.Future.exception(future).args == (3,)
            with pytest.raises(KeyError):
                asyncio.Future.result(future)

            future = make()
            assert asyncio.Future.cancel(future, msg="why")
            assert future.cancelled() and not asyncio.Future.cancel(future)
            with pytest.raises(asyncio.CancelledError, match="why"):
                await future

    run(main())


def test_wrong_arguments(loop):
    future = loop.create_future()
    for call in (
        lambda: asyncio.Future.set_result(future),
        lambda: asyncio.Future.set_result(future, 1, 2),
        lambda: asyncio.Future.cancel(future, 1, 2, 3),
        lambda: asyncio.Future.add_done_callback(future),
        lambda: asyncio.Future.add_done_callback(future, print, None, None, None),
        lambda: asyncio.Future.done(future, 1),
        lambda: asyncio.Future.done(3),
        lambda: asyncio.Task.cancel(future),
        lambda: asyncio.Task.get_coro(future),
    ):
        with pytest.raises(TypeError):
            call()
    assert not future.done()
