"""The private parts of asyncio's loop that programs look at, fill, replace and drive by hand."""

import asyncio
import collections
import contextlib
import heapq
import selectors
import signal
import socket
import sys
import threading
import time
import weakref
from asyncio import base_events, events

import pytest

from tests.protocols import Echo
from tests.support import check_script, collect, turns, until

# -- _ready ------------------------------------------------------------


def test_ready_shows_what_runs_next(run, loop):
    async def main():
        assert len(loop._ready) == 0 and not loop._ready
        first = loop.call_soon(int, "1")
        second = loop.call_soon(int)
        assert list(loop._ready) == [first, second]
        assert loop._ready[0] is first and loop._ready[-1] is second
        assert first in loop._ready and loop._ready.index(second) == 1
        assert list(reversed(loop._ready)) == [second, first]
        assert isinstance(loop._ready, collections.deque) and loop._ready
        assert loop._ready is loop._ready
        assert repr(loop._ready).startswith("deque([<Handle")
        assert loop._ready == collections.deque([first, second])
        assert loop._ready.count(first) == 1 and loop._ready.copy() == loop._ready
        await asyncio.sleep(0)
        assert len(loop._ready) == 0

    run(main())


def test_ready_shows_tasks(run, loop):
    async def other():
        await asyncio.sleep(0)
        return 1

    async def main():
        task = asyncio.create_task(other(), name="other")
        (handle,) = loop._ready
        assert isinstance(handle, asyncio.Handle) and not handle.cancelled()
        assert handle._callback.__self__ is task
        assert handle._context is not None and handle in loop._ready
        assert list(loop._ready) == [handle]
        await asyncio.sleep(0)
        (again,) = loop._ready
        assert again._callback.__self__ is task and again is not handle
        assert await task == 1

    run(main())


@pytest.mark.parametrize("outcome", ["result", "exception", "cancelled"])
def test_task_that_is_looked_at_goes_on(run, loop, outcome):
    """The step is a Handle's by then, and carries on with what the Task has waited for."""

    async def other(future):
        try:
            return await future
        except ValueError as exc:
            return exc
        except asyncio.CancelledError:
            return "cancelled"

    async def main():
        future = loop.create_future()
        task = asyncio.create_task(other(future))
        await turns(2)
        error = ValueError("x")
        if outcome == "result":
            future.set_result(7)
        elif outcome == "exception":
            future.set_exception(error)
        else:
            future.cancel()
        assert len(list(loop._ready)) == 1
        assert len(loop._ready) == 1
        expected = {"result": 7, "exception": error, "cancelled": "cancelled"}
        assert await task == expected[outcome]
        assert asyncio.current_task() is not task

    run(main())


def test_step_that_is_cancelled(run, loop):
    """Then the Task stands still, as with asyncio."""

    async def other():
        seen.append("step")

    seen = []

    async def main():
        task = asyncio.create_task(other())
        loop._ready[0].cancel()
        await turns(3)
        assert seen == [] and not task.done()
        task.cancel()
        await turns(2)
        task._log_destroy_pending = False
        if not task.done():
            task.get_coro().close()

    run(main())


def test_step_that_is_taken_out_and_run(run, loop):
    async def other():
        seen.append(asyncio.current_task())

    seen = []

    def by_hand():
        handle = loop._ready.pop()
        handle._run()
        assert asyncio.current_task() is None

    async def main():
        task = asyncio.create_task(other())
        loop._ready.appendleft(asyncio.Handle(by_hand, (), loop))
        await task
        assert seen == [task]

    run(main())


def test_what_is_put_into_ready_runs(run, loop):
    seen = []

    def handle(name):
        return asyncio.Handle(seen.append, (name,), loop)

    async def main():
        loop._ready.append(handle("b"))
        loop._ready.appendleft(handle("a"))
        loop._ready.extend([handle("c"), handle("d")])
        loop._ready += [handle("e")]
        loop._ready.insert(0, handle("0"))
        assert len(loop._ready) == 6
        await turns(2)
        assert seen == ["0", "a", "b", "c", "d", "e"]
        seen.clear()
        kept = loop.call_soon(seen.append, 1)
        gone = loop.call_soon(seen.append, 2)
        loop._ready.remove(gone)
        loop._ready.rotate(1)
        assert list(loop._ready) == [kept]
        loop._ready[0] = handle("x")
        await turns(2)
        assert seen == ["x"]
        seen.clear()
        loop.call_soon(seen.append, 1)
        loop._ready.clear()
        loop._ready.append(kept)
        loop._ready.append(kept)
        await turns(2)
        assert seen == [1, 1]

    async def twice():  # clear() has taken out the step that goes on with main(), if there was one
        await main()

    run(twice())


def test_taken_out_of_ready(run, loop):
    seen = []

    async def main():
        handles = [loop.call_soon(seen.append, n) for n in range(4)]
        assert loop._ready.popleft() is handles[0]
        assert loop._ready.pop() is handles[3]
        del loop._ready[0]
        assert list(loop._ready) == [handles[2]]
        await turns(2)
        assert seen == [2]
        handles[0]._run()
        assert seen == [2, 0]
        with pytest.raises(IndexError):
            loop._ready.popleft()
        with pytest.raises(IndexError):
            loop._ready[0]

    run(main())


def test_ready_counts_other_threads(run, loop):
    async def main():
        thread = threading.Thread(
            target=lambda: [loop.call_soon_threadsafe(int) for _ in range(3000)]
        )
        thread.start()
        thread.join()
        assert len(loop._ready) == 3000
        await turns(5)

    run(main())


def test_ready_of_a_loop_that_has_not_run(loop):
    seen = []
    loop._ready.append(asyncio.Handle(seen.append, (1,), loop))
    assert len(loop._ready) == 1
    loop.run_until_complete(turns(1))
    assert seen == [1]


def test_assigned_ready(loop):
    seen = []
    loop.call_soon(seen.append, "old")
    loop._ready = collections.deque([asyncio.Handle(seen.append, ("new",), loop)])
    loop.run_until_complete(turns(1))
    assert seen == ["new"]


def test_views_of_a_closed_loop(impl):
    loop = impl.new_event_loop()
    ready, scheduled = loop._ready, loop._scheduled
    loop.call_soon(int)
    loop.call_later(5, int)
    loop.close()
    assert not loop._ready and not loop._scheduled
    assert not ready and not scheduled and len(ready) == len(scheduled) == 0
    assert loop._selector is None


def test_views_keep_no_loop_alive(impl):
    loop = impl.new_event_loop()
    ready, scheduled = loop._ready, loop._scheduled
    loop.call_soon(int)
    list(ready), list(scheduled)
    loop.close()
    gone = weakref.ref(loop)
    del loop
    if not impl.ours:
        return
    assert gone() is None
    assert not ready and not scheduled


# -- _scheduled ------------------------------------------------------------


def test_scheduled_shows_the_timers(run, loop):
    async def main():
        assert loop._scheduled == []
        timers = [loop.call_later(100 - n, int) for n in range(5)]
        assert len(loop._scheduled) == 5 and isinstance(loop._scheduled, list)
        assert loop._scheduled[0] is timers[4]
        assert set(loop._scheduled) == set(timers)
        assert timers[2] in loop._scheduled
        assert all(isinstance(h, asyncio.TimerHandle) and h._scheduled for h in loop._scheduled)
        assert heapq.nsmallest(2, loop._scheduled) == [timers[4], timers[3]]
        assert repr(loop._scheduled).startswith("[<TimerHandle when=")
        for timer in timers:
            timer.cancel()
        assert [h for h in loop._scheduled if not h.cancelled()] == []

    run(main())


def test_timers_are_fired_by_hand(run, loop):
    """What test helpers do to let time pass."""
    seen = []

    async def main():
        loop.call_later(3600, seen.append, "later")
        loop.call_later(7200, seen.append, "much later")
        for handle in list(loop._scheduled):
            if not handle.cancelled() and handle.when() < loop.time() + 4000:
                handle._run()
                handle.cancel()
        await turns(2)
        assert seen == ["later"]
        assert len([h for h in loop._scheduled if not h.cancelled()]) == 1

    run(main())


def test_heappop_and_heappush(run, loop):
    """heapq's functions in C change a list without any of its methods."""
    seen = []

    async def main():
        first = loop.call_later(50, seen.append, "first")
        second = loop.call_later(60, seen.append, "second")
        assert heapq.heappop(loop._scheduled) is first
        assert list(loop._scheduled) == [second]
        heapq.heappush(loop._scheduled, first)
        assert loop._scheduled[0] is first and len(loop._scheduled) == 2
        loop._ready.append(heapq.heappop(loop._scheduled))
        await turns(2)
        assert seen == ["first"] and list(loop._scheduled) == [second]
        loop._scheduled.clear()
        assert len(loop._scheduled) == 0
        scheduled = loop._scheduled
        own = asyncio.TimerHandle(loop.time() + 0.001, seen.append, ("own",), loop)
        own._scheduled = True
        heapq.heappush(scheduled, own)
        await until(lambda: "own" in seen)
        assert len(scheduled) == 0

    run(main())


@pytest.mark.parametrize("end", ["runs", "is cancelled", "is taken out once"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_timer_that_waits_twice(run, loop, kept, end):
    seen = []

    async def main():
        scheduled = loop._scheduled
        timer = loop.call_later(0.001, seen.append, 1)
        heapq.heappush(scheduled if kept else loop._scheduled, timer)
        assert loop._scheduled.count(timer) == 2
        if end == "is cancelled":
            timer.cancel()
        elif end == "is taken out once":
            assert heapq.heappop(loop._scheduled) is timer
            assert list(loop._scheduled) == [timer]
        await until(lambda: timer not in loop._scheduled and not loop._ready)
        assert seen == {"runs": [1, 1], "is cancelled": []}.get(end, [1])

    run(main())


def test_a_timer_that_is_put_in_twice(run, loop):
    seen = []

    async def main():
        timer = loop.call_later(0.001, seen.append, 1)
        loop._scheduled.remove(timer)
        loop._scheduled.extend([timer, timer])
        assert list(loop._scheduled) == [timer, timer]
        await until(lambda: len(seen) == 2)
        loop._scheduled.extend([timer, timer])
        loop._scheduled.clear()
        assert list(loop._scheduled) == []
        await turns(3)
        assert len(seen) == 2

    run(main())


def test_a_timer_of_somebody_else(run, loop):
    seen = []

    async def main():
        kept = asyncio.TimerHandle(loop.time() + 0.002, seen.append, ("kept",), loop)
        cancelled = asyncio.TimerHandle(loop.time() + 0.001, seen.append, ("no",), loop)
        heapq.heappush(loop._scheduled, kept)
        heapq.heappush(loop._scheduled, cancelled)
        assert list(loop._scheduled) == [cancelled, kept]
        cancelled._scheduled = True
        cancelled.cancel()
        await until(lambda: seen)
        await asyncio.sleep(0.002)
        assert seen == ["kept"] and not loop._scheduled

    run(main())


def test_timers_of_a_view_that_is_kept(run, loop):
    async def main():
        scheduled = loop._scheduled
        timer = loop.call_later(0.001, int)
        assert list(scheduled) == [timer]
        await asyncio.sleep(0.003)
        assert len(scheduled) == 0
        timer = loop.call_later(100, int)
        assert scheduled[0] is timer
        scheduled.remove(timer)
        assert not timer.cancelled() and len(loop._scheduled) == 0

    run(main())


def test_many_timers_and_views(run, loop):
    fired = []

    async def main():
        timers = [loop.call_later(0.001 * (n % 7), fired.append, n) for n in range(200)]
        for timer in timers[::3]:
            timer.cancel()
        while len(fired) < 133:
            when = [handle.when() for handle in loop._scheduled if not handle.cancelled()]
            # A cancelled one goes there as well when it is due, on a machine that is late.
            ready = [handle for handle in loop._ready if not handle.cancelled()]
            assert len(when) + len(ready) + len(fired) == 133
            await asyncio.sleep(0.0005)

    run(main())


# -- _run_once, and hosts ------------------------------------------------------------


@contextlib.contextmanager
def running(loop):
    """What run_forever() sets up, by hand."""
    loop._check_closed()
    loop._check_running()
    loop._thread_id = threading.get_ident()
    events._set_running_loop(loop)
    try:
        yield
    finally:
        loop._stopping = False
        loop._thread_id = None
        events._set_running_loop(None)


def test_turns_by_hand(loop):
    order = []

    async def main():
        for number in range(3):
            order.append(number)
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        order.append("end")

    with running(loop):
        task = loop.create_task(main())
        loop.call_soon(order.append, "a")
        loop._run_once()
        assert order == [0, "a"]
        loop._run_once()
        assert order == [0, "a", 1]
        while not task.done():
            loop._run_once()
        assert asyncio.current_task() is None
    assert order[-1] == "end" and not loop.is_running()


def test_turns_by_hand_poll(loop):
    one, other = socket.socketpair()
    seen = []
    with one, other, running(loop):
        loop.add_reader(one, lambda: seen.append(one.recv(10)))
        other.send(b"x")
        loop._run_once()
        assert seen == [b"x"]
        loop.call_soon(int)
        other.send(b"y")
        loop._run_once()
        assert seen == [b"x", b"y"]
        loop.stop()
        loop._run_once()  # does not sleep
        loop.remove_reader(one)


def test_host_that_drains_the_loop(loop):
    seen = []
    loop.call_soon(lambda: loop.call_soon(seen.append, 1))
    loop.call_later(0.001, seen.append, 2)
    with running(loop):
        while loop._ready or loop._scheduled:
            loop._run_once()
    assert seen == [1, 2]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="came in 3.13")
def test_host_with_a_loop_of_its_own(impl):
    made = impl.new_event_loop()
    turned = 0

    class Host(type(made)):
        def run_forever(self):
            nonlocal turned
            try:
                self._run_forever_setup()
                while True:
                    self._run_once()
                    turned += 1
                    if self._stopping:
                        break
            finally:
                self._run_forever_cleanup()

    made.close()
    loop = Host()
    assert loop.run_until_complete(asyncio.sleep(0.001, "x")) == "x"
    assert turned > 1 and not loop.is_running()
    loop.close()


@pytest.mark.parametrize("where", ["subclass", "instance", "instance in the run", "base"])
def test_run_once_replaced(impl, where, monkeypatch):
    made = impl.new_event_loop()
    turned = []

    class Turning(type(made)):
        def _run_once(self):
            turned.append(1)
            super()._run_once()

    if where == "subclass":
        made.close()
        made = Turning()
    original = made._run_once

    def replaced(*self):
        turned.append(1)
        original()

    async def main():
        if where == "instance in the run":
            made._run_once = replaced
        await turns(5)
        await asyncio.sleep(0.001)
        return "done"

    if where == "instance":
        made._run_once = replaced
    elif where == "base":
        stock = base_events.BaseEventLoop._run_once

        def on_base(self):
            turned.append(1)
            stock(self)

        monkeypatch.setattr(base_events.BaseEventLoop, "_run_once", on_base)
    assert made.run_until_complete(main()) == "done"
    assert len(turned) >= 5
    made.close()


def test_asyncios_own_turn(impl):
    """BaseEventLoop._run_once() itself works on _ready, _scheduled and _selector."""
    made = impl.new_event_loop()

    class Stock(type(made)):
        _run_once = base_events.BaseEventLoop._run_once

    made.close()
    loop = Stock()
    seen = []

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for number in range(3):
            writer.write(b"%d" % number)
            seen.append(await reader.readexactly(1))
            await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        timers = [loop.call_later(0.001 * n, seen.append, n) for n in (3, 1, 2)]
        loop.call_later(0.002, int).cancel()
        await until(lambda: len(seen) == 6)
        assert all(not timer._scheduled for timer in timers)
        return await asyncio.gather(*(asyncio.sleep(0.001 * n, n) for n in range(4)))

    assert loop.run_until_complete(main()) == [0, 1, 2, 3]
    assert seen == [b"0", b"1", b"2", 1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        loop.call_soon(interrupt)
        loop.run_forever()
    loop.close()


def interrupt():
    raise KeyboardInterrupt


def test_handle_run_by_hand_lets_an_interrupt_out(loop):
    handle = loop.call_soon(interrupt)
    loop._ready.clear()
    with pytest.raises(KeyboardInterrupt):
        handle._run()


def test_turn_inside_a_task(run, loop):
    """No way to nest, but the Task that does it stays what it is."""
    seen = []

    async def main():
        me = asyncio.current_task()
        loop.call_soon(seen.append, 1)
        loop._run_once()
        assert seen == [1]
        assert asyncio.current_task() is me
        await asyncio.sleep(0)

    run(main())


def test_turn_of_a_closed_loop(impl):
    loop = impl.new_event_loop()
    loop.close()
    with pytest.raises((RuntimeError, AttributeError)):
        loop._run_once()


# -- _selector ------------------------------------------------------------


def test_selector_tells_what_is_watched(run, loop):
    one, other = socket.socketpair()

    async def main():
        with one, other:
            one.setblocking(False)
            before = len(loop._selector.get_map())
            loop.add_reader(one, int)
            loop.add_writer(one, int)
            key = loop._selector.get_key(one)
            assert key.fd == one.fileno()
            assert key.events == selectors.EVENT_READ | selectors.EVENT_WRITE
            assert all(isinstance(handle, asyncio.Handle) for handle in key.data)
            assert loop._selector.get_map()[one.fileno()] == key
            assert one in loop._selector.get_map()
            assert len(loop._selector.get_map()) == before + 1
            loop.remove_writer(one)
            assert loop._selector.get_key(one.fileno()).events == selectors.EVENT_READ
            loop.remove_reader(one)
            assert one.fileno() not in loop._selector.get_map()
            with pytest.raises(KeyError):
                loop._selector.get_key(one)
            assert isinstance(loop._selector, selectors.BaseSelector)
            assert loop._selector is loop._selector

    run(main())


def test_select_by_hand(loop):
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        seen = []
        loop.add_reader(one, lambda: seen.append(one.recv(10)))
        loop._selector.select(0)
        other.send(b"x")
        events = [(key.fd, mask) for key, mask in loop._selector.select(1)]
        assert events == [(one.fileno(), selectors.EVENT_READ)]
        events = loop._selector.select(0)
        assert len(events) == 1  # nobody has read it
        assert not loop._ready
        loop._process_events(events)
        assert len(loop._ready) == 1
        with running(loop):
            handle = loop._ready.popleft()
            handle._run()
        assert seen == [b"x"]
        started = time.monotonic()
        assert loop._selector.select(0.001) == []
        assert time.monotonic() - started >= 0.001
        loop.remove_reader(one)


@pytest.mark.parametrize("how", ["instance", "object", "class"])
def test_wrapped_select(impl, how):
    """Is called in each iteration with what asyncio would give, and its answer is what counts."""
    loop = impl.new_event_loop()
    timeouts = []
    hidden = True
    seen = []
    select = loop._selector.select

    def note(timeout):
        timeouts.append(timeout)
        if timeout is None:
            threading.Timer(0.001, loop.call_soon_threadsafe, [loop.stop]).start()

    def wrapped(timeout=None):
        note(timeout)
        events = select(timeout)
        if hidden:
            events = [(key, mask) for key, mask in events if key.fd != one.fileno()]
        return events

    if how == "instance":
        loop._selector.select = wrapped
    elif how == "object":

        class Around:
            def __init__(self, inner):
                self.inner = inner

            def select(self, timeout):
                return wrapped(timeout)

            def __getattr__(self, name):
                return getattr(self.inner, name)

        loop._selector = Around(loop._selector)
    else:

        class Selector(type(loop._selector)):
            def select(self, timeout=None):
                note(timeout)
                events = super().select(timeout)
                return [pair for pair in events if not hidden or pair[0].fd != one.fileno()]

        loop._selector.__class__ = Selector

    async def main():
        nonlocal hidden
        loop.add_reader(one, lambda: seen.append(one.recv(10)))
        other.send(b"x")
        timeouts.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert timeouts == [0, 0]
        timeouts.clear()
        await asyncio.sleep(0.003)
        assert any(timeout is not None and 0 < timeout <= 0.003 for timeout in timeouts)
        assert seen == []
        hidden = False
        await until(lambda: seen)
        loop.remove_reader(one)

    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        loop.run_until_complete(main())
        timeouts.clear()
        loop.run_forever()
        assert None in timeouts
    assert seen == [b"x"]
    loop.close()


def test_wrapped_select_and_connections(impl):
    """Transports, servers and operations go through it as well."""
    loop = impl.new_event_loop()
    selected = []
    select = loop._selector.select

    def wrapped(timeout):
        events = select(timeout)
        selected.extend(events)
        return events

    loop._selector.select = wrapped

    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        assert await reader.read() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b"again\n")
            assert await loop.sock_recv(sock, 100) == b"again\n"
        server.close()
        await server.wait_closed()
        assert await asyncio.to_thread(int, "5") == 5

    loop.run_until_complete(main())
    assert len(selected) >= 5
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_what_is_kept_of_the_selector_keeps_nothing_alive(impl):
    """A key of it has handles; whoever keeps one may be something that the loop leads to."""
    loop = impl.new_event_loop()

    async def main():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        loop._selector.seen = list(loop._selector.get_map().values())
        assert "_read_ready" in repr(loop._selector.seen) or not impl.ours
        assert all(
            isinstance(handle, asyncio.Handle)
            for key in loop._selector.seen
            for handle in key.data or ()
            if handle is not None
        )
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    loop.close()
    dead = weakref.ref(loop)
    del loop, main
    collect()
    assert dead() is None


def test_select_of_a_host(impl):
    """A poll of its own, over what the map of the selector has: call_soon_threadsafe() ends it."""
    loop = impl.new_event_loop()
    polls = []

    def select(timeout):
        polls.append(timeout)
        with selectors.DefaultSelector() as own:
            keys = dict(loop._selector.get_map())
            for key in keys.values():
                own.register(key.fd, key.events)
            return [(keys[key.fd], mask) for key, mask in own.select(timeout)]

    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)

        async def main():
            timer = threading.Timer(0.01, loop.call_soon_threadsafe, [done.set_result, 1])
            timer.start()
            assert await done == 1
            timer.join()
            threading.Timer(0.005, other.send, [b"x"]).start()
            assert await loop.sock_recv(one, 10) == b"x"
            await asyncio.sleep(0.002)

        done = loop.create_future()
        map_of = loop._selector.get_map
        assert len(map_of()) == 1
        loop._selector.select = select
        loop.run_until_complete(main())
        assert len(polls) < 30
    loop.close()


@pytest.mark.our_loop("asyncio polls in both threads")
def test_polls_and_turns_of_another_thread_are_refused(run, loop):
    outcome = []

    def poll():
        for call in lambda: loop._selector.select(0), loop._run_once:
            with pytest.raises(RuntimeError) as caught:
                call()
            outcome.append(str(caught.value))
        loop.call_soon_threadsafe(done.set_result, None)

    async def main():
        loop._selector.get_map()
        thread = threading.Thread(target=poll)
        thread.start()
        await done
        thread.join()

    done = loop.create_future()
    run(main())
    # Without a GIL no method of the loop that is one thread's goes any further.
    refusals = "Another thread runs this event loop", "Non-thread-safe operation invoked"
    assert len(outcome) == 2
    assert all(text.startswith(refusals) for text in outcome)


def test_guest(impl):
    """The poll in another thread, all else in this one: a loop that is a guest of an interface."""
    loop = impl.new_event_loop()

    async def main():
        server = await asyncio.start_server(lambda r, w: (w.write(b"x"), w.close()), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b"x"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.002)
        return "done"

    def poll(timeout, into):
        into.append(loop._selector.select(timeout))

    with running(loop):
        task = loop.create_task(main())
        while not task.done():
            timeout = 0 if loop._ready else None
            if timeout is None and loop._scheduled:
                timeout = max(0, loop._scheduled[0].when() - loop.time())
            polled = []
            thread = threading.Thread(target=poll, args=(timeout, polled))
            thread.start()
            thread.join()
            loop._process_events(polled[0])
            end = loop.time() + loop._clock_resolution
            while loop._scheduled and loop._scheduled[0].when() < end:
                handle = heapq.heappop(loop._scheduled)
                handle._scheduled = False
                loop._ready.append(handle)
            for _ in range(len(loop._ready)):
                handle = loop._ready.popleft()
                if not handle.cancelled():
                    handle._run()
    assert task.result() == "done"
    loop.close()


def test_handle_that_runs_while_the_loop_begins_and_ends(loop):
    """By hand, in another thread, from before a run until after it."""
    began, go_on = threading.Event(), threading.Event()

    def body():
        began.set()
        go_on.wait(20)

    handle = loop.call_soon(body)
    loop._ready.clear()
    thread = threading.Thread(target=handle._run)
    thread.start()
    began.wait(20)
    loop.run_until_complete(turns(3))
    loop.call_soon(go_on.set)
    loop.call_soon(thread.join)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert not thread.is_alive()
    loop.run_until_complete(turns(1))


def test_select_that_raises(impl):
    loop = impl.new_event_loop()
    select = loop._selector.select

    def wrapped(timeout):
        raise ZeroDivisionError

    loop._selector.select = wrapped
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(turns(1))
    loop._selector.select = select
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(turns(3))
    loop.close()


def test_time_that_does_not_pass(impl):
    """A clock and a select() of their own: thirty seconds in no time."""
    made = impl.new_event_loop()

    class Quick(type(made)):
        now = 0.0

        def time(self):
            return self.now

    made.close()
    loop = Quick()
    select = loop._selector.select

    def wrapped(timeout):
        events = select(0)
        if not events and timeout:
            loop.now += timeout
        return events

    loop._selector.select = wrapped

    async def main():
        started = loop.time()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1000), 30)
        return loop.time() - started

    assert 29.9 < loop.run_until_complete(main()) < 30.1
    loop.close()


@pytest.mark.parametrize("where", ["subclass", "instance"])
def test_process_events_replaced(impl, where):
    made = impl.new_event_loop()
    seen = []
    if where == "subclass":

        class Processing(type(made)):
            def _process_events(self, event_list):
                seen.extend(mask for _, mask in event_list)
                super()._process_events(event_list)

        made.close()
        made = Processing()
    else:
        process = made._process_events

        def replaced(event_list):
            seen.extend(mask for _, mask in event_list)
            process(event_list)

        made._process_events = replaced

    async def main():
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.send(b"x")
            assert await made.sock_recv(one, 1) == b"x"
            read = made.create_future()
            made.add_reader(one, read.set_result, 1)
            other.send(b"y")
            await read
            made.remove_reader(one)

    made.run_until_complete(main())
    assert selectors.EVENT_READ in seen
    made.close()


@pytest.mark.our_loop("the selector loop's own is such a selector")
def test_selector_that_sees_nothing_is_refused(loop):
    with pytest.raises(TypeError, match="libev"):
        loop._selector = selectors.SelectSelector()
    with pytest.raises(NotImplementedError, match="add_reader"):
        loop._selector.register(0, selectors.EVENT_READ)
    with pytest.raises(NotImplementedError, match="add_reader"):
        loop._selector.modify(0, selectors.EVENT_READ)


# -- the pair of sockets ------------------------------------------------------------


def test_self_pipe(impl):
    loop = impl.new_event_loop()
    assert loop._internal_fds == 1
    timer = threading.Timer(0.002, lambda: (called.append(1), loop._csock.send(b"\0")))
    called = []
    csock, ssock = loop._csock, loop._ssock
    assert csock.fileno() != ssock.fileno() and loop._csock is csock

    async def main():
        timer.start()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.01)

    loop.run_until_complete(main())
    timer.join()
    loop._write_to_self()
    loop.close()
    assert loop._internal_fds == 0 and loop._csock is None and loop._ssock is None
    assert csock.fileno() == -1


def test_wakeup_fd_of_the_self_pipe(run, loop):
    """What programs did before add_signal_handler()."""
    woken = []

    async def main():
        loop._process_self_data = woken.append
        before = signal.signal(signal.SIGUSR1, lambda *args: None)
        old = signal.set_wakeup_fd(loop._csock.fileno())
        try:
            signal.raise_signal(signal.SIGUSR1)
            await until(lambda: woken)
        finally:
            signal.set_wakeup_fd(old)
            signal.signal(signal.SIGUSR1, before)
            del loop._process_self_data

    run(main())
    assert woken == [bytes([signal.SIGUSR1])]


# -- nest_asyncio ------------------------------------------------------------


def test_marked_for_nest_asyncio(impl):
    loop = impl.new_event_loop()
    assert hasattr(loop, "_nest_patched") == impl.ours
    loop.close()


def test_nesting_is_refused(impl, run, loop):
    async def main():
        coroutine = turns(1)
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(coroutine)
        coroutine.close()
        if impl.loops == "asyncloop" or sys.version_info[:3] != (
            3,
            13,
            0,
        ):  # where it unsets the loop
            with pytest.raises(RuntimeError, match="This event loop is already running"):
                loop.run_forever()
        coroutine = turns(1)
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            asyncio.run(coroutine)
        coroutine.close()
        await asyncio.sleep(0)
        return "goes on"

    assert run(main()) == "goes on"


def test_script_that_takes_turns_in_a_thread(impl):
    check_script(
        impl,
        """
from asyncio import events
def body():
    loop = new_event_loop()
    loop._thread_id = threading.get_ident()
    events._set_running_loop(loop)
    task = loop.create_task(asyncio.sleep(0.001, "x"))
    while not task.done():
        loop._run_once()
    events._set_running_loop(None)
    loop._thread_id = None
    print(task.result())
    loop.close()
thread = threading.Thread(target=body)
thread.start()
thread.join()
""",
        "x",
    )
