"""The loop itself: life cycle, order of callbacks, threads, errors."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import os
import signal
import socket
import sys
import threading
import time
import weakref

import pytest

from tests.support import (
    CLASSES_ARE_IMMORTAL,
    PY,
    check_script,
    collect,
    in_thread,
    run_script,
    spin,
    turns,
)

# Life cycle


def test_types(impl, loop):
    assert isinstance(loop, impl.Loop)
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)


def test_states(loop):
    assert not loop.is_running()
    assert not loop.is_closed()
    seen = []
    loop.call_soon(lambda: seen.append((loop.is_running(), loop.is_closed())))
    spin(loop)
    assert seen == [(True, False)]
    assert not loop.is_running()
    loop.close()
    assert loop.is_closed()
    loop.close()
    assert loop.is_closed()


def test_repr(loop):
    assert "running=False closed=False" in repr(loop)
    loop.close()
    assert "closed=True" in repr(loop)


def test_time_is_monotonic(loop):
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()


def test_run_until_complete(loop):
    async def value():
        return 42

    assert loop.run_until_complete(value()) == 42
    future = loop.create_future()
    loop.call_soon(future.set_result, "x")
    assert loop.run_until_complete(future) == "x"
    assert loop.run_until_complete(future) == "x"


def test_run_until_complete_raises(loop):
    async def fail():
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        loop.run_until_complete(fail())
    assert not loop.is_running()


def test_run_until_complete_stopped_early(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)
    future.set_result(1)
    assert loop.run_until_complete(future) == 1


@pytest.mark.parametrize("bad", [None, 3, "x", object()])
def test_run_until_complete_bad_argument(loop, bad):
    with pytest.raises(TypeError):
        loop.run_until_complete(bad)


def test_run_until_complete_awaitable(loop):
    class Awaitable:
        def __await__(self):
            yield
            return 7

    assert loop.run_until_complete(Awaitable()) == 7


def test_run_until_complete_foreign_future(loop, loop_factory):
    other = loop_factory().create_future()
    with pytest.raises(ValueError, match="loop argument must agree|different loop"):
        loop.run_until_complete(other)


def test_running_twice(loop):
    errors = []

    def nested():
        with pytest.raises(RuntimeError) as info:
            loop.run_forever()
        errors.append(str(info.value))

    loop.call_soon(nested)
    spin(loop)
    assert errors == ["This event loop is already running"]


def test_running_inside_another_loop(loop, loop_factory):
    second = loop_factory()
    errors = []

    def nested():
        with pytest.raises(RuntimeError) as info:
            second.run_forever()
        errors.append(str(info.value))

    loop.call_soon(nested)
    spin(loop)
    assert errors == ["Cannot run the event loop while another loop is running"]
    spin(second)


def test_close_while_running(loop):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


def test_running_loop_is_set_and_restored(loop):
    async def main():
        assert asyncio.get_running_loop() is loop
        assert asyncio.get_event_loop() is loop

    loop.run_until_complete(main())
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_closed_loop_methods(loop):
    loop.close()
    calls = [
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.run_forever(),
        lambda: loop.run_in_executor(None, print),
        lambda: loop.add_reader(0, print),
        lambda: loop.add_writer(0, print),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()


def test_closed_loop_coroutines(loop):
    async def nothing():
        pass

    loop.close()
    for make in (loop.run_until_complete, loop.create_task):
        coro = nothing()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            make(coro)
        coro.close()


def test_closed_loop_still_answers(loop):
    loop.close()
    assert loop.is_closed() and not loop.is_running()
    assert loop.time() > 0
    assert loop.get_debug() in (True, False)
    assert loop.get_exception_handler() is None
    assert loop.get_task_factory() is None
    assert loop.create_future().get_loop() is loop
    assert loop.remove_reader(0) in (False, None)
    loop.stop()


def test_close_drops_pending_callbacks(loop):
    class Thing:
        def method(self):
            raise AssertionError("must not run")

    things = [Thing(), Thing()]
    refs = [weakref.ref(thing) for thing in things]
    loop.call_soon(things[0].method)
    loop.call_later(3600, things[1].method)
    del things
    loop.close()
    collect()
    assert [ref() for ref in refs] == [None, None]


def test_close_shuts_executor_down(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    assert loop.run_until_complete(loop.run_in_executor(None, lambda: 5)) == 5
    loop.close()
    with pytest.raises(RuntimeError):
        executor.submit(print)


def test_loop_dies_without_references(loop_factory, impl):
    loop = impl.new_event_loop()
    ref = weakref.ref(loop)
    spin(loop)
    loop.close()
    del loop
    collect()
    assert ref() is None


def _ran(loop):
    handle = loop.call_soon(int)
    spin(loop)
    return handle


def _failed(loop):
    loop.set_exception_handler(lambda loop, context: None)
    handle = loop.call_soon(int, "x")
    spin(loop)
    return handle


def _cancelled(loop):
    handle = loop.call_soon(int)
    handle.cancel()
    spin(loop)
    return handle


def _cancelled_by_itself(loop):
    handle = loop.call_soon(lambda: handle.cancel())
    spin(loop)
    return handle


def _timer_cancelled(loop):
    handle = loop.call_later(3600, int)
    handle.cancel()
    return handle


def _timer_ran(loop):
    handle = loop.call_later(-1, int)
    spin(loop)
    return handle


WAYS_TO_END = {
    "ran": _ran,
    "failed": _failed,
    "cancelled": _cancelled,
    "cancelled by itself": _cancelled_by_itself,
    "timer cancelled": _timer_cancelled,
    "timer ran": _timer_ran,
    "left": lambda loop: loop.call_soon(int),
    "timer left": lambda loop: loop.call_later(3600, int),
    "threadsafe left": lambda loop: loop.call_soon_threadsafe(int),
}


@pytest.mark.parametrize("how", WAYS_TO_END)
@pytest.mark.parametrize("debug", [False, True])
def test_handle_of_closed_loop_is_no_cycle_for_good(impl, how, debug):
    class Thing:
        pass

    loop = impl.new_event_loop()
    loop.set_debug(debug)
    loop.thing = thing = Thing()
    thing.handle = WAYS_TO_END[how](loop)
    loop.close()
    repr(thing.handle)
    thing.handle.cancel()
    assert thing.handle.cancelled()
    assert "cancelled" in repr(thing.handle)
    assert isinstance(thing.handle, asyncio.Handle)
    refs = [weakref.ref(thing), weakref.ref(loop)]
    del thing, loop
    collect()
    assert [ref() for ref in refs] == [None, None]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("threadsafe", [False, True])
def test_handle_run_by_hand_closes_loop(loop, debug, threadsafe):
    loop.set_debug(debug)
    schedule = loop.call_soon_threadsafe if threadsafe else loop.call_soon
    handle = schedule(loop.close)
    handle._run()
    handle.cancel()
    assert loop.is_closed()
    assert handle.cancelled()


@pytest.mark.skipif(CLASSES_ARE_IMMORTAL, reason="the interpreter keeps classes for good")
def test_class_of_first_loop_dies(impl):
    """Nothing remembers it, so what hangs on it goes with the loop."""
    check_script(
        impl,
        """
import gc, weakref

class Thing:
    pass

def body():
    thing = Thing()

    class OwnLoop(Loop):
        def things(self):
            return thing

    thing.loop = OwnLoop()
    thing.loop.run_until_complete(asyncio.sleep(0))
    thing.loop.close()
    return weakref.ref(thing), weakref.ref(OwnLoop)

refs = body()
gc.collect()
print([ref() for ref in refs])
""",
        "[None, None]",
    )


def test_closed_loop_with_cycle_dies(impl):
    loop = impl.new_event_loop()
    ref = weakref.ref(loop)
    loop.call_soon(lambda: loop)
    loop.call_later(1000, lambda: loop)
    loop.myself = loop
    loop.close()
    del loop
    collect()
    assert ref() is None


def test_unclosed_loop_warns(impl):
    loop = impl.new_event_loop()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        collect()


def test_closed_loop_does_not_warn_in_del(impl, recwarn):
    loop = impl.new_event_loop()
    loop.close()
    del loop
    collect()
    assert not list(recwarn)


def test_instance_attributes(loop):
    loop.anything = 1
    assert loop.anything == 1
    assert loop.__dict__["anything"] == 1
    calls = []
    loop.__dict__ = {**loop.__dict__, "anything": 2, "call_soon": calls.append}
    assert loop.anything == 2
    loop.call_soon("replaced")
    assert calls == ["replaced"]
    del loop.__dict__["call_soon"]
    loop.call_soon(calls.append, "not any more")
    assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    assert calls == ["replaced", "not any more"]


def test_methods_replaceable_on_instance(loop):
    original = loop.call_soon
    calls = []
    loop.call_soon = lambda *args, **kw: (calls.append(args), original(*args, **kw))[1]

    async def main():
        loop.call_soon(calls.append, "ran")
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert "ran" in calls


def test_subclass(impl):
    class Mine(impl.Loop):
        def __init__(self):
            super().__init__()
            self.count = 0

        def call_soon(self, callback, *args, context=None):
            self.count += 1
            return super().call_soon(callback, *args, context=context)

    loop = Mine()
    try:
        done = []
        loop.call_soon(done.append, 1)
        spin(loop)
        assert done == [1]
        assert loop.count >= 2
    finally:
        loop.close()


def test_new_without_init(impl):
    """A half-made loop answers with an exception at worst."""
    loop = impl.Loop.__new__(impl.Loop)
    for name in ("is_running", "is_closed", "stop", "time", "get_debug", "close"):
        try:
            getattr(loop, name)()
        except Exception:
            pass
    try:
        loop.call_soon(print)
    except Exception:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda info: None)
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del loop
            collect()


# Order of callbacks


def test_call_soon_order_and_arguments(loop):
    seen = []
    for i in range(10):
        loop.call_soon(seen.append, i)
    loop.call_soon(lambda *args: seen.append(args), 1, 2, 3, 4, 5)
    loop.call_soon(lambda: seen.append("none"))
    spin(loop)
    assert seen == [*range(10), (1, 2, 3, 4, 5), "none"]


def test_call_soon_in_callback_runs_in_next_iteration(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "inner")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    spin(loop)
    assert seen == ["first", "second"]
    spin(loop)
    assert seen == ["first", "second", "inner"]


def test_callback_added_in_stopping_turn_waits(loop):
    seen = []

    def stopper():
        loop.stop()
        loop.call_soon(seen.append, "added")

    loop.call_soon(stopper)
    loop.call_soon(seen.append, "same turn")
    loop.run_forever()
    assert seen == ["same turn"]
    spin(loop)
    assert seen == ["same turn", "added"]


def test_stop_before_run_runs_one_turn(loop):
    seen = []

    def first():
        seen.append(1)
        loop.call_soon(seen.append, 2)

    loop.call_soon(first)
    loop.stop()
    loop.run_forever()
    assert seen == [1]
    spin(loop)
    assert seen == [1, 2]


def test_stop_twice_stops_once(loop):
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_overdue_timer_and_io_run_between_turns(loop):
    """A due timer joins the turn after the callbacks that were ready before."""
    seen = []
    now = loop.time()
    loop.call_soon(seen.append, "soon")
    loop.call_at(now - 1, seen.append, "overdue")
    spin(loop)
    assert seen == ["soon", "overdue"]


def test_endless_call_soon_does_not_starve_io_and_timers(loop):
    one, other = socket.socketpair()
    with one, other:
        hits = []

        def again():
            if len(hits) < 2:
                loop.call_soon(again)

        def finished(what):
            if what not in hits:
                hits.append(what)
            if len(hits) == 2:
                loop.stop()

        loop.add_reader(one, finished, "io")
        loop.call_later(0.01, finished, "timer")
        loop.call_soon(again)
        other.send(b"x")
        loop.run_forever()
        assert sorted(hits) == ["io", "timer"]
        loop.remove_reader(one)


def test_many_callbacks(loop):
    count = 0

    def tick():
        nonlocal count
        count += 1

    for _ in range(100_000):
        loop.call_soon(tick)
    spin(loop)
    assert count == 100_000


def test_ready_queue_grows_while_it_runs(loop):
    seen = []

    def fan(level):
        seen.append(level)
        if level:
            for _ in range(3):
                loop.call_soon(fan, level - 1)

    loop.call_soon(fan, 8)
    spin(loop, 9)
    assert len(seen) == (3**9 - 1) // 2
    assert seen == sorted(seen, reverse=True)


# Handles


def test_handle(loop):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    assert type(handle).__name__ == "Handle" or isinstance(handle, asyncio.Handle)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    spin(loop)
    assert seen == []


def test_handle_cancel_after_run(loop):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    spin(loop)
    handle.cancel()
    assert seen == [1]
    assert "append" in repr(handle) or "cancelled" in repr(handle)


def test_handle_cancelled_by_earlier_callback(loop):
    seen = []
    handles = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(seen.append, "no"))
    spin(loop)
    assert seen == []


def test_handle_cancel_drops_arguments(loop):
    class Thing:
        pass

    def callback(thing):
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    handle = loop.call_soon(callback, thing)
    del thing
    assert ref() is not None
    handle.cancel()
    assert ref() is None
    spin(loop)


def test_handle_forgets_after_run(loop):
    class Thing:
        def method(self):
            pass

    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(thing.method)
    del thing
    spin(loop)
    assert ref() is None


def test_handle_repr(loop):
    def named():
        pass

    handle = loop.call_soon(named)
    assert repr(handle).startswith("<Handle ")
    assert "named" in repr(handle)
    assert "test_loop.py" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)
    spin(loop)


def test_handle_weakref_and_hash(loop):
    handle = loop.call_soon(lambda: None)
    assert weakref.ref(handle)() is handle
    assert hash(handle) == hash(handle)
    assert handle == handle
    spin(loop)


def test_handle_get_context(loop):
    context = contextvars.copy_context()
    handle = loop.call_soon(lambda: None, context=context)
    if PY >= (3, 12):
        assert handle.get_context() is context
    assert handle._context is context
    spin(loop)


def test_handles_are_not_shared(loop):
    """A recycled handle must not be the one that somebody still holds."""
    seen = []
    old = [loop.call_soon(seen.append, i) for i in range(50)]
    spin(loop)
    new = [loop.call_soon(seen.append, 100 + i) for i in range(50)]
    assert not {id(h) for h in old} & {id(h) for h in new}
    for handle in old:
        handle.cancel()
    spin(loop)
    assert seen == [*range(50), *range(100, 150)]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
@pytest.mark.parametrize("bad", [None, 3, "text"])
def test_not_callable(loop, method, bad, reports):
    """Refused at once in debug mode, else reported when it should have run."""
    call = getattr(loop, method)
    loop.set_debug(True)
    with pytest.raises(TypeError, match="a callable object was expected"):
        call(bad)
    loop.set_debug(False)
    call(bad)
    spin(loop)
    assert isinstance(reports.pop()["exception"], TypeError)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_coroutines_refused_in_debug_mode(loop, method):
    async def coroutine():
        pass

    loop.set_debug(True)
    call = getattr(loop, method)
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        call(coroutine)
    coro = coroutine()
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        call(coro)
    coro.close()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_call_soon_bad_calls(loop, method):
    call = getattr(loop, method)
    with pytest.raises(TypeError):
        call()
    with pytest.raises(TypeError):
        call(print, unknown=1)


# Contexts


def test_context_is_copied_at_call(loop):
    var = contextvars.ContextVar("var", default="default")
    seen = []
    var.set("one")
    for method in (loop.call_soon, loop.call_soon_threadsafe):
        method(lambda: seen.append(var.get()))
    loop.call_later(0, lambda: seen.append(var.get()))
    var.set("two")
    spin(loop, 2)
    assert seen == ["one", "one", "one"]
    assert var.get() == "two"


def test_context_argument(loop):
    var = contextvars.ContextVar("var", default=0)
    context = contextvars.copy_context()
    context.run(var.set, 5)
    seen = []

    def callback():
        seen.append(var.get())
        var.set(var.get() + 1)

    loop.call_soon(callback, context=context)
    loop.call_soon_threadsafe(callback, context=context)
    loop.call_later(0, callback, context=context)
    loop.call_at(loop.time(), callback, context=context)
    spin(loop, 2)
    assert sorted(seen) == [5, 6, 7, 8]
    assert context[var] == 9
    assert var.get() == 0


def test_context_none_is_the_current_one(loop):
    var = contextvars.ContextVar("var", default=0)
    var.set(1)
    seen = []
    loop.call_soon(lambda: seen.append(var.get()), context=None)
    spin(loop)
    assert seen == [1]


def test_odd_context_does_not_crash(loop, reports):
    """Anything with a run() method serves on the standard loop; ours may refuse."""
    for bad in (3, "x", object()):
        try:
            loop.call_soon(lambda: None, context=bad)
        except TypeError:
            continue
        try:
            spin(loop)
        except AttributeError:
            pass
    assert all(isinstance(r["exception"], (TypeError, AttributeError)) for r in reports)


def test_context_already_entered(loop, reports, asyncio_log):
    """A context that is in use is an error of that callback alone."""
    context = contextvars.copy_context()
    seen = []
    loop.call_soon(lambda: None, context=context)
    loop.call_soon(seen.append, 1)

    context.run(spin, loop)
    assert seen == [1]
    # From 3.12 on the exception handler runs in the callback's context too,
    # and so fails in the same way, which is logged.
    if reports:
        assert isinstance(reports.pop()["exception"], RuntimeError)
    else:
        assert "is already entered" in "".join(asyncio_log.take())


# Exceptions


def test_exception_reaches_handler(loop, reports):
    def fail():
        raise ZeroDivisionError("x")

    handle = loop.call_soon(fail)
    loop.call_soon(lambda: None)
    spin(loop)
    (context,) = reports
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"].startswith("Exception in callback")
    assert "fail" in context["message"]
    assert context["handle"] is handle


def test_default_handler_logs(loop, asyncio_log):
    loop.call_soon(lambda: 1 / 0)
    spin(loop)
    (record,) = asyncio_log.records
    assert record.exc_info[0] is ZeroDivisionError
    assert "Exception in callback" in asyncio_log.take()[0]


def test_set_exception_handler(loop):
    assert loop.get_exception_handler() is None

    def handler(loop, context):
        pass

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    assert loop._exception_handler is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    for bad in (3, "x"):
        with pytest.raises(TypeError, match="A callable object or None is expected"):
            loop.set_exception_handler(bad)


def test_handler_arguments(loop):
    got = []
    loop.set_exception_handler(lambda *args: got.append(args))
    context = {"message": "hello", "extra": 1}
    loop.call_exception_handler(context)
    assert got == [(loop, context)]


def test_failing_handler_is_logged(loop, asyncio_log):
    def handler(loop, context):
        raise LookupError("in handler")

    loop.set_exception_handler(handler)
    seen = []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(seen.append, 1)
    spin(loop)
    assert seen == [1]
    text = asyncio_log.take()
    assert len(text) == 1
    assert "Unhandled error in exception handler" in text[0]


def test_failing_default_handler_is_logged(loop, asyncio_log, monkeypatch):
    def handler(context):
        raise LookupError("in default handler")

    monkeypatch.setattr(loop, "default_exception_handler", handler)
    loop.call_soon(lambda: 1 / 0)
    spin(loop)
    assert "Exception in default exception handler" in asyncio_log.take()[0]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_in_handler_propagates(loop, kind):
    def handler(loop, context):
        raise kind()

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    with pytest.raises(kind):
        loop.run_forever()
    spin(loop)


class Fatal(BaseException):
    pass


def test_base_exception_in_callback_is_reported(loop, reports):
    def fail():
        raise Fatal

    loop.call_soon(fail)
    spin(loop)
    assert isinstance(reports.pop()["exception"], Fatal)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_in_callback_leaves_the_rest(loop, kind):
    seen = []

    def leave():
        raise kind("bye")

    loop.call_soon(seen.append, 1)
    loop.call_soon(leave)
    loop.call_soon(seen.append, 2)
    with pytest.raises(kind, match="bye"):
        loop.run_forever()
    assert seen == [1]
    assert not loop.is_running()
    spin(loop)
    assert seen == [1, 2]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_in_timer_and_reader(loop, kind):
    def leave():
        raise kind("bye")

    loop.call_later(0.001, leave)
    with pytest.raises(kind):
        loop.run_forever()
    one, other = socket.socketpair()
    with one, other:
        loop.add_writer(one, leave)
        with pytest.raises(kind):
            loop.run_forever()
        loop.remove_writer(one)
        spin(loop)


def test_exit_in_task(loop):
    async def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit) as info:
        loop.run_until_complete(leave())
    assert info.value.code == 3
    spin(loop)


# Threads and signals


@contextlib.contextmanager
def signal_handler(handler):
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, old)


def signal_main_thread(delay):
    time.sleep(delay)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)


def test_call_soon_threadsafe_wakes_the_loop(loop, thread):
    seen = []

    def poke():
        loop.call_soon_threadsafe(seen.append, threading.get_ident())
        loop.call_soon_threadsafe(loop.stop)

    loop.call_later(3600, loop.stop)
    thread(poke)
    loop.run_forever()
    assert len(seen) == 1


def test_call_soon_threadsafe_handle(loop):
    seen = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    assert isinstance(handle, asyncio.Handle)
    handle.cancel()
    assert handle.cancelled()
    spin(loop)
    assert seen == []


def test_call_soon_threadsafe_keeps_order_with_call_soon(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    loop.call_soon(seen.append, 3)
    spin(loop, 2)
    assert sorted(seen) == [1, 2, 3]
    assert seen.index(1) < seen.index(3)


def test_call_soon_threadsafe_bursts(loop, thread):
    """Nothing is lost while the loop goes to sleep again and again."""
    workers, each = 4, 3000
    counts = [[] for _ in range(workers)]
    done = []

    def received(worker, number):
        counts[worker].append(number)
        if number == each - 1:
            done.append(worker)
            if len(done) == workers:
                loop.stop()

    def send(worker):
        for number in range(each):
            loop.call_soon_threadsafe(received, worker, number)
            if number % 100 == 0:
                time.sleep(0.0005)

    for worker in range(workers):
        thread(send, worker)
    loop.run_forever()
    assert counts == [list(range(each))] * workers


def test_call_soon_threadsafe_ping_pong(loop, thread):
    """One wake-up at a time, each while the loop is asleep or falls asleep."""
    rounds = 3000
    event = threading.Event()

    def send():
        for _ in range(rounds):
            loop.call_soon_threadsafe(event.set)
            event.wait()
            event.clear()
        loop.call_soon_threadsafe(loop.stop)

    thread(send)
    loop.run_forever()


def test_stop_from_thread(loop, thread):
    for _ in range(200):
        thread(loop.call_soon_threadsafe, loop.stop)
        loop.run_forever()


def test_call_soon_threadsafe_while_not_running(loop, thread):
    seen = []
    one = thread(loop.call_soon_threadsafe, seen.append, 1)
    one.join()
    spin(loop, 2)
    assert seen == [1]


def test_call_soon_threadsafe_after_close_in_thread(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        in_thread(loop.call_soon_threadsafe, print)


def test_call_soon_threadsafe_from_signal_handler(loop):
    seen = []

    def handler(*_):
        loop.call_soon_threadsafe(seen.append, 1)
        loop.call_soon_threadsafe(loop.stop)

    with signal_handler(handler):
        loop.call_later(0.01, signal.raise_signal, signal.SIGUSR1)
        loop.run_forever()
    assert seen == [1]


def test_signal_interrupts_the_poll(loop, thread):
    """A Python signal handler runs although the loop sleeps for an hour."""
    with signal_handler(lambda *_: loop.call_soon_threadsafe(loop.stop)):
        loop.call_later(3600, loop.stop)
        thread(signal_main_thread, 0.05)
        loop.run_forever()


def test_signal_handler_in_idle_loop_raises(loop, thread):
    class Stop(Exception):
        pass

    def handler(*_):
        raise Stop

    with signal_handler(handler):
        loop.call_later(3600, loop.stop)
        loop.call_soon(thread, signal_main_thread, 0.3)  # the loop is asleep by then
        with pytest.raises(Stop):
            loop.run_forever()
    assert not loop.is_running()
    spin(loop)


@pytest.mark.parametrize("busy", [False, True])
def test_keyboard_interrupt(impl, busy):
    check_script(
        impl,
        f"""
loop = new_event_loop()
busy = {busy}

def again():
    loop.call_soon(again)

if busy:
    loop.call_soon(again)
else:
    loop.call_later(3600, print)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
assert not loop.is_running()
loop.close()
""",
        "interrupted",
    )


def test_wakeup_fd_is_left_alone(loop):
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        old = signal.set_wakeup_fd(one.fileno(), warn_on_full_buffer=False)
        try:
            spin(loop)
            loop.close()
        finally:
            left = signal.set_wakeup_fd(old)
        assert left == one.fileno()


def test_debug_mode_checks_the_thread(loop):
    loop.set_debug(True)

    async def main():
        for call in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(1, print),
            lambda: loop.call_at(1, print),
        ):
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                await asyncio.to_thread(call)

    loop.run_until_complete(main())


def test_run_in_thread(loop_factory):
    loop = loop_factory()

    async def main():
        await asyncio.sleep(0.001)
        return threading.get_ident()

    assert in_thread(loop.run_until_complete, main()) != threading.get_ident()
    assert loop.run_until_complete(main()) == threading.get_ident()


# Executors


def test_run_in_executor(loop):
    async def main():
        assert await loop.run_in_executor(None, lambda: 1) == 1
        assert await loop.run_in_executor(None, int, "7") == 7
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, os.getpid) == os.getpid()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)

    loop.run_until_complete(main())


def test_run_in_executor_cancel(loop):
    gate = threading.Event()

    async def main():
        future = loop.run_in_executor(None, gate.wait)
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        gate.set()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_run_in_executor_bad_arguments(loop):
    loop.set_debug(True)
    with pytest.raises(TypeError):
        loop.run_in_executor(None, 3)

    async def coroutine():
        pass

    with pytest.raises(TypeError):
        loop.run_in_executor(None, coroutine)


def test_set_default_executor_type(loop):
    with pytest.raises(TypeError, match="ThreadPoolExecutor"):
        loop.set_default_executor(object())
    assert loop._default_executor is None


def test_shutdown_default_executor(loop):
    async def main():
        await loop.run_in_executor(None, lambda: 1)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, print)

    loop.run_until_complete(main())


def test_shutdown_default_executor_unused(loop):
    loop.run_until_complete(loop.shutdown_default_executor())


# Asynchronous generators


def test_shutdown_asyncgens(loop):
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        generator = numbers()
        assert await anext(generator) == 1
        return generator

    generator = loop.run_until_complete(main())
    assert closed == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == [True]
    del generator


def test_asyncgen_finalized_by_the_loop(loop):
    closed = []

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        async for _ in numbers():
            break
        collect()
        await turns(5)
        assert closed == [True]

    loop.run_until_complete(main())


def test_asyncgen_after_shutdown_warns(loop):
    async def numbers():
        yield 1

    async def main():
        await loop.shutdown_asyncgens()
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            async for _ in numbers():
                pass

    loop.run_until_complete(main())


def test_asyncgen_hooks_restored(loop):
    def first(generator):
        pass

    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(first, None)
    try:
        inside = []
        loop.call_soon(lambda: inside.append(sys.get_asyncgen_hooks()))
        spin(loop)
        assert inside[0].firstiter is not first
        assert sys.get_asyncgen_hooks() == (first, None)
    finally:
        sys.set_asyncgen_hooks(*old)


# Futures and tasks made by the loop


def test_create_future(impl, loop):
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert type(future) is impl.Future
    assert future.get_loop() is loop


def test_create_task(impl, loop):
    async def nothing():
        pass

    task = loop.create_task(nothing())
    assert isinstance(task, asyncio.Task)
    assert type(task) is impl.Task
    loop.run_until_complete(task)


def test_task_factory(loop):
    made = []

    def factory(loop, coro, **kwargs):
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory

    async def inner():
        return 5

    async def main():
        return await asyncio.create_task(inner(), name="inner")

    assert loop.run_until_complete(main()) == 5
    assert len(made) == 2
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    assert loop.run_until_complete(inner()) == 5
    assert len(made) == 2


def test_task_factory_odd_result(loop):
    """A factory may return anything; create_task hands it on."""

    class Odd:
        def set_name(self, name):
            self.name = name

    def factory(loop, coro, **kwargs):
        coro.close()
        odd = Odd()
        odd.name = kwargs.get("name")
        return odd

    async def nothing():
        pass

    loop.set_task_factory(factory)
    assert isinstance(loop.create_task(nothing(), name="n"), Odd)


def test_task_factory_not_callable(loop):
    with pytest.raises(TypeError, match="callable or None"):
        loop.set_task_factory(3)


# Debug mode


def test_debug_flag(loop):
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


@pytest.mark.parametrize("how", ["env", "dev"])
def test_debug_switched_on_from_outside(impl, how):
    check_script(
        impl,
        """
loop = new_event_loop()
print(loop.get_debug())
loop.close()
""",
        "True",
        env={"PYTHONASYNCIODEBUG": "1"} if how == "env" else None,
        flags=("-X", "dev") if how == "dev" else ("-W", "error"),
    )


def test_slow_callback_is_logged(loop, asyncio_log):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.005
    assert loop.slow_callback_duration == 0.005

    def sleeper():
        time.sleep(0.01)

    async def slow_coroutine():
        time.sleep(0.01)

    loop.call_soon(sleeper)
    spin(loop)
    loop.run_until_complete(loop.create_task(slow_coroutine(), name="slow-task"))
    text = "\n".join(asyncio_log.take())
    assert "Executing <Handle" in text
    assert "sleeper" in text
    assert "slow-task" in text
    assert "slow_coroutine" in text
    assert "seconds" in text


def test_slow_callback_duration_default(loop):
    assert loop.slow_callback_duration == 0.1


def test_origin_tracking(loop):
    loop.set_debug(True)

    async def main():
        assert sys.get_coroutine_origin_tracking_depth() > 0
        loop.set_debug(False)
        await turns(2)
        assert sys.get_coroutine_origin_tracking_depth() == 0

    before = sys.get_coroutine_origin_tracking_depth()
    loop.run_until_complete(main())
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_source_traceback_in_debug_mode(loop, reports):
    loop.set_debug(True)

    def fail():
        raise LookupError

    loop.call_soon(fail)
    spin(loop)
    context = reports.pop()
    assert any("test_source_traceback" in str(f.name) for f in context["source_traceback"])


# Interpreter exit and forgotten loops, in a child process


def test_exit_with_everything_open(impl):
    done = run_script(
        impl,
        """
loop = new_event_loop()
async def main():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop.call_later(100, print)
    return server, reader, writer
keep = loop.run_until_complete(main())
print("end")
""",
        flags=(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "end"


def test_exit_from_inside_the_loop(impl):
    done = run_script(
        impl,
        """
loop = new_event_loop()
async def main():
    await asyncio.sleep(0)
    sys.exit(7)
loop.run_until_complete(main())
""",
        flags=(),
    )
    assert done.returncode == 7, done.stderr


def test_partial_and_builtin_callbacks(loop):
    seen = []
    loop.call_soon(functools.partial(seen.append, 1))
    loop.call_soon(seen.extend, [2, 3])
    loop.call_soon(type, "x")
    spin(loop)
    assert seen == [1, 2, 3]


def test_private_names_that_libraries_call(loop):
    loop._check_closed()
    loop._check_running()
    assert loop._thread_id is None
    seen = []
    loop.call_soon(lambda: seen.append(loop._thread_id))
    spin(loop)
    assert seen == [threading.get_ident()]
    assert loop._debug in (True, False)
    assert loop._task_factory is None
    assert len(loop._asyncgens) == 0
