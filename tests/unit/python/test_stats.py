"""Loop.stats() and Loop.utilization(): what a loop has counted.

asyncio has nothing like it, so all of this is about asyncloop alone. Where a time is compared, a
busy machine makes a wait longer, and never shorter; how long the loop was held up, nobody knows.
"""

import asyncio
import dataclasses
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import asyncloop


def run(main):
    return asyncloop.run(main)


async def sleep_in_poll(seconds):
    """The loop sleeps for so long in one poll, at least: a timer could come due before that."""

    def wakes():
        while not loop.stats().asleep:
            time.sleep(0.001)
        time.sleep(seconds)
        loop.call_soon_threadsafe(woken.set_result, None)

    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    thread = threading.Thread(target=wakes)
    thread.start()
    await woken
    thread.join()


def test_a_new_loop_has_counted_nothing():
    loop = asyncloop.new_event_loop()
    stats = loop.stats()
    assert (stats.turns, stats.callbacks, stats.task_steps, stats.tasks) == (0, 0, 0, 0)
    assert (stats.busy, stats.idle, stats.utilization) == (0, 0, 0)
    assert (stats.bytes_in, stats.bytes_out, stats.transports) == (0, 0, 0)
    assert not stats.running and not stats.asleep
    assert stats.delay.total == stats.delay.mean == stats.delay.percentile(99) == 0
    assert loop.utilization() == loop.utilization(stats) == 0
    loop.call_soon(print)
    loop.call_later(60, print)
    later = loop.stats()
    assert (later.ready, later.timers) == (1, 1)
    loop.close()
    assert loop.stats().ready == loop.stats().timers == 0


def test_a_snapshot_does_not_change():
    async def main():
        loop = asyncio.get_running_loop()
        stats = loop.stats()
        before = dataclasses.astuple(stats)
        await asyncio.sleep(0.001)
        assert dataclasses.astuple(stats) == before
        assert loop.stats().turns > stats.turns
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.turns = 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.delay.max = 1.0
        assert stats == dataclasses.replace(stats)
        assert len({stats, dataclasses.replace(stats)}) == 1

    run(main())


def test_callbacks_and_turns_are_counted_exactly():
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        left = 100

        def again():
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(again)
            else:
                done.set_result(None)

        before = loop.stats()
        again()
        await done
        after = loop.stats()
        # One for each turn, after the first, which was called by hand.
        assert after.callbacks - before.callbacks == 99
        assert after.turns - before.turns == 100
        assert after.task_steps - before.task_steps == 1

    run(main())


def test_steps_and_tasks_are_counted_exactly():
    async def steps(n):
        for _ in range(n):
            await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        before = loop.stats()
        tasks = [asyncio.create_task(steps(4)) for _ in range(10)]
        assert loop.stats().tasks == before.tasks + 10
        assert loop.stats().ready == 10
        await asyncio.wait(tasks)
        after = loop.stats()
        assert after.tasks == before.tasks == 1
        assert after.task_steps - before.task_steps == 10 * 5 + 1
        # asyncio.wait() has a callback on each task
        assert after.callbacks - before.callbacks == 10

    run(main())


def test_tasks_that_are_lost_are_not_counted_any_more():
    async def waits():
        await asyncio.get_running_loop().create_future()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        for _ in range(5):
            asyncio.create_task(waits())
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        assert loop.stats().tasks == len(asyncio.all_tasks(loop))
        cancelled = asyncio.create_task(waits())
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert loop.stats().tasks == 1

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
def test_eager_tasks_are_counted():
    async def at_once():
        return 1

    async def later():
        await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        before = loop.stats()
        task = asyncio.create_task(at_once())
        assert task.done() and loop.stats().tasks == 1
        assert loop.stats().task_steps - before.task_steps == 1
        task = asyncio.create_task(later())
        assert loop.stats().tasks == 2
        await task
        assert loop.stats().tasks == 1

    run(main())


def test_time_is_busy_or_idle():
    def share(first, second):
        busy, idle = second.busy - first.busy, second.idle - first.idle
        return busy / (busy + idle)

    async def main():
        loop = asyncio.get_running_loop()
        before = loop.stats()
        await sleep_in_poll(0.1)
        slept = loop.stats()
        assert slept.idle - before.idle >= 0.1
        used = loop.utilization(before)
        assert 0 < share(before, slept) <= used <= share(before, loop.stats()) < 1
        slept = loop.stats()
        time.sleep(0.1)
        after = loop.stats()
        assert after.busy - slept.busy >= 0.1
        assert after.idle == slept.idle
        assert loop.utilization(slept) == 1.0
        assert 0 < loop.utilization() < 1
        passed = after.time - before.time
        counted = after.busy + after.idle - before.busy - before.idle
        assert counted == pytest.approx(passed, abs=1e-6)
        assert after.running and not after.asleep

    run(main())


def test_between_runs_no_time_passes():
    loop = asyncloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0.01))
    before = loop.stats()
    time.sleep(0.05)
    after = loop.stats()
    assert (after.busy, after.idle, after.running) == (before.busy, before.idle, False)
    assert after.time - before.time >= 0.05
    loop.close()
    assert loop.stats().turns == before.turns
    assert loop.stats().idle == before.idle


def test_from_another_thread_while_it_sleeps_and_while_it_is_blocked():
    ready, go_on = threading.Event(), threading.Event()
    loop = asyncloop.new_event_loop()

    def blocks():
        ready.set()
        assert go_on.wait(20)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    deadline = time.monotonic() + 20
    while not loop.stats().asleep and time.monotonic() < deadline:
        time.sleep(0.001)
    first = loop.stats()
    time.sleep(0.05)
    second = loop.stats()
    assert first.asleep and second.asleep and second.running
    assert second.idle - first.idle >= 0.05
    assert second.busy == first.busy

    loop.call_soon_threadsafe(blocks)
    assert ready.wait(20)
    first = loop.stats()
    time.sleep(0.05)
    second = loop.stats()
    assert not second.asleep
    assert second.busy - first.busy >= 0.05
    assert second.idle == first.idle
    # What comes due now waits for so long already.
    assert second.delay.max >= 0.05
    assert loop.utilization(first) == 1.0
    assert second.calls_from_threads == 1
    go_on.set()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert loop.stats().calls_from_threads == 2
    loop.close()


def test_many_readers_see_time_that_only_grows():
    loop = asyncloop.new_event_loop()
    stop = threading.Event()
    wrong = []

    def reads():
        last = loop.stats()
        while not stop.is_set():
            now = loop.stats()
            if now.idle < last.idle or now.busy < last.busy - 1e-9 or now.turns < last.turns:
                wrong.append((last, now))
            last = now

    async def main():
        until = time.monotonic() + 1
        for n in range(300):  # each waits for the readers to give the GIL away
            await asyncio.sleep(0.0003)
            if n > 10 and time.monotonic() > until:
                break

    threads = [threading.Thread(target=reads) for _ in range(3)]
    for thread in threads:
        thread.start()
    loop.run_until_complete(main())
    stop.set()
    for thread in threads:
        thread.join()
    loop.close()
    assert not wrong


def test_bytes_of_streams():
    async def main():
        loop = asyncio.get_running_loop()

        async def echo(reader, writer):
            writer.write(await reader.readexactly(200_000))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        before = loop.stats()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x" * 200_000)
        assert loop.stats().transports == before.transports + 2
        assert len(await reader.read(-1)) == 200_000
        after = loop.stats()
        assert after.bytes_in - before.bytes_in == 400_000
        assert after.bytes_out - before.bytes_out == 400_000
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)
        assert loop.stats().transports == 0
        assert loop.stats().descriptors == before.descriptors - 1

    run(main())


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, done):
        self.buffer = bytearray(1000)
        self.done = done

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, n):
        pass

    def connection_lost(self, error):
        self.done.set_result(None)


def test_bytes_of_other_transports():
    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            got.set_result(data)

    async def main():
        nonlocal got
        loop = asyncio.get_running_loop()
        got = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        before = loop.stats()
        assert before.transports == 1 and before.descriptors == 1
        transport.sendto(b"x" * 100, transport.get_extra_info("sockname"))
        assert await got == b"x" * 100
        after = loop.stats()
        assert after.bytes_in - before.bytes_in == after.bytes_out - before.bytes_out == 100
        transport.close()

        read, write = os.pipe()
        done = loop.create_future()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.Protocol(), os.fdopen(read, "rb"))
        writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write, "wb"))
        assert loop.stats().transports == 2
        before = loop.stats()
        writer.write(b"y" * 50)
        writer.close()
        while loop.stats().transports:
            await asyncio.sleep(0.001)
        after = loop.stats()
        assert after.bytes_in - before.bytes_in == after.bytes_out - before.bytes_out == 50

        left, right = socket.socketpair()
        done = loop.create_future()
        before = loop.stats()
        await loop.create_connection(lambda: Buffered(done), sock=left)
        right.sendall(b"z" * 300)
        right.close()
        await done
        assert loop.stats().bytes_in - before.bytes_in == 300
        await asyncio.sleep(0)
        assert loop.stats().transports == 0

    got = None
    run(main())


class OwnSocket(socket.socket):
    """With methods of a program's own, which the loop has to call."""

    def send(self, *args):
        return super().send(*args)

    def recv(self, *args):
        return super().recv(*args)

    def recv_into(self, *args):
        return super().recv_into(*args)


@pytest.mark.parametrize("protocol", [asyncio.Protocol, Buffered])
def test_bytes_through_methods_of_a_program(protocol):
    def pair():
        for one in socket.socketpair():
            one.setblocking(False)
            yield OwnSocket(one.family, one.type, one.proto, one.detach())

    async def main():
        loop = asyncio.get_running_loop()
        left, right = pair()
        before = loop.stats()
        await loop.sock_sendall(left, b"x" * 10)
        await loop.sock_sendall(left, bytearray(20))
        assert len(await loop.sock_recv(right, 100)) == 30
        after = loop.stats()
        assert after.bytes_in - before.bytes_in == after.bytes_out - before.bytes_out == 30

        lost = loop.create_future()

        class Told(protocol):
            def connection_lost(self, error):
                lost.set_result(None)

        transport, _ = await loop.create_connection(
            lambda: Told(lost) if protocol is Buffered else Told(), sock=left
        )
        transport.write(b"y" * 40)
        right.send(b"z" * 300)
        right.shutdown(socket.SHUT_WR)
        await lost
        last = loop.stats()
        assert last.bytes_in - after.bytes_in == 300
        assert last.bytes_out - after.bytes_out == 40
        right.close()

    run(main())


def test_steps_by_a_call_soon_of_a_program_are_counted():
    """As steps, and not as callbacks, also in the middle of one."""

    class Loop(asyncloop.Loop):
        def call_soon(self, *args, **kwargs):
            return super().call_soon(*args, **kwargs)

    async def main(loop, accounting):
        loop.task_accounting = accounting
        await asyncio.sleep(0)
        before = loop.stats()
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(4)))
        after = loop.stats()
        assert after.task_steps - before.task_steps == 4 * 2 + 1
        counted.add(after.callbacks - before.callbacks)

    counted: set[int] = set()
    for Class in asyncloop.Loop, Loop:
        for accounting in False, True:
            loop = Class()
            loop.run_until_complete(main(loop, accounting))
            loop.close()
    # Those of gather(): one for each, and one more for what it gives from 3.14 on.
    assert counted in ({4}, {5})


def test_bytes_of_socket_methods():
    async def main():
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        before = loop.stats()
        await loop.sock_sendall(left, b"x" * 10)
        assert await loop.sock_recv(right, 100) == b"x" * 10
        await loop.sock_sendall(left, bytearray(20))
        assert await loop.sock_recv_into(right, bytearray(100)) == 20
        after = loop.stats()
        assert after.bytes_in - before.bytes_in == after.bytes_out - before.bytes_out == 30
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        await loop.sock_sendto(one, b"y" * 7, one.getsockname())
        await loop.sock_recvfrom_into(one, bytearray(100))
        await loop.sock_sendto(one, b"y" * 5, one.getsockname())
        await loop.sock_recvfrom(one, 100)
        last = loop.stats()
        assert last.bytes_in - after.bytes_in == last.bytes_out - after.bytes_out == 12
        for sock in (left, right, one):
            sock.close()

    run(main())


def test_descriptors_are_counted_once():
    async def main():
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        before = loop.stats().descriptors
        loop.add_reader(left, print)
        assert loop.stats().descriptors == before + 1
        loop.add_writer(left, lambda: None)
        assert loop.stats().descriptors == before + 1
        loop.remove_writer(left)
        assert loop.stats().descriptors == before + 1
        loop.remove_reader(left)
        assert loop.stats().descriptors == before
        loop.add_reader(left, print)
        left.close()
        right.close()
        loop.set_exception_handler(lambda loop, context: None)
        await asyncio.sleep(0.001)
        loop.remove_reader(left)
        assert loop.stats().descriptors == before

    run(main())


# -- delay ------------------------------------------------------------------------------------


def test_a_block_is_a_delay():
    async def main():
        loop = asyncio.get_running_loop()
        before = loop.stats()
        time.sleep(0.1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        delay = loop.stats().delay - before.delay
        # Whoever came at any moment of it had to wait for the rest: half of them at least for
        # half of it, or for a quarter, if the other iterations were slow as well.
        assert delay.percentile(99) >= 0.09
        assert delay.percentile(100) >= 0.1
        assert 0.2 * delay.max <= delay.percentile(50) <= 0.6 * delay.percentile(100)
        assert delay.mean >= 0.02
        assert delay.max >= 0.1 and loop.stats().delay.max >= 0.1
        assert delay.percentile(0) <= delay.percentile(50)

    run(main())


def test_a_block_is_seen_while_the_loop_sleeps_after_it():
    """By another thread, as by a scrape; the loop may sleep for long."""

    def look(loop, wake):
        while not loop.stats().asleep:
            time.sleep(0.001)
        seen.append(loop.stats().delay)
        loop.call_soon_threadsafe(wake.set_result, None)

    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        wake = loop.create_future()
        thread = threading.Thread(target=look, args=(loop, wake))
        time.sleep(0.1)
        thread.start()
        await wake
        thread.join()
        await asyncio.sleep(0.001)
        # It is counted once.
        assert 0.1 <= seen[0].max <= loop.stats().delay.max
        late = [delay.total - delay.at_most(0.01) for delay in (seen[0], loop.stats().delay)]
        assert 0.08 <= late[0] <= late[1] + 1e-6
        assert late[1] - late[0] <= loop.stats().delay.total - seen[0].total

    seen = []
    run(main())


def test_a_loop_that_sleeps_has_no_delay():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        before = loop.stats()
        await sleep_in_poll(0.2)
        after = loop.stats()
        delay = after.delay - before.delay
        slept = after.idle - before.idle
        assert delay.total >= slept >= 0.2
        assert delay.percentile(99 * slept / delay.total) == 0.0
        assert delay.at_most(1e-4) >= 0.99 * slept
        assert delay.at_most(3600) == pytest.approx(delay.total)
        assert delay.at_most(-1) == 0

    run(main())


def test_what_is_ready_goes_first():
    """A descriptor waits for the callbacks that were ready before: that belongs to its delay."""

    async def main():
        loop = asyncio.get_running_loop()
        until = time.monotonic() + 0.5

        def blocks():
            time.sleep(0.02)
            if time.monotonic() < until:
                loop.call_soon(blocks)

        before = loop.stats()
        blocks()
        while time.monotonic() < until:
            await asyncio.sleep(0)
        delay = loop.stats().delay - before.delay
        assert delay.percentile(50) >= 0.02
        assert delay.max >= 0.03

    run(main())


def closed_loop():
    loop = asyncloop.new_event_loop()
    loop.close()
    return loop


def test_buckets_are_fixed():
    stats = closed_loop().stats()
    bounds = stats.delay.bounds
    assert len(bounds) == len(stats.delay.seconds)
    assert bounds[0] == 0 and bounds[1] == pytest.approx(65.536e-6) and bounds[-1] > 1000
    assert all(low < high for low, high in zip(bounds, bounds[1:]))
    assert all(high / low <= 1.126 for low, high in zip(bounds[1:], bounds[2:]))


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), float("inf")])
def test_percentile_out_of_range(percent):
    with pytest.raises(ValueError, match="percent has to be"):
        closed_loop().stats().delay.percentile(percent)


# -- misuse, and other circumstances --------------------------------------------------------


def test_statistics_of_another_loop():
    one, other = asyncloop.new_event_loop(), asyncloop.new_event_loop()
    with pytest.raises(ValueError, match="is of loop"):
        one.utilization(other.stats())
    for wrong in (0, 1.5, "x", object()):
        with pytest.raises(TypeError, match="since has to be"):
            one.utilization(wrong)
    with pytest.raises(TypeError):
        one.stats().delay - 1
    one.close()
    other.close()


def test_a_loop_that_was_never_initialised():
    loop = asyncloop.Loop.__new__(asyncloop.Loop)
    assert loop.stats().turns == 0
    assert loop.utilization() == 0


def test_loops_of_threads_count_apart():
    results = {}

    async def main(n):
        loop = asyncio.get_running_loop()
        before = loop.stats()
        for _ in range(n):
            await asyncio.sleep(0)
        after = loop.stats()
        results[n] = (after.loop, after.task_steps - before.task_steps, after.turns - before.turns)

    threads = [threading.Thread(target=run, args=(main(n),)) for n in range(10, 200, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({loop for loop, _, _ in results.values()}) == len(threads)
    assert all(steps == turns == n for n, (_, steps, turns) in results.items())


def test_iterations_by_hand():
    loop = asyncloop.new_event_loop()
    loop.call_soon(int)
    loop._run_once()
    stats = loop.stats()
    assert stats.turns == 1 and stats.callbacks == 1
    loop.close()


def test_a_selector_of_the_programs_own():
    """Its waiting is idle time as well."""

    async def main():
        loop = asyncio.get_running_loop()
        selector = loop._selector

        class Other:
            def __getattr__(self, name):
                return getattr(selector, name)

            def select(self, timeout=None):
                begin = time.monotonic()
                time.sleep(0.05)
                if timeout:
                    waits.append(time.monotonic() - begin)
                return selector.select(0)

        waits = []
        loop._selector = Other()
        await asyncio.sleep(0.001)
        before = loop.stats()
        waits.clear()
        while len(waits) < 3:  # none where the timer is due already
            await asyncio.sleep(0.05)
        idle = loop.stats().idle - before.idle
        loop._selector = selector
        assert idle >= sum(waits) >= 0.15

    run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork():
    """The child of a loop that slept in another thread: that loop is not in a run there."""
    code = """
    import asyncio, os, sys, threading, time
    import asyncloop

    loop = asyncloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    while not loop.stats().asleep:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        first = loop.stats()
        time.sleep(0.02)
        second = loop.stats()
        wrong = first.running or first.asleep
        wrong = wrong or (first.busy, first.idle) != (second.busy, second.idle)

        async def main():
            own = asyncio.get_running_loop()
            before = own.stats()
            while own.stats().idle == before.idle:  # held up until the timer was due
                await asyncio.sleep(0.02)
            return own.utilization(before)

        wrong = wrong or not 0 < asyncloop.run(main()) < 1
        os._exit(1 if wrong else 0)
    status = os.waitpid(child, 0)[1]
    assert loop.stats().asleep
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    sys.exit(os.waitstatus_to_exitcode(status))
    """
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=60
    )
