"""Loops in many threads, and threads around one loop."""

import asyncio
import concurrent.futures
import socket
import threading

import pytest

from tests.support import PY, check_script, collect, in_thread, spin, turns


def test_one_loop_per_thread(impl):
    """Each with its own timers, sockets and tasks; none sees another's."""
    failures = []

    def work(number):
        try:
            loop = impl.new_event_loop()
            try:
                assert loop.run_until_complete(main(number)) == number
            finally:
                loop.close()
        except BaseException as exc:
            failures.append(exc)

    async def main(number):
        async def handle(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(5):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"%d\n" % number)
            assert await reader.read() == b"%d\n" % number
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.001)
            assert len(asyncio.all_tasks()) >= 1
        server.close()
        await server.wait_closed()
        return number

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_loops_made_and_dropped_in_threads(impl):
    def work():
        for _ in range(30):
            loop = impl.new_event_loop()
            loop.call_later(1000, print)
            spin(loop)
            loop.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collect()


def test_loop_made_here_run_there_closed_here(impl):
    loop = impl.new_event_loop()
    assert in_thread(loop.run_until_complete, asyncio.sleep(0.001, 4)) == 4
    assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
    in_thread(loop.close)
    assert loop.is_closed()


def test_loop_collected_in_another_thread(impl):
    holder = [impl.new_event_loop()]
    spin(holder[0])
    holder[0].close()
    in_thread(lambda: (holder.clear(), collect()))


def test_running_in_two_threads_is_refused(loop):
    started, stop = threading.Event(), threading.Event()

    def first():
        loop.call_soon(started.set)
        loop.run_forever()
        stop.set()

    thread = threading.Thread(target=first)
    thread.start()
    started.wait()
    with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
        loop.close()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_forever()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert stop.is_set()
    assert not loop.is_running()


def test_is_running_seen_from_another_thread(loop):
    async def main():
        return await asyncio.to_thread(loop.is_running)

    assert loop.run_until_complete(main()) is True


def test_run_coroutine_threadsafe_from_many_threads(loop):
    counter = 0

    async def add():
        nonlocal counter
        before = counter
        await asyncio.sleep(0)
        counter = before + 1 if counter == before else counter + 1

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        def submit():
            for _ in range(100):
                asyncio.run_coroutine_threadsafe(add(), loop).result()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(submit) for _ in range(4)]:
                future.result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert counter == 400


def test_run_coroutine_threadsafe_cancel(loop):
    async def forever():
        await loop.create_future()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        future = asyncio.run_coroutine_threadsafe(forever(), loop)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.01)
        future.cancel()
        done = asyncio.run_coroutine_threadsafe(turns(5), loop)
        done.result()
        assert asyncio.all_tasks(loop) == set()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_call_soon_threadsafe_against_close(impl):
    """Threads push while the loop closes: an error at worst, never a crash."""
    for _ in range(5):
        loop = impl.new_event_loop()
        stop = threading.Event()

        def push(loop=loop, stop=stop):
            while not stop.is_set():
                try:
                    loop.call_soon_threadsafe(int)
                except RuntimeError:
                    return

        threads = [threading.Thread(target=push) for _ in range(3)]
        for thread in threads:
            thread.start()
        spin(loop, 5)
        loop.close()
        stop.set()
        for thread in threads:
            thread.join()


def test_threadsafe_handle_run_by_hand(loop):
    """While the loop stands: its callback may ask the handle, and cancel it."""
    seen = []

    def callback():
        seen.append(handle.cancelled())
        handle.cancel()
        seen.append(handle.cancelled())

    handle = loop.call_soon_threadsafe(callback)
    handle._run()
    assert seen == [False, True]
    spin(loop)
    assert seen == [False, True]


@pytest.mark.skipif(PY < (3, 14), reason="cancel() of another thread waits from 3.14 on")
def test_cancel_waits_for_a_handle_that_runs_by_hand(loop):
    """Whichever thread runs it."""
    begun, go = threading.Event(), threading.Event()
    ended = []

    def callback():
        begun.set()
        go.wait()
        ended.append(True)

    handle = loop.call_soon_threadsafe(callback)
    runner = threading.Thread(target=handle._run)
    runner.start()
    begun.wait()
    threading.Timer(0.01, go.set).start()
    handle.cancel()
    assert ended == [True]
    runner.join()
    spin(loop)
    assert ended == [True]


def test_asyncios_own_call_soon_threadsafe(loop):
    """What a program calls by its class, or has left where it replaced ours."""
    seen = []
    calls = [lambda: seen.append(0), lambda: seen.append(1), loop.stop]

    def call():
        for each in calls:
            asyncio.BaseEventLoop.call_soon_threadsafe(loop, each)

    thread = threading.Thread(target=call)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert seen == [0, 1]


def test_two_loops_feed_each_other(impl):
    """Ping-pong by call_soon_threadsafe only; both sleep between the hits."""
    loops = [impl.new_event_loop(), impl.new_event_loop()]
    rounds = 1000

    def hit(side, left):
        other = loops[1 - side]
        if left == 0:
            loops[0].call_soon_threadsafe(loops[0].stop)
            loops[1].call_soon_threadsafe(loops[1].stop)
        else:
            other.call_soon_threadsafe(hit, 1 - side, left - 1)

    loops[0].call_soon_threadsafe(hit, 0, rounds)
    thread = threading.Thread(target=loops[1].run_forever)
    thread.start()
    loops[0].run_forever()
    thread.join()
    for loop in loops:
        loop.close()


def test_socket_closed_by_another_thread(loop):
    """The descriptor of a reader goes while the loop polls it."""
    one, other = socket.socketpair()
    dup = one.dup()
    loop.add_reader(dup.fileno(), lambda: None)
    fd = dup.fileno()
    closer = threading.Timer(0.01, dup.close)
    closer.start()
    loop.call_later(0.03, loop.stop)
    loop.run_forever()
    closer.join()
    loop.remove_reader(fd)
    spin(loop, 2)
    one.close()
    other.close()


def test_transport_dropped_in_another_thread(loop):
    """The last reference dies elsewhere; the loop closes it or it warns."""
    import warnings

    async def main():
        one, peer = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
        transport.abort()
        await turns(3)
        return [transport], peer

    holder, peer = loop.run_until_complete(main())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        in_thread(lambda: (holder.clear(), collect()))
    peer.close()


def test_running_loop_is_per_thread(loop):
    async def main():
        def other():
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return True

        return await asyncio.to_thread(other)

    assert loop.run_until_complete(main())


def test_daemon_thread_with_a_loop_at_exit(impl):
    """The interpreter ends while another thread's loop is asleep in its poll."""
    done = check_script(
        impl,
        """
loop = new_event_loop()
started = threading.Event()

def work():
    loop.call_soon(started.set)
    loop.call_later(3600, print)
    loop.run_forever()

threading.Thread(target=work, daemon=True).start()
started.wait()
print("leaving")
""",
        "leaving",
        flags=(),
    )
    assert "Fatal" not in done.stderr


def test_signal_goes_to_the_main_thread_only(impl):
    check_script(
        impl,
        """
loop = new_event_loop()
other = new_event_loop()
thread = threading.Thread(target=other.run_forever)
thread.start()
seen = []
signal.signal(signal.SIGUSR1, lambda *_: (seen.append(threading.current_thread()),
                                          loop.call_soon_threadsafe(loop.stop)))
loop.call_later(0.02, os.kill, os.getpid(), signal.SIGUSR1)
loop.run_forever()
assert seen == [threading.main_thread()]
other.call_soon_threadsafe(other.stop)
thread.join()
other.close()
loop.close()
print("ok")
""",
        "ok",
    )
