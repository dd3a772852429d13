"""run_in_executor() and to_thread(): what becomes of an executor's future."""

import asyncio
import concurrent.futures
import contextvars
import logging
import sys
import threading
import traceback
import weakref

import pytest

from tests.support import check_script, collect, in_thread, spin, without_collector

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


class ByHand(concurrent.futures.Executor):
    """Does nothing: the tests end its futures themselves."""

    make = concurrent.futures.Future

    def __init__(self):
        self.futures = []
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append((fn, args, kwargs))
        self.futures.append(self.make())
        return self.futures[-1]


class AtOnce(concurrent.futures.Executor):
    """Its futures are done when it returns them."""

    def submit(self, fn, /, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:
            future.set_exception(exc)
        return future


@pytest.fixture
def by_hand():
    return ByHand()


@pytest.fixture
def thread_log(caplog):
    """What concurrent.futures has logged: a callback that has failed."""
    caplog.set_level(logging.WARNING, "concurrent.futures")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "concurrent.futures"]


def outcome(future):
    """Type and arguments of the exception, or the result."""
    try:
        return future.result()
    except BaseException as exc:
        return type(exc), exc.args


# Arguments


def test_arguments_reach_submit(loop, by_hand):
    first = loop.run_in_executor(by_hand, print)
    loop.run_in_executor(by_hand, print, 1)
    loop.run_in_executor(by_hand, print, *range(20))
    loop.run_in_executor(executor=by_hand, func=print)
    assert by_hand.calls == [
        (print, (), {}), (print, (1,), {}), (print, tuple(range(20)), {}), (print, (), {})
    ]
    assert asyncio.isfuture(first) and first.get_loop() is loop and not first.done()


def test_many_arguments_with_the_default_executor(loop, run):
    async def main():
        for count in (0, 1, 4, 5, 6, 7, 30):
            assert await loop.run_in_executor(None, lambda *args: args, *range(count)) == tuple(
                range(count)
            )

    run(main())


def test_wrong_calls(loop, by_hand):
    for arguments, keywords in [
        ((), {}), ((None,), {}), ((by_hand,), {}), ((by_hand, print), {"x": 1}),
        ((), {"func": print}),
    ]:
        with pytest.raises(TypeError):
            loop.run_in_executor(*arguments, **keywords)
    with pytest.raises(AttributeError):
        loop.run_in_executor(object(), print)
    assert by_hand.calls == []


def test_closed_loop(loop, by_hand):
    loop.close()
    for executor in (None, by_hand):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.run_in_executor(executor, print)
    assert by_hand.calls == []


def test_debug_mode_checks_the_function(loop, by_hand):
    async def coroutine():
        pass

    loop.set_debug(True)
    for executor in (None, by_hand):
        with pytest.raises(TypeError, match="coroutines cannot be used with run_in_executor"):
            loop.run_in_executor(executor, coroutine)
        with pytest.raises(TypeError, match="callable object was expected by run_in_executor"):
            loop.run_in_executor(executor, 3)
    loop.set_debug(False)
    loop.run_in_executor(by_hand, 3)
    assert len(by_hand.calls) == 1


def test_submit_raises(loop):
    class Refuses(ByHand):
        def submit(self, fn, /, *args, **kwargs):
            raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        loop.run_in_executor(Refuses(), print)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        loop.run_in_executor(pool, print)


def test_default_executor(loop, run):
    async def main():
        assert loop._default_executor is None
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("asyncio_")
        made = loop._default_executor
        assert type(made) is concurrent.futures.ThreadPoolExecutor
        await loop.run_in_executor(None, int)
        assert loop._default_executor is made
        with concurrent.futures.ThreadPoolExecutor(1, "other") as pool:
            loop.set_default_executor(pool)
            name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
            assert name.startswith("other")
        made.shutdown()
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, int)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, int) == 0

    run(main())
    assert not [t for t in threading.enumerate() if t.name.startswith(("asyncio_", "other"))]


def test_overridden_checks(impl):
    """What a subclass defines is asked."""

    class Own(impl.Loop):
        asked = 0
        passed = []

        def create_future(self):
            self.asked += 1
            return super().create_future()

        def _check_default_executor(self):
            raise LookupError("own check")

    loop = Own()
    try:
        future = loop.run_in_executor(AtOnce(), int, "3")
        assert loop.asked == 1
        assert loop.run_until_complete(future) == 3
        loop._executor_shutdown_called = True
        with pytest.raises(LookupError, match="own check"):
            loop.run_in_executor(None, print)
        # one that lets it pass
        Own._check_default_executor = lambda self: Own.passed.append(self)
        assert loop.run_until_complete(loop.run_in_executor(None, int, "4")) == 4
        assert Own.passed == [loop]
    finally:
        Own.passed.clear()
        loop.close()


def test_create_future_of_another_kind(impl):
    class Other(asyncio.Future):
        pass

    class Own(impl.Loop):
        def create_future(self):
            return Other(loop=self)

    loop = Own()
    try:
        async def main():
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                future = loop.run_in_executor(pool, int, "3")
                assert type(future) is Other
                assert await future == 3

        loop.run_until_complete(main())
    finally:
        loop.close()


# What submit() may return


def test_subclass_of_the_future(loop, run):
    class Own(concurrent.futures.Future):
        def result(self, timeout=None):
            return "own " + super().result(timeout)

        def _get_snapshot(self):
            return True, False, "own " + self._result, None

    class Executor(ByHand):
        make = Own

    executor = Executor()

    async def main():
        future = loop.run_in_executor(executor, print)
        executor.futures[0].set_result("result")
        return await future

    assert run(main()) == "own result"


def test_future_of_the_loop_is_passed_on(loop, run):
    class Executor(ByHand):
        make = staticmethod(lambda: loop.create_future())

    executor = Executor()
    future = loop.run_in_executor(executor, print)
    assert future is executor.futures[0]


def test_no_future(loop):
    class Executor(ByHand):
        make = object

    with pytest.raises(AssertionError, match=r"concurrent\.futures\.Future is expected"):
        loop.run_in_executor(Executor(), print)


# Outcomes


class Falsy(Exception):
    def __bool__(self):
        return False


class Rude(BaseException):
    pass


RESULTS = [5, None]
EXCEPTIONS = [
    ValueError,
    Falsy,
    Rude,
    StopIteration,
    TimeoutError,
    concurrent.futures.TimeoutError,
    concurrent.futures.CancelledError,
    concurrent.futures.InvalidStateError,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
]


def end(future, value):
    if value in EXCEPTIONS:
        future.set_exception(value("why"))
    else:
        future.set_result(value)


@pytest.mark.parametrize("value", RESULTS + EXCEPTIONS, ids=repr)
@pytest.mark.parametrize("where", ["before", "loop", "thread"])
def test_outcome_is_that_of_wrap_future(loop, run, reports, by_hand, value, where):
    """Whatever the Python version makes of it: the two must not differ."""

    async def main():
        source = concurrent.futures.Future()
        by_hand.make = lambda: source
        if where == "before":
            end(source, value)
        future = loop.run_in_executor(by_hand, print)
        model = asyncio.wrap_future(source, loop=loop)
        if where == "loop":
            end(source, value)
        elif where == "thread":
            in_thread(lambda: end(source, value))
        assert future.done() == model.done()
        # What a future refuses (StopIteration, before 3.12.2) ends neither.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert future.done() == model.done()
        if model.done():
            assert future.cancelled() == model.cancelled()
            expected, found = outcome(model), outcome(future)
            assert found == expected
        return len(reports)

    assert run(main()) in (0, 2)


def test_traceback_tells_where_it_was_raised(loop, run):
    def culprit():
        raise ValueError("no")

    async def main():
        with pytest.raises(ValueError, match="no") as caught:
            await loop.run_in_executor(None, culprit)
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    assert "culprit" in run(main())


def test_exception_that_nobody_asks_for(loop, run, reports):
    async def main():
        loop.run_in_executor(None, int, "x")
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())
    collect()
    assert [r["message"] for r in reports] == ["Future exception was never retrieved"]
    reports.clear()


def test_outcome_for_a_future_that_is_done(loop, run, reports, by_hand):
    async def main():
        future = loop.run_in_executor(by_hand, print)
        future.set_result("mine")
        in_thread(lambda: by_hand.futures[0].set_result("theirs"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await future

    assert run(main()) == "mine"
    assert [type(r["exception"]) for r in reports] == [AssertionError]


def test_outcome_wakes_a_sleeping_loop(loop, run, thread, by_hand):
    async def main():
        future = loop.run_in_executor(by_hand, print)
        gate = threading.Event()

        def later():
            gate.wait()
            by_hand.futures[0].set_result(7)

        thread(later)
        loop.call_soon(gate.set)
        return await future

    assert run(main()) == 7


def test_done_before_the_loop_runs(loop, run, by_hand):
    future = loop.run_in_executor(by_hand, print)
    by_hand.futures[0].set_result(1)
    assert not future.done()
    assert run(future) == 1


# Cancellation


def test_cancel_passes_on(loop, run, by_hand):
    """In the next iteration, and in the context of the call."""
    variable = contextvars.ContextVar("variable", default="outer")
    seen = []

    async def main():
        variable.set("inner")
        future = loop.run_in_executor(by_hand, print)
        (source,) = by_hand.futures
        source.add_done_callback(lambda _: seen.append(variable.get()))
        variable.set("later")
        assert future.cancel()
        assert not source.cancelled()
        await asyncio.sleep(0)
        assert source.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await future

    run(main())
    assert seen == ["inner"]


def test_cancelled_while_it_runs(loop, run, reports, thread_log):
    started, gate = threading.Event(), threading.Event()

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            def work():
                started.set()
                gate.wait()

            future = loop.run_in_executor(pool, work)
            started.wait()
            waiting = loop.run_in_executor(pool, print)
            future.cancel()
            waiting.cancel()
            for one in (future, waiting):
                with pytest.raises(asyncio.CancelledError):
                    await one
            gate.set()
        await asyncio.sleep(0)

    run(main())
    assert reports == [] and thread_log() == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_cancelled_by_the_executor(loop, run, by_hand, elsewhere):
    async def main():
        future = loop.run_in_executor(by_hand, print)
        model = asyncio.wrap_future(by_hand.futures[0], loop=loop)
        if elsewhere:
            in_thread(by_hand.futures[0].cancel)
        else:
            by_hand.futures[0].cancel()
        assert future.done() == model.done()
        with pytest.raises(asyncio.CancelledError):
            await future

    run(main())


def test_shutdown_cancels(loop, run):
    gate = threading.Event()

    async def main():
        pool = concurrent.futures.ThreadPoolExecutor(1)
        first = loop.run_in_executor(pool, gate.wait)
        second = loop.run_in_executor(pool, print)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        assert await first

    run(main())


def test_callback_can_be_removed_and_called_by_hand(loop, run, by_hand):
    """It is known to both futures, so anybody may get at it."""

    async def main():
        future = loop.run_in_executor(by_hand, print)
        (source,) = by_hand.futures
        ((ours, context),) = future._callbacks
        (theirs,) = source._done_callbacks
        assert isinstance(context, contextvars.Context)
        for callback in (ours, theirs):
            for arguments in ((), (1, 2)):
                with pytest.raises(TypeError):
                    callback(*arguments)
            with pytest.raises(TypeError):
                callback(future, x=1)
        ours(future)
        assert not source.cancelled()
        assert future.remove_done_callback(ours) == 1
        future.cancel()
        await asyncio.sleep(0)
        assert not source.cancelled()
        source.set_result(1)
        for _ in range(3):
            theirs(source)
            in_thread(lambda: theirs(source))
            await asyncio.sleep(0)
        return future.cancelled()

    assert run(main())


@pytest.mark.our_loop("asyncio fails on the second call")
def test_callback_called_twice(loop, run, by_hand):
    async def main():
        future = loop.run_in_executor(by_hand, print)
        (source,) = by_hand.futures
        source.add_done_callback(source._done_callbacks[0])
        in_thread(lambda: source.set_result(1))
        return await future

    assert run(main()) == 1


# The end of a loop


@pytest.mark.parametrize("cancelled", [False, True])
def test_loop_closed_while_it_runs(loop, by_hand, thread_log, cancelled):
    future = loop.run_in_executor(by_hand, print)
    if cancelled:
        future.cancel()
    loop.close()
    in_thread(lambda: by_hand.futures[0].set_result(1))
    assert future.done() == cancelled
    assert thread_log() == []


def test_loop_closed_before_it_copies(loop, by_hand, thread_log):
    future = loop.run_in_executor(by_hand, print)
    in_thread(lambda: by_hand.futures[0].set_result(1))
    loop.close()
    assert not future.done()
    assert thread_log() == []


# Memory


class Thing:
    pass


def test_nothing_is_held(loop, run):
    """Without the help of the garbage collector."""

    def work(thing):
        return thing

    async def main():
        seen = []
        for fails in (False, True):
            argument = Thing()
            seen.append(weakref.ref(argument))
            function = (lambda thing: thing.missing) if fails else work
            future = loop.run_in_executor(None, function, argument)
            seen.append(weakref.ref(future))
            del argument
            try:
                thing = await future
                seen.append(weakref.ref(thing))
                del thing
            except AttributeError as exc:
                exc.__traceback__ = exc.obj = None
            del future
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)
        return [ref() for ref in seen]

    with without_collector():
        alive = run(main())
    assert alive == [None] * len(alive)


def test_both_futures_go(loop, run, by_hand):
    async def main():
        seen = []
        for how in ("result", "thread", "cancel"):
            future = loop.run_in_executor(by_hand, print)
            source = by_hand.futures.pop()
            seen += [weakref.ref(future), weakref.ref(source)]
            if how == "cancel":
                future.cancel()
            elif how == "thread":
                in_thread(lambda source=source: source.set_result(1))
            else:
                source.set_result(1)
            await asyncio.wait([future])
            await asyncio.sleep(0)
            del future, source
        by_hand.calls.clear()
        await asyncio.sleep(0)
        return [ref() for ref in seen]

    with without_collector():
        alive = run(main())
    assert alive == [None] * 6


def test_what_never_ends_is_collected(impl):
    loop = impl.new_event_loop()
    executor = ByHand()
    futures = [loop.run_in_executor(executor, print) for _ in range(3)]
    in_thread(lambda: executor.futures[0].set_result(1))
    seen = [weakref.ref(f) for f in futures + executor.futures]
    loop.close()
    del loop, executor, futures
    collect()
    assert [ref() for ref in seen] == [None] * 6


@pytest.mark.skipif(not GIL, reason="counts are not exact")
def test_reference_counts(loop, run):
    value = Thing()

    async def many(count):
        for _ in range(count // 10):
            await asyncio.gather(
                *(loop.run_in_executor(None, lambda: value) for _ in range(10))
            )
            future = loop.run_in_executor(None, lambda: value)
            future.cancel()
        await asyncio.to_thread(int)

    def settle():
        spin(loop)
        collect()

    run(many(50))
    settle()
    before = sys.getrefcount(value), sys.getrefcount(loop), sys.getrefcount(None)
    run(many(500))
    with_pool = loop._default_executor
    with_pool.submit(int).result()
    settle()
    after = sys.getrefcount(value), sys.getrefcount(loop), sys.getrefcount(None)
    # One of the workers may still have its last item in its hands.
    assert after[0] - before[0] <= 8
    assert after[1] - before[1] <= 8
    assert after[2] - before[2] < 200


# Much at once


@pytest.mark.parametrize("debug", [False, True])
def test_many_at_once(loop, run, debug):
    loop.set_debug(debug)

    async def main():
        calls = [loop.run_in_executor(None, pow, i, 2) for i in range(1000)]
        calls += [asyncio.to_thread(pow, i, 3) for i in range(100)]
        return await asyncio.gather(*calls)

    assert run(main()) == [i**2 for i in range(1000)] + [i**3 for i in range(100)]


def test_cancelled_at_any_moment(loop, run, reports, thread_log):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for delay in range(50):
                futures = [loop.run_in_executor(pool, int, "5") for _ in range(20)]
                for _ in range(delay % 5):
                    await asyncio.sleep(0)
                for future in futures[::2]:
                    future.cancel()
                for i, future in enumerate(futures):
                    if i % 2:
                        assert await future == 5
                    else:
                        with pytest.raises(asyncio.CancelledError):
                            future.cancelled() or await future
                            raise asyncio.CancelledError

    run(main())
    assert reports == [] and thread_log() == []


PROCESSES = """
import concurrent.futures, multiprocessing

async def main():
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert await loop.run_in_executor(pool, os.getpid) != os.getpid()
        try:
            await loop.run_in_executor(pool, int, "x")
        except ValueError as exc:
            assert "invalid literal" in str(exc)
        else:
            raise AssertionError

if __name__ == "__main__":
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
"""


def test_processes(impl):
    check_script(impl, PROCESSES)


def test_one_callback_of_each_future(loop, run, by_hand):
    async def main():
        at_once = loop.run_in_executor(AtOnce(), int)
        waits = loop.run_in_executor(by_hand, int)
        for future in at_once, waits:
            assert len(future._callbacks or ()) == (not future.done())
        by_hand.futures[0].set_result(1)
        assert len(waits._callbacks or ()) == (not waits.done())
        return await at_once, await waits

    assert run(main()) == (0, 1)
