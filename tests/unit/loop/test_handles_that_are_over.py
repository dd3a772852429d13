"""Handles of calls that have run or were cancelled: they hold what asyncio keeps in them."""

import asyncio
import contextvars
import copy
import gc
import heapq
import sys
import weakref

import pytest

from tests.support import collect, turns, until

KINDS = ["call_soon", "call_soon_threadsafe", "call_later", "call_at"]
variable = contextvars.ContextVar("variable", default=None)


def schedule(loop, kind, callback, *args, **kwargs):
    when = {"call_later": (0,), "call_at": (loop.time(),)}.get(kind, ())
    return getattr(loop, kind)(*when, callback, *args, **kwargs)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_run_is_all_there(run, loop, kind, debug):
    loop.set_debug(debug)
    seen, context = [], contextvars.copy_context()

    async def main():
        handle = schedule(loop, kind, seen.append, 1, context=context)
        before = repr(handle)
        await until(lambda: seen)
        assert handle._callback == seen.append
        assert handle._args == (1,)
        assert handle._context is context
        assert handle._loop is loop
        assert not handle.cancelled()
        if debug:
            assert repr(handle) == before
        else:
            assert "append" in repr(handle)
        if hasattr(handle, "get_context"):
            assert handle.get_context() is context

    run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_it_runs_again_by_hand_and_in_the_queue(run, loop, kind, count):
    seen = []

    async def main():
        handle = schedule(loop, kind, lambda *args: seen.append(args), *range(count))
        await until(lambda: seen)
        handle._run()
        assert seen == [tuple(range(count))] * 2
        loop._ready.append(handle)
        loop._ready.append(handle)
        await turns(2)
        assert len(seen) == 4
        handle._args = ("other",)
        handle._run()
        assert seen[4:] == [("other",)]

    run(main())


def test_timer_waits_again(run, loop):
    seen = []

    async def main():
        timer = loop.call_later(0, seen.append, 1)
        await until(lambda: seen)
        timer._when = loop.time() + 0.001
        heapq.heappush(loop._scheduled, timer)
        await until(lambda: len(seen) == 2)
        heapq.heappush(loop._scheduled, timer)
        timer.cancel()
        await asyncio.sleep(0.002)
        assert len(seen) == 2

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_one_keeps_its_context(run, loop, kind):
    context = contextvars.copy_context()

    async def main():
        handle = schedule(loop, kind, print, 1, 2, context=context)
        handle.cancel()
        for _ in range(2):
            assert (handle._callback, handle._args, handle._cancelled) == (None, None, True)
            assert handle._context is context
            assert handle._loop is loop
            await turns(3)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_after_it_has_run(run, loop, kind):
    seen = []

    async def main():
        handle = schedule(loop, kind, seen.append, 1)
        await until(lambda: seen)
        handle.cancel()
        assert handle.cancelled()
        assert handle._callback is None
        loop._ready.append(handle)
        await turns(2)
        assert seen == [1]

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_mark_of_the_cancelled(run, loop, kind):
    """Set alone, it takes nothing out of the handle; and can be taken back."""
    seen = []

    async def main():
        handle = schedule(loop, kind, seen.append, 1)
        handle._cancelled = True
        assert handle._callback == seen.append
        await turns(3)
        assert seen == []
        handle._cancelled = False
        handle._run()
        assert seen == [1]
        gone = schedule(loop, kind, seen.append, 2)
        gone._cancelled = True
        del gone
        await turns(3)
        assert seen == [1]

    run(main())


def test_cancelled_one_is_revived(run, loop, reports):
    seen = []

    async def main():
        handle = loop.call_soon(seen.append, 1)
        handle.cancel()
        handle._cancelled = False
        loop._ready.append(handle)
        await turns(2)
        handle._callback = seen.append
        handle._args = (2,)
        handle._run()

    run(main())
    assert seen == [2]
    assert {type(report["exception"]) for report in reports} == {TypeError}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["waits", "has run", "cancelled"])
def test_copy(run, loop, kind, when):
    seen = []

    async def main():
        handle = schedule(loop, kind, seen.append, 1)
        if when == "has run":
            await until(lambda: seen)
        elif when == "cancelled":
            handle.cancel()
        other = copy.copy(handle)
        assert isinstance(other, handle.__class__)
        for name in ("_callback", "_args", "_context", "_loop", "_cancelled"):
            assert getattr(other, name) == getattr(handle, name)
        if hasattr(handle, "when"):
            assert other == handle
            assert other.when() == handle.when()
        seen.clear()
        handle.cancel()
        if when != "cancelled":
            loop._ready.append(other)
            await until(lambda: seen)
            assert not other.cancelled()
            other.cancel()
            assert other.cancelled()

    run(main())


@pytest.mark.parametrize("end", ["runs", "cancelled", "cancelled after it has run", "runs by hand"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("debug", [False, True])
def test_collector_finds_cycles(run, loop, kind, end, debug):
    loop.set_debug(debug)

    class Owner:
        def callback(self, *args):
            self.ran = True

    async def main():
        owner = Owner()
        gone = weakref.ref(owner)
        context = contextvars.copy_context()
        context.run(variable.set, owner)
        owner.handle = schedule(loop, kind, owner.callback, owner, context=context)
        if end == "runs by hand":
            loop._ready.clear()
            loop._scheduled.clear()
            owner.handle._run()
        if end.startswith("cancelled") and not end.endswith("run"):
            owner.handle.cancel()
        else:
            await until(lambda: hasattr(owner, "ran"))
        if end == "cancelled after it has run":
            owner.handle.cancel()
        await turns(3)
        assert owner.handle._context[variable] is owner
        del owner, context
        gc.collect()
        assert gone() is None

    run(main())


def test_collector_begins_with_the_handle(run, loop):
    """It is older than what it has come to hold."""
    loop.set_debug(True)

    class Owner:
        pass

    async def main():
        seen = []
        handle = loop.call_soon(seen.append, 1)
        await until(lambda: seen)
        owner = Owner()
        gone = weakref.ref(owner)
        handle._args = (owner,)
        owner.handle = handle
        del owner, handle
        gc.collect()
        assert gone() is None

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_handle_that_is_in_the_queue_twice_is_collected_with_its_loop(impl):
    class Mark:
        pass

    loop = impl.new_event_loop()
    loop.handle = loop.call_soon(loop.time)
    loop._ready.append(loop.handle)
    mark = loop.mark = Mark()
    gone = weakref.ref(mark)
    del loop, mark
    collect()
    assert gone() is None


@pytest.mark.parametrize("kind", KINDS)
def test_loop_of_a_handle_is_collected(impl, kind):
    class Mark:
        pass

    loop = impl.new_event_loop()
    seen = []
    loop.handle = schedule(loop, kind, seen.append, 1)
    while not seen:
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.cancelled = loop.call_later(1000, print)
    loop.cancelled.cancel()
    mark = loop.mark = Mark()
    gone = weakref.ref(mark)
    loop.close()
    del loop, mark
    gc.collect()
    assert gone() is None


def test_nobody_has_it(run, loop):
    """What nobody has a handle of goes at once, without the collector."""

    class Owner:
        def callback(self):
            pass

    async def main():
        gone = []
        gc.disable()
        try:
            for kind in KINDS:
                owner = Owner()
                gone.append(weakref.ref(owner))
                schedule(loop, kind, owner.callback)
            del owner
            await turns(5)
            await until(lambda: not any(reference() for reference in gone))
        finally:
            gc.enable()

    run(main())


def test_handle_that_is_dropped_later_lets_go_at_once(run, loop):
    class Thing:
        def __call__(self, *args):
            seen.append(1)

    seen = []

    async def main():
        thing = Thing()
        gone = weakref.ref(thing)
        handle = loop.call_soon(thing, 1)
        timer = loop.call_later(0, thing, 1)
        del thing
        await until(lambda: len(seen) == 2)
        assert gone() is not None
        gc.disable()
        try:
            del handle, timer
            assert gone() is None
        finally:
            gc.enable()

    run(main())


def test_left_in_a_loop_that_closes(impl):
    loop = impl.new_event_loop()
    handles = [loop.call_soon(print, 1), loop.call_later(1000, print, 2)]
    loop.close()
    assert [handle._args for handle in handles] == [(1,), (2,)]
    assert [handle._callback for handle in handles] == [print, print]
    assert not any(handle.cancelled() for handle in handles)
    assert all(handle._loop is loop for handle in handles)


def test_long_chain_of_handles(run, loop):
    """Each has the one before: the last one takes all with it."""

    async def main():
        handle = None
        for _ in range(20):
            for _ in range(1000):
                handle = loop.call_soon(int, handle)
                handle._args = (handle._args[0],)
                handle._callback = lambda *args: None
            await turns(1)
        await turns(2)
        del handle
        gc.collect()

    run(main())


def test_report_names_what_it_was(run, loop, reports):
    async def main():
        def fails(argument):
            raise ValueError(argument)

        loop.call_soon(fails, 1)
        timer = loop.call_later(0, fails, 2)
        await until(lambda: len(reports) == 2)
        for report, argument in zip(reports, (1, 2), strict=True):
            assert report["handle"]._callback is fails
            assert report["handle"]._args == (argument,)
            assert report["handle"]._loop is loop
        assert reports[1]["handle"] is timer

    run(main())


def test_reader_that_was_removed(run, loop):
    import socket

    async def main():
        left, right = socket.socketpair()
        with left, right:
            loop.add_reader(left, print, 1)
            handle = loop._selector.get_key(left).data[0]
            loop.remove_reader(left)
            assert handle.cancelled()
            assert (handle._callback, handle._args) == (None, None)
            assert handle._loop is loop
            assert handle._context is not None

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the lock came in 3.14")
def test_lock(run, loop):
    async def main():
        handle = loop.call_soon_threadsafe(int)
        with handle._lock:
            assert not handle._cancelled
        assert not hasattr(loop.call_soon(int), "_lock")

    run(main())
