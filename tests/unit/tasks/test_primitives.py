"""asyncio's own building blocks, unchanged, on this loop and these types."""

import asyncio
import contextvars
import threading
import time
import unittest
import weakref

import pytest

from tests.support import PY, collect, turns, until, without_collector


class Boom(Exception):
    pass


async def value(result=None, delay=0):
    await asyncio.sleep(delay)
    return result


async def fail(exc=None, delay=0):
    await asyncio.sleep(delay)
    raise exc or Boom("x")


async def forever():
    await asyncio.get_running_loop().create_future()


# gather, wait, wait_for, shield, as_completed


def test_gather(run):
    async def main():
        return await asyncio.gather(value(1, 0.002), value(2), value(3, 0.001))

    assert run(main()) == [1, 2, 3]


def test_gather_nothing(run, loop):
    async def main():
        return await asyncio.gather()

    assert run(main()) == []


def test_gather_same_twice(run):
    async def main():
        task = asyncio.ensure_future(value(1))
        return await asyncio.gather(task, task)

    assert run(main()) == [1, 1]


def test_gather_exception(run):
    async def main():
        other = asyncio.ensure_future(value(5, 0.001))
        with pytest.raises(Boom):
            await asyncio.gather(fail(), other)
        assert not other.done()
        assert await other == 5
        results = await asyncio.gather(fail(), value(1), return_exceptions=True)
        assert isinstance(results[0], Boom) and results[1] == 1

    run(main())


def test_gather_cancelled(run):
    async def main():
        tasks = [asyncio.ensure_future(forever()) for _ in range(3)]
        outer = asyncio.gather(*tasks)
        await turns(2)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert all(task.cancelled() for task in tasks)

    run(main())


def test_gather_child_cancelled(run):
    async def main():
        task = asyncio.ensure_future(forever())
        outer = asyncio.gather(task, value(1))
        await turns(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    run(main())


def test_gather_many(run):
    async def main():
        return await asyncio.gather(*(value(i) for i in range(2000)))

    assert run(main()) == list(range(2000))


@pytest.mark.parametrize("when", [asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED])
def test_wait(run, when):
    async def main():
        fast = asyncio.ensure_future(value("fast"))
        slow = asyncio.ensure_future(forever() if when != asyncio.ALL_COMPLETED else value())
        done, pending = await asyncio.wait([fast, slow], return_when=when)
        assert fast in done
        assert (slow in done) is (when == asyncio.ALL_COMPLETED)
        slow.cancel()
        await turns(2)

    run(main())


def test_wait_first_exception(run):
    async def main():
        bad = asyncio.ensure_future(fail())
        slow = asyncio.ensure_future(forever())
        done, pending = await asyncio.wait(
            [bad, slow], return_when=asyncio.FIRST_EXCEPTION
        )
        assert done == {bad} and pending == {slow}
        assert isinstance(bad.exception(), Boom)
        slow.cancel()
        await turns(2)

    run(main())


def test_wait_timeout(run):
    async def main():
        slow = asyncio.ensure_future(forever())
        done, pending = await asyncio.wait([slow], timeout=0.001)
        assert not done and pending == {slow}
        slow.cancel()
        await turns(2)

    run(main())


def test_wait_for(run):
    async def main():
        assert await asyncio.wait_for(value(1), 10) == 1
        assert await asyncio.wait_for(value(1), None) == 1
        with pytest.raises(Boom):
            await asyncio.wait_for(fail(), 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forever(), 0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forever(), 0)
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.001)
        assert future.cancelled()

    run(main())


def test_wait_for_cancelled(run):
    async def main():
        inner = asyncio.ensure_future(forever())
        outer = asyncio.ensure_future(asyncio.wait_for(inner, 100))
        await turns(2)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert inner.cancelled()

    run(main())


def test_shield(run):
    async def main():
        inner = asyncio.ensure_future(value(3, 0.001))
        outer = asyncio.shield(inner)
        await turns(1)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert await inner == 3
        assert await asyncio.shield(value(4)) == 4

    run(main())


def test_as_completed(run):
    async def main():
        seen = []
        for future in asyncio.as_completed([value(2, 0.02), value(1), value(3, 0.04)]):
            seen.append(await future)
        return seen

    assert run(main()) == [1, 2, 3]


def test_as_completed_timeout(run):
    async def main():
        task = asyncio.ensure_future(forever())
        with pytest.raises(TimeoutError):
            for future in asyncio.as_completed([task], timeout=0.001):
                await future
        task.cancel()
        await turns(2)

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="async iteration came in 3.13")
def test_as_completed_async(run):
    async def main():
        tasks = {asyncio.ensure_future(value(i)) for i in range(3)}
        seen = set()
        async for task in asyncio.as_completed(tasks):
            seen.add(task)
        assert seen == tasks

    run(main())


# TaskGroup and timeout


def test_task_group(run):
    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(value(i)) for i in range(5)]
        return [task.result() for task in tasks]

    assert run(main()) == [0, 1, 2, 3, 4]


def test_task_group_failure_cancels_the_rest(run):
    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                other = group.create_task(forever())
                group.create_task(fail())
        assert other.cancelled()
        assert [type(e) for e in info.value.exceptions] == [Boom]
        assert asyncio.current_task().cancelling() == (0 if PY >= (3, 13) else 1)

    run(main())


def test_task_group_body_fails(run):
    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                child = group.create_task(forever())
                await turns(1)
                raise Boom
        assert child.cancelled()
        assert isinstance(info.value.exceptions[0], Boom)

    run(main())


def test_task_group_cancelled_from_outside(run):
    async def body(children):
        async with asyncio.TaskGroup() as group:
            children.append(group.create_task(forever()))

    async def main():
        children = []
        task = asyncio.ensure_future(body(children))
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children[0].cancelled()

    run(main())


def test_task_group_nested(run):
    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(forever())
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(forever())
                    inner.create_task(fail())
        assert info.value.split(Boom)[1] is None

    run(main())


def test_task_group_keyboard_interrupt(loop):
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(forever())
            group.create_task(fail(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        task = loop.create_task(main())
        loop.run_until_complete(task)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)


def test_task_group_many(run):
    async def main():
        async with asyncio.TaskGroup() as group:
            for i in range(1000):
                group.create_task(value(i))

    run(main())


def test_task_group_leaves_no_cycles(run):
    async def main():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        except* Boom as caught:
            ref = weakref.ref(caught.exceptions[0])
        return ref

    with without_collector():
        ref = run(main())
        run(turns(1))
        if PY >= (3, 14):
            assert ref() is None
    collect()
    assert ref() is None


def test_timeout(run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001) as scope:
                await forever()
        assert scope.expired()
        async with asyncio.timeout(100) as scope:
            await asyncio.sleep(0)
        assert not scope.expired()
        async with asyncio.timeout(None):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() - 1):
                await forever()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_timeout_reschedule(run):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000) as scope:
                scope.reschedule(loop.time() + 0.001)
                await forever()

    run(main())


def test_nested_timeouts(run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001) as outer:
                async with asyncio.timeout(1000) as inner:
                    await forever()
        assert outer.expired() and not inner.expired()

    run(main())


def test_timeout_zero_still_runs_to_the_first_wait(run):
    async def main():
        seen = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                seen.append(1)
                await forever()
        return seen

    assert run(main()) == [1]


# Queues


@pytest.mark.parametrize(
    "kind, order",
    [
        (asyncio.Queue, [3, 1, 2]),
        (asyncio.LifoQueue, [2, 1, 3]),
        (asyncio.PriorityQueue, [1, 2, 3]),
    ],
)
def test_queue_order(run, kind, order):
    async def main():
        queue = kind()
        for item in (3, 1, 2):
            await queue.put(item)
        return [await queue.get() for _ in range(3)]

    assert run(main()) == order


def test_queue_of_one(run):
    async def main():
        queue = asyncio.Queue(1)
        seen = []

        async def consumer():
            while (item := await queue.get()) is not None:
                seen.append(item)
                queue.task_done()

        task = asyncio.ensure_future(consumer())
        for i in range(500):
            await queue.put(i)
        await queue.join()
        await queue.put(None)
        await task
        return seen

    assert run(main()) == list(range(500))


def test_queue_no_wait(run):
    async def main():
        queue = asyncio.Queue(1)
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_nowait()
        queue.put_nowait(1)
        with pytest.raises(asyncio.QueueFull):
            queue.put_nowait(2)

    run(main())


def test_queue_cancelled_getter_loses_nothing(run):
    async def main():
        queue = asyncio.Queue()
        getters = [asyncio.ensure_future(queue.get()) for _ in range(3)]
        await turns(1)
        queue.put_nowait("item")
        getters[0].cancel()
        assert await getters[1] == "item"
        getters[2].cancel()
        await turns(2)

    run(main())


@pytest.mark.skipif(PY < (3, 13), reason="Queue.shutdown came in 3.13")
def test_queue_shutdown(run):
    async def main():
        queue = asyncio.Queue()
        getter = asyncio.ensure_future(queue.get())
        await turns(1)
        queue.shutdown()
        with pytest.raises(asyncio.QueueShutDown):
            await getter

    run(main())


# Locks


def test_lock(run):
    async def main():
        lock = asyncio.Lock()
        seen = []

        async def worker(number):
            async with lock:
                seen.append(number)
                await asyncio.sleep(0)
                seen.append(number)

        await asyncio.gather(*map(worker, range(20)))
        assert seen == [n for n in range(20) for _ in "ab"]
        assert not lock.locked()

    run(main())


def test_lock_cancelled_waiter(run):
    async def main():
        lock = asyncio.Lock()
        await lock.acquire()
        waiters = [asyncio.ensure_future(lock.acquire()) for _ in range(3)]
        await turns(1)
        waiters[0].cancel()
        lock.release()
        assert await waiters[1]
        lock.release()
        assert await waiters[2]
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()

    run(main())


def test_semaphore(run):
    async def main():
        semaphore = asyncio.Semaphore(3)
        inside = peak = 0

        async def worker():
            nonlocal inside, peak
            async with semaphore:
                inside += 1
                peak = max(peak, inside)
                await turns(3)
                inside -= 1

        await asyncio.gather(*(worker() for _ in range(30)))
        assert peak == 3
        bounded = asyncio.BoundedSemaphore(1)
        with pytest.raises(ValueError):
            bounded.release()

    run(main())


def test_event(run):
    async def main():
        event = asyncio.Event()
        waiters = [asyncio.ensure_future(event.wait()) for _ in range(10)]
        await turns(1)
        event.set()
        assert await asyncio.gather(*waiters) == [True] * 10
        event.clear()
        assert not event.is_set()

    run(main())


def test_condition(run):
    async def main():
        condition = asyncio.Condition()
        items = []
        seen = []

        async def consumer():
            async with condition:
                await condition.wait_for(lambda: items)
                seen.append(items.pop())

        tasks = [asyncio.ensure_future(consumer()) for _ in range(5)]
        await turns(2)
        for i in range(5):
            async with condition:
                items.append(i)
                condition.notify()
        await asyncio.gather(*tasks)
        assert sorted(seen) == [0, 1, 2, 3, 4]
        async with condition:
            condition.notify_all()

    run(main())


def test_barrier(run):
    async def main():
        barrier = asyncio.Barrier(5)
        seen = []

        async def worker(number):
            async with barrier as position:
                seen.append((number, position))

        await asyncio.gather(*map(worker, range(5)))
        assert sorted(p for _, p in seen) == [0, 1, 2, 3, 4]

    run(main())


def test_barrier_abort(run):
    async def main():
        barrier = asyncio.Barrier(2)
        waiter = asyncio.ensure_future(barrier.wait())
        await turns(2)
        await barrier.abort()
        with pytest.raises(asyncio.BrokenBarrierError):
            await waiter

    run(main())


# Threads


def test_to_thread(run):
    var = contextvars.ContextVar("var", default=0)

    async def main():
        var.set(3)
        ident, seen = await asyncio.to_thread(lambda: (threading.get_ident(), var.get()))
        assert ident != threading.get_ident()
        assert seen == 3
        with pytest.raises(Boom):
            await asyncio.to_thread(raiser)
        results = await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.001) for _ in range(50)))
        assert len(results) == 50

    def raiser():
        raise Boom

    run(main())


# Runner and friends


def test_runner(impl):
    async def main():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        loop = runner.run(main())
        assert loop is runner.get_loop()
        assert isinstance(loop, impl.Loop)
        assert runner.run(main()) is loop
    assert loop.is_closed()


def test_runner_cancels_what_is_left(impl):
    seen = []

    async def background():
        try:
            await forever()
        finally:
            seen.append("cancelled")

    async def main():
        asyncio.ensure_future(background())
        await turns(1)

    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        runner.run(main())
        assert seen == []
    assert seen == ["cancelled"]


def test_runner_keyboard_interrupt(impl):
    import signal

    async def main():
        signal.raise_signal(signal.SIGINT)
        await forever()

    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert runner.run(value(2)) == 2


def test_runner_debug(impl):
    async def main():
        return asyncio.get_running_loop().get_debug()

    for debug in (True, False):
        with asyncio.Runner(loop_factory=impl.new_event_loop, debug=debug) as runner:
            assert runner.run(main()) is debug


@pytest.mark.skipif(PY < (3, 12), reason="run(loop_factory=) came in 3.12")
def test_run_with_a_factory(impl):
    async def main():
        return type(asyncio.get_running_loop())

    assert issubclass(asyncio.run(main(), loop_factory=impl.new_event_loop), impl.Loop)


@pytest.mark.skipif(PY < (3, 13), reason="loop_factory of the test case came in 3.13")
def test_isolated_test_case(impl):
    seen = []

    class Case(unittest.IsolatedAsyncioTestCase):
        loop_factory = staticmethod(impl.new_event_loop)

        async def asyncSetUp(self):
            seen.append("up")

        async def test_one(self):
            seen.append(isinstance(asyncio.get_running_loop(), impl.Loop))
            await asyncio.sleep(0)

        async def asyncTearDown(self):
            seen.append("down")

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.wasSuccessful(), result.errors + result.failures
    assert seen == ["up", True, "down"]


def test_many_kinds_together(run):
    """A small program: producers, a bounded pool, timeouts, a barrier at the end."""

    async def main():
        queue = asyncio.Queue(5)
        done = []
        barrier = asyncio.Barrier(4)

        async def producer():
            for i in range(100):
                await queue.put(i)
            for _ in range(3):
                await queue.put(None)
            await barrier.wait()

        async def worker():
            while (item := await queue.get()) is not None:
                try:
                    async with asyncio.timeout(0.001 if item % 10 == 0 else 100):
                        await (forever() if item % 10 == 0 else asyncio.sleep(0))
                except TimeoutError:
                    done.append(("late", item))
                else:
                    done.append(("ok", item))
            await barrier.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            for _ in range(3):
                group.create_task(worker())
        await until(lambda: len(done) == 100)
        assert sorted(i for how, i in done if how == "late") == list(range(0, 100, 10))

    run(main())
