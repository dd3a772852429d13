"""Tasks that are held until they are done, those that are lost, and what is known of each.

asyncio has none of it, so these tests are about asyncloop alone, but for what is off by default.
"""

import asyncio
import gc
import math
import os
import sys
import weakref
from collections.abc import Coroutine

import pytest

import asyncloop
from tests.support import check_script

COUNT = 1000
OURS = pytest.mark.our_loop("only asyncloop holds tasks")


async def wait_for_nothing():
    """Waits for what only its own frame refers to."""
    await asyncio.get_running_loop().create_future()


async def finish():
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def named(tasks):
    return sorted(task.get_name() for task in tasks)


async def cancel_all():
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- strong tasks ------------------------------------------------------------------------


def test_off_by_default(impl, loop):
    """As on asyncio, the collector takes them, and each is reported."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))

    async def main():
        for _ in range(COUNT):
            asyncio.create_task(wait_for_nothing())
        await asyncio.sleep(0)
        gc.collect()
        return len(asyncio.all_tasks())

    assert loop.run_until_complete(main()) == 1
    assert reports == ["Task was destroyed but it is pending!"] * COUNT


@OURS
def test_none_is_lost(loop):
    loop.strong_tasks = True

    async def main():
        for _ in range(10 * COUNT):
            asyncio.create_task(wait_for_nothing())
        await asyncio.sleep(0)
        gc.collect()
        assert len(asyncio.all_tasks()) == 10 * COUNT + 1
        await cancel_all()

    loop.run_until_complete(main())


@OURS
def test_none_is_kept_after_its_end(loop):
    loop.strong_tasks = True

    async def fail():
        raise KeyError

    async def main():
        kinds = [finish, finish, fail, wait_for_nothing]
        tasks = [asyncio.create_task(kind()) for kind in kinds for _ in range(10)]
        seen = [weakref.ref(task) for task in tasks]
        await asyncio.sleep(0)
        for task in tasks[-10:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks, task
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in seen] == [None] * 40

    loop.run_until_complete(main())


@OURS
def test_kept_until_the_loop_is_closed(impl):
    loop = impl.new_event_loop()
    loop.strong_tasks = True
    task = loop.create_task(wait_for_nothing())
    seen = weakref.ref(task)
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert seen() is not None
    loop.close()
    del loop
    gc.collect()
    assert seen() is None


@OURS
def test_switched_off_again(loop):
    loop.strong_tasks = True
    assert loop.strong_tasks is True
    task = loop.create_task(wait_for_nothing())
    task._log_destroy_pending = False
    seen = weakref.ref(task)
    loop.run_until_complete(asyncio.sleep(0))
    del task
    loop.strong_tasks = False
    gc.collect()
    assert seen() is None


@OURS
def test_eager_tasks_are_held(loop):
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came in 3.12")
    loop.strong_tasks = True

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        for _ in range(10):
            asyncio.create_task(wait_for_nothing())
            done = asyncio.create_task(asyncio.sleep(0, 1))
            await done
        gc.collect()
        assert len(asyncio.all_tasks()) == 11
        await cancel_all()
        assert len(loop._task_records()) == 1  # of this one

    loop.run_until_complete(main())


@OURS
@pytest.mark.parametrize("value", [1, 0, None, "yes"], ids=repr)
def test_bad_switch(loop, value):
    for name in ("strong_tasks", "task_accounting"):
        with pytest.raises(TypeError, match=name):
            setattr(loop, name, value)
    if value is not None:
        with pytest.raises(TypeError, match="strong_tasks"):
            coroutine = finish()
            try:
                asyncloop.run(coroutine, strong_tasks=value)
            finally:
                coroutine.close()


@OURS
def test_run_with_strong_tasks(impl):
    async def main():
        return asyncio.get_running_loop().strong_tasks

    assert asyncloop.run(main(), strong_tasks=True) is True
    assert asyncloop.run(main(), strong_tasks=False) is False
    assert asyncloop.run(main()) is False


@OURS
@pytest.mark.parametrize("value, wanted", [("1", True), ("0", False), ("maybe", False)])
def test_environment(impl, value, wanted):
    done = check_script(
        impl,
        """
import asyncloop
async def main():
    return asyncio.get_running_loop().strong_tasks
print(asyncloop.run(main()))
""",
        str(wanted),
        env={**os.environ, "ASYNCLOOP_STRONG_TASKS": value},
    )
    assert ("ASYNCLOOP_STRONG_TASKS" in done.stderr) == (value == "maybe")


# -- lost tasks --------------------------------------------------------------------------


@pytest.fixture
def no_collection():
    """The collector would take them."""
    gc.disable()
    yield
    gc.enable()


@OURS
@pytest.mark.parametrize("strong", [False, True])
def test_lost_tasks(loop, strong, no_collection):
    loop.strong_tasks = strong

    async def wait_for(awaitable):
        return await awaitable

    class Service:
        def __init__(self):
            self.task = asyncio.create_task(self.run(), name="lost service")

        async def run(self):
            await asyncio.Event().wait()

    async def main():
        kept = loop.create_future()
        queue = asyncio.Queue()
        held = asyncio.create_task(wait_for_nothing(), name="kept by a variable")
        asyncio.create_task(asyncio.sleep(1000), name="kept by a timer")
        asyncio.create_task(wait_for(kept), name="kept by a future")
        asyncio.create_task(wait_for(queue.get()), name="kept by a queue")
        asyncio.create_task(wait_for(loop.run_in_executor(None, int)), name="done soon")
        asyncio.create_task(wait_for_nothing(), name="lost")
        asyncio.create_task(
            wait_for(asyncio.create_task(wait_for_nothing(), name="lost below")), name="lost above"
        )
        Service()
        await asyncio.sleep(0.05)
        wanted = ["lost", "lost above", "lost below", "lost service"]
        assert named(asyncloop.lost_tasks(0)) == wanted
        assert named(asyncloop.lost_tasks(0)) == wanted
        assert asyncloop.lost_tasks(3600) == []
        del held, queue
        kept.cancel()
        await asyncio.sleep(0)
        assert named(asyncloop.lost_tasks(0)) == ["kept by a queue", "kept by a variable", *wanted]
        await cancel_all()

    loop.run_until_complete(main())


@OURS
def test_age_of_lost_tasks(loop):
    async def main():
        loop.strong_tasks = True
        asyncio.create_task(wait_for_nothing(), name="old")
        await asyncio.sleep(0.05)
        asyncio.create_task(wait_for_nothing(), name="new")
        assert named(asyncloop.lost_tasks(0.05)) == ["old"]
        await cancel_all()

    loop.run_until_complete(main())


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True, 1j], ids=repr)
def test_bad_age(value):
    with pytest.raises(ValueError, match="older_than"):
        asyncloop.lost_tasks(value)


# -- census ------------------------------------------------------------------------------


def make_tasks(count):
    return [asyncio.create_task(wait_for_nothing()) for _ in range(count)]


@OURS
@pytest.mark.parametrize("how", ["strong_tasks", "task_accounting", "debug", None])
def test_census_of_tasks(loop, how):
    if how == "debug":
        loop.set_debug(True)
    elif how is not None:
        setattr(loop, how, True)

    async def main():
        tasks = make_tasks(7)
        more = asyncio.ensure_future(finish())
        found = asyncloop.census()
        assert found.tasks[0].count == 7
        assert found.tasks[0].oldest >= 0
        assert sum(place.count for place in found.tasks) == 9
        where = found.tasks[0].where
        if how is None:
            assert where.startswith("an unknown place, to run ")
            assert "wait_for_nothing()" in where
        else:
            assert where.startswith(f"{__file__}:{make_tasks.__code__.co_firstlineno + 1} in ")
        assert f"7 task(s), the oldest {found.tasks[0].oldest:.1f} s old" in str(found)
        await more
        del tasks
        await cancel_all()

    loop.run_until_complete(main())


@OURS
def test_census_of_transports(run, loop):
    """The one that has most to send comes first."""

    async def main():
        accepted = []
        server = await asyncio.start_server(lambda *pair: accepted.append(pair), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        small, large = [await asyncio.open_connection(*address) for _ in range(2)]
        for (_, writer), size in ((small, 10 << 20), (large, 20 << 20)):
            writer.write(bytes(size))
        sizes = asyncloop.census().transports
        assert [size.transport for size in sizes[:2]] == [large[1].transport, small[1].transport]
        assert sizes[0].buffered == large[1].transport.get_write_buffer_size() > sizes[1].buffered
        assert sizes[0].peer == address
        assert "bytes buffered" in str(sizes[0])
        for _, writer in (small, large, *accepted):
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0.01)

    run(main())


# -- accounting --------------------------------------------------------------------------


@OURS
def test_task_stats(loop):
    loop.task_accounting = True
    assert loop.task_accounting is True

    async def work(steps):
        for _ in range(steps):
            await asyncio.sleep(0)
        await loop.create_future()

    async def main():
        tasks = [asyncio.create_task(work(n), name=f"work {n}") for n in (3, 10)]
        for _ in range(20):
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(work(0), name="new"))
        stats = {one.name: one for one in asyncloop.task_stats()}
        assert stats["work 3"].steps == stats["work 3"].wakeups == 4
        assert stats["work 10"].steps == stats["work 10"].wakeups == 11
        assert stats["work 3"].state == "waiting"
        assert stats["new"].state == "ready"
        assert (stats["new"].steps, stats["new"].wakeups) == (0, 1)
        me = stats[asyncio.current_task().get_name()]
        assert me.state == "running"
        for one in stats.values():
            assert 0 <= one.ran <= one.age
            assert 0 <= one.ready <= one.age
            assert one.made is None or ".py:" in one.made
        del tasks
        await cancel_all()
        assert len(asyncloop.task_stats()) == 1

    loop.run_until_complete(main())
    loop.task_accounting = False
    assert loop._task_records() == []


@OURS
def test_accounting_by_a_call_soon_of_a_program():
    """Also of what a future wakes that is not ours."""

    class Loop(asyncloop.Loop):
        def call_soon(self, *args, **kwargs):
            return super().call_soon(*args, **kwargs)

    async def main(loop):
        await asyncio.sleep(0)
        (before,) = asyncloop.task_stats()
        await asyncio.sleep(0)
        for Future in asyncio.Future, asyncio.futures._PyFuture:
            future = Future(loop=loop)
            loop.call_soon(future.set_result, 1)
            await future
        task = asyncio.create_task(finish(), name="new")
        stats = {one.name: one for one in asyncloop.task_stats()}
        assert stats["new"].state == "ready"
        assert (stats["new"].steps, stats["new"].wakeups) == (0, 1)
        await task
        (after,) = asyncloop.task_stats()
        assert after.steps - before.steps == after.wakeups - before.wakeups == 4
        assert after.ran > before.ran

    loop = Loop()
    loop.task_accounting = True
    loop.run_until_complete(main(loop))
    loop.close()


@OURS
def test_accounting_holds_nothing(loop):
    loop.task_accounting = True
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        for _ in range(10):
            asyncio.create_task(wait_for_nothing())
        await asyncio.sleep(0)
        gc.collect()
        assert len(asyncio.all_tasks()) == len(loop._task_records()) == 1

    loop.run_until_complete(main())


@OURS
def test_accounting_in_debug_mode(loop):
    loop.set_debug(True)
    loop.task_accounting = True

    async def main():
        await asyncio.sleep(0)
        (me,) = asyncloop.task_stats()
        assert me.steps == 1
        loop.set_debug(False)
        await asyncio.sleep(0)
        (me,) = asyncloop.task_stats()
        assert me.steps == 2

    loop.run_until_complete(main())


@OURS
def test_exception_that_leaves_is_counted(loop):
    loop.task_accounting = True

    async def fail():
        raise SystemExit

    with pytest.raises(SystemExit):
        loop.run_until_complete(fail())
    assert loop._task_records() == []


# -- tasks of all kinds --------------------------------------------------------------------


class Odd(asyncloop.Task):
    def get_coro(self):
        raise ValueError

    def get_name(self):
        raise SystemExit

    def __repr__(self):
        raise ValueError


class OddCoroutine(Coroutine):
    def __repr__(self):
        raise ValueError

    def send(self, value):
        future = asyncio.get_running_loop().create_future()
        future._asyncio_future_blocking = True
        return future

    def throw(self, *error):
        raise error[0]

    def close(self):
        pass

    def __await__(self):
        return self


@OURS
@pytest.mark.parametrize("accounting", [False, True])
def test_tasks_of_all_kinds(loop, accounting):
    """Those of others, and those whose methods raise, are told of as well as it goes."""

    async def main():
        loop.task_accounting = accounting
        tasks = [Odd(finish(), loop=loop), asyncio.tasks._PyTask(finish(), loop=loop)]
        tasks += [loop.create_task(OddCoroutine()), asyncloop.Task(finish(), loop=loop)]
        if sys.version_info >= (3, 12):
            tasks.append(asyncio.eager_task_factory(loop, finish()))
        census = asyncloop.census()
        assert sum(place.count for place in census.tasks) == len(asyncio.all_tasks())
        assert "OddCoroutine" in str(census) or accounting
        assert asyncloop.lost_tasks(0) == []
        assert len(asyncloop.task_stats()) == (3 if accounting else 0)  # those of our class
        await asyncio.sleep(0)
        found = sum(place.count for place in asyncloop.census().tasks)
        assert found == len(asyncio.all_tasks())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(main())
