"""asyncloop.watchdog(): a loop that turns all the time for nothing is named.

asyncio has nothing like it, so all of this is about asyncloop alone.
"""

import asyncio
import contextlib
import functools
import os
import socket
import threading
import time

import pytest

import asyncloop

pytestmark = pytest.mark.skipif(
    not hasattr(os, "register_at_fork"), reason="the watchdog follows forks"
)

LONG = 5  # seconds: the threshold of blocks, which this is not about
FOREVER = 20
LEAST = 4000  # turns per second, of which what spins is known: a machine may be slower than that
LOAD = 1.5  # seconds of work that is not to be taken for a spin


def skip_if_slow(spins, *all_stats):
    speed = min(stats.turns / (stats.busy + stats.idle) for stats in all_stats)
    if len(spins) < len(all_stats) and speed < LEAST:
        pytest.skip(f"a loop turns only {speed:.0f} times per second here")


class CallsSoon(asyncloop.Loop):
    """The steps of its tasks are callbacks."""

    def call_soon(self, *args, **kwargs):
        return super().call_soon(*args, **kwargs)


def run_on(make_loop, main):
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)


def find_spin(start, make_loop=asyncloop.new_event_loop, **options):
    """Runs what `start(loop)` starts until it is told of; its result is kept meanwhile."""
    seen = threading.Event()
    spins = []

    def told(spin):
        spins.append(spin)
        seen.set()

    async def main():
        loop = asyncio.get_running_loop()
        kept = start(loop)
        deadline = time.monotonic() + FOREVER
        while not seen.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if isinstance(kept, asyncio.Task):
            kept.cancel()
        return loop

    with asyncloop.watchdog(LONG, on_spin=told, **options) as dog:
        stats = run_on(make_loop, main()).stats()
    assert dog.failures == 0
    skip_if_slow(spins, stats)
    assert list(dog.spins) == spins
    (spin,) = spins
    assert spin.loop == stats.loop
    assert stats.spins == 1
    assert spin.thread == threading.get_ident()
    assert spin.turns_per_second > 1000
    return spin


def test_callback_that_schedules_itself():
    def start(loop):
        def again():
            loop.call_soon(again)

        again()

    spin = find_spin(start)
    (callback,) = spin.callbacks
    assert "start.<locals>.again() at" in callback and "test_spin.py:" in callback
    assert spin.descriptor is None and spin.tasks == ()
    assert "turns per second" in str(spin) and "again()" in str(spin)


def test_object_that_schedules_itself():
    """What it is called by is named, and where that is."""

    class Poller:
        def __init__(self, loop):
            self.loop = loop

        def __call__(self):
            self.loop.call_soon(self)

    (callback,) = find_spin(lambda loop: Poller(loop)()).callbacks
    assert "Poller.__call__() at" in callback and "test_spin.py:" in callback


def test_two_callbacks_that_schedule_each_other():
    class Pair:
        def __init__(self, loop):
            self.loop = loop

        def left(self):
            self.loop.call_soon(self.right)

        def right(self):
            self.loop.call_soon(functools.partial(self.left))

    spin = find_spin(lambda loop: Pair(loop).left())
    names = sorted(each.split("() at ")[0].rpartition(".")[2] for each in spin.callbacks)
    assert names == ["left", "right"]


@pytest.mark.parametrize("make_loop", [asyncloop.new_event_loop, CallsSoon])
def test_task_that_waits_by_sleeping_zero(make_loop):
    async def inner():
        await asyncio.sleep(0)

    async def polls():
        while True:
            await inner()

    spin = find_spin(lambda loop: loop.create_task(polls(), name="the poller"), make_loop)
    (callback,) = spin.callbacks
    assert "inner() at" in callback
    (task,) = spin.tasks
    assert "the poller" in task and "polls()" in task


def test_descriptor_that_is_never_read():
    left, right = socket.socketpair()
    right.send(b"x")

    def ignores():
        pass

    def start(loop):
        loop.add_reader(left, ignores)
        loop.call_later(FOREVER, loop.remove_reader, left)

    with left, right:
        number = left.fileno()
        spin = find_spin(start)
        assert "ignores() at" in spin.callbacks[0]
        assert spin.descriptor == number


def test_writer_that_is_never_removed():
    left, right = socket.socketpair()
    with left, right:
        spin = find_spin(lambda loop: loop.add_writer(left, int))
        assert spin.callbacks == ("int()",)


def test_timer_without_delay():
    def start(loop):
        def again():
            loop.call_later(0, again)

        again()

    assert "again() at" in find_spin(start).callbacks[0]


def test_task_that_sleeps_for_nothing():
    async def naps():
        while True:
            await asyncio.sleep(1e-9)

    spin = find_spin(lambda loop: loop.create_task(naps(), name="the napper"))
    assert any("naps() at" in each for each in spin.callbacks)
    assert any("the napper" in each for each in spin.tasks)


def test_scope_that_cancels_again_and_again():
    """As anyio's cancel scopes do: the task is named that it belongs to."""

    class Scope:
        __slots__ = ("loop", "tasks")

        def __init__(self, loop, task):
            self.loop = loop
            self.tasks = {task}

        def deliver(self, origin):
            for task in self.tasks:
                task.cancel()
            self.loop.call_soon(self.deliver, self)

    async def deaf():
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if stop:
                    raise

    async def main(loop):
        task = loop.create_task(deaf(), name="the deaf one")
        await asyncio.sleep(0.01)
        Scope(loop, task).deliver(None)
        await asyncio.sleep(FOREVER)

    stop = []
    spins = []

    def told(spin):
        stop.append(spin)
        spins.append(spin)
        loop.call_soon_threadsafe(loop.stop)

    loop = asyncloop.new_event_loop()
    with asyncloop.watchdog(LONG, on_spin=told):
        task = loop.create_task(main(loop))
        loop.run_forever()
    for each in asyncio.all_tasks(loop):
        each.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    (spin,) = spins
    assert any("Scope.deliver() at" in each for each in spin.callbacks)
    assert any("the deaf one" in each for each in spin.tasks)


def test_timeout_that_is_over_already():
    """Each has a timeout of its own, which is gone when the next one is made."""

    async def retry():
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(FOREVER)

    spin = find_spin(lambda loop: loop.create_task(retry(), name="retries"))
    assert any("retry() at" in each for each in spin.callbacks)
    assert "name='retries'" in spin.tasks[0]


@pytest.mark.parametrize("how", ["by itself", "by a callback"])
def test_task_that_is_followed_by_another(how):
    kept = set()

    async def work():
        if how == "by itself":
            again()

    def again(task=None):
        kept.discard(task)
        task = asyncio.ensure_future(work())
        kept.add(task)
        task.add_done_callback(kept.discard if how == "by itself" else again)

    spin = find_spin(lambda loop: again())
    assert any(".work() at " in each and "test_spin.py:" in each for each in spin.callbacks)


def test_it_is_logged_once(caplog):
    async def main():
        def again():
            if not ended.is_set():
                loop.call_soon(again)

        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        deadline = loop.time() + FOREVER
        again()
        while not dog.spins and loop.time() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        ended.set()
        return loop

    with caplog.at_level("WARNING", logger="asyncio"), asyncloop.watchdog(LONG) as dog:
        skip_if_slow(dog.spins, asyncloop.run(main()).stats())
    assert len(dog.spins) == 1
    (record,) = [each for each in caplog.records if "spins" in each.getMessage()]
    assert "again() at" in record.getMessage()
    caplog.clear()


def test_debug_mode(caplog):
    async def polls():
        while True:
            await asyncio.sleep(0)

    def start(loop):
        loop.set_debug(True)
        return loop.create_task(polls())

    assert "polls() at" in find_spin(start).callbacks[0]
    caplog.clear()


# -- no spin -------------------------------------------------------------------------------


def run_load(main, make_loop=asyncloop.new_event_loop, **options):
    async def limited():
        tasks = [asyncio.ensure_future(each) for each in main()]
        await asyncio.sleep(LOAD)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return asyncio.get_running_loop().stats()

    with asyncloop.watchdog(LONG, on_spin=lambda spin: None, **options) as dog:
        stats = run_on(make_loop, limited())
    assert not dog.spins, str(dog.spins[0])
    assert dog.failures == 0
    return stats


@pytest.mark.parametrize("count", [6, 100])
def test_many_tasks_that_give_way(count):
    async def works():
        while True:
            sum(range(50))
            await asyncio.sleep(0)

    assert run_load(lambda: [works() for _ in range(count)]).turns > 100


def test_one_task_that_computes():
    async def works():
        while True:
            sum(range(20_000))
            await asyncio.sleep(0)

    run_load(lambda: [works()])


@pytest.mark.parametrize("make_loop", [asyncloop.new_event_loop, CallsSoon])
def test_a_queue_between_two_tasks(make_loop):
    queue = asyncio.Queue(1)

    async def puts():
        while True:
            await queue.put(1)

    async def gets():
        while True:
            await queue.get()

    run_load(lambda: [puts(), gets()], make_loop)


@pytest.mark.parametrize("count", [1, 20])
def test_connections(count):
    async def main():
        async def echo(reader, writer):
            try:
                while data := await reader.read(1000):
                    writer.write(data)
            except (asyncio.CancelledError, ConnectionError):
                pass
            finally:
                writer.close()

        async def client():
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                while True:
                    writer.write(b"x" * 100)
                    await reader.readexactly(100)
            finally:
                writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        try:
            await asyncio.gather(*(client() for _ in range(count)))
        finally:
            server.close()

    run_load(lambda: [main()])


def test_callbacks_that_read():
    """What the core does not see: the callback of add_reader() reads by itself."""

    async def main():
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()

        def reads():
            left.recv(100)

        def writes():
            while not stop.is_set():
                try:
                    right.send(b"x")
                except BlockingIOError:
                    time.sleep(0)

        right.setblocking(False)
        stop = threading.Event()
        loop.add_reader(left, reads)
        thread = threading.Thread(target=writes)
        thread.start()
        try:
            await asyncio.sleep(FOREVER)
        finally:
            stop.set()
            thread.join()
            loop.remove_reader(left)
            left.close()
            right.close()

    run_load(lambda: [main()])


def test_calls_of_another_thread():
    async def main():
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def posts():
            while not stop.is_set():
                loop.call_soon_threadsafe(int)
                time.sleep(0)

        thread = threading.Thread(target=posts)
        thread.start()
        try:
            await asyncio.sleep(FOREVER)
        finally:
            stop.set()
            thread.join()

    run_load(lambda: [main()])


def test_tasks_that_come_and_go():
    async def short():
        await asyncio.sleep(0)

    async def main():
        while True:
            await asyncio.create_task(short())

    run_load(lambda: [main()])


# -- misuse, and other circumstances -----------------------------------------------------


def test_on_spin_that_is_no_function():
    for wrong in (1, "raise", object()):
        with pytest.raises(ValueError, match="on_spin has to be"):
            asyncloop.watchdog(1, on_spin=wrong)


def test_on_spin_that_raises():
    async def polls():
        while not dog.failures and time.monotonic() < until:
            await asyncio.sleep(0)

    def raises(spin):
        raise ZeroDivisionError

    until = time.monotonic() + FOREVER
    with asyncloop.watchdog(LONG, on_spin=raises) as dog:
        asyncloop.run(polls())
    assert dog.failures == 1 and len(dog.spins) == 1


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_repr_that_raises_is_contained(error):
    class Rude(asyncloop.Task):
        def __repr__(self):
            raise error

    async def polls():
        await asyncio.sleep(0)
        while time.monotonic() < until:
            await asyncio.sleep(0)

    until = time.monotonic() + 1
    loop = asyncloop.new_event_loop()
    with asyncloop.watchdog(LONG) as dog:
        loop.run_until_complete(Rude(polls(), loop=loop))
    loop.close()
    assert dog.failures == 0


def test_loop_that_is_closed_meanwhile():
    """Traces that are under way end with the loop, many times over."""

    async def polls(seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0)

    with asyncloop.watchdog(LONG, on_spin=lambda spin: None) as dog:
        for n in range(8):
            asyncloop.run(polls(0.2 + n / 50))
    assert dog.failures == 0


def test_loops_in_threads():
    async def polls():
        while len(found) < 3 and time.monotonic() < until:
            await asyncio.sleep(0)
        all_stats.append(asyncio.get_running_loop().stats())

    until = time.monotonic() + FOREVER
    found, all_stats = {}, []
    with asyncloop.watchdog(LONG, on_spin=lambda spin: found.setdefault(spin.loop, spin)):
        threads = [threading.Thread(target=asyncloop.run, args=(polls(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    skip_if_slow(found, *all_stats)
    assert len(found) == 3
    assert {spin.thread for spin in found.values()} == {thread.ident for thread in threads}


def test_traces_by_hand():
    """Nothing is paid outside of one; each ends what was there; it does not outlive its loop."""
    loop = asyncloop.new_event_loop()
    assert loop._trace_end() is None
    loop._trace_begin()
    loop._trace_begin()
    loop.call_soon(int)
    loop.call_soon(functools.partial(int, "7"))
    loop.call_later(0, max, 1, 2, 3, 4)
    cancelled = loop.call_soon(print)
    cancelled.cancel()
    loop.call_soon(loop._trace_begin)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(int)
    loop.call_soon(loop._trace_end)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert loop._trace_end() is None
    loop._trace_begin()
    loop.call_soon(max, 1, 2, 3, 4)
    loop.call_soon(loop.stop)
    loop.run_forever()
    trace = loop._trace_end()
    assert trace["items"] == 2 and trace["turns"] == 1
    assert trace["found"][0] == (max, 1, (1, 2, 3, 4))
    one, other = socket.socketpair()
    loop._trace_begin()
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=one))
    assert (transport, 1, ()) in loop._trace_end()["found"]
    transport.abort()
    other.close()
    loop._trace_begin()
    foreign = asyncio.Handle(int, (), loop)
    loop._ready.append(foreign)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (foreign, 1, ()) in loop._trace_end()["found"]
    loop._trace_begin()
    loop.call_soon(int)
    loop.close()
    assert loop._trace_end() is None
    with pytest.raises(RuntimeError, match="closed"):
        loop._trace_begin()
