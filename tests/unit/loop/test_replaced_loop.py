"""Methods of the loop, and what asyncio makes and calls by way of modules, replaced by a program.

Each scenario notes what is called on the standard loop and on the loop under test.
"""

import asyncio
import contextlib
import socket
import time
import types
from asyncio import base_events, events, futures, tasks

import pytest

from tests.support import turns

METHODS = ["call_soon", "call_at", "call_later", "create_future", "create_task", "time"]


# -- scenarios: what tasks, futures and timers do -------------------------------------------------


async def nothing():
    await asyncio.sleep(0)


async def a_task(loop):
    await asyncio.create_task(nothing())


async def a_cancelled_task(loop):
    task = asyncio.create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def a_future(loop):
    future = loop.create_future()
    future.add_done_callback(lambda _: None)
    future.set_result(1)
    await future
    future.add_done_callback(lambda _: None)
    await asyncio.sleep(0)


async def two_waiters(loop):
    future = loop.create_future()

    async def wait():
        return await future

    waiting = [asyncio.ensure_future(wait()) for _ in range(2)]
    await asyncio.sleep(0)
    future.set_result(1)
    await asyncio.gather(*waiting)


async def timers(loop):
    loop.call_later(0.001, int)
    loop.call_at(loop.time() + 0.001, int)
    loop.call_later(100, int).cancel()
    await asyncio.sleep(0.01)


async def a_timeout(loop):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(1)


async def a_group(loop):
    async with asyncio.TaskGroup() as group:
        group.create_task(nothing())
        group.create_task(nothing())


async def a_queue(loop):
    queue = asyncio.Queue()
    getting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(1)
    await getting


async def an_event(loop):
    event = asyncio.Event()
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.sleep(0)
    event.set()
    await waiting


SCENARIOS = [
    a_task,
    a_cancelled_task,
    a_future,
    two_waiters,
    timers,
    a_timeout,
    a_group,
    a_queue,
    an_event,
]


# -- ways to replace a method: each a context manager around (loop class) -> a loop ---------------


def noting(name, function, log):
    def replaced(*args, **kwargs):
        log.append(name)
        return function(*args, **kwargs)

    return replaced


@contextlib.contextmanager
def by_subclass(Loop, names, log):
    space = {name: noting(name, getattr(Loop, name), log) for name in names}
    yield type("Sub", (Loop,), space)()


@contextlib.contextmanager
def on_instance(Loop, names, log):
    loop = Loop()
    for name in names:
        setattr(loop, name, noting(name, getattr(loop, name), log))
    yield loop


@contextlib.contextmanager
def in_dict(Loop, names, log):
    loop = Loop()
    for name in names:
        vars(loop)[name] = noting(name, getattr(loop, name), log)
    yield loop


@contextlib.contextmanager
def on_class(Loop, names, log):
    loop = Loop()
    own = {name: Loop.__dict__.get(name) for name in names}
    for name in names:
        setattr(Loop, name, noting(name, getattr(Loop, name), log))
    try:
        yield loop
    finally:
        for name, before in own.items():
            if before is None:
                delattr(Loop, name)
            else:
                setattr(Loop, name, before)


@contextlib.contextmanager
def on_base(Loop, names, log):
    base = asyncio.BaseEventLoop
    loop = Loop()
    before = {name: getattr(base, name) for name in names}
    for name, function in before.items():
        setattr(base, name, noting(name, function, log))
    try:
        yield loop
    finally:
        for name, function in before.items():
            setattr(base, name, function)


@contextlib.contextmanager
def by_other_class(Loop, names, log):
    loop = Loop()
    space = {name: noting(name, getattr(Loop, name), log) for name in names}
    loop.__class__ = type("Sub", (Loop,), space)
    yield loop


WAYS = [by_subclass, on_instance, in_dict, on_class, on_base, by_other_class]


def calls(Loop, way, names, scenario):
    """What the scenario makes the loop call of the given methods."""
    log = []
    with way(Loop, names, log) as loop:
        try:

            async def main():
                log.clear()
                await scenario(loop)
                return list(log)

            return loop.run_until_complete(main())
        finally:
            loop.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", METHODS)
def test_replaced_method_is_called(impl, name, scenario, way):
    expected = calls(asyncio.SelectorEventLoop, way, [name], scenario)
    found = calls(impl.Loop, way, [name], scenario)
    assert found == expected or (name == "time" and scenario in (timers, a_timeout) and found)


@pytest.mark.parametrize("way", [on_instance, on_class, on_base, in_dict, by_other_class])
def test_replaced_while_it_runs(impl, way):
    """And given back: what a task that has begun long ago schedules goes by the method."""

    def run(Loop):
        log = []
        loop = Loop()
        # The instance is there already: the ways that make one are told so.
        made = type("Made", (), {})

        async def main():
            await asyncio.sleep(0)
            future = loop.create_future()
            waiting = asyncio.ensure_future(asyncio.shield(future))
            await asyncio.sleep(0)
            if way is on_class or way is on_base:
                target = Loop if way is on_class else asyncio.BaseEventLoop
                before = target.__dict__.get("call_soon")
                target.call_soon = noting("call_soon", target.call_soon, log)
            elif way is by_other_class:
                space = {"call_soon": noting("call_soon", Loop.call_soon, log)}
                loop.__class__ = type("Sub", (Loop,), space)
            elif way is in_dict:
                vars(loop)["call_soon"] = noting("call_soon", loop.call_soon, log)
            else:
                loop.call_soon = noting("call_soon", loop.call_soon, log)
            future.set_result(None)
            await waiting
            await asyncio.sleep(0)
            seen = list(log)
            if way is on_class or way is on_base:
                if before is None:
                    del target.call_soon
                else:
                    target.call_soon = before
            elif way is by_other_class:
                loop.__class__ = Loop
            else:
                del loop.call_soon
            log.clear()
            await asyncio.sleep(0)
            await nothing()
            return seen, list(log), made

        try:
            return loop.run_until_complete(main())[:2]
        finally:
            loop.close()

    expected = run(asyncio.SelectorEventLoop)
    assert expected[0] and not expected[1]
    assert run(impl.Loop) == expected


def test_transports_call_call_soon(impl):
    log = []

    async def main():
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        call_soon = loop.call_soon
        loop.call_soon = noting("call_soon", call_soon, log)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        assert log
        log.clear()
        transport.close()
        assert log
        far.close()
        del loop.call_soon
        await turns(3)

    with contextlib.closing(impl.Loop()) as loop:
        loop.run_until_complete(main())


def test_call_soon_that_raises(impl, unraisable):
    """What an override raises reaches who has made the loop call it."""
    reports = []

    class Refusing(impl.Loop):
        refuses = False

        def call_soon(self, *args, **kwargs):
            if self.refuses:
                raise ZeroDivisionError
            return super().call_soon(*args, **kwargs)

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        future.add_done_callback(print)
        loop.refuses = True
        try:
            with pytest.raises(ZeroDivisionError):
                future.set_result(1)
        finally:
            loop.refuses = False

    with contextlib.closing(Refusing()) as loop:
        loop.set_exception_handler(lambda _, context: reports.append(context))
        loop.run_until_complete(main())
    assert not reports


# -- the clock ------------------------------------------------------------------------------------


def test_monotonic_is_replaced(impl, monkeypatch):
    """The loop's clock, and its timers with it, are time.monotonic()."""
    now = 1000.0

    async def main():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(time, "monotonic", lambda: now)
        assert loop.time() == 1000.0
        fired = []
        timer = loop.call_later(50, fired.append, 1)
        assert timer.when() == 1050.0
        await turns(5)
        assert not fired
        nonlocal_now(1051.0)
        await turns(5)
        assert fired
        monkeypatch.undo()
        assert abs(loop.time() - time.monotonic()) < 1

    def nonlocal_now(value):
        nonlocal now
        now = value

    with contextlib.closing(impl.Loop()) as loop:
        loop.run_until_complete(main())


def test_module_time_of_base_events_is_replaced(impl, monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        fake = types.SimpleNamespace(monotonic=lambda: 77.0)
        monkeypatch.setattr(base_events, "time", fake)
        await turns(2)
        assert loop.time() == 77.0
        monkeypatch.undo()
        await turns(2)
        assert loop.time() != 77.0

    with contextlib.closing(impl.Loop()) as loop:
        loop.run_until_complete(main())


# -- handles, futures, tasks ----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_run_of_a_handle_is_replaced(impl, monkeypatch, scenario):
    """As who measures callbacks does: each step of a task is one."""

    def count(Loop):
        ran = []
        run = events.Handle._run

        def wrapped(self):
            ran.append(type(getattr(self._callback, "__self__", None)).__name__)
            return run(self)

        async def main():
            events.Handle._run = wrapped
            try:
                await scenario(asyncio.get_running_loop())
                await asyncio.sleep(0)
                return len(ran)
            finally:
                events.Handle._run = run

        loop = Loop()
        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    assert count(impl.Loop) == count(asyncio.SelectorEventLoop)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_handle_is_replaced(impl, monkeypatch, scenario):
    class Handle(events.Handle):
        made = 0

        def __init__(self, *args):
            Handle.made += 1
            super().__init__(*args)

    def count(Loop):
        loop = Loop()

        async def main():
            with monkeypatch.context() as patch:
                patch.setattr(events, "Handle", Handle)
                await asyncio.sleep(0)
                Handle.made = 0
                assert isinstance(loop.call_soon(int), Handle)
                await scenario(loop)
                return Handle.made

        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    assert count(impl.Loop) == count(asyncio.SelectorEventLoop)


def test_future_and_task_are_replaced(impl, monkeypatch):
    class Future(asyncio.Future):
        pass

    class Task(asyncio.Task):
        pass

    async def main():
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(futures, "Future", Future)
            patch.setattr(tasks, "Task", Task)
            assert type(loop.create_future()) is Future
            task = loop.create_task(nothing())
            assert type(task) is Task
            await task
            await asyncio.sleep(0.001)
        assert type(loop.create_future()) is not Future
        task = loop.create_task(nothing())
        assert type(task) is not Task
        await task

    with contextlib.closing(impl.Loop()) as loop:
        loop.run_until_complete(main())
