"""Future: the public interface, what libraries read, and hostile users."""

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import traceback
import warnings
import weakref

import pytest

from tests.support import PY, collect, in_thread, spin, turns, without_collector

MIXED = True

# Where the standard types end the interpreter on one of the tested versions.
crashes = pytest.mark.our_types("the standard Future crashes on some versions")



@pytest.fixture
def future(impl, loop):
    return impl.Future(loop=loop)


@pytest.fixture
def make(impl, loop):
    return lambda: impl.Future(loop=loop)


class Boom(Exception):
    pass


# Types


def test_type(impl, future):
    assert isinstance(future, asyncio.Future)
    assert isinstance(future, impl.Future)
    assert not isinstance(future, asyncio.Task)
    assert asyncio.isfuture(future)
    assert issubclass(impl.Future, asyncio.Future)
    assert inspect.isawaitable(future)


def test_class_getitem(impl):
    alias = impl.Future[int]
    assert alias.__origin__ is impl.Future
    assert alias.__args__ == (int,)


def test_class_attributes(impl):
    for name in ("_asyncio_future_blocking", "__await__", "__iter__", "__del__"):
        assert hasattr(impl.Future, name)


def test_bad_constructor_arguments(impl, loop):
    with pytest.raises(TypeError):
        impl.Future(1, 2, 3)
    with pytest.raises(TypeError):
        impl.Future(unknown=1)
    with pytest.raises(TypeError):
        impl.Future(loop)


def test_constructor_takes_the_running_loop(impl, loop):
    async def main():
        assert impl.Future().get_loop() is loop
        assert impl.Future(loop=None).get_loop() is loop

    loop.run_until_complete(main())


def test_odd_loop_argument(impl):
    for bad in (3, "x", object()):
        try:
            impl.Future(loop=bad)
        except (AttributeError, TypeError):
            pass


def test_loop_with_a_failing_get_debug(impl):
    class Evil:
        def get_debug(self):
            raise Boom

    with pytest.raises(Boom):
        impl.Future(loop=Evil())


# States


def test_pending(future, loop):
    assert not future.done()
    assert not future.cancelled()
    assert future.get_loop() is loop
    with pytest.raises(asyncio.InvalidStateError, match="Result is not set"):
        future.result()
    with pytest.raises(asyncio.InvalidStateError, match="Exception is not set"):
        future.exception()


@pytest.mark.parametrize("value", [None, 0, "x", (), Boom, [1]])
def test_result(future, value):
    assert future.set_result(value) is None
    assert future.done()
    assert not future.cancelled()
    assert future.result() is value
    assert future.result() is value
    assert future.exception() is None


def test_result_may_be_an_exception_instance(future):
    exc = Boom()
    future.set_result(exc)
    assert future.result() is exc


def test_exception(future):
    exc = Boom("x")
    assert future.set_exception(exc) is None
    assert future.done()
    assert not future.cancelled()
    assert future.exception() is exc
    with pytest.raises(Boom) as info:
        future.result()
    assert info.value is exc
    with pytest.raises(Boom) as info:
        future.result()
    assert info.value is exc


def test_exception_given_as_class(future):
    future.set_exception(Boom)
    assert type(future.exception()) is Boom


def test_exception_traceback_does_not_grow(future):
    future.set_exception(Boom())
    lengths = []
    for _ in range(5):
        try:
            future.result()
        except Boom as exc:
            lengths.append(len(traceback.extract_tb(exc.__traceback__)))
    assert len(set(lengths)) == 1


def test_exception_class_that_fails(future):
    class Needs(Exception):
        def __init__(self, argument):
            pass

    class Odd(Exception):
        def __new__(cls):
            return 3

    with pytest.raises(TypeError):
        future.set_exception(Needs)
    with pytest.raises(TypeError):
        future.set_exception(Odd)
    assert not future.done()


@pytest.mark.parametrize("bad", [None, 3, "x", object(), int])
def test_set_exception_bad_argument(future, bad):
    with pytest.raises(TypeError):
        future.set_exception(bad)
    assert not future.done()


@pytest.mark.parametrize("form", [StopIteration, StopIteration(3)])
def test_stop_iteration(future, form):
    """Refused at first; from some 3.12 release on turned into a RuntimeError."""
    try:
        future.set_exception(form)
    except TypeError as exc:
        assert PY < (3, 13)
        assert "StopIteration interacts badly" in str(exc)
        assert not future.done()
        return
    exc = future.exception()
    assert PY >= (3, 12)
    assert isinstance(exc, RuntimeError)
    assert "StopIteration interacts badly" in str(exc)
    assert isinstance(exc.__cause__, StopIteration)


def test_base_exception(future):
    for kind in (KeyboardInterrupt, SystemExit):
        one = future.__class__(loop=future.get_loop())
        one.set_exception(kind())
        with pytest.raises(kind):
            one.result()


def test_done_twice(make):
    for finish in (
        lambda f: f.set_result(1),
        lambda f: f.set_exception(Boom()),
        lambda f: f.cancel(),
    ):
        future = make()
        finish(future)
        with pytest.raises(asyncio.InvalidStateError):
            future.set_result(2)
        with pytest.raises(asyncio.InvalidStateError):
            future.set_exception(Boom("second"))
        assert future.cancel() is False
        if not future.cancelled():
            future.exception()


def test_cancel(future):
    assert future.cancel() is True
    assert future.done()
    assert future.cancelled()
    assert future.cancel() is False
    with pytest.raises(asyncio.CancelledError):
        future.result()
    with pytest.raises(asyncio.CancelledError):
        future.exception()


@pytest.mark.parametrize("how", ["keyword", "positional"])
def test_cancel_message(future, how):
    future.cancel(msg="why") if how == "keyword" else future.cancel("why")
    with pytest.raises(asyncio.CancelledError) as info:
        future.result()
    assert info.value.args == ("why",)
    with pytest.raises(asyncio.CancelledError) as info:
        future.exception()
    assert info.value.args == ("why",)


def test_cancel_without_message(future):
    future.cancel()
    with pytest.raises(asyncio.CancelledError) as info:
        future.result()
    assert info.value.args == ()


def test_cancel_arguments(future):
    with pytest.raises(TypeError):
        future.cancel(1, 2)
    with pytest.raises(TypeError):
        future.cancel(wrong=1)


def test_odd_cancel_messages(make):
    for message in ({}, 0, object(), None):
        future = make()
        future.cancel(message)
        with pytest.raises(asyncio.CancelledError) as info:
            future.result()
        assert info.value.args == (() if message is None else (message,))


def test_make_cancelled_error(future):
    future.cancel(msg="m")
    exc = future._make_cancelled_error()
    assert isinstance(exc, asyncio.CancelledError)
    assert exc.args == ("m",)


def test_methods_refuse_arguments(future):
    for name in ("done", "cancelled", "result", "exception", "get_loop"):
        with pytest.raises(TypeError):
            getattr(future, name)(1)
    for name in ("set_result", "set_exception", "remove_done_callback"):
        with pytest.raises(TypeError):
            getattr(future, name)()
    with pytest.raises(TypeError):
        future.add_done_callback()


# Callbacks


def test_callback_is_called_by_the_loop(future, loop):
    seen = []
    assert future.add_done_callback(seen.append) is None
    future.set_result(1)
    assert seen == []
    spin(loop)
    assert seen == [future]


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_callback_order(future, loop, count):
    seen = []
    for i in range(count):
        future.add_done_callback(lambda f, i=i: seen.append(i))
    future.set_result(None)
    spin(loop)
    assert seen == list(range(count))


@pytest.mark.parametrize("finish", ["result", "exception", "cancel"])
def test_callbacks_on_every_end(future, loop, finish):
    seen = []
    future.add_done_callback(seen.append)
    if finish == "result":
        future.set_result(1)
    elif finish == "exception":
        future.set_exception(Boom())
        future.exception()
    else:
        future.cancel()
    spin(loop)
    assert seen == [future]


def test_callback_on_done_future(future, loop):
    seen = []
    future.set_result(1)
    future.add_done_callback(seen.append)
    assert seen == []
    spin(loop)
    assert seen == [future]


def test_same_callback_twice(future, loop):
    seen = []
    future.add_done_callback(seen.append)
    future.add_done_callback(seen.append)
    future.set_result(1)
    spin(loop)
    assert seen == [future, future]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_remove_done_callback(future, loop, before):
    seen = []

    def removed(f):
        seen.append("removed")

    def stays(f):
        seen.append("stays")

    for _ in range(before):
        future.add_done_callback(stays)
    future.add_done_callback(removed)
    future.add_done_callback(stays)
    future.add_done_callback(removed)
    assert future.remove_done_callback(removed) == 2
    assert future.remove_done_callback(removed) == 0
    future.set_result(1)
    spin(loop)
    assert seen == ["stays"] * (before + 1)


def test_remove_the_only_callback(future, loop):
    def callback(f):
        raise AssertionError

    future.add_done_callback(callback)
    assert future.remove_done_callback(callback) == 1
    assert future.remove_done_callback(callback) == 0
    assert not future._callbacks
    future.set_result(1)
    assert future.remove_done_callback(callback) == 0
    spin(loop)


def test_remove_uses_equality(future, loop):
    class Callback:
        def __eq__(self, other):
            return isinstance(other, Callback)

        def __hash__(self):
            return 1

        def __call__(self, f):
            raise AssertionError

    future.add_done_callback(Callback())
    future.add_done_callback(Callback())
    assert future.remove_done_callback(Callback()) == 2
    future.set_result(1)
    spin(loop)


def test_removed_bound_methods(future, loop):
    class Thing:
        def method(self, f):
            raise AssertionError

    thing = Thing()
    future.add_done_callback(thing.method)
    assert future.remove_done_callback(thing.method) == 1
    future.set_result(None)
    spin(loop)


def test_callback_context(future, loop):
    var = contextvars.ContextVar("var", default=0)
    seen = []
    var.set(1)
    future.add_done_callback(lambda f: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, 9)
    future.add_done_callback(lambda f: seen.append(var.get()), context=context)
    var.set(2)
    future.set_result(None)
    future.add_done_callback(lambda f: seen.append(var.get()))
    spin(loop)
    assert seen == [1, 9, 2]


def test_exception_in_callback(future, loop, reports):
    seen = []
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(seen.append)
    future.set_result(None)
    spin(loop)
    assert seen == [future]
    assert isinstance(reports.pop()["exception"], ZeroDivisionError)


def test_callback_added_by_callback(future, loop):
    seen = []
    future.add_done_callback(lambda f: f.add_done_callback(seen.append))
    future.set_result(None)
    spin(loop)
    assert seen == []
    spin(loop)
    assert seen == [future]


def test_callbacks_dropped_after_run(future, loop):
    class Thing:
        def method(self, f):
            pass

    things = [Thing() for _ in range(3)]
    refs = [weakref.ref(thing) for thing in things]
    for thing in things:
        future.add_done_callback(thing.method)
    del things, thing
    future.set_result(None)
    spin(loop)
    assert [ref() for ref in refs] == [None] * 3


# Waiting


def test_await(make, loop):
    async def main(future):
        return await future

    future = make()
    loop.call_soon(future.set_result, 5)
    assert loop.run_until_complete(main(future)) == 5
    assert loop.run_until_complete(main(future)) == 5
    future = make()
    loop.call_soon(future.set_exception, Boom("x"))
    with pytest.raises(Boom, match="x"):
        loop.run_until_complete(main(future))
    future = make()
    loop.call_soon(future.cancel)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(main(future))


def test_many_waiters_wake_in_order(make, impl, loop):
    seen = []

    async def waiter(future, number):
        seen.append((number, await future))

    async def main():
        future = make()
        tasks = [impl.Task(waiter(future, i), loop=loop) for i in range(10)]
        await turns(2)
        future.set_result("v")
        await asyncio.gather(*tasks)

    loop.run_until_complete(main())
    assert seen == [(i, "v") for i in range(10)]


def test_await_by_hand(future):
    iterator = future.__await__()
    assert next(iterator) is future
    assert future._asyncio_future_blocking is True
    future.set_result(8)
    with pytest.raises(StopIteration) as info:
        next(iterator)
    assert info.value.value == 8


def test_iter_is_await(future):
    iterator = iter(future)
    assert iterator.send(None) is future
    future.set_result(1)
    with pytest.raises(StopIteration):
        iterator.send(None)


def test_iterator_resumed_too_early(future):
    iterator = future.__await__()
    next(iterator)
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(iterator)


def test_iterator_throw(future):
    iterator = future.__await__()
    next(iterator)
    with pytest.raises(Boom):
        iterator.throw(Boom())
    iterator = future.__await__()
    with pytest.raises(Boom, match="m"):
        iterator.throw(Boom("m"))
    for bad in (3, int, None):
        with pytest.raises(TypeError):
            future.__await__().throw(bad)


def test_iterator_throw_with_three_arguments(future):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Boom, match="value"):
            future.__await__().throw(Boom, "value", None)
        with pytest.raises(TypeError):
            future.__await__().throw(Boom, Boom(), 3)
        with pytest.raises(TypeError):
            future.__await__().throw()


def test_iterator_close(future):
    future.__await__().close()
    iterator = future.__await__()
    next(iterator)
    iterator.close()


@crashes
def test_iterator_after_close(future):
    iterator = future.__await__()
    next(iterator)
    iterator.close()
    with pytest.raises(StopIteration):
        next(iterator)


def test_iterator_after_end(future):
    future.set_result(1)
    iterator = future.__await__()
    with pytest.raises(StopIteration):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)
    collect()


def test_iterator_send_value_is_ignored(future):
    iterator = future.__await__()
    next(iterator)
    future.set_result(4)
    with pytest.raises(StopIteration) as info:
        iterator.send("ignored")
    assert info.value.value == 4


@pytest.mark.parametrize("value", [(1, 2), StopIteration(3), Boom(), ((1,),)])
def test_awkward_results_survive_await(make, loop, value):
    async def main():
        future = make()
        loop.call_soon(future.set_result, value)
        return await future

    assert loop.run_until_complete(main()) is value


def test_iterator_keeps_the_future(impl, loop):
    future = impl.Future(loop=loop)
    ref = weakref.ref(future)
    iterator = future.__await__()
    del future
    assert ref() is not None
    del iterator
    collect()
    assert ref() is None


# What libraries read


def test_private_state(future):
    assert future._state == "PENDING"
    assert future._result is None
    assert future._exception is None
    assert future._log_traceback is False
    assert future._asyncio_future_blocking is False
    future.set_result(3)
    assert future._state == "FINISHED"
    assert future._result == 3


def test_private_state_cancelled(future):
    future.cancel("m")
    assert future._state == "CANCELLED"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert future._cancel_message == "m"


def test_private_exception(future):
    exc = Boom()
    future.set_exception(exc)
    assert future._exception is exc
    assert future._log_traceback is True
    future.exception()
    assert future._log_traceback is False


def test_log_traceback_can_only_be_switched_off(future):
    future.set_exception(Boom())
    with pytest.raises(ValueError, match="_log_traceback can only be set to False"):
        future._log_traceback = True
    future._log_traceback = False
    with pytest.raises((AttributeError, TypeError)):
        del future._log_traceback


def test_blocking_flag(future):
    future._asyncio_future_blocking = True
    assert future._asyncio_future_blocking is True
    future._asyncio_future_blocking = 0
    assert future._asyncio_future_blocking is False
    with pytest.raises((AttributeError, TypeError)):
        del future._asyncio_future_blocking


def test_loop_attribute(future, loop):
    assert future._loop is loop


def test_read_only_attributes(future):
    for name in ("_state", "_result", "_exception", "_loop", "_callbacks"):
        with pytest.raises(AttributeError):
            setattr(future, name, None)


def test_callbacks_attribute(future):
    def one(f):
        pass

    def two(f):
        pass

    assert not future._callbacks
    future.add_done_callback(one)
    context = contextvars.copy_context()
    future.add_done_callback(two, context=context)
    callbacks = future._callbacks
    assert isinstance(callbacks, list)
    assert [pair[0] for pair in callbacks] == [one, two]
    assert callbacks[1][1] is context
    assert isinstance(callbacks[0][1], contextvars.Context)
    callbacks.clear()
    assert future.remove_done_callback(one) in (0, 1)


def test_source_traceback(impl, loop):
    loop.set_debug(False)
    assert impl.Future(loop=loop)._source_traceback is None
    loop.set_debug(True)
    future = impl.Future(loop=loop)
    assert future._source_traceback[-1].name == "test_source_traceback"
    assert "test_source_traceback" in repr(future) or "created at" in repr(future)


def test_no_dict_surprises(future):
    with pytest.raises(AttributeError):
        future.no_such_attribute  # noqa: B018


@pytest.mark.skipif(PY < (3, 14), reason="awaited-by came in 3.14")
def test_awaited_by(make, impl, loop):
    future = make()
    assert future._asyncio_awaited_by is None

    async def waiter():
        await future

    async def main():
        task = impl.Task(waiter(), loop=loop)
        await turns(2)
        assert set(future._asyncio_awaited_by) == {task}
        other = make()
        asyncio.future_add_to_awaited_by(future, other)
        assert set(future._asyncio_awaited_by) == {task, other}
        asyncio.future_discard_from_awaited_by(future, other)
        assert set(future._asyncio_awaited_by) == {task}
        future.set_result(None)
        await task
        assert not future._asyncio_awaited_by

    loop.run_until_complete(main())


# repr


def test_repr(make, loop):
    loop.set_debug(False)

    def callback(f):
        pass

    assert repr(make()) == "<Future pending>"
    future = make()
    future.set_result([1, 2])
    assert repr(future) == "<Future finished result=[1, 2]>"
    future = make()
    future.set_exception(Boom("x"))
    assert repr(future) == "<Future finished exception=Boom('x')>"
    future.exception()
    future = make()
    future.cancel()
    assert repr(future) == "<Future cancelled>"
    future = make()
    future.add_done_callback(callback)
    assert "<Future pending cb=[" in repr(future)
    assert "callback() at " in repr(future)
    for _ in range(4):
        future.add_done_callback(callback)
    assert "<3 more>" in repr(future)


def test_repr_of_subclass(impl, loop):
    class MyFuture(impl.Future):
        pass

    assert "MyFuture pending" in repr(MyFuture(loop=loop))


def test_repr_of_itself(future):
    future.set_result([future])
    assert "finished" in repr(future)
    assert "..." in repr(future)


def test_repr_with_failing_parts(future):
    class Bad:
        def __repr__(self):
            raise Boom

    future.set_result(Bad())
    try:
        repr(future)
    except Boom:
        pass


# Reports


def test_never_retrieved(impl, loop, reports):
    future = impl.Future(loop=loop)
    exc = Boom("lost")
    future.set_exception(exc)
    text = repr(future)
    del future
    collect()
    (context,) = reports
    assert context["exception"] is exc
    assert context["message"] == "Future exception was never retrieved"
    assert repr(context["future"]).startswith("<Future finished exception=Boom('lost')")
    assert text


@pytest.mark.parametrize(
    "retrieve",
    [
        lambda f: f.exception(),
        lambda f: pytest.raises(Boom, f.result),
        lambda f: setattr(f, "_log_traceback", False),
    ],
)
def test_retrieved(impl, loop, reports, retrieve):
    future = impl.Future(loop=loop)
    future.set_exception(Boom())
    retrieve(future)
    del future
    collect()
    assert reports == []


def test_never_retrieved_with_a_failing_handler(impl, loop, asyncio_log):
    def handler(loop, context):
        raise Boom("handler")

    loop.set_exception_handler(handler)
    future = impl.Future(loop=loop)
    future.set_exception(LookupError())
    del future
    collect()
    assert "Unhandled error in exception handler" in "".join(asyncio_log.take())


def test_never_retrieved_keeps_the_live_exception(impl, loop, reports):
    """The report happens in the middle of somebody's exception handling."""
    future = impl.Future(loop=loop)
    future.set_exception(Boom())
    try:
        raise LookupError("live")
    except LookupError as live:
        del future
        collect()
        assert sys.exc_info()[1] is live
    assert len(reports) == 1


def test_resurrected_by_the_handler(impl, loop):
    kept = []
    loop.set_exception_handler(lambda _, context: kept.append(context["future"]))
    future = impl.Future(loop=loop)
    future.set_exception(Boom("kept"))
    del future
    collect()
    (future,) = kept
    kept.clear()
    assert str(future.exception()) == "kept"
    del future
    collect()
    assert kept == []


def test_source_traceback_in_report(impl, loop, reports):
    loop.set_debug(True)
    future = impl.Future(loop=loop)
    future.set_exception(Boom())
    del future
    collect()
    assert "source_traceback" in reports.pop()


# Memory


def test_reference_counts(make, loop):
    value = object()
    exc = Boom()

    def callback(f):
        pass

    def one_round():
        future = make()
        future.add_done_callback(callback)
        future.add_done_callback(callback)
        future.remove_done_callback(callback)
        future.add_done_callback(callback)
        future.set_result(value)
        future.result()
        future = make()
        future.set_exception(exc)
        future.exception()
        try:
            future.result()
        except Boom:
            pass
        exc.__traceback__ = None
        make().cancel(value)
        iterator = make().__await__()
        next(iterator)
        spin(loop)

    for _ in range(3):
        one_round()
    collect()
    before = [sys.getrefcount(x) for x in (value, exc, callback, loop)]
    for _ in range(50):
        one_round()
    collect()
    after = [sys.getrefcount(x) for x in (value, exc, callback, loop)]
    assert before == after


def test_weakref(impl, loop):
    future = impl.Future(loop=loop)
    calls = []
    ref = weakref.ref(future, lambda _: calls.append(1))
    assert ref() is future
    del future
    collect()
    assert ref() is None
    assert calls == [1]


def test_cycle_through_callback(impl, loop):
    future = impl.Future(loop=loop)
    future.add_done_callback(lambda f, future=future: None)
    future.add_done_callback(lambda f, future=future: None)
    ref = weakref.ref(future)
    del future
    collect()
    assert ref() is None


def test_cycle_through_result(impl, loop):
    future = impl.Future(loop=loop)
    future.set_result({"self": future})
    ref = weakref.ref(future)
    del future
    collect()
    assert ref() is None


def test_cycle_through_exception(impl, loop):
    future = impl.Future(loop=loop)
    exc = Boom()
    exc.future = future
    future.set_exception(exc)
    future.exception()
    ref = weakref.ref(future)
    del future, exc
    collect()
    assert ref() is None


def test_gc_sees_what_it_holds(future):
    marker = []
    assert gc.is_tracked(future)
    future.set_result(marker)
    assert any(x is marker for x in gc.get_referents(future))


def test_no_cycle_from_result(make):
    """result() in a frame must not leave exception -> traceback -> frame -> future."""
    exc = Boom()

    def body():
        future = make()
        future.set_exception(exc)
        try:
            future.result()
        except Boom:
            pass
        return weakref.ref(future)

    with without_collector():
        ref = body()
        exc.__traceback__ = None
        exc = None
        assert ref() is None


def test_garbage_storm(impl, loop):
    old = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            future = impl.Future(loop=loop)
            future.me = None if not hasattr(future, "__dict__") else future
            future.add_done_callback(lambda f, g=future: g)
            future.set_result([future])
        del future
    except AttributeError:
        pass
    finally:
        gc.set_threshold(*old)
    spin(loop)
    collect()


# Subclasses and half-made objects


def init_again(future, loop):
    """From 3.15 on the standard types refuse, and ours as well."""
    try:
        future.__init__(loop=loop)
    except RuntimeError as exc:
        assert PY >= (3, 15)
        assert "already initialized" in str(exc)
        return False
    return True


def test_subclass(impl, loop):
    class Mine(impl.Future):
        def __init__(self, *, loop):
            super().__init__(loop=loop)
            self.mine = 1

        def set_result(self, value):
            super().set_result(value * 2)

    future = Mine(loop=loop)
    future.extra = "x"
    assert future.mine == 1

    async def main():
        loop.call_soon(future.set_result, 4)
        return await future

    assert loop.run_until_complete(main()) == 8
    ref = weakref.ref(future)
    del future
    collect()
    assert ref() is None


def test_subclass_with_own_callbacks(impl, loop):
    """A Task awaits a subclass by the methods that the subclass overrides."""
    calls = []

    class Mine(impl.Future):
        def add_done_callback(self, callback, *, context=None):
            calls.append(callback)
            super().add_done_callback(callback, context=context)

        def result(self):
            return "mine"

    async def main():
        future = Mine(loop=loop)
        loop.call_soon(future.set_result, 1)
        return await future

    assert loop.run_until_complete(main()) in ("mine", 1)
    assert len(calls) == 1


def test_subclass_with_slots(impl, loop):
    class Slotted(impl.Future):
        __slots__ = ("value",)

    future = Slotted(loop=loop)
    future.value = 3
    assert future.value == 3


def test_new_without_init(impl):
    """Every method of a half-made future answers, with an exception at worst."""
    for name in dir(impl.Future):
        if name in ("__class__", "__init__", "__init_subclass__", "__subclasshook__"):
            continue
        raw = impl.Future.__new__(impl.Future)
        try:
            attribute = getattr(raw, name)
        except Exception:
            continue
        for args in ((), (None,), (Boom(),), (print,)):
            if callable(attribute):
                try:
                    attribute(*args)
                except BaseException:
                    pass
    raw = impl.Future.__new__(impl.Future)
    ref = weakref.ref(raw)
    del raw
    collect()
    assert ref() is None


def test_half_made_subclass(impl, loop):
    class Mine(impl.Future):
        def __init__(self):
            pass

    future = Mine()
    with pytest.raises((RuntimeError, AttributeError)):
        future.get_loop()
    with pytest.raises((RuntimeError, AttributeError, asyncio.InvalidStateError)):
        future.result()
    with pytest.raises((RuntimeError, AttributeError)):
        future.set_result(1)
    with pytest.raises((RuntimeError, AttributeError)):
        future.add_done_callback(print)

    async def main():
        await future

    with pytest.raises((RuntimeError, AttributeError)):
        loop.run_until_complete(main())
    repr_or_error(future)


def repr_or_error(thing):
    try:
        return repr(thing)
    except Exception as exc:
        return exc


def test_init_twice(impl, loop, loop_factory, reports):
    future = impl.Future(loop=loop)
    future.add_done_callback(lambda f: None)
    future.add_done_callback(lambda f: None)
    future.set_exception(Boom())
    if not init_again(future, loop):
        assert isinstance(future.exception(), Boom)
        return
    assert not future.done()
    future.set_result(3)
    assert future.result() == 3
    other = loop_factory()
    assert init_again(future, other)
    assert future.get_loop() is other
    spin(loop)
    spin(other)


def test_init_with_a_bad_loop_leaves_it_sane(impl, loop):
    future = impl.Future(loop=loop)
    for bad in (3, object()):
        try:
            future.__init__(loop=bad)
        except Exception:
            pass
    repr_or_error(future)
    del future
    collect()


# Evil users


@crashes
def test_remove_while_eq_clears(impl, loop):
    """__eq__ of a callback takes the list apart that is being searched."""
    future = impl.Future(loop=loop)
    entered = []

    class Evil:
        def __eq__(self, other):
            if not entered:
                entered.append(1)
                for _ in range(8):
                    future.remove_done_callback(evil)
                if future._callbacks:
                    future._callbacks.clear()
            return self is other

        def __hash__(self):
            return 1

    evil = Evil()
    for _ in range(8):
        future.add_done_callback(evil)
        future.add_done_callback(Evil())
    future.remove_done_callback(Evil())
    collect()


@crashes
def test_remove_while_eq_adds_and_finishes(impl, loop, reports):
    future = impl.Future(loop=loop)

    class Evil:
        def __eq__(self, other):
            if not future.done():
                future.add_done_callback(str)
                future.set_result(1)
            return True

        def __hash__(self):
            return 1

        def __call__(self, f):
            pass

    for _ in range(4):
        future.add_done_callback(Evil())
    future.remove_done_callback(Evil())
    spin(loop, 2)


@crashes
def test_remove_while_eq_drops_the_last_reference(impl, loop):
    holder = []

    class Evil:
        def __eq__(self, other):
            holder.clear()
            collect()
            return True

        def __hash__(self):
            return 1

    holder.append(impl.Future(loop=loop))
    holder[0].add_done_callback(Evil())
    holder[0].add_done_callback(Evil())
    holder[0].remove_done_callback(Evil())


def test_remove_with_failing_eq(future):
    class Evil:
        def __eq__(self, other):
            raise Boom

        def __hash__(self):
            return 1

    future.add_done_callback(Evil())
    future.add_done_callback(print)
    future.add_done_callback(Evil())
    with pytest.raises(Boom):
        future.remove_done_callback(Evil())
    assert future._callbacks


@crashes
def test_eq_reinitialises(impl, loop):
    future = impl.Future(loop=loop)

    class Evil:
        def __eq__(self, other):
            init_again(future, loop)
            return NotImplemented

        def __hash__(self):
            return 1

    for _ in range(4):
        future.add_done_callback(Evil())
    future.remove_done_callback(Evil())


@crashes
def test_call_soon_that_reenters(impl):
    """The loop's call_soon is the user's code as well."""

    class EvilLoop:
        def __init__(self):
            self.futures = []

        def get_debug(self):
            return False

        def call_soon(self, callback, *args, context=None):
            for future in self.futures:
                future.remove_done_callback(callback)
                future.add_done_callback(callback)
                future.cancel()
                future.__init__(loop=self)

        def call_exception_handler(self, context):
            pass

    for count in (1, 2, 5):
        loop = EvilLoop()
        future = impl.Future(loop=loop)
        loop.futures.append(future)
        for _ in range(count):
            future.add_done_callback(lambda f: None)
        try:
            future.set_result(1)
        except (asyncio.InvalidStateError, RuntimeError):
            pass
        loop.futures.clear()
        collect()


def test_call_soon_that_fails(impl):
    class EvilLoop:
        def get_debug(self):
            return False

        def call_soon(self, callback, *args, context=None):
            raise Boom

        def call_exception_handler(self, context):
            pass

    future = impl.Future(loop=EvilLoop())
    future.add_done_callback(print)
    future.add_done_callback(print)
    with pytest.raises(Boom):
        future.set_result(1)
    assert future.done()
    with pytest.raises(Boom):
        future.add_done_callback(print)


def test_result_destructor_reenters(impl, loop):
    future = impl.Future(loop=loop)

    class Evil:
        def __del__(self):
            for name, *args in (("done",), ("result",), ("set_result", 1)):
                try:
                    getattr(future, name)(*args)
                except (asyncio.InvalidStateError, RuntimeError, NameError):
                    pass

    future.set_result(Evil())
    if not init_again(future, loop):
        del future
    collect()
    spin(loop)


def test_callback_destructor_reenters(impl, loop):
    future = impl.Future(loop=loop)

    class Evil:
        def __call__(self, f):
            pass

        def __del__(self):
            future.add_done_callback(print)
            future.remove_done_callback(print)
            future.cancel()
            impl.Future(loop=loop)

    evil = Evil()
    future.add_done_callback(evil)
    future.add_done_callback(evil)
    assert future.remove_done_callback(evil) == 2
    del evil
    collect()
    spin(loop, 2)
    assert future.cancelled()


def test_odd_callback_context(future, loop, reports):
    for bad in (3, "x", object()):
        try:
            future.add_done_callback(lambda f: None, context=bad)
        except TypeError:
            pass
    try:
        future.set_result(1)
        spin(loop)
    except (TypeError, AttributeError):
        pass


def test_not_callable_callback(future, loop, reports):
    loop.set_debug(False)
    try:
        future.add_done_callback(3)
    except TypeError:
        return
    future.set_result(1)
    spin(loop)
    assert isinstance(reports.pop()["exception"], TypeError)


def test_destroyed_in_a_thread(impl, loop):
    holder = [impl.Future(loop=loop)]
    holder[0].set_result(1)
    in_thread(holder.clear)
    collect()


def test_finished_in_a_thread_outside_debug_mode(impl, loop):
    """Not allowed, but it must not crash: the loop is not running here."""
    loop.set_debug(False)
    future = impl.Future(loop=loop)
    seen = []
    future.add_done_callback(lambda f: seen.append(threading.get_ident()))
    in_thread(future.set_result, 1)
    spin(loop, 2)
    assert seen == [threading.get_ident()]


def test_debug_mode_refuses_other_threads(impl, loop):
    loop.set_debug(True)

    async def main():
        future = impl.Future(loop=loop)
        future.add_done_callback(lambda f: None)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await asyncio.to_thread(future.set_result, 1)

    loop.run_until_complete(main())


# asyncio's functions on them


def test_ensure_future_and_wrap_future(future, loop):
    import concurrent.futures

    assert asyncio.ensure_future(future) is future
    source = concurrent.futures.Future()
    wrapped = asyncio.wrap_future(source, loop=loop)
    assert wrapped.get_loop() is loop
    source.set_result(4)
    assert loop.run_until_complete(wrapped) == 4


def test_chain_future_cancel(loop):
    import concurrent.futures

    source = concurrent.futures.Future()
    wrapped = asyncio.wrap_future(source, loop=loop)
    wrapped.cancel()
    spin(loop)
    assert source.cancelled()


def test_run_coroutine_threadsafe(loop):
    async def add(a, b):
        await asyncio.sleep(0)
        return a + b

    async def main():
        return await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(add(1, 2), loop).result()
        )

    assert loop.run_until_complete(main()) == 3


def test_closed_loop(impl, loop):
    future = impl.Future(loop=loop)
    future.add_done_callback(print)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.set_result(1)
    other = impl.Future(loop=loop)
    other.set_result(1)
    assert other.result() == 1


def test_deallocation_of_a_long_chain(impl, loop):
    """Each is the result of the next: freed without the C stack's help."""
    future = impl.Future(loop=loop)
    future.set_result(None)
    for _ in range(50_000):
        following = impl.Future(loop=loop)
        following.set_result(future)
        future = following
    del following
    del future
    collect()
