"""What the methods of a program's own objects raise, where a loop or a Task calls them."""

import asyncio
import contextvars
import gc
import math
import sys
import types

import pytest

from tests.support import turns


class Awkward:
    """A future of somebody's own, of which one method raises."""

    def __init__(self, loop, **raising):
        self._asyncio_future_blocking = False
        self.loop, self.raising, self.callbacks, self.cancelled_with = loop, raising, [], []

    def __await__(self):
        self._asyncio_future_blocking = self.raising.get("blocking", True)
        yield self
        return 42

    def _raise(self, name):
        if name in self.raising:
            raise self.raising[name](name)

    def get_loop(self):
        self._raise("get_loop")
        return self.loop

    def add_done_callback(self, callback, *, context=None):
        self._raise("add_done_callback")
        self.callbacks.append((callback, context))

    def cancel(self, why):  # asyncio's Task gives the message by position
        self.cancelled_with.append(why)
        self._raise("cancel")
        return False

    def result(self):
        return 42

    def finish(self):
        for callback, context in self.callbacks:
            self.loop.call_soon(callback, self, context=context)


class NoTruth:
    def __bool__(self):
        raise ValueError("no truth")


class NoText:
    def __repr__(self):
        raise ValueError("no text")


class LikeAGenerator:
    __class__ = types.GeneratorType


@types.coroutine
def give(what):
    return (yield what)


async def wait_for_it(thing):
    return await thing


@pytest.mark.parametrize(
    "raising",
    [
        {"get_loop": ValueError},
        {"add_done_callback": ValueError},
        {"add_done_callback": asyncio.CancelledError},
        {"add_done_callback": GeneratorExit},
        {"blocking": NoTruth()},
    ],
    ids=["loop", "value", "cancelled", "exit", "truth"],
)
def test_future_that_cannot_be_awaited_is_reported(loop, reports, raising):
    """Of its step, as of any callback; nothing wakes the Task, not even cancel()."""

    async def main():
        task = loop.create_task(wait_for_it(Awkward(loop, **raising)))
        await turns(3)
        task.cancel()
        await turns(3)
        assert not task.done() and task._fut_waiter is None
        task._log_destroy_pending = False
        (report,) = reports
        assert set(report) == {"message", "exception", "handle"}
        assert report["message"].startswith("Exception in callback ")
        assert type(report["exception"]) in (ValueError, asyncio.CancelledError, GeneratorExit)

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_of_a_future_that_cannot_be_awaited(loop, kind):
    task = loop.create_task(wait_for_it(Awkward(loop, add_done_callback=kind)))
    with pytest.raises(kind, match="add_done_callback"):
        loop.run_forever()
    assert not task.done()
    task._log_destroy_pending = False


def test_text_of_what_was_yielded_raises(loop, reports):
    async def main():
        task = loop.create_task(wait_give(NoText()))
        await turns(3)
        assert not task.done()
        task._log_destroy_pending = False

    async def wait_give(what):
        await give(what)

    loop.run_until_complete(main())
    assert str(reports[0]["exception"]) == "no text"


def test_what_says_to_be_a_generator(run):
    async def main():
        with pytest.raises(RuntimeError, match="instead of yield from for generator in task"):
            await give(LikeAGenerator())

    run(main())


def test_message_of_cancel_comes_by_position(loop):
    async def main():
        future = Awkward(loop)
        task = loop.create_task(wait_for_it(future))
        await turns(2)
        assert task.cancel("why") and task._must_cancel
        assert future.cancelled_with == ["why"]
        task.cancel()
        assert future.cancelled_with == ["why", None]
        future.finish()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())


def test_cancel_that_came_too_early_raises(loop, reports):
    """The Task goes on waiting, and is cancelled when that ends."""

    async def early(future):
        asyncio.current_task().cancel("early")
        await future

    async def main():
        future = Awkward(loop, cancel=ValueError)
        task = loop.create_task(early(future))
        await turns(3)
        assert task._fut_waiter is future and task._must_cancel
        assert [str(report["exception"]) for report in reports] == ["cancel"]
        future.finish()
        with pytest.raises(asyncio.CancelledError, match="early"):
            await task
        assert len(reports) == 1

    loop.run_until_complete(main())


def test_step_of_a_task_that_is_done(loop, reports):
    """Its report names the handle, not the Task."""

    async def nothing():
        pass

    async def main():
        task = loop.create_task(nothing())
        (step,) = [h._callback for h in loop._ready if getattr(h._callback, "__self__", 0) is task]
        loop.call_soon(step)
        await turns(3)

    loop.run_until_complete(main())
    assert set(reports[0]) == {"message", "exception", "handle"}
    assert isinstance(reports[0]["exception"], asyncio.InvalidStateError)


# -- the exception handler -------------------------------------------------------------------


def fail():
    raise ZeroDivisionError("first")


def test_exception_is_handled_while_it_is_reported(loop):
    seen = []

    def handler(loop, context):
        seen.append((sys.exc_info()[1], context["exception"]))

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    loop.call_later(0, fail)
    loop.call_soon(lambda: seen.append(sys.exc_info()[1]))
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert sys.exc_info()[1] is None and None in seen
    pairs = [pair for pair in seen if isinstance(pair, tuple)]
    assert len(pairs) == 2 and all(handled is told for handled, told in pairs)


def test_exception_that_was_handled_outside_comes_back(loop):
    """Also where the loop runs in an `except`, in a generator."""

    def handler(loop, context):
        assert sys.exc_info()[1] is context["exception"]

    def generator():
        loop.run_forever()
        yield sys.exc_info()[1]

    loop.set_exception_handler(handler)
    outer = KeyError("outer")
    try:
        raise outer
    except KeyError:
        for run in (loop.run_forever, lambda: next(generator())):
            loop.call_soon(fail)
            loop.call_soon(loop.stop)
            assert run() in (None, outer)
            assert sys.exc_info()[1] is outer
    assert sys.exc_info()[1] is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_leaves_the_handler_has_a_context(loop, kind):
    def handler(loop, context):
        raise kind("second")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(kind) as caught:
        loop.run_forever()
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_handler_that_raises_is_told_with_its_context(loop):
    def handler(loop, context):
        raise ValueError("second")

    told = []
    loop.set_exception_handler(handler)
    loop.default_exception_handler = told.append
    loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert isinstance(told.pop()["exception"].__context__, ZeroDivisionError)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_text_of_a_callback_raises(loop, reports, kind):
    """asyncio has no text for its report: that leaves the loop."""

    class Callback:
        def __call__(self):
            raise KeyError("called")

        def __repr__(self):
            raise kind("no text")

    loop.call_soon(Callback())
    with pytest.raises(kind, match="no text") as caught:
        loop.run_forever()
    assert isinstance(caught.value.__context__, KeyError)
    assert not reports


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_report_of_a_forgotten_exception_raises(loop, monkeypatch, kind):
    """sys.unraisablehook is told which call of asyncio's has raised."""
    found = []

    def hook(info):
        found.append((info.object, info.err_msg or ""))

    class Loop(type(loop)):
        def call_exception_handler(self, context):
            raise kind("report")

    own = Loop()
    monkeypatch.setattr(sys, "unraisablehook", hook)
    own.create_future().set_exception(ValueError("forgotten"))
    gc.collect()
    own.close()
    (told,) = found
    assert "call_exception_handler" in f"{told[0]!r} {told[1]}"


# -- debug mode ------------------------------------------------------------------------------


def test_no_callback_is_slower_than_nan(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = math.nan
    loop.run_until_complete(asyncio.sleep(0))
    assert not caplog.records


def deep(function, levels=30):
    return deep(function, levels - 1) if levels else function()


def test_how_much_of_the_stack_is_taken_down(loop):
    """Of a handle ten frames, some of which were asyncio's own; of futures and tasks everything."""
    loop.set_debug(True)
    coro = asyncio.sleep(0)
    kinds = [
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.create_future(),
        lambda: asyncio.Future(loop=loop),
        lambda: type(loop.create_future())(loop=loop),
        lambda: loop.create_task(coro),
    ]
    made = [deep(kind) for kind in kinds]
    counts = [len(thing._source_traceback) for thing in made]
    assert counts[:4] == [8, 8, 7, 8]
    assert all(count > 30 for count in counts[4:])
    for thing in made[:4]:
        thing.cancel()
    loop.run_until_complete(made[-1])


def test_place_where_a_future_was_made(loop):
    """Of create_future() that is its own last line, as in a text of asyncio's."""
    loop.set_debug(True)
    code = asyncio.BaseEventLoop.create_future.__code__
    lines = [line for *_, line in code.co_lines() if line]
    place = loop.create_future()._source_traceback[-1]
    assert (place.filename, place.name) == (code.co_filename, "create_future")
    assert place.lineno in lines
    assert f"created at {code.co_filename}:{place.lineno}>" in repr(loop.create_future())


# -- what only resembles something -----------------------------------------------------------


class LikeAContext:
    def __init__(self):
        self.runs = 0
        self.context = contextvars.copy_context()

    def run(self, function, *args):
        self.runs += 1
        return self.context.run(function, *args)


checks_contexts = sys.version_info >= (3, 15)


@pytest.mark.skipif(checks_contexts, reason="refused from 3.15 on")
def test_task_in_what_resembles_a_context(loop):
    """Each of its steps is a call of run(), of asyncio's futures and of others."""
    variable = contextvars.ContextVar("variable", default=0)
    context = LikeAContext()

    async def body(future):
        variable.set(5)
        await asyncio.sleep(0)
        assert await future == 1
        assert asyncio.current_task() in asyncio.all_tasks()
        return variable.get()

    async def main():
        future = loop.create_future()
        task = loop.create_task(body(future), context=context)
        await turns(3)
        future.set_result(1)
        assert await task == 5 and await asyncio.gather(task) == [5]
        assert context.context[variable] == 5 and variable.get() == 0
        cancelled = loop.create_task(asyncio.sleep(60), context=context)
        await turns(1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    loop.run_until_complete(main())
    assert context.runs == 5


@pytest.mark.skipif(not checks_contexts, reason="found out later before 3.15")
@pytest.mark.parametrize("wrong", [5, LikeAContext])
def test_task_refuses_what_is_no_context(loop, wrong):
    coro = asyncio.sleep(0)
    with pytest.raises(TypeError, match=r"a contextvars\.Context was expected, got "):
        loop.create_task(coro, context=wrong)
    coro.close()


@pytest.mark.skipif(checks_contexts, reason="refused from 3.15 on")
def test_task_in_what_is_no_context(loop, reports):
    async def main():
        task = loop.create_task(asyncio.sleep(0), context=5)
        await turns(2)
        assert not task.done()
        task._log_destroy_pending = False
        task.get_coro().close()

    loop.run_until_complete(main())
    assert isinstance(reports.pop()["exception"], AttributeError)


def test_wakeup_by_hand_inside_of_another_step(loop):
    """A Task is refused because another one runs, before it is looked at whether it is done."""

    async def main():
        future = loop.create_future()
        task = loop.create_task(wait_for_it(future))
        await turns(1)
        ((wakeup, _),) = future._callbacks
        future.set_result(None)
        await task
        with pytest.raises(RuntimeError, match="Cannot enter into task"):
            wakeup(future)

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came in 3.12")
@pytest.mark.our_types("3.12 and 3.13 raise SystemError in place of it")
def test_eager_step_that_cannot_await(loop, reports):
    """Whoever makes the Task is told, and that it is lost."""

    async def main():
        me = asyncio.current_task()
        with pytest.raises(ValueError, match="get_loop"):
            asyncio.create_task(wait_for_it(Awkward(loop, get_loop=ValueError)))
        assert asyncio.current_task() is me

    loop.set_task_factory(asyncio.eager_task_factory)
    loop.run_until_complete(main())
    gc.collect()
    assert [report["message"] for report in reports] == ["Task was destroyed but it is pending!"]
