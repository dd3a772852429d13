"""Everything that may be touched from several threads at once, so touched.

What is looked for is a crash, a hang, a lost call and, under ThreadSanitizer, a data race: so
the tests say little about results, which depend on who comes first. They are worth most on a
free-threaded build (`make freethreaded`, `make tsan`); with a GIL they take a second.
"""

import asyncio
import concurrent.futures
import contextlib
import gc
import io
import socket
import sys
import threading
import time
import warnings
import weakref

import pytest

import asyncloop
from tests.protocols import Echo
from tests.support import FREE_THREADED, turns
from tests.threads import SCALE, Threads, loop_in_thread, quiet, refused, switch_often  # noqa: F401

pytestmark = pytest.mark.our_loop("asyncio promises none of this")


def test_calls_from_many_threads_to_many_loops(impl):
    """None is lost, and those of one thread keep their order."""
    loops, senders, count = 3, 4, 500 * SCALE
    seen = [[] for _ in range(loops)]
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(loop_in_thread(impl)) for _ in range(loops)]
        threads = Threads()

        def send(number):
            for i in range(count):
                for loop, calls in zip(running, seen, strict=True):
                    loop.call_soon_threadsafe(calls.append, (number, i))

        for number in range(senders):
            threads.add(send, number)
        with threads.during():
            pass
        for loop in running:
            done = threading.Event()
            loop.call_soon_threadsafe(done.set)
            done.wait()
    for calls in seen:
        assert len(calls) == senders * count
        for number in range(senders):
            assert [i for n, i in calls if n == number] == list(range(count))


def test_flood_does_not_starve_timers(impl):
    """While other threads send without an end the loop's timers and descriptors have their turn."""
    stop = threading.Event()
    ticks = reads = 0
    longest = run = 0
    with loop_in_thread(impl) as loop:
        one, other = socket.socketpair()
        one.setblocking(False)
        finished = threading.Event()

        def call():
            nonlocal run, longest
            run += 1
            if ticks < 20:
                longest = max(longest, run)

        def tick():
            nonlocal ticks, run, longest
            if ticks == 0:
                longest = 0  # what had piled up before
            ticks += 1
            run = 0
            other.send(b"x")
            if ticks < 20:
                loop.call_later(0, tick)
            else:
                finished.set()

        def read():
            nonlocal reads
            reads += len(one.recv(100))

        def flood():
            while not stop.is_set():
                loop.call_soon_threadsafe(call)

        threads = Threads()
        for _ in range(3):
            threads.add(flood)
        with threads.during():
            loop.call_soon_threadsafe(loop.add_reader, one, read)
            loop.call_soon_threadsafe(tick)
            finished.wait()
            stop.set()
        done = threading.Event()
        loop.call_soon_threadsafe(done.set)
        done.wait()
        loop.call_soon_threadsafe(loop.remove_reader, one)
        done.clear()
        loop.call_soon_threadsafe(done.set)
        done.wait()
        one.close()
        other.close()
    assert ticks == 20 and reads > 0
    # What was sent directly and what had queued, of an iteration and of the one before.
    assert longest <= 8 * 1024


def look_at_future(future):
    """What can be asked of a future.

    Not with a free-threaded CPython 3.13: one exception raised in several threads, and the
    frames of a coroutine (in a task's repr) while it runs; these are races of its own.
    """
    future.done()
    future.cancelled()
    with contextlib.suppress(asyncio.InvalidStateError, asyncio.CancelledError):
        if future.exception() is None or not FREE_THREADED:
            with contextlib.suppress(ZeroDivisionError):
                future.result()
    if not FREE_THREADED or not isinstance(future, asyncio.Task):
        with contextlib.suppress(TypeError):
            repr(future)  # asyncio's own helper looks at _callbacks twice
    future.get_loop()
    for name in (
        "_state",
        "_callbacks",
        "_result",
        "_exception",
        "_loop",
        "_source_traceback",
        "_cancel_message",
        "_asyncio_future_blocking",
        "_log_traceback",
    ):
        getattr(future, name)


def nothing(*args):
    pass


def wait_for_others(arrived, thing):
    """Until another thread works with it; not for long, it may have no processor."""
    for _ in range(20):
        if arrived[0] is thing:
            break
        time.sleep(0.0001)


def breathe(future):
    """What is added to a future that is done is called soon: let the loop keep up."""
    if future.done():
        time.sleep(0.0005)


def test_futures(impl):
    """One thread awaits them; others settle, cancel, watch and look at them."""
    rounds = 60 * SCALE
    with loop_in_thread(impl, quiet) as loop:
        current = [loop.create_future()]
        stop = threading.Event()

        async def wait_for(future):
            try:
                return await future
            except (asyncio.CancelledError, ZeroDivisionError):
                return None

        def settle(how):
            while not stop.is_set():
                future = current[0]
                with contextlib.suppress(asyncio.InvalidStateError):
                    if how == "result":
                        future.set_result([1])
                    elif how == "exception":
                        future.set_exception(ZeroDivisionError("expected"))
                    else:
                        future.cancel("enough")

        def look():
            while not stop.is_set():
                future = current[0]
                look_at_future(future)
                future.add_done_callback(nothing)
                future.add_done_callback(look_at_future)
                future.remove_done_callback(nothing)
                breathe(future)

        threads = Threads()
        for how in ("result", "exception", "cancel"):
            threads.add(settle, how)
        threads.add(look)
        threads.add(look)
        with threads.during():
            for _ in range(rounds):
                waiters = [
                    asyncio.run_coroutine_threadsafe(wait_for(current[0]), loop) for _ in range(3)
                ]
                for waiter in waiters:
                    waiter.result()
                current[0] = loop.create_future()
            stop.set()


def test_futures_settled_by_the_loop_and_by_others(impl):
    """The loop's thread needs no lock for what others need one for: each future is settled once,
    and all who wait are told, once."""
    with loop_in_thread(impl, quiet) as loop:
        stop = threading.Event()
        past = []

        def settle(future, winners, who):
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(who)
                winners.append(who)

        async def wait_for(future):
            return await future

        def new_round():
            past.append((loop.create_future(), [], [], []))
            return past[-1]

        async def rounds():
            for _ in range(100 * SCALE):
                future, winners, _, _ = new_round()
                waiter = loop.create_task(wait_for(future))
                await asyncio.sleep(0)  # it waits
                settle(future, winners, "loop")
                assert await waiter == future.result()
                for _ in range(20):  # as often as goes at the same moment
                    future, winners, _, _ = new_round()
                    settle(future, winners, "loop")

        def others():
            last = None
            while not stop.is_set():
                future, winners, added, told = past[-1]
                if future is not last:
                    last = future
                    settle(future, winners, "other")
                    added.append(future)
                    future.add_done_callback(told.append)

        threads = Threads()
        new_round()
        threads.add(others)
        with threads.during():
            try:
                asyncio.run_coroutine_threadsafe(rounds(), loop).result()
            finally:
                stop.set()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
        for future, winners, added, told in past:
            assert len(winners) == 1 or not future.done()
            assert told == added


def test_iterator_of_await_is_stepped_and_ended_by_others(impl):
    """The thread that made it looks at it without a lock; others do with it what they like."""
    stop = threading.Event()
    current, arrived = [None], [None]

    def step(iterator):
        try:
            return iterator.send(None)
        except StopIteration as done:
            return done.value
        except RuntimeError:  # it has been yielded, and another thread asks again
            return None

    async def rounds(loop):
        for i in range(60):
            future = loop.create_future()
            iterator = current[0] = future.__await__()
            assert step(iterator) in (future, None)
            wait_for_others(arrived, iterator)
            if i % 3 == 0:
                future.set_result(i)
                assert step(iterator) in (i, None)
            else:
                iterator.close()
                assert step(iterator) is None
            del iterator
            future.cancel()

    def others(ends):
        last, rounds_seen = None, 0
        while not stop.is_set():
            iterator = current[0]
            if iterator is not None and iterator is not last:
                arrived[0] = iterator
                for _ in range(20):
                    with contextlib.suppress(asyncio.CancelledError):
                        step(iterator)
                rounds_seen += 1
                if ends and rounds_seen % 4 == 0:
                    iterator.close()
                last = iterator

    with loop_in_thread(impl, quiet) as loop:
        threads = Threads()
        threads.add(others, False)
        threads.add(others, False)
        threads.add(others, True)
        threads.beside(rounds(loop), loop, stop)
        current.clear()
        arrived.clear()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs came in 3.14")
def test_who_awaits_a_task_is_noted_by_several_threads(impl):
    """By the loop, whose task awaits it, and by asyncio's functions in other threads; none takes
    away what another one has noted."""
    stop = threading.Event()
    current, arrived = [None], [None]

    async def rounds(loop):
        this = asyncio.current_task()
        for _ in range(60):
            task = loop.create_task(asyncio.sleep(0))
            current[0] = task
            wait_for_others(arrived, task)
            await task
            assert this not in (task._asyncio_awaited_by or ())

    def note(future, looks):
        while not stop.is_set():
            task = current[0]
            if task is not None:
                arrived[0] = task
                asyncio.future_add_to_awaited_by(task, future)
                assert not looks or future in task._asyncio_awaited_by
                asyncio.future_discard_from_awaited_by(task, future)
                assert not looks or future not in (task._asyncio_awaited_by or ())

    with loop_in_thread(impl, quiet) as loop:
        threads = Threads()
        for looks in (False, True):
            threads.add(note, loop.create_future(), looks)
        threads.beside(rounds(loop), loop, stop)
        current.clear()
        arrived.clear()


def test_others_look_while_memory_is_used_again(impl):
    """What dies in the loop's thread makes room for the next of its kind at once, while others have
    just read where it was."""
    kinds = 4
    stop = threading.Event()
    places = [None] * kinds
    table = dict.fromkeys(range(kinds))

    async def step(future):
        await future

    async def rounds(loop):
        for i in range(300 * SCALE):
            future = loop.create_future()
            task = loop.create_task(step(future))
            handle = loop.call_soon(future.set_result, i)
            timer = loop.call_later(60, nothing)
            made = (future, task, handle, timer)
            for kind, thing in enumerate(made):
                places[kind] = table[kind] = thing
            del thing, made
            await task
            assert future.result() == i
            timer.cancel()
            del future, task, handle, timer
            for kind in range(kinds):
                places[kind] = table[kind] = None

    def look():
        while not stop.is_set():
            for kind in range(kinds):
                for thing in (places[kind], table[kind]):
                    if thing is None:
                        continue
                    assert kind == what.get(type(thing), kind)
                    known = weakref.ref(thing)
                    assert known() is thing
                    thing.cancelled()

    with loop_in_thread(impl, quiet) as loop:
        what = {type(loop.create_future()): 0, type(loop.call_soon_threadsafe(nothing)): 2}
        threads = Threads()
        threads.add(look)
        threads.add(look)
        threads.beside(rounds(loop), loop, stop)


def test_tasks(impl):
    """One thread runs them; others cancel, name and look at them."""
    rounds = 30 * SCALE
    with loop_in_thread(impl, quiet) as loop:
        tasks = []
        stop = threading.Event()

        async def child(n):
            await asyncio.sleep(0)
            return n

        async def work(n):
            try:
                for i in range(20):
                    await asyncio.sleep(0)
                    if i % 5 == 0:
                        await impl.Task(child(i), loop=loop)
                    if i % 7 == 0:
                        await asyncio.sleep(0.0001)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                await asyncio.sleep(0)
                raise

        def look():
            while not stop.is_set():
                for task in list(tasks):
                    look_at_future(task)
                    task.get_name()
                    task.set_name("another")
                    task.get_coro()
                    task.cancelling()
                    task._fut_waiter  # noqa: B018
                    task._must_cancel  # noqa: B018
                    getattr(task, "get_context", nothing)()  # from 3.12 on
                    task.add_done_callback(nothing)
                    task.remove_done_callback(nothing)
                    breathe(task)
                for task in asyncio.all_tasks(loop):
                    look_at_future(task)

        def cancel():
            while not stop.is_set():
                for task in list(tasks):
                    task.cancel("stress")

        async def make():
            made = [impl.Task(work(n), loop=loop) for n in range(10)]
            tasks[:] = made
            await asyncio.wait(made)
            assert all(task.done() for task in made)

        threads = Threads()
        threads.add(look)
        threads.add(look)
        threads.add(cancel)
        with threads.during():
            for _ in range(rounds):
                asyncio.run_coroutine_threadsafe(make(), loop).result()
            stop.set()
        tasks.clear()


def test_cancelling_from_another_thread_ends_the_task(impl):
    """However the request meets the task: it is not lost."""
    with loop_in_thread(impl, quiet) as loop:

        async def steps():
            while True:
                await asyncio.sleep(0)
                await asyncio.sleep(0.0001)

        async def make(count):
            return [impl.Task(steps(), loop=loop) for _ in range(count)]

        async def wait(tasks):
            await asyncio.wait(tasks)
            return [task.cancelled() for task in tasks]

        for _ in range(5 * SCALE):
            tasks = asyncio.run_coroutine_threadsafe(make(20), loop).result()
            for task in tasks:
                assert task.cancel()
            ended = asyncio.run_coroutine_threadsafe(wait(tasks), loop).result()
            assert ended == [True] * 20
            del tasks


def test_handles(impl):
    """Calls and timers that one thread makes, cancelled and looked at by others."""
    rounds = 200 * SCALE
    with loop_in_thread(impl) as loop:
        handles = []
        stop = threading.Event()

        def make():
            for i in range(rounds):
                batch = [
                    loop.call_soon_threadsafe(nothing, i, [i]),
                    loop.call_soon(nothing, *range(5)),
                    loop.call_later(0.0001, nothing, i),
                    loop.call_at(loop.time() + 1000, nothing),
                ]
                handles[:] = batch
                for handle in batch:
                    handle.cancel()

        def look():
            while not stop.is_set():
                for handle in list(handles):
                    repr(handle)
                    handle.cancelled()
                    handle._callback, handle._args, handle._context  # noqa: B018
                    handle.get_context()
                    if hasattr(handle, "when"):
                        handle.when()
                        handle._scheduled  # noqa: B018
                    handle.cancel()

        makers = Threads()
        for _ in range(2):
            makers.add(make)
        lookers = Threads()
        for _ in range(2):
            lookers.add(look)
        with lookers.during():
            with makers.during():
                pass
            stop.set()
        handles.clear()


def test_loop_seen_from_other_threads(impl):
    rounds = 300 * SCALE
    with loop_in_thread(impl) as loop:

        def look():
            for _ in range(rounds):
                loop.time()
                assert loop.is_running()
                assert not loop.is_closed()
                loop.get_debug()
                loop.get_task_factory()
                loop.get_exception_handler()
                repr(loop)
                loop.create_future()
                loop.call_soon(nothing)
                loop._write_to_self()

        threads = Threads()
        for _ in range(4):
            threads.add(look)
        with threads.during():
            pass


def test_stop_from_other_threads(impl):
    loop = impl.new_event_loop()
    for _ in range(20 * SCALE):
        threads = Threads()
        for _ in range(2):
            threads.add(lambda: (loop.stop(), loop.call_soon_threadsafe(loop.stop)))
        threads.start()
        loop.run_forever()
        threads.join()
    loop.close()


def test_closing_against_everything(impl):
    """Calls meet a loop that closes: they run, or raise RuntimeError."""
    for _ in range(10 * SCALE):
        loop = impl.new_event_loop()
        futures = [loop.create_future() for _ in range(20)]
        threads = Threads()

        def use(loop=loop, futures=futures):
            for future in futures:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(nothing)
                    loop.call_later(10, nothing)
                    future.add_done_callback(nothing)
                with contextlib.suppress(RuntimeError):
                    future.cancel()

        for _ in range(3):
            threads.add(use)
        with threads.during():
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.close()


def test_two_threads_run_one_loop(impl):
    """One of them does, the other is refused, and it goes on."""
    for _ in range(20 * SCALE):
        loop = impl.new_event_loop()
        ended, begun, finished = [], [], []

        async def work(begun=begun, finished=finished):
            begun.append(1)
            await asyncio.sleep(0.0005)
            finished.append(1)

        def run(loop=loop, ended=ended, work=work):
            try:
                loop.run_until_complete(work())
            except RuntimeError as exc:
                ended.append("refused" if "running" in str(exc) else "stopped")
            else:
                ended.append("ran")

        threads = Threads()
        threads.add(run)
        threads.add(run)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with threads.during():
                # Whose work the other one's run has finished before his own began will not be
                # stopped by that, with any loop. Nothing else may keep him.
                for thread in threads.threads:
                    thread.join(5)
                    while thread.is_alive():
                        assert len(finished) == len(begun)
                        loop.call_soon_threadsafe(loop.stop)
                        thread.join(5)
            assert len(ended) == 2
            assert ended != ["refused", "refused"]
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            gc.collect()


def test_transports_seen_from_other_threads(impl):
    """What only looks is allowed; what moves bytes is done, or refused."""
    rounds = 20 * SCALE
    with loop_in_thread(impl, quiet) as loop:
        current = []
        stop = threading.Event()

        async def exchange():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            current[:] = [writer.transport]
            for _ in range(10):
                writer.write(b"x" * 1000)
                await reader.readexactly(1000)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            server.close()

        def look():
            while not stop.is_set():
                for transport in list(current):
                    for name in ("peername", "sockname", "socket", "nothing"):
                        transport.get_extra_info(name)
                    transport.is_closing()
                    repr(transport)
                    transport.get_write_buffer_limits  # noqa: B018

        def use():
            while not stop.is_set():
                for transport in list(current):
                    refused(transport.get_write_buffer_size)
                    refused(transport.get_protocol)
                    if FREE_THREADED:
                        refused(transport.set_write_buffer_limits, 1000)
                        refused(transport.writelines, [])

        threads = Threads()
        threads.add(look)
        threads.add(look)
        threads.add(use)
        with threads.during():
            try:
                for _ in range(rounds):
                    asyncio.run_coroutine_threadsafe(exchange(), loop).result()
            finally:
                stop.set()
        current.clear()


def test_transports_dropped_in_other_threads(impl):
    """The last reference to an open transport goes in a thread that does not run its loop."""
    with warnings.catch_warnings(), loop_in_thread(impl, quiet) as loop:
        warnings.simplefilter("ignore")

        async def make():
            one, other = socket.socketpair()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
            transport.pause_reading()
            return [transport], other

        for _ in range(20 * SCALE):
            made = [asyncio.run_coroutine_threadsafe(make(), loop).result() for _ in range(4)]
            threads = Threads()
            for holder, _ in made:
                threads.add(holder.clear)
            with threads.during():
                pass
            for _, other in made:
                other.close()
        gc.collect()
        asyncio.run_coroutine_threadsafe(turns(3), loop).result()


def test_socket_operations_cancelled_from_other_threads(impl):
    with loop_in_thread(impl, quiet) as loop:
        one, other = socket.socketpair()
        one.setblocking(False)

        async def receive():
            return await loop.sock_recv(one, 10)

        async def make():
            return impl.Task(receive(), loop=loop)

        async def wait(task):
            await asyncio.wait([task])
            return task.cancelled()

        for _ in range(20 * SCALE):
            task = asyncio.run_coroutine_threadsafe(make(), loop).result()
            task.cancel()
            assert asyncio.run_coroutine_threadsafe(wait(task), loop).result()
        other.send(b"there")
        assert asyncio.run_coroutine_threadsafe(receive(), loop).result() == b"there"
        del task
        one.close()
        other.close()


def test_loops_come_and_go_in_threads(impl):
    """Each with its tasks, timers, executor and connections."""

    async def handle(reader, writer):
        with contextlib.suppress(OSError):
            writer.write(await reader.readline())
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def client(i):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"%d\n" % i)
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return int(line)

        assert await asyncio.gather(*(client(i) for i in range(5))) == list(range(5))
        assert await asyncio.to_thread(int, "7") == 7
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.001)
        server.close()
        await server.wait_closed()

    def work():
        for _ in range(5 * SCALE):
            with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
                runner.run(main())

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()


def test_future_shared_by_threads_without_a_running_loop(impl):
    """Only one of those that settle it is right."""
    loop = impl.new_event_loop()
    for _ in range(50 * SCALE):
        future = impl.Future(loop=loop)
        won = []

        def settle(value, future=future, won=won):
            try:
                future.set_result(value)
            except asyncio.InvalidStateError:
                return
            won.append(value)

        threads = Threads()
        for value in range(3):
            threads.add(settle, value)
        with threads.during():
            pass
        assert won == [future.result()]
    loop.close()


def test_all_tasks_of_a_loop_in_another_thread(impl):
    """Each task that waits there is seen from here, whoever made it."""
    with loop_in_thread(impl) as loop:

        async def wait():
            await asyncio.Event().wait()

        async def make():
            return [asyncio.create_task(wait()) for _ in range(20)]

        async def end(tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        tasks = asyncio.run_coroutine_threadsafe(make(), loop).result()
        try:
            assert asyncio.all_tasks(loop) >= set(tasks)
        finally:
            asyncio.run_coroutine_threadsafe(end(tasks), loop).result()
        assert not asyncio.all_tasks(loop) & set(tasks)


def test_dumps_while_loops_run(impl):
    """Coroutines and generators go on, and end, while another thread writes where they are."""
    stop = threading.Event()

    async def some():
        for i in range(3):
            yield i
            await asyncio.sleep(0)

    async def leaf():
        async for _ in some():
            await asyncio.sleep(0)

    async def work():
        while not stop.is_set():
            await leaf()

    async def main():
        await asyncio.gather(*(work() for _ in range(20)))

    threads = Threads()
    for _ in range(2):
        threads.add(asyncloop.run, main())
    with threads.during():
        try:
            for _ in range(2 * SCALE):
                text = io.StringIO()
                asyncloop.dump(text)
                asyncloop.census()
        finally:
            stop.set()
    assert text.getvalue().startswith("asyncloop: process ")
