"""Signals: handlers of the loop, Ctrl-C, and the wakeup descriptor."""

import asyncio
import os
import signal
import socket
import threading

import pytest

from tests.support import check_script, in_thread, turns, until


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def dispositions():
    """What a test changes is an error of the loop."""
    numbers = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(fd) == fd


def test_handler(run, loop):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, lambda *args: seen.append(args), 1, 2)
        send(signal.SIGUSR1)
        await until(lambda: seen)
        send(signal.SIGUSR1)
        await until(lambda: len(seen) == 2)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert not loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert seen == [(1, 2), (1, 2)]


def test_wakes_a_sleeping_loop(run, loop):
    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, "signal")
        timer = threading.Timer(0.02, send, [signal.SIGUSR1])
        timer.start()
        assert await done == "signal"
        timer.join()
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_several_handlers(run, loop):
    seen = []

    async def main():
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            loop.add_signal_handler(number, seen.append, number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            send(number)
        await until(lambda: len(seen) == 3)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            loop.remove_signal_handler(number)

    run(main())
    assert set(seen) == {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


def test_replaced_handler(run, loop):
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "old")
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "new")
        send(signal.SIGUSR1)
        await until(lambda: seen)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert seen == ["new"]


def test_close_removes_handlers(impl):
    loop = impl.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGCHLD, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_handler_that_raises(run, loop, reports):
    def fail():
        raise KeyError("handler")

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, fail)
        send(signal.SIGUSR1)
        await until(lambda: reports)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert isinstance(reports[0]["exception"], KeyError)


def test_handler_stops_the_loop(loop):
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    loop.call_soon(send, signal.SIGTERM)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGTERM)


def test_wakeup_descriptor_is_put_back_after_a_run(run, loop):
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        before = signal.set_wakeup_fd(one.fileno())
        try:
            run(turns(2))
            assert signal.set_wakeup_fd(one.fileno()) == one.fileno()
        finally:
            signal.set_wakeup_fd(before)


def test_interrupt_without_a_handler(impl):
    check_script(
        impl,
        """
loop = new_event_loop()
loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
loop.run_until_complete(asyncio.sleep(0))
loop.close()
""",
        "interrupted",
    )


def test_interrupt_from_outside_while_asleep(impl):
    check_script(
        impl,
        """
def send():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
loop = new_event_loop()
loop.call_soon(threading.Thread(target=send).start)
try:
    loop.run_until_complete(asyncio.sleep(60))
except KeyboardInterrupt:
    print("interrupted")
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
""",
        "interrupted",
    )


def test_interrupt_of_a_busy_loop(impl):
    check_script(
        impl,
        """
def again():
    loop.call_soon(again)
loop = new_event_loop()
again()
threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
loop.close()
""",
        "interrupted",
    )


def test_interrupt_cancels_the_main_task(impl):
    check_script(
        impl,
        """
async def main():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise
try:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
        "cancelled\ninterrupted",
    )


def test_python_handler_that_raises(impl):
    check_script(
        impl,
        """
class Ours(Exception):
    pass
def handler(number, frame):
    raise Ours
signal.signal(signal.SIGUSR1, handler)
loop = new_event_loop()
# From inside of the run, and late enough for the loop to be asleep.
timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGUSR1])
loop.call_soon(timer.start)
try:
    loop.run_until_complete(asyncio.sleep(60))
except Ours:
    print("raised")
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
""",
        "raised",
    )


def test_flood(run, loop):
    """Signals of one number may merge; none keeps the loop from going on."""
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        for number in range(2000):
            send(signal.SIGUSR1)
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: seen)
        await asyncio.sleep(0.01)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


# -- bad input --------------------------------------------------------------------------------


async def coroutine_function():
    pass


@pytest.mark.parametrize(
    "number, callback, error",
    [
        ("TERM", print, TypeError),
        (None, print, TypeError),
        (1000, print, ValueError),
        (-1, print, ValueError),
        (0, print, ValueError),
        (signal.SIGKILL, print, (RuntimeError, OSError)),
        (signal.SIGSTOP, print, (RuntimeError, OSError)),
        (signal.SIGUSR1, coroutine_function, TypeError),
    ],
)
def test_refused(loop, number, callback, error):
    with pytest.raises(error) as told:
        loop.add_signal_handler(number, callback)
    assert told.value.__cause__ is None


def test_refused_coroutine(loop):
    made = coroutine_function()
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGUSR1, made)
    made.close()


@pytest.mark.parametrize("number", ["TERM", 1000])
def test_remove_refused(loop, number):
    with pytest.raises((TypeError, ValueError)):
        loop.remove_signal_handler(number)


def test_not_in_another_thread(loop):
    with pytest.raises((RuntimeError, ValueError)):
        in_thread(loop.add_signal_handler, signal.SIGUSR1, print)


def test_closed_loop(impl):
    loop = impl.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, print)


def test_loop_in_another_thread_runs(impl):
    def body():
        loop = impl.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.sleep(0.001, "done"))
        finally:
            loop.close()

    assert in_thread(body) == "done"


def test_wrapper_of_a_coroutine_function_is_fine(run, loop):
    seen = []

    async def main():
        async def react():
            seen.append(1)

        loop.add_signal_handler(signal.SIGUSR1, lambda: asyncio.ensure_future(react()))
        send(signal.SIGUSR1)
        await until(lambda: seen)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
