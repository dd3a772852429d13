"""asyncio.Task.cancel(task): what is taken from asyncio's types, given any future or task.

TAKEN has what a program took before any loop was made."""

import asyncio
import sys

import pytest

TAKEN = (asyncio.Task.cancel, asyncio.Future.done, asyncio.Future._state, asyncio.Future.__repr__)


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
        lambda: asyncio.Future.cancel(future, nothing=1),
        lambda: asyncio.Future.cancel(future, "reason", msg="reason"),
        lambda: asyncio.Task.cancel(future),
        lambda: asyncio.Task.get_coro(future),
    ):
        with pytest.raises(TypeError):
            call()
    assert not future.done()


def test_too_many_arguments_are_named(loop, impl):
    """By asyncio's own words, whatever their number."""
    ours, theirs = loop.create_future(), asyncio.futures._PyFuture
    assert not isinstance(ours, theirs)
    for name, count in (
        ("set_result", 5),
        ("set_result", 2),
        ("add_done_callback", 5),
        ("cancel", 3),
    ):
        told = []
        plain = asyncio.new_event_loop()
        for future in ours, asyncio.futures._CFuture(loop=plain):
            with pytest.raises(TypeError) as caught:
                getattr(asyncio.Future, name)(future, *range(count))
            told.append(str(caught.value))
        plain.close()
        assert count == 2 or told[0] == told[1]


def test_attributes(run, loop):
    def of(task, owner):
        return {
            name: getattr(owner, name).__get__(task)
            for name in dir(owner)
            if type(getattr(owner, name)).__name__ == "getset_descriptor" and name != "__dict__"
        }

    async def main():
        future = loop.create_future()
        coroutine = forever()
        task = loop.create_task(coroutine)
        future.add_done_callback(print)
        await asyncio.sleep(0)
        seen = of(task, asyncio.Task)
        assert seen["_coro"] is coroutine and seen["_fut_waiter"]._state == "PENDING"
        assert seen["_log_destroy_pending"] is True and seen["_must_cancel"] is False
        for seen in of(task, asyncio.Future), of(future, asyncio.Future):
            assert seen["_state"] == "PENDING" and seen["_loop"] is loop
            assert seen["_asyncio_future_blocking"] is False and seen["_cancel_message"] is None
        assert len(seen["_callbacks"]) == 1 and seen["_callbacks"][0][0] is print
        future.remove_done_callback(print)

        asyncio.Future._asyncio_future_blocking.__set__(future, True)
        assert future._asyncio_future_blocking is True
        asyncio.Future._asyncio_future_blocking.__set__(future, False)
        asyncio.Task._log_destroy_pending.__set__(task, False)
        assert task._log_destroy_pending is False
        asyncio.Task._cancel_message.__set__(task, "message")
        assert task._cancel_message == "message"
        asyncio.Task._cancel_message.__set__(task, None)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert of(task, asyncio.Task)["_state"] == "CANCELLED"

        future.set_exception(KeyError(3))
        assert of(future, asyncio.Future)["_exception"].args == (3,)
        assert of(future, asyncio.Future)["_log_traceback"] is True
        with pytest.raises(ValueError, match="can only be set to False"):
            asyncio.Future._log_traceback.__set__(future, True)
        asyncio.Future._log_traceback.__set__(future, False)
        assert future._log_traceback is False
        with pytest.raises(AttributeError):
            asyncio.Future._state.__set__(future, "PENDING")
        with pytest.raises(AttributeError):
            asyncio.Future._log_traceback.__delete__(future)
        future = loop.create_future()
        future.set_result(4)
        assert of(future, asyncio.Future)["_result"] == 4

    run(main())


def test_operators(run, loop, impl, reports):
    async def main():
        future = loop.create_future()
        task = loop.create_task(forever(), name="named")
        assert asyncio.Future.__repr__(future) == repr(future)
        assert asyncio.Task.__repr__(task) == repr(task) and "named" in repr(task)
        assert asyncio.Future.__repr__(task).startswith("<Task pending")
        task.cancel()
        loop.call_soon(future.set_result, 7)

        class Waiting:
            def __init__(self, future, method):
                self.future, self.method = future, method

            def __await__(self):
                return self.method(self.future)

        assert await Waiting(future, asyncio.Future.__await__) == 7
        assert await Waiting(future, asyncio.Future.__iter__) == 7
        with pytest.raises(asyncio.CancelledError):
            await Waiting(task, asyncio.Task.__await__)

        # once more, and what was there is gone
        future = loop.create_future()
        future.set_result(1)
        if sys.version_info < (3, 15):
            asyncio.Future.__init__(future, loop=loop)
            assert not future.done()
            task = loop.create_task(asyncio.sleep(0, 1))
            await task
            asyncio.Task.__init__(task, asyncio.sleep(0, 2), loop=loop, name="again")
            assert not task.done() and task.get_name() == "again"
            assert await task == 2
            with pytest.raises(TypeError):
                asyncio.Future.__init__(future, nothing=1)

    run(main())
    assert reports == []


def test_own_methods_that_call_asyncios(run, loop, impl):
    """Whatever a subclass overrides calls that of the base's name, once."""

    class Task(impl.Task):
        calls = 0

        def cancel(self, msg=None):
            self.calls += 1
            return asyncio.Task.cancel(self, msg=msg)

        def __repr__(self):
            return "own " + asyncio.Task.__repr__(self)

        def __await__(self):
            return asyncio.Future.__await__(self)

        @property
        def _state(self):
            return asyncio.Future._state.__get__(self)

    async def main():
        task = Task(forever(), loop=loop)
        await asyncio.sleep(0)
        assert repr(task).startswith("own <Task pending") and task._state == "PENDING"
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        assert task.calls == 1 and task._state == "CANCELLED"

    run(main())


def test_asyncios_own_beside(run, loop):
    """Futures and tasks of asyncio's, and subclasses of any size, in turns with the loop's."""

    class Large(asyncio.futures._CFuture):
        __slots__ = tuple(f"slot{i}" for i in range(40))

        def __repr__(self):
            return "large " + super().__repr__()

    class LargeTask(asyncio.tasks._CTask):
        __slots__ = tuple(f"slot{i}" for i in range(40))

    cancel, done, state, text = TAKEN

    async def main():
        makers = loop.create_task, lambda c: LargeTask(c, loop=loop), asyncio.Task
        for _ in range(20):
            tasks = [makers[i % 3](forever()) for i in range(30)]
            await asyncio.sleep(0)
            for task in tasks:
                assert not done(task) and state.__get__(task) == "PENDING" and cancel(task)
            await asyncio.wait(tasks)
            assert all(done(task) and state.__get__(task) == "CANCELLED" for task in tasks)
        for future in Large(loop=loop), loop.create_future():
            loop.call_soon(asyncio.Future.set_result, future, 3)
            assert await future == 3 and "finished result=3" in text(future)
        assert repr(Large(loop=loop)) == "large <Large pending>"

    run(main())
