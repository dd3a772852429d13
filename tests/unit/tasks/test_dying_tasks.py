"""Tasks that die pending are no Tasks any more, whichever way they die."""

import asyncio
import functools
import gc
import weakref

import pytest


async def wait_for_ever(future):
    await future


@pytest.mark.parametrize("circle", [False, True], ids=["dropped", "collected"])
def test_nothing_leads_to_them(loop, asyncio_log, circle):
    async def main():
        futures = [loop.create_future() for _ in range(20)]
        tasks = [loop.create_task(wait_for_ever(future)) for future in futures]
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 21
        dead = [weakref.ref(task) for task in tasks]
        if circle:
            for future, task in zip(futures, tasks, strict=True):
                future.add_done_callback(functools.partial(print, task))
            del future, task
        del futures, tasks
        gc.collect()
        assert [task() for task in dead] == [None] * 20
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # What is made of their memory is in the list of all Tasks, too.
        young = [loop.create_task(asyncio.sleep(0)) for _ in range(40)]
        assert asyncio.all_tasks() == {asyncio.current_task(), *young}
        for task in young[::2]:
            task.cancel()
        await asyncio.gather(*young, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.run_until_complete(main())
    assert "Task was destroyed but it is pending!" in "".join(asyncio_log.take())
