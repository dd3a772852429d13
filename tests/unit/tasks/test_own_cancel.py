"""A Task or Future with a cancel() of its own, which cancelling its waiter calls."""

import asyncio
import sys

import pytest

from tests.support import turns


def pending_future():
    return asyncio.get_running_loop().create_future()


def pending_task():
    return asyncio.get_running_loop().create_task(asyncio.sleep(60))


@pytest.fixture(params=[pending_future, pending_task])
def make(request):
    return request.param


async def wait_for_it(inner):
    return await inner


async def started(coro):
    task = asyncio.get_running_loop().create_task(coro)
    await turns(1)
    return task


def test_refuses(run, make):
    """It says that it was not cancelled: then the Task that waits is, at its next step."""

    async def main():
        inner, calls = make(), []
        inner.cancel = lambda msg=None: calls.append(msg)
        task = await started(wait_for_it(inner))
        task.cancel("why")
        await turns(3)
        assert calls == ["why"]
        assert not task.done()
        del inner.cancel
        assert inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls == ["why"]

    run(main())


def test_defers(run, make):
    """It says that it was cancelled, and goes on for a while."""

    async def main():
        inner, calls = make(), []
        inner.cancel = lambda msg=None: calls.append(msg) or True
        task = await started(wait_for_it(inner))
        assert task.cancel()
        await turns(3)
        assert calls == [None]
        assert not task.done()
        del inner.cancel
        assert inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls == [None]

    run(main())


def test_in_the_middle_of_a_chain(run, make):
    async def main():
        inner, calls = make(), []
        middle = await started(wait_for_it(inner))
        outer = await started(wait_for_it(middle))
        outermost = await started(wait_for_it(outer))
        own = middle.cancel
        middle.cancel = lambda msg=None: calls.append(msg) or own(msg=msg)
        outermost.cancel("why")
        assert calls == ["why"]
        with pytest.raises(asyncio.CancelledError):
            await outermost
        assert inner.cancelled() and middle.cancelled() and outer.cancelled()

    run(main())


def test_cancelled_before_it_awaits(run, make):
    async def main():
        inner, calls = make(), []
        inner.cancel = lambda msg=None: calls.append(msg) or True

        async def waits():
            asyncio.current_task().cancel("itself")
            return await inner

        task = await started(waits())
        await turns(3)
        assert calls == ["itself"]
        assert not task.done()
        del inner.cancel
        inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_raises(run, make):
    async def main():
        inner = make()

        def cancel(msg=None):
            raise ZeroDivisionError

        inner.cancel = cancel
        task = await started(wait_for_it(inner))
        with pytest.raises(ZeroDivisionError):
            task.cancel()
        assert task.cancelling() == 1
        del inner.cancel
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_other_attributes_change_nothing(run, make):
    async def main():
        inner = make()
        inner.note = "of a program"
        task = inner
        for _ in range(50):
            task = await started(wait_for_it(task))
            task.note = "of a program"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inner.cancelled()

    run(main())


def test_attributes_end_with_their_object(run, make):
    """However often the memory of one is the next one's."""

    async def main():
        for i in range(40):
            inner = make()
            assert not hasattr(inner, "note")
            if i % 4:
                inner.note = inner.other = i
                assert (inner.note, inner.other) == (i, i)
            if i % 4 and i % 3:
                del inner.note
                assert not hasattr(inner, "note")
            inner.cancel()
            await turns(2)
            del inner

    run(main())


def test_a_long_chain_with_attributes(impl, run):
    if impl.types == "asyncio":
        pytest.skip("asyncio cancels a chain by recursion")

    async def main():
        inner = task = pending_future()
        for _ in range(sys.getrecursionlimit() * 3):
            task = asyncio.get_running_loop().create_task(wait_for_it(task))
            task.note = "of a program"
        await turns(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inner.cancelled()

    run(main())
