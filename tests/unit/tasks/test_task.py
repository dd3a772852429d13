"""Task: steps, cancellation, contexts, introspection, and hostile coroutines."""

import asyncio
import collections.abc
import contextvars
import gc
import io
import sys
import threading
import types
import warnings
import weakref

import pytest

from tests.support import (
    PY,
    check_script,
    collect,
    in_thread,
    spin,
    turns,
    until,
    without_collector,
)

MIXED = True


class Boom(Exception):
    pass


@pytest.fixture
def make(impl, loop):
    """Make a task of this run's type."""

    def make(coro, **kwargs):
        return impl.Task(coro, loop=loop, **kwargs)

    return make


async def value(result=None):
    return result


async def forever():
    await asyncio.get_running_loop().create_future()


# Types and construction


def test_type(impl, loop, make):
    task = make(value())
    assert isinstance(task, asyncio.Task)
    assert isinstance(task, asyncio.Future)
    assert isinstance(task, impl.Task)
    assert issubclass(impl.Task, asyncio.Task)
    assert asyncio.isfuture(task)
    loop.run_until_complete(task)


def test_class_getitem(impl):
    alias = impl.Task[int]
    assert alias.__origin__ is impl.Task


@pytest.mark.parametrize("bad", [None, 3, "x", object(), print, value])
def test_not_a_coroutine(impl, loop, bad):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        impl.Task(bad, loop=loop)


def test_not_a_future(impl, loop):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        impl.Task(loop.create_future(), loop=loop)


def test_bad_constructor_arguments(impl, loop):
    with pytest.raises(TypeError):
        impl.Task()
    coro = value()
    with pytest.raises(TypeError):
        impl.Task(coro, loop)
    with pytest.raises(TypeError):
        impl.Task(coro, loop=loop, unknown=1)
    coro.close()


def test_loop_of_the_running_one(impl, loop):
    async def main():
        task = impl.Task(value(3))
        assert task.get_loop() is loop
        return await task

    assert loop.run_until_complete(main()) == 3


# Results


def test_result(loop, make):
    task = make(value(5))
    assert not task.done()
    assert loop.run_until_complete(task) == 5
    assert task.done() and task.result() == 5 and task.exception() is None


def test_exception(loop, make):
    async def fail():
        raise Boom("x")

    task = make(fail())
    with pytest.raises(Boom, match="x"):
        loop.run_until_complete(task)
    assert isinstance(task.exception(), Boom)


def test_result_methods_are_closed(loop, make):
    task = make(value())
    with pytest.raises(RuntimeError, match="Task does not support set_result"):
        task.set_result(1)
    with pytest.raises(RuntimeError, match="Task does not support set_exception"):
        task.set_exception(Boom())
    loop.run_until_complete(task)


def test_await_another_task(loop, make):
    async def main():
        return await make(value(1)) + await make(value(2))

    assert loop.run_until_complete(make(main())) == 3


def test_starts_in_the_next_iteration(loop, make):
    seen = []

    async def body():
        seen.append(1)

    task = make(body())
    assert seen == []
    spin(loop)
    assert seen == [1]
    assert task.done()


def test_steps_are_one_per_iteration(loop, make):
    seen = []

    async def body(name):
        for i in range(3):
            seen.append((name, i))
            await asyncio.sleep(0)

    tasks = [make(body("a")), make(body("b"))]
    spin(loop, 4)
    assert seen == [(n, i) for i in range(3) for n in "ab"]
    assert all(task.done() for task in tasks)


def test_awaiting_done_future_does_not_yield(loop, make):
    done = loop.create_future()
    done.set_result(1)

    async def body():
        for _ in range(100):
            await done
        return "at once"

    task = make(body())
    spin(loop)
    assert task.result() == "at once"


def test_wake_order(loop, make):
    """Callbacks of a future run in the order in which they were added."""
    seen = []
    future = loop.create_future()

    async def body():
        await future
        seen.append("task")

    task = make(body())
    spin(loop)
    future.add_done_callback(lambda f: seen.append("callback"))
    future.set_result(None)
    loop.call_soon(seen.append, "soon")
    spin(loop)
    assert seen == ["task", "callback", "soon"]
    assert task.done()


@pytest.mark.parametrize("inner", ["future", "task"])
def test_what_was_awaited_lives_until_the_step_ends(loop, make, inner):
    class Thing:
        pass

    async def give():
        await asyncio.sleep(0)
        return Thing()

    async def main():
        if inner == "future":
            future = loop.create_future()
            loop.call_soon(lambda f: f.set_result(Thing()), future)
        else:
            future = make(give())
        ref = weakref.ref(await future)
        del future
        alive = ref() is not None
        await asyncio.sleep(0)
        return alive, ref() is None

    with without_collector():
        assert loop.run_until_complete(make(main())) == (True, True)


def test_generator_based_coroutine(loop, make):
    @types.coroutine
    def old_style():
        yield
        return 9

    async def body():
        return await old_style()

    assert loop.run_until_complete(make(body())) == 9


def test_async_generator_and_comprehension(loop, make):
    async def numbers():
        for i in range(5):
            await asyncio.sleep(0)
            yield i

    async def body():
        return [i async for i in numbers()]

    assert loop.run_until_complete(make(body())) == [0, 1, 2, 3, 4]


# Names


def test_default_names_count_up(loop, make):
    one, two = make(value()), make(value())
    first, second = (int(t.get_name().removeprefix("Task-")) for t in (one, two))
    assert second > first
    assert one.get_name() == one.get_name()
    spin(loop)


@pytest.mark.parametrize("name", ["mine", "", "Task-x", "ü", 123, ("a",)])
def test_names(loop, make, name):
    task = make(value(), name=name)
    assert task.get_name() == str(name)
    task.set_name(456)
    assert task.get_name() == "456"
    task.set_name("other")
    assert task.get_name() == "other"
    spin(loop)


def test_failing_name(loop, make, asyncio_log):
    class Bad:
        def __str__(self):
            raise Boom

    coro = value()
    with pytest.raises(Boom):
        make(coro, name=Bad())
    coro.close()
    collect()
    asyncio_log.take()  # the standard one reports the half-made task as pending
    task = make(value(), name="ok")
    with pytest.raises(Boom):
        task.set_name(Bad())
    assert task.get_name() == "ok"
    spin(loop)


def test_set_name_arguments(loop, make):
    task = make(value())
    with pytest.raises(TypeError):
        task.set_name()
    spin(loop)


# Cancellation


def test_cancel_waiting(loop, make):
    task = make(forever())
    spin(loop)
    assert task.cancel() is True
    assert not task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert task.cancelled() and task.done()
    assert task.cancel() is False


def test_cancel_before_start(loop, make):
    seen = []

    async def body():
        seen.append(1)

    task = make(body())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert seen == []


def test_cancel_swallowed(loop, make):
    async def body():
        try:
            await forever()
        except asyncio.CancelledError:
            return "swallowed"

    task = make(body())
    spin(loop)
    task.cancel()
    assert loop.run_until_complete(task) == "swallowed"
    assert not task.cancelled()


def test_cancel_in_cleanup(loop, make):
    seen = []

    async def body():
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned")

    task = make(body())
    spin(loop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert seen == ["cleaned"]


def test_cancel_message(loop, make):
    for message in (None, "why", 3):
        seen = []

        async def body(seen=seen):
            try:
                await forever()
            except asyncio.CancelledError as exc:
                seen.append(exc.args)
                raise

        task = make(body())
        spin(loop)
        task.cancel(msg=message)
        with pytest.raises(asyncio.CancelledError) as info:
            loop.run_until_complete(task)
        assert seen == [() if message is None else (message,)]
        assert info.value.args == seen[0]


def test_cancel_reaches_the_inner_future(loop, make):
    inner = loop.create_future()

    async def body():
        await inner

    task = make(body())
    spin(loop)
    task.cancel("m")
    assert inner.cancelled()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_cancel_reaches_the_inner_task(loop, make):
    inner = make(forever())

    async def body():
        await inner

    task = make(body())
    spin(loop, 2)
    task.cancel()
    assert not inner.cancelled()
    spin(loop, 3)
    assert inner.cancelled() and task.cancelled()


def test_cancel_itself(loop, make):
    tasks = []

    async def body():
        tasks[0].cancel()
        assert tasks[0]._must_cancel
        await asyncio.sleep(0)
        raise AssertionError

    tasks.append(make(body()))
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(tasks[0])


def test_cancel_itself_and_return(loop, make):
    """A return with a cancellation still to be delivered is a cancellation."""
    tasks = []

    async def body():
        tasks[0].cancel("late")
        return 5

    tasks.append(make(body()))
    with pytest.raises(asyncio.CancelledError) as info:
        loop.run_until_complete(tasks[0])
    assert info.value.args == ("late",)
    assert tasks[0].cancelled()


def test_caught_and_cancelled_again_then_return(loop, make):
    tasks = []

    async def body():
        try:
            await forever()
        except asyncio.CancelledError:
            tasks[0].cancel()
        return 5

    tasks.append(make(body()))
    spin(loop)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(tasks[0])
    assert tasks[0].cancelled()


def test_cancel_between_result_and_wake_up(loop, make):
    """The future is done, the task not yet resumed: it gets CancelledError."""
    future = loop.create_future()
    seen = []

    async def body():
        try:
            await future
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = make(body())
    spin(loop)
    future.set_result("x")
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert seen == ["cancelled"]


def test_cancel_during_sleep_zero(loop, make):
    async def body():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise AssertionError

    task = make(body())
    spin(loop)
    task.cancel()
    spin(loop)
    assert task.cancelled()


def test_cancel_with_a_waiter_that_refuses(impl, loop, make):
    class Stubborn(impl.Future):
        def cancel(self, msg=None):
            return False

    waiter = Stubborn(loop=loop)

    async def body():
        await waiter

    task = make(body())
    spin(loop)
    assert task.cancel() is True
    assert task._must_cancel
    spin(loop, 3)
    assert not task.done()
    waiter.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_counts(loop, make):
    task = make(forever())
    assert task.cancelling() == 0
    assert task.uncancel() == 0
    task.cancel()
    assert task.cancelling() == 1
    task.cancel()
    assert task.cancelling() == 2
    assert task.uncancel() == 1
    assert task.uncancel() == 0
    assert task.uncancel() == 0
    assert task.cancelling() == 0
    task.cancel()
    spin(loop, 2)
    assert task.done()


def test_uncancel_before_delivery(loop, make):
    """From 3.13 on uncancel to zero takes back what was not delivered yet."""

    async def body():
        task = asyncio.current_task()
        task.cancel()
        assert task._must_cancel
        task.uncancel()
        assert task._must_cancel is (PY < (3, 13))
        await asyncio.sleep(0)
        return "lives"

    task = make(body())
    if PY >= (3, 13):
        assert loop.run_until_complete(task) == "lives"
    else:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)


def test_structured_uncancel(loop, make):
    async def body():
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(0.001):
                await forever()
        except TimeoutError:
            pass
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        return "on"

    assert loop.run_until_complete(make(body())) == "on"


def test_raising_cancelled_error_by_hand(loop, make):
    async def body():
        raise asyncio.CancelledError("own")

    task = make(body())
    with pytest.raises(asyncio.CancelledError) as info:
        loop.run_until_complete(task)
    assert info.value.args == ("own",)
    assert task.cancelled()


def test_cancelled_error_keeps_its_traceback(loop, make):
    async def deep():
        await forever()

    task = make(deep())
    spin(loop)
    task.cancel()
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError as exc:
        names = []
        while exc is not None:
            tb = exc.__traceback__
            while tb is not None:
                names.append(tb.tb_frame.f_code.co_name)
                tb = tb.tb_next
            exc = exc.__cause__ or exc.__context__
    assert "deep" in names


def test_cancel_from_done_callback_and_del(loop, make):
    task = make(value())
    task.add_done_callback(lambda t: t.cancel())
    loop.run_until_complete(task)
    spin(loop)
    assert not task.cancelled()


# Contexts


def test_context_is_copied(loop, make):
    var = contextvars.ContextVar("var", default=0)
    seen = []

    async def body():
        seen.append(var.get())
        var.set(5)
        await asyncio.sleep(0)
        seen.append(var.get())

    var.set(1)
    task = make(body())
    var.set(2)
    loop.run_until_complete(task)
    assert seen == [1, 5]
    assert var.get() == 2


def test_context_argument(loop, make):
    var = contextvars.ContextVar("var", default=0)
    context = contextvars.copy_context()

    async def body():
        var.set(var.get() + 1)
        await asyncio.sleep(0)
        var.set(var.get() + 1)

    task = make(body(), context=context)
    if PY >= (3, 12):
        assert task.get_context() is context
    loop.run_until_complete(task)
    assert context[var] == 2
    assert var.get() == 0


def test_context_none(loop, make):
    task = make(value(), context=None)
    if PY >= (3, 12):
        assert isinstance(task.get_context(), contextvars.Context)
    spin(loop)


def test_odd_context(loop, make, reports):
    for bad in (3, "x", object()):
        coro = value()
        try:
            task = make(coro, context=bad)
        except TypeError:
            coro.close()
            continue
        try:
            spin(loop)
        except (AttributeError, TypeError):
            pass
        task._log_destroy_pending = False
        del task
        coro.close()


def test_two_tasks_share_a_context(loop, make):
    var = contextvars.ContextVar("var", default=0)
    context = contextvars.copy_context()

    async def body():
        for _ in range(10):
            var.set(var.get() + 1)
            await asyncio.sleep(0)

    tasks = [make(body(), context=context) for _ in range(3)]
    spin(loop, 12)
    assert all(task.done() for task in tasks)
    assert context[var] == 30


def test_decimal_context_is_per_task(loop, make):
    import decimal

    async def body(precision):
        decimal.setcontext(decimal.Context(prec=precision))
        await asyncio.sleep(0)
        return decimal.getcontext().prec

    async def main():
        return await asyncio.gather(make(body(5)), make(body(9)))

    assert loop.run_until_complete(main()) == [5, 9]


# current_task and all_tasks


def test_current_task(loop, make):
    seen = []

    async def body():
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        await asyncio.sleep(0)
        seen.append(asyncio.current_task(loop))

    task = make(body())
    loop.run_until_complete(task)
    assert seen == [task, task, None, task]
    assert asyncio.current_task(loop) is None


def test_current_task_of_interleaved_tasks(loop, make, impl):
    """Ours and stock ones alternate; each sees itself, callbacks see none."""
    wrong = []

    async def body():
        me = asyncio.current_task()
        for _ in range(10):
            loop.call_soon(lambda: wrong.append(1) if asyncio.current_task(loop) else 0)
            await asyncio.sleep(0)
            if asyncio.current_task() is not me:
                wrong.append(me)

    async def main():
        tasks = []
        for _ in range(5):
            tasks += [make(body()), asyncio.Task(body()), loop.create_task(body())]
        await asyncio.gather(*tasks)

    loop.run_until_complete(main())
    assert wrong == []


def test_current_task_in_exception_handler_and_done_callback(loop, make):
    seen = []
    loop.set_exception_handler(lambda *_: seen.append(asyncio.current_task(loop)))
    task = make(value())

    def callback(_):
        seen.append(asyncio.current_task(loop))
        raise Boom

    task.add_done_callback(callback)
    spin(loop, 2)
    assert seen == [None, None]


def test_current_task_after_exit_from_a_step(loop, make):
    async def leave():
        raise KeyboardInterrupt

    task = make(leave())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert asyncio.current_task(loop) is None
    assert loop.run_until_complete(make(value(1))) == 1
    assert isinstance(task.exception(), KeyboardInterrupt)


def test_current_task_inside_another_threads_loop(loop_factory, impl):
    """Two loops in two threads, each with its own current task."""
    first, second = loop_factory(), loop_factory()

    async def check():
        me = asyncio.current_task()
        for _ in range(50):
            await asyncio.sleep(0)
            assert asyncio.current_task() is me
        return True

    thread = threading.Thread(target=second.run_until_complete, args=(check(),))
    thread.start()
    assert first.run_until_complete(check())
    thread.join()


def test_nested_step_is_refused(loop, make):
    """A task can't be stepped while another one runs."""
    errors = []

    async def inner():
        pass

    async def outer():
        task = make(inner())
        try:
            if PY >= (3, 12):
                asyncio.tasks._enter_task(loop, task)
            else:
                asyncio.tasks._enter_task(loop, task)
        except RuntimeError as exc:
            errors.append(str(exc))
        await task

    loop.run_until_complete(make(outer()))
    assert len(errors) == 1
    assert "Cannot enter into task" in errors[0]


def test_all_tasks(loop, make):
    async def main():
        me = asyncio.current_task()
        tasks = {make(forever()) for _ in range(5)}
        stock = {asyncio.Task(forever()) for _ in range(2)}
        assert asyncio.all_tasks() == tasks | stock | {me}
        await turns(2)
        assert asyncio.all_tasks(loop) == tasks | stock | {me}
        for task in tasks | stock:
            task.cancel()
        await asyncio.wait(tasks | stock)
        assert asyncio.all_tasks() == {me}

    loop.run_until_complete(make(main()))
    assert asyncio.all_tasks(loop) == set()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="C alone has them from 3.14 on")
def test_all_tasks_as_a_set(loop, make):
    """Where asyncio keeps them."""
    name = "_scheduled_tasks" if hasattr(asyncio.tasks, "_scheduled_tasks") else "_all_tasks"
    tasks = getattr(asyncio.tasks, name)
    task, other = make(forever()), asyncio.Task(forever(), loop=loop)
    assert task in tasks and other in tasks
    assert asyncio.Future(loop=loop) not in tasks
    for each in (task, other):
        each.cancel()
    spin(loop, 2)
    del each
    assert task not in asyncio.all_tasks(loop) and other not in asyncio.all_tasks(loop)


def test_all_tasks_imported_early(loop, make):
    from asyncio import all_tasks

    task = make(forever())
    assert all_tasks(loop) == {task}
    task.cancel()
    spin(loop, 2)
    assert all_tasks(loop) == set()


def test_all_tasks_per_loop(loop_factory, impl):
    first, second = loop_factory(), loop_factory()
    one = impl.Task(forever(), loop=first)
    two = impl.Task(forever(), loop=second)
    assert asyncio.all_tasks(first) == {one}
    assert asyncio.all_tasks(second) == {two}
    for task, its in ((one, first), (two, second)):
        task.cancel()
        spin(its, 2)


def test_all_tasks_forgets_dropped_ones(loop, make, reports):
    task = make(forever())
    spin(loop)
    del task
    collect()
    assert len(reports) == 1
    reports.clear()  # it held the task
    collect()
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_from_another_thread_while_tasks_die(loop, make):
    stop = []
    sizes = []

    def watch():
        while not stop:
            try:
                sizes.append(len(asyncio.all_tasks(loop)))
            except RuntimeError:
                pass  # the standard one gives up when its set keeps changing

    async def main():
        for _ in range(100):
            await asyncio.gather(*[make(asyncio.sleep(0)) for _ in range(50)])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        loop.run_until_complete(main())
    finally:
        stop.append(1)
        thread.join()
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_after_the_loop_died(impl):
    """Tasks that outlive their loop, and a loop that is freed before them."""
    loop = impl.new_event_loop()
    task = impl.Task(forever(), loop=loop)
    spin(loop)
    task._log_destroy_pending = False
    loop.close()
    assert asyncio.all_tasks(loop) == {task}
    del loop
    collect()
    repr(task)
    coro = task.get_coro()
    del task
    collect()
    coro.close()


# Eager start


needs_eager = pytest.mark.skipif(PY < (3, 12), reason="eager tasks came in 3.12")


@needs_eager
def test_eager_start(loop, make):
    seen = []

    async def body():
        seen.append("started")
        return 3

    async def main():
        task = make(body(), eager_start=True)
        assert seen == ["started"]
        assert task.done()
        assert task.result() == 3
        assert task not in asyncio.all_tasks()
        return await task

    assert loop.run_until_complete(main()) == 3


@needs_eager
def test_eager_start_that_blocks(loop, make):
    async def body():
        await asyncio.sleep(0)
        return 4

    async def main():
        task = make(body(), eager_start=True)
        assert not task.done()
        assert task in asyncio.all_tasks()
        return await task

    assert loop.run_until_complete(main()) == 4


@needs_eager
def test_eager_current_task(loop, make):
    seen = []

    async def body():
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    async def main():
        me = asyncio.current_task()
        task = make(body(), eager_start=True)
        assert asyncio.current_task() is me
        await task
        assert seen == [task, task]
        assert asyncio.current_task() is me

    loop.run_until_complete(main())


@needs_eager
def test_eager_exception(loop, make):
    async def body():
        raise Boom

    async def main():
        me = asyncio.current_task()
        task = make(body(), eager_start=True)
        assert task.done()
        assert asyncio.current_task() is me
        with pytest.raises(Boom):
            await task

    loop.run_until_complete(main())


@needs_eager
def test_eager_cancelled_error(loop, make):
    async def body():
        raise asyncio.CancelledError

    async def main():
        task = make(body(), eager_start=True)
        assert task.cancelled()

    loop.run_until_complete(main())


@needs_eager
def test_eager_nested(loop, make):
    async def body(depth):
        if depth:
            return 1 + await make(body(depth - 1), eager_start=True)
        return 0

    async def main():
        return await make(body(20), eager_start=True)

    assert loop.run_until_complete(main()) == 20


@needs_eager
def test_eager_context(loop, make):
    var = contextvars.ContextVar("var", default=0)

    async def body():
        var.set(7)
        await asyncio.sleep(0)
        return var.get()

    async def main():
        task = make(body(), eager_start=True)
        assert var.get() == 0
        return await task

    assert loop.run_until_complete(main()) == 7


@needs_eager
@pytest.mark.our_types("the standard Task crashes")
def test_eager_bad_context(loop, make, reports):
    """The current task stays, and the loop works; that the Task is lost is told."""

    async def main():
        me = asyncio.current_task()
        for bad in (3, object()):
            coro = value()
            try:
                task = make(coro, eager_start=True, context=bad)
            except (TypeError, AttributeError):
                pass
            else:
                await asyncio.wait([task], timeout=0)
            coro.close()
            assert asyncio.current_task() is me
        return await make(value(1))

    assert loop.run_until_complete(main()) == 1


@needs_eager
@pytest.mark.our_types("the current task stays wrong with the standard Task before 3.14")
def test_eager_with_an_entered_context(loop, make):
    told = []
    loop.default_exception_handler = told.append

    async def main():
        me = asyncio.current_task()
        context = me.get_context()
        coro = value()
        with pytest.raises(RuntimeError):
            make(coro, eager_start=True, context=context)
        coro.close()
        assert asyncio.current_task() is me
        assert asyncio.all_tasks() == {me}
        return await make(value(1))

    assert loop.run_until_complete(main()) == 1


@needs_eager
def test_eager_without_running_loop(loop, make):
    """Nothing runs: the task starts later, or is refused, by version."""
    coro = value(2)
    try:
        task = make(coro, eager_start=True)
    except RuntimeError:
        coro.close()
        return
    assert loop.run_until_complete(task) == 2


@needs_eager
def test_eager_task_factory(loop, impl):
    seen = []

    async def body():
        seen.append(1)
        return 8

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(body(), name="eager")
        assert seen == [1]
        assert task.get_name() == "eager"
        assert isinstance(task, asyncio.Task)
        return await task

    assert loop.run_until_complete(main()) == 8


@needs_eager
def test_eager_task_factory_makes_our_tasks(loop, impl):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        return asyncio.create_task(value())

    task = loop.run_until_complete(main())
    assert isinstance(task, asyncio.Task)
    if impl.ours:
        import asyncloop

        assert type(task) is asyncloop.Task


@needs_eager
def test_create_eager_task_factory(loop, impl):
    made = []

    class MyTask(impl.Task):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    async def main():
        loop.set_task_factory(asyncio.create_eager_task_factory(MyTask))
        return await asyncio.create_task(value(3))

    assert loop.run_until_complete(main()) == 3
    assert len(made) == 1


# create_task by version


def test_create_task_keywords(loop, impl):
    context = contextvars.copy_context()

    async def main():
        task = loop.create_task(value(1), name="n", context=context)
        assert task.get_name() == "n"
        if PY >= (3, 12):
            assert task.get_context() is context
        await task
        with pytest.raises(TypeError):
            coro = value()
            try:
                loop.create_task(coro, unknown=3)
            finally:
                coro.close()
        with pytest.raises(TypeError):
            loop.create_task()

    loop.run_until_complete(main())


@pytest.mark.skipif(PY < (3, 14), reason="create_task(eager_start=) came in 3.14")
def test_create_task_eager_start(loop):
    async def main():
        task = asyncio.create_task(value(1), eager_start=True)
        assert task.done()
        other = asyncio.create_task(value(1), eager_start=False)
        assert not other.done()
        await other
        loop.set_task_factory(asyncio.eager_task_factory)
        third = asyncio.create_task(value(1), eager_start=False)
        assert not third.done()
        await third

    loop.run_until_complete(main())


@pytest.mark.skipif(PY < (3, 14), reason="any keyword goes to the factory from 3.14 on")
def test_keywords_reach_the_factory(loop):
    seen = {}

    def factory(loop, coro, **kwargs):
        seen.update(kwargs)
        kwargs.pop("mine")
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    loop.run_until_complete(loop.create_task(value(), mine=5, name="x"))
    assert seen["mine"] == 5 and seen["name"] == "x"


def test_eager_start_reaches_a_factory_only_when_given(loop):
    seen = []

    def factory(loop, coro, **kwargs):
        seen.append(set(kwargs))
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    loop.run_until_complete(loop.create_task(value()))
    loop.run_until_complete(value())
    assert all("eager_start" not in keys for keys in seen)


# What tasks may await


def run_and_catch(loop, make, awaitable_factory):
    caught = []

    @types.coroutine
    def raw(thing):
        return (yield thing)

    async def body():
        try:
            await raw(awaitable_factory())
        except BaseException as exc:
            caught.append(exc)

    loop.run_until_complete(make(body()))
    (exc,) = caught
    return exc


@pytest.mark.parametrize("thing", [3, "x", object(), (), True, ..., Boom()])
def test_bad_yield(loop, make, thing):
    exc = run_and_catch(loop, make, lambda: thing)
    assert isinstance(exc, RuntimeError)
    assert "Task got bad yield: " in str(exc)


def test_yield_generator(loop, make):
    def generator():
        yield

    exc = run_and_catch(loop, make, generator)
    assert isinstance(exc, RuntimeError)
    assert "yield was used instead of yield from for generator" in str(
        exc
    ) or "yield was used instead of yield from in task" in str(exc)


def test_yield_future_without_await(loop, make):
    exc = run_and_catch(loop, make, loop.create_future)
    assert isinstance(exc, RuntimeError)
    assert "yield was used instead of yield from in task" in str(exc)


def test_await_itself(loop, make):
    tasks = []
    caught = []

    async def body():
        try:
            await tasks[0]
        except RuntimeError as exc:
            caught.append(str(exc))

    tasks.append(make(body()))
    loop.run_until_complete(tasks[0])
    assert "Task cannot await on itself" in caught[0]


def test_future_of_another_loop(loop, make, loop_factory, impl):
    foreign = impl.Future(loop=loop_factory())
    stock = asyncio.Future(loop=foreign.get_loop())
    for future in (foreign, stock):
        caught = []

        async def body(future=future, caught=caught):
            try:
                await future
            except RuntimeError as exc:
                caught.append(str(exc))

        loop.run_until_complete(make(body()))
        assert "attached to a different loop" in caught[0]


def test_duck_future(loop, make):
    """Anything with the attribute and the methods is a future."""

    class Duck:
        _asyncio_future_blocking = False

        def __init__(self):
            self.callbacks = []

        def get_loop(self):
            return loop

        def add_done_callback(self, callback, context=None):
            self.callbacks.append((callback, context))

        def __await__(self):
            self._asyncio_future_blocking = True
            yield self
            return "quack"

        def result(self):
            return "quack"

        def cancel(self, msg=None):
            return False

        def finish(self):
            for callback, context in self.callbacks:
                loop.call_soon(callback, self, context=context)

    duck = Duck()

    async def body():
        return await duck

    task = make(body())
    spin(loop)
    assert task._fut_waiter is duck
    assert duck._asyncio_future_blocking is False
    duck.finish()
    assert loop.run_until_complete(task) == "quack"


def spin_with(loop, make, awaitable_factory):
    """A task that yields the thing; what it caught, or nothing if it hangs on."""
    caught = []

    @types.coroutine
    def raw(thing):
        return (yield thing)

    async def body():
        try:
            await raw(awaitable_factory())
        except BaseException as exc:
            caught.append(exc)

    task = make(body())
    spin(loop, 4)
    if not task.done():
        task._log_destroy_pending = False
    return caught


def test_evil_duck(loop, make, reports):
    """The attribute raises: the error surfaces somewhere, and nothing crashes."""

    class Evil:
        @property
        def _asyncio_future_blocking(self):
            raise Boom

    caught = spin_with(loop, make, Evil)
    caught += [report["exception"] for report in reports]
    assert any(isinstance(exc, (Boom, RuntimeError)) for exc in caught)


def test_duck_that_fails_in_add_done_callback(loop, make, reports):
    class Duck:
        _asyncio_future_blocking = True

        def get_loop(self):
            return loop

        def add_done_callback(self, callback, context=None):
            raise Boom

    caught = spin_with(loop, make, Duck)
    caught += [report["exception"] for report in reports]
    assert any(isinstance(exc, Boom) for exc in caught)


def test_yield_none(loop, make):
    @types.coroutine
    def bare():
        yield

    async def body():
        for _ in range(5):
            await bare()
        return 1

    assert loop.run_until_complete(make(body())) == 1


# Coroutine-like objects


class CoroutineLike(collections.abc.Coroutine):
    """What a compiled coroutine looks like: send, throw, close, no frame."""

    def __init__(self, items, result=None):
        self.items = list(items)
        self.result = result
        self.thrown = []
        self.closed = False

    def send(self, value):
        if self.items:
            return self.items.pop(0)
        raise StopIteration(self.result)

    def throw(self, kind, value=None, tb=None):
        self.thrown.append(kind if isinstance(kind, BaseException) else kind())
        raise self.thrown[-1]

    def close(self):
        self.closed = True

    def __await__(self):
        return self


def test_coroutine_like(loop, make):
    like = CoroutineLike([None, None], "like")
    task = make(like)
    assert task.get_coro() is like
    assert "CoroutineLike" in repr(task)
    task.get_stack()
    task.print_stack(file=io.StringIO())
    assert loop.run_until_complete(task) == "like"


def test_coroutine_like_cancel(loop, make):
    like = CoroutineLike([None] * 10)
    task = make(like)
    spin(loop)
    task.cancel("m")
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert isinstance(like.thrown[0], asyncio.CancelledError)


class AwaitsFuture(CoroutineLike):
    # Of the module: asyncio.iscoroutine() keeps every class that it has seen.
    def send(self, value):
        if self.items:
            self.items.pop()
            self.result._asyncio_future_blocking = True
            return self.result
        raise StopIteration(self.result.result())


def test_coroutine_like_awaits_future(loop, make):
    future = loop.create_future()
    task = make(AwaitsFuture([1], future))
    spin(loop)
    assert task._fut_waiter is future
    future.set_result("w")
    assert loop.run_until_complete(task) == "w"


@pytest.mark.parametrize("kind", [StopIteration, Boom, SystemExit])
def test_send_that_raises(loop, make, kind):
    class Raises(CoroutineLike):
        def send(self, value):
            raise kind

    task = make(Raises([]))
    if kind is StopIteration:
        assert loop.run_until_complete(task) is None
    else:
        with pytest.raises(kind):
            loop.run_until_complete(task)
        assert isinstance(task.exception(), kind)


def test_send_with_stop_iteration_subclass(loop, make):
    class Stop(StopIteration):
        pass

    class Raises(CoroutineLike):
        def send(self, value):
            raise Stop(5)

    assert loop.run_until_complete(make(Raises([]))) == 5


def test_coroutine_already_running_or_awaited(loop, make):
    coro = value(1)
    with pytest.raises(StopIteration):
        coro.send(None)
    task = make(coro)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        loop.run_until_complete(task)


def test_two_tasks_on_one_coroutine(loop, make):
    coro = forever()
    one, two = make(coro), make(coro)
    spin(loop, 2)
    # What the second one sees is not defined; it ends or waits.
    for task in (one, two):
        task.cancel()
    spin(loop, 4)
    for task in (one, two):
        assert task.done()
        if not task.cancelled():
            task.exception()


# Deep chains


def test_deep_chain_of_tasks(impl):
    """Each awaits the next; finishing the last must not use the C stack."""
    check_script(
        impl,
        f"""
import asyncio
if {impl.types == "asyncloop"}:
    import asyncloop
    Task = asyncloop.Task
else:
    Task = asyncio.Task
loop = new_event_loop()
loop.set_debug(False)

async def link(task):
    return await task if task else await gate

async def main():
    global gate
    gate = loop.create_future()
    task = None
    for _ in range(20_000):
        task = Task(link(task), loop=loop)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if cancel:
        task.cancel()
    else:
        gate.set_result("end")
    return await task

import threading
def both():
    global cancel
    cancel = False
    assert loop.run_until_complete(main()) == "end"

threading.stack_size(512 * 1024)
thread = threading.Thread(target=both)
thread.start()
thread.join()
loop.close()
print("ok")
""",
        "ok",
        env={"PYTHONASYNCIODEBUG": ""},
    )


@pytest.mark.our_types("the standard Task recurses in C and raises or overflows")
def test_deep_chain_cancelled(impl):
    """cancel() walks the chain of waiters: deep ones raise or work, never crash."""
    check_script(
        impl,
        """
import asyncio, asyncloop
Task = asyncloop.Task
loop = new_event_loop()
loop.set_debug(False)

async def link(task):
    return await task if task else await loop.create_future()

async def main():
    task = None
    tasks = []
    for _ in range(20_000):
        task = Task(link(task), loop=loop)
        tasks.append(task)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        task.cancel()
    except RecursionError:
        tasks[0].cancel()
    await asyncio.wait(tasks)
    assert all(t.cancelled() for t in tasks)

loop.run_until_complete(main())
loop.close()
print("ok")
""",
        "ok",
        env={"PYTHONASYNCIODEBUG": ""},
    )


@pytest.mark.our_types("the standard Task frees such a chain by C recursion")
def test_deep_chain_dropped(impl):
    check_script(
        impl,
        """
import asyncio, asyncloop
Task = asyncloop.Task
loop = new_event_loop()
loop.set_debug(False)
loop.set_exception_handler(lambda *_: None)

async def link(task):
    await (task or loop.create_future())

async def main():
    task = None
    for _ in range(20_000):
        task = Task(link(task), loop=loop)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

loop.run_until_complete(main())
gc.collect()
assert not asyncio.all_tasks(loop)
loop.close()
print("ok")
""",
        "ok",
        env={"PYTHONASYNCIODEBUG": ""},
    )


# Exits


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_from_a_step(loop, make, kind):
    seen = []

    async def leave():
        raise kind("out")

    task = make(leave())
    loop.call_soon(seen.append, "rest")
    with pytest.raises(kind, match="out"):
        loop.run_until_complete(task)
    assert task.done()
    assert isinstance(task.exception(), kind)
    spin(loop)
    assert seen == ["rest"]


def test_exit_while_another_task_waits(loop, make):
    async def leave():
        raise SystemExit

    async def waiter(task):
        try:
            await task
        except BaseException as exc:
            return type(exc)

    leaver = make(leave())
    waiting = make(waiter(leaver))
    with pytest.raises(SystemExit):
        loop.run_until_complete(waiting)
    assert loop.run_until_complete(waiting) is SystemExit


def test_base_exception(loop, make):
    class Other(BaseException):
        pass

    async def body():
        raise Other

    task = make(body())
    with pytest.raises(Other):
        loop.run_until_complete(task)


# Introspection


def test_repr(loop, make):
    loop.set_debug(False)

    async def body():
        await forever()

    task = make(body(), name="named")
    text = repr(task)
    assert text.startswith("<Task pending name='named' coro=<")
    assert "body() running at" in text
    spin(loop)
    assert "wait_for=<Future pending" in repr(task)
    task.cancel()
    spin(loop, 2)
    assert repr(task).startswith("<Task cancelled name='named' coro=<")
    done = make(value(6), name="d")
    spin(loop)
    assert repr(done).startswith("<Task finished name='d' coro=<value() done, defined at")
    assert "result=6>" in repr(done)


def test_repr_while_cancelling(loop, make):
    tasks = []
    seen = []

    async def body():
        tasks[0].cancel()
        seen.append(repr(tasks[0]))

    tasks.append(make(body()))
    spin(loop)
    assert "cancelling" in seen[0]


def test_repr_names_the_callbacks(loop, make):
    async def waiter():
        await inner

    inner = make(forever())
    outer = make(waiter())
    spin(loop, 2)
    assert "cb=[" in repr(inner)
    inner.cancel()
    spin(loop, 3)
    assert outer.done()


def test_waiting_tasks_are_found_from_the_callbacks(loop, make):
    """Debuggers follow `__self__` of a future's wake-up callback."""
    future = loop.create_future()

    async def body():
        await future

    task = make(body())
    spin(loop)
    callbacks = future._callbacks
    assert len(callbacks) == 1
    assert callbacks[0][0].__self__ is task
    future.set_result(None)
    spin(loop)
    assert task.done()


def test_private_attributes(loop, make):
    task = make(forever())
    assert task._fut_waiter is None
    assert task._must_cancel is False
    assert task._log_destroy_pending is True
    assert task._coro is task.get_coro()
    assert task._loop is loop
    assert task._state == "PENDING"
    spin(loop)
    assert asyncio.isfuture(task._fut_waiter)
    task._log_destroy_pending = False
    assert task._log_destroy_pending is False
    with pytest.raises((AttributeError, TypeError)):
        del task._log_destroy_pending
    task.cancel()
    spin(loop, 2)
    assert task._fut_waiter is None


def test_must_cancel_is_what_libraries_expect(loop, make):
    """They read `_must_cancel`; whether it may be set follows the standard Task."""
    task = make(value())
    try:
        task._must_cancel = True
    except AttributeError:
        pass
    else:
        assert task._must_cancel is True
    spin(loop)


def test_cancelling_the_waiter_directly(loop, make):
    """The way structured concurrency libraries deliver a cancellation."""
    task = make(forever())
    spin(loop)
    waiter = task._fut_waiter
    assert not waiter.done()
    waiter.cancel()
    spin(loop, 2)
    assert task.cancelled()


def test_get_coro_and_context(loop, make):
    coro = value()
    task = make(coro)
    assert task.get_coro() is coro
    if PY >= (3, 12):
        assert isinstance(task.get_context(), contextvars.Context)
    spin(loop)


def test_get_stack(loop, make):
    async def inner():
        await forever()

    async def outer():
        await inner()

    task = make(outer())
    frames = task.get_stack()
    assert [f.f_code.co_name for f in frames] == ["outer"]
    spin(loop)
    frames = task.get_stack()
    assert frames[0].f_code.co_name == "outer"
    assert task.get_stack(limit=1)
    del frames
    out = io.StringIO()
    task.print_stack(file=out)
    assert "Stack for <Task pending" in out.getvalue()
    assert "await inner()" in out.getvalue()
    task.cancel()
    spin(loop, 2)
    assert task.get_stack() == []


def test_get_stack_of_failed(loop, make):
    async def fail():
        raise Boom

    task = make(fail())
    spin(loop)
    frames = task.get_stack()
    assert [f.f_code.co_name for f in frames] == ["fail"]
    out = io.StringIO()
    task.print_stack(file=out, limit=3)
    assert "Traceback for" in out.getvalue() and "Boom" in out.getvalue()
    task.exception()
    out = io.StringIO()
    done = make(value())
    spin(loop)
    done.print_stack(file=out)
    assert "No stack for" in out.getvalue()


@pytest.mark.skipif(PY < (3, 14), reason="call graphs came in 3.14")
def test_call_graph(loop, make):
    async def inner():
        await forever()

    async def outer(task):
        await task

    async def main():
        one = make(inner(), name="inner-task")
        two = make(outer(one), name="outer-task")
        await turns(2)
        graph = asyncio.capture_call_graph(one)
        assert graph.future is one
        assert any(entry.future is two for entry in graph.awaited_by)
        text = asyncio.format_call_graph(one)
        assert "outer-task" in text
        one.cancel()
        await asyncio.wait([one, two])

    loop.run_until_complete(main())


# Reports and memory


def test_destroyed_pending(loop, make, reports):
    task = make(forever(), name="lost")
    spin(loop)
    del task
    collect()
    (context,) = reports
    assert context["message"] == "Task was destroyed but it is pending!"
    assert "lost" in repr(context["task"])


def test_destroyed_before_the_first_step(impl, asyncio_log):
    loop = impl.new_event_loop()
    coro = forever()
    task = impl.Task(coro, loop=loop)
    loop.close()
    del task
    collect()
    assert "Task was destroyed but it is pending!" in "".join(asyncio_log.take())
    coro.close()


def test_destroyed_silently_when_told_so(loop, make, reports):
    task = make(forever())
    spin(loop)
    task._log_destroy_pending = False
    del task
    collect()
    assert reports == []


def test_source_traceback_of_destroyed(loop, make, reports):
    loop.set_debug(True)
    task = make(forever())
    spin(loop)
    assert task._source_traceback
    del task
    collect()
    assert "source_traceback" in reports.pop()


def test_exception_never_retrieved(loop, make, reports):
    async def fail():
        raise Boom

    task = make(fail())
    spin(loop)
    del task
    collect()
    (context,) = reports
    assert context["message"] == "Task exception was never retrieved"
    assert isinstance(context["exception"], Boom)


def test_never_awaited_coroutine_is_not_our_noise(loop, make):
    """A task cancelled before it ran closes its coroutine without a warning."""
    task = make(value())
    task.cancel()
    spin(loop, 2)
    del task
    collect()


def test_weakref_and_collection(loop, make):
    task = make(value([]))
    ref = weakref.ref(task)
    spin(loop)
    del task
    assert ref() is None


def test_no_reference_cycle_after_exception(loop, make):
    async def fail():
        raise Boom

    async def body():
        task = make(fail())
        ref = weakref.ref(task)
        try:
            await task
        except Boom as exc:
            kept = weakref.ref(exc)
        del task
        return ref, kept

    with without_collector():
        ref, kept = loop.run_until_complete(body())
        spin(loop)
        assert ref() is None
        assert kept() is None


def test_coroutine_is_freed_at_the_end(loop, make):
    class Local:
        pass

    refs = []

    async def body():
        local = Local()
        refs.append(weakref.ref(local))
        await asyncio.sleep(0)

    task = make(body())
    loop.run_until_complete(task)
    assert refs[0]() is None
    assert task.get_coro() is None or task.get_coro().cr_frame is None


def test_reference_counts(loop, make):
    marker = object()
    exc = Boom()

    async def body():
        await asyncio.sleep(0)
        return marker

    async def fail():
        raise exc

    async def main():
        await make(body())
        try:
            await make(fail())
        except Boom:
            pass
        task = make(forever())
        await turns(1)
        task.cancel(marker)
        try:
            await task
        except asyncio.CancelledError:
            pass

    for _ in range(3):
        loop.run_until_complete(main())
    exc.__traceback__ = None
    collect()
    before = [sys.getrefcount(x) for x in (marker, exc, loop)]
    for _ in range(50):
        loop.run_until_complete(main())
    exc.__traceback__ = None
    collect()
    after = [sys.getrefcount(x) for x in (marker, exc, loop)]
    assert [b - a for a, b in zip(before, after)] == [0, 0, 0]


def test_gc_storm(loop, make):
    old = gc.get_threshold()
    gc.set_threshold(1)
    try:

        async def body(depth):
            if depth:
                await make(body(depth - 1))
            await asyncio.sleep(0)

        loop.run_until_complete(asyncio.wait_for(body(30), 50))
    finally:
        gc.set_threshold(*old)


def test_resurrection_in_del(loop, impl):
    kept = []

    class Mine(impl.Task):
        def __del__(self):
            kept.append(self)
            super().__del__()

    task = Mine(value(3), loop=loop)
    spin(loop)
    del task
    collect()
    assert kept and kept[0].result() == 3
    kept.clear()
    collect()
    kept.clear()


def test_task_dies_in_another_thread(loop, make, reports):
    holder = [make(forever())]
    spin(loop)
    in_thread(lambda: (holder.clear(), collect()))
    assert len(reports) == 1


def test_subclass(loop, impl):
    class Mine(impl.Task):
        def __init__(self, coro, *, loop, extra=0):
            super().__init__(coro, loop=loop)
            self.extra = extra

        def cancel(self, msg=None):
            self.extra += 1
            return super().cancel(msg)

    task = Mine(forever(), loop=loop, extra=2)
    spin(loop)
    task.cancel()
    spin(loop, 2)
    assert task.extra == 3
    assert task.cancelled()
    assert "Mine" in repr(task)


@pytest.mark.our_types("the standard Task crashes on some versions")
def test_new_without_init(impl):
    for name in dir(impl.Task):
        if name in ("__class__", "__init__", "__init_subclass__", "__subclasshook__"):
            continue
        raw = impl.Task.__new__(impl.Task)
        try:
            attribute = getattr(raw, name)
        except Exception:
            continue
        if not callable(attribute):
            continue
        for args in ((), (None,), (Boom(),), (print,)):
            try:
                attribute(*args)
            except BaseException:
                pass
    del raw, attribute
    collect()


@pytest.mark.our_types("the standard Task leaks or asserts")
def test_init_twice(loop, impl, reports):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = impl.Task(value(1), loop=loop)
        try:
            task.__init__(value(2), loop=loop)
        except RuntimeError:
            pass
        spin(loop, 3)
        assert task.done()
        try:
            task.__init__(value(3), loop=loop)
        except RuntimeError:
            pass
        spin(loop, 3)
        del task
        collect()


# ours and stock together


def test_stock_and_ours_await_each_other(loop, make):
    async def stock_side():
        return await make(value("ours")) + "+stock"

    async def our_side():
        return await asyncio.Task(stock_side()) + "+ours"

    assert loop.run_until_complete(make(our_side())) == "ours+stock+ours"


def test_on_a_foreign_loop(impl, loop):
    """A loop of Python code with its own call_soon, as test doubles are."""

    class Double(asyncio.SelectorEventLoop):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def call_soon(self, callback, *args, context=None):
            self.calls += 1
            return super().call_soon(callback, *args, context=context)

    double = Double()
    try:

        async def body():
            await asyncio.sleep(0)
            future = double.create_future()
            double.call_later(0.001, future.set_result, 4)
            return await future

        task = impl.Task(body(), loop=double)
        assert double.run_until_complete(task) == 4
        assert double.calls >= 3
    finally:
        double.close()


def test_instances_of_async_functions_in_classes(loop, make):
    class Service:
        async def __aenter__(self):
            await asyncio.sleep(0)
            return self

        async def __aexit__(self, *exc):
            await asyncio.sleep(0)

        async def get(self):
            return 1

    async def body():
        async with Service() as service:
            return await service.get()

    assert loop.run_until_complete(make(body())) == 1


def test_task_done_callback_order(loop, make):
    seen = []
    task = make(value())
    task.add_done_callback(lambda t: seen.append(1))
    task.add_done_callback(lambda t: seen.append(2))
    spin(loop, 2)
    assert seen == [1, 2]


def test_closed_loop(impl, loop, asyncio_log):
    loop.close()
    coro = value()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        impl.Task(coro, loop=loop)
    coro.close()
    collect()
    asyncio_log.take()  # the standard one reports the half-made task as pending


def test_swap_current_task(loop, make):
    if not hasattr(asyncio.tasks, "_swap_current_task"):
        pytest.skip("came in 3.12")

    async def main():
        me = asyncio.current_task()
        other = make(value())
        assert asyncio.tasks._swap_current_task(loop, other) is me
        assert asyncio.current_task() is other
        assert asyncio.tasks._swap_current_task(loop, me) is other
        await other
        assert asyncio.current_task() is me

    loop.run_until_complete(make(main()))


def test_hundred_thousand_tasks(loop, make):
    async def main():
        tasks = [make(asyncio.sleep(0)) for _ in range(20_000)]
        await asyncio.wait(tasks)
        await until(lambda: True)
        return all(task.done() for task in tasks)

    assert loop.run_until_complete(main())
