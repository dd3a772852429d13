"""Programs that put queues of their own into the loop, or drive it and its tasks by hand."""

import asyncio
import collections
import contextlib
import functools
import heapq
import sys
from unittest import mock

import pytest

from tests.support import turns, until

# -- another _ready and another _scheduled ------------------------------------------------------


class Urgent(asyncio.Handle):
    """A call that goes before others."""

    def __init__(self, urgency, callback, args, loop):
        super().__init__(callback, args, loop)
        self.urgency = urgency


class UrgentFirst:
    """As much of a deque as asyncio's loop needs."""

    def __init__(self):
        self.heap = []
        self.count = 0

    def append(self, handle):
        self.count += 1
        heapq.heappush(self.heap, (-getattr(handle, "urgency", 0), self.count, handle))

    def popleft(self):
        return heapq.heappop(self.heap)[2]

    def clear(self):
        self.heap.clear()

    def __len__(self):
        return len(self.heap)


def test_ready_is_a_queue_of_the_programs_own(run, loop):
    seen = []

    async def main():
        loop._ready = UrgentFirst()
        await turns()
        loop.call_soon(seen.append, "usual")
        loop._ready.append(Urgent(-1, seen.append, ("late",), loop))
        loop._ready.append(Urgent(1, seen.append, ("early",), loop))
        await until(lambda: len(seen) == 3)  # what comes meanwhile goes before the late one
        assert await loop.run_in_executor(None, int) == 0
        assert type(loop._ready) is UrgentFirst

    run(main())
    assert seen == ["early", "usual", "late"]


def test_ready_is_a_deque_that_the_program_holds(run, loop):
    seen = []

    async def main():
        loop._ready = held = collections.deque()
        await turns()
        assert loop._ready is held
        held.append(asyncio.Handle(seen.append, ("put in",), loop))
        loop.call_soon(seen.append, "scheduled")
        await turns()
        assert loop._ready is held

    run(main())
    assert seen == ["put in", "scheduled"]


def test_ready_is_kept_aside_and_comes_back(run, loop):
    seen = []

    async def main():
        loop.call_soon(seen.append, "first")
        aside = loop._ready
        loop._ready = collections.deque()
        await turns(3)
        assert seen == [] and len(aside) == 1
        for handle in loop._ready:
            aside.append(handle)
        loop._ready = aside
        await turns(2)

    run(main())
    assert seen == ["first"]


def test_scheduled_is_kept_aside_and_comes_back(run, loop):
    seen = []

    async def main():
        loop.call_later(0, seen.append, "aside")
        aside = loop._scheduled
        loop._scheduled = []
        await asyncio.sleep(0.002)
        assert seen == [] and len(aside) == 1
        loop._scheduled = aside
        await until(lambda: seen)

    run(main())
    assert seen == ["aside"]


def test_scheduled_is_a_list_that_the_program_holds(run, loop):
    seen = []

    async def main():
        loop._scheduled = held = []
        timer = asyncio.TimerHandle(loop.time(), seen.append, ("put in",), loop)
        timer._scheduled = True
        heapq.heappush(held, timer)
        loop.call_later(0, seen.append, "scheduled")
        cancelled = loop.call_later(0, seen.append, "cancelled")
        assert cancelled in loop._scheduled
        cancelled.cancel()
        await until(lambda: len(seen) == 2)
        await asyncio.sleep(0.001)
        assert not timer._scheduled and loop._scheduled is held

    run(main())
    assert sorted(seen) == ["put in", "scheduled"]


def test_scheduled_is_filtered(run, loop):
    seen = []

    async def main():
        keep = functools.partial(seen.append, "kept")
        for callback in (keep, seen.clear, keep):
            loop.call_later(0.001, callback)
        loop._scheduled = [h for h in loop._scheduled if h._callback is keep]
        heapq.heapify(loop._scheduled)
        await until(lambda: len(seen) == 2)
        await asyncio.sleep(0.002)

    run(main())
    assert seen == ["kept"] * 2


def test_timer_that_was_put_in_leaves(run, loop):
    async def main():
        timers = [asyncio.TimerHandle(loop.time(), int, (), loop) for _ in range(2)]
        for timer in timers:
            timer._scheduled = True
            heapq.heappush(loop._scheduled, timer)
        timers[1].cancel()
        await until(lambda: not any(timer._scheduled for timer in timers))

    run(main())


def test_timer_is_put_back_while_it_waits(run, loop):
    seen = []

    async def main():
        loop.call_later(0.001, seen.append, "due")
        taken = heapq.heappop(loop._scheduled)
        await asyncio.sleep(0.003)
        assert seen == []
        heapq.heappush(loop._scheduled, taken)
        await until(lambda: seen)

    run(main())
    assert seen == ["due"]


def test_timer_that_has_run_is_put_back(run, loop):
    seen = []

    async def main():
        timer = loop.call_later(0, seen.append, "due")
        await until(lambda: seen)
        heapq.heappush(loop._scheduled, timer)
        await until(lambda: len(seen) == 2)
        loop._ready.append(timer)
        await until(lambda: len(seen) == 3)

    run(main())


# -- turns that are replaced while the loop runs ------------------------------------------------


def calls_in_a_run(loop, patched, name):
    """How often one that is patched for three of six iterations is called, after each three."""
    own = getattr(patched, name)
    seen = []

    def counted(self, *args):
        seen.append(self)
        own(self, *args)

    async def main():
        with mock.patch.object(patched, name, counted):
            await turns(3)
        before = len(seen)
        await turns(3)
        return before, len(seen)

    with contextlib.closing(loop):
        return loop.run_until_complete(main())


@pytest.mark.parametrize("of", ["the loop's class", "BaseEventLoop"])
def test_run_once_is_patched_in_a_run(impl, of):
    loop_class = impl.Loop
    made = type("Made", (loop_class,), {})
    loop = made()
    patched = made if of == "the loop's class" else asyncio.BaseEventLoop
    assert calls_in_a_run(loop, patched, "_run_once") == (3, 3)


def test_process_events_is_patched_in_a_run(impl):
    made = type("Made", (impl.Loop,), {})
    assert calls_in_a_run(made(), made, "_process_events") == (3, 3)


def test_each_look_at_the_loop_is_seen(impl):
    looks = collections.Counter()

    class Watched(impl.Loop):
        def __getattribute__(self, name):
            looks[name] += 1
            return super().__getattribute__(name)

    async def main():
        looks.clear()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)  # and to wake this task
        await future
        await asyncio.sleep(0.001)  # create_future(), call_later(), call_at(), and to wake it
        await loop.create_task(turns(1))  # its two steps, and to wake this task
        return dict(looks)

    loop = Watched()
    with contextlib.closing(loop):
        seen = loop.run_until_complete(main())
    expected = {"call_soon": 6, "call_later": 1, "call_at": 1, "create_future": 2, "create_task": 1}
    assert {name: seen[name] for name in expected} == expected


# -- tasks by hand ------------------------------------------------------------------------------


def wait_inside(loop, awaitable):
    """What programs do in place of `await`: the current task steps aside, and turns are made."""
    future = asyncio.ensure_future(awaitable, loop=loop)
    task = asyncio.current_task(loop)
    asyncio.tasks._leave_task(loop, task)
    ready = len(loop._ready)
    while not future.done():
        loop._run_once()
    while len(loop._ready) < ready:  # asyncio's turn around this one counts on them
        handle = asyncio.Handle(int, (), loop)
        handle.cancel()
        loop._ready.append(handle)
    asyncio.tasks._enter_task(loop, task)
    return future.result()


async def naps():
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return "rested"


def test_task_steps_aside_for_turns_by_hand(run, loop):
    seen = []

    async def other():
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0)

    async def inner():
        return wait_inside(loop, naps())

    async def main():
        me = asyncio.current_task()
        task = loop.create_task(other())
        assert wait_inside(loop, naps()) == "rested"
        assert asyncio.current_task() is me
        await task
        assert await asyncio.gather(inner(), inner()) == ["rested"] * 2
        assert asyncio.current_task() is me

    run(main())
    assert seen == [0, 1, 2]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is no dict of current tasks")
def test_loop_is_driven_by_its_parts_inside_a_task(run, loop):
    async def connects():
        def greet(_, writer):
            writer.write(b"hi\n")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        line = await reader.readline()
        writer.close()
        server.close()
        return line

    def drive(future):
        current = asyncio.tasks._current_tasks
        while not future.done():
            outer = current.pop(loop, None)
            ready, scheduled = loop._ready, loop._scheduled
            timeout = 0 if ready else None
            if scheduled and not ready:
                timeout = max(scheduled[0]._when - loop.time(), 0)
            loop._process_events(loop._selector.select(timeout))
            end = loop.time() + loop._clock_resolution
            while scheduled and scheduled[0]._when < end:
                ready.append(heapq.heappop(scheduled))
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
            current[loop] = outer
        return future.result()

    async def main():
        me = asyncio.current_task()
        assert drive(loop.create_task(connects())) == b"hi\n"
        assert drive(loop.create_task(naps())) == "rested"
        assert asyncio.current_task() is me
        await turns()
        assert asyncio.current_task() is me

    run(main())


def test_step_by_hand_inside_another_task_is_refused(run, loop, reports):
    seen = []

    async def other():
        seen.append("step")
        await asyncio.sleep(0)
        return await future

    async def main():
        task = loop.create_task(other())
        loop._ready[-1]._run()
        (report,) = reports
        assert "Cannot enter into task" in str(report["exception"])
        assert seen == []
        await turns(2)
        assert seen == ["step"]  # its turn has come all the same
        (wakeup, _) = future._callbacks[0]
        with pytest.raises(RuntimeError, match="while another task"):
            wakeup(future)
        future.set_result("done")
        assert await task == "done"

    future = loop.create_future()
    run(main())


def test_handle_of_a_task_that_was_woken(run, loop):
    async def waits():
        try:
            return await future
        except KeyError:
            return "thrown in"

    async def main():
        task = loop.create_task(waits())
        await turns()
        future.set_result(None)
        (handle,) = loop._ready
        assert handle._args == (future,) and handle._callback.__self__ is task
        loop._ready.clear()
        failed = loop.create_future()
        failed.set_exception(KeyError())
        loop.call_soon(handle._callback, failed, context=handle._context)
        assert await task == "thrown in"

    future = loop.create_future()
    run(main())


def test_task_is_registered_by_hand(run, loop):
    async def main():
        task = loop.create_task(asyncio.sleep(60))
        assert task in asyncio.all_tasks()
        asyncio.tasks._unregister_task(task)
        assert task not in asyncio.all_tasks()
        asyncio.tasks._register_task(task)
        assert task in asyncio.all_tasks()
        asyncio.tasks._unregister_task(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio's own tasks are in no set")
def test_set_of_all_tasks(run, loop):
    name = "_all_tasks" if sys.version_info < (3, 12) else "_scheduled_tasks"
    tasks = getattr(asyncio.tasks, name)

    async def main():
        before = len(tasks)
        task = loop.create_task(asyncio.sleep(60))
        assert task in tasks and len(tasks) == before + 1 and task in list(tasks)
        tasks.discard(task)
        assert task not in tasks and len(tasks) == before and task not in asyncio.all_tasks()
        tasks.add(task)
        assert task in tasks and task in asyncio.all_tasks()
        assert type(tasks).__name__ == "WeakSet"
        task.cancel()

    run(main())
