"""signal.set_wakeup_fd(): when the loop takes it and leaves it, and what wakes the loop without."""

import asyncio
import os
import signal
import socket
import threading

import pytest

from tests.support import check_script, in_thread, turns, until


def send(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)


def current():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


@pytest.fixture(autouse=True)
def python_handler():
    """SIGUSR1 and SIGUSR2 do nothing by default, and the wakeup descriptor is nobody's."""
    before = [(n, signal.signal(n, lambda *args: None)) for n in (signal.SIGUSR1, signal.SIGUSR2)]
    yield
    for number, handler in before:
        signal.signal(number, handler)
    assert current() == -1


@pytest.fixture
def foreign():
    """A wakeup descriptor of somebody else's: (the end that is read, the end that is set)."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other
        signal.set_wakeup_fd(-1)


def received(one):
    try:
        return one.recv(100)
    except BlockingIOError:
        return b""


def test_a_run_leaves_it_alone(run, loop, foreign):
    one, other = foreign
    signal.set_wakeup_fd(other.fileno())

    async def main():
        assert current() == other.fileno()
        read = loop.create_future()
        loop.add_reader(one, lambda: read.done() or read.set_result(one.recv(10)))
        loop.call_later(0.01, send)
        assert await asyncio.wait_for(read, 20) == bytes([signal.SIGUSR1])
        loop.remove_reader(one)

    run(main())
    assert current() == other.fileno()


def test_no_wakeup_fd_without_handlers(run):
    async def main():
        await asyncio.sleep(0.001)
        return current()

    assert run(main()) == -1


def test_set_by_each_handler(run, loop, foreign):
    one, other = foreign
    seen = []

    async def main():
        signal.set_wakeup_fd(other.fileno())
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        ours = current()
        assert ours not in (-1, other.fileno())
        send()
        await until(lambda: seen == [1])
        signal.set_wakeup_fd(other.fileno())
        loop.add_signal_handler(signal.SIGUSR2, seen.append, 2)
        assert current() == ours
        send()
        send(signal.SIGUSR2)
        await until(lambda: len(seen) == 3)
        signal.set_wakeup_fd(-1)
        loop.add_signal_handler(signal.SIGUSR2, seen.append, 3)  # in place of the other
        send(signal.SIGUSR2)
        await until(lambda: 3 in seen)
        loop.remove_signal_handler(signal.SIGUSR1)
        assert current() == ours
        loop.remove_signal_handler(signal.SIGUSR2)
        assert current() == -1

    run(main())
    assert received(one) == b""


def test_foreign_one_gets_what_comes_while_it_is_set(run, loop, foreign):
    """And then the loop's handler hears nothing."""
    one, other = foreign
    seen = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        signal.set_wakeup_fd(other.fileno())
        send()
        await asyncio.sleep(0.01)
        assert received(one) == bytes([signal.SIGUSR1]) and not seen
        loop.add_signal_handler(signal.SIGUSR2, seen.append, 2)
        send()
        await until(lambda: seen)
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.remove_signal_handler(signal.SIGUSR2)

    run(main())
    assert seen == [1] and received(one) == b""


def test_last_handler_takes_it_off(run, loop, foreign):
    """Also one that somebody has set since: asyncio's way."""
    _, other = foreign

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, int)
        signal.set_wakeup_fd(other.fileno())
        loop.remove_signal_handler(signal.SIGUSR1)
        assert current() == -1

    run(main())


def test_close_takes_it_off(impl):
    loop = impl.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, int)
    assert current() != -1
    loop.run_until_complete(turns(2))
    assert current() != -1  # the handler outlives the run
    loop.close()
    assert current() == -1


def test_refused_handler_leaves_none(loop):
    with pytest.raises((OSError, RuntimeError)):
        loop.add_signal_handler(signal.SIGKILL, int)
    assert current() == -1
    loop.add_signal_handler(signal.SIGUSR1, int)
    with pytest.raises((OSError, RuntimeError)):
        loop.add_signal_handler(signal.SIGKILL, int)
    assert current() != -1
    loop.remove_signal_handler(signal.SIGUSR1)


def test_not_in_another_thread(loop):
    with pytest.raises(RuntimeError, match="set_wakeup_fd only works in main thread"):
        in_thread(loop.add_signal_handler, signal.SIGUSR1, print)
    assert current() == -1


def test_two_loops(impl, loop):
    """The one whose handler came last hears of the signals."""
    seen = []
    other = impl.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "first")
    other.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("second"), other.stop()))
    send()
    loop.run_until_complete(turns(3))
    assert seen == []
    other.run_forever()
    assert seen == ["second"]
    other.close()
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize("how", ["alone", "foreign", "handler"])
def test_python_handler_runs_in_a_sleeping_loop(run, loop, foreign, how):
    """signal.signal() alone: the sleep ends for long enough to call it."""
    _, other = foreign
    called = threading.Event()

    async def main():
        done = loop.create_future()

        def handler(number, frame):
            called.set()
            loop.call_soon_threadsafe(done.set_result, number)

        signal.signal(signal.SIGUSR1, handler)
        if how == "foreign":
            signal.set_wakeup_fd(other.fileno())
        elif how == "handler":
            loop.add_signal_handler(signal.SIGUSR2, int)
        timer = threading.Timer(0.02, send)
        timer.start()
        assert await asyncio.wait_for(done, 20) == signal.SIGUSR1
        timer.join()
        loop.remove_signal_handler(signal.SIGUSR2)

    run(main())
    assert called.is_set()


@pytest.mark.parametrize("fd", ["none", "foreign", "foreign in the run", "handler", "taken off"])
@pytest.mark.parametrize("runner", [False, True], ids=["run_forever", "Runner"])
def test_interrupt_of_a_sleeping_loop(impl, fd, runner):
    """Ctrl-C ends it, whoever has the wakeup descriptor."""
    check_script(
        impl,
        f"""
fd, runner = {fd!r}, {runner!r}
import socket
one, other = socket.socketpair()
other.setblocking(False)
if fd == "foreign":
    signal.set_wakeup_fd(other.fileno())

def set_up(loop):
    if fd == "foreign in the run":
        signal.set_wakeup_fd(other.fileno())
    elif fd in ("handler", "taken off"):
        loop.add_signal_handler(signal.SIGTERM, print, "no")
        if fd == "taken off":
            signal.set_wakeup_fd(-1)
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()

async def main():
    set_up(asyncio.get_running_loop())
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise

try:
    if runner:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
    else:
        loop = new_event_loop()
        loop.call_soon(set_up, loop)
        try:
            loop.run_forever()
        finally:
            loop.close()
except KeyboardInterrupt:
    print("interrupted")
signal.set_wakeup_fd(-1)
""",
        "cancelled\ninterrupted" if runner else "interrupted",
    )


def test_terminated_by_a_handler_after_a_foreign_descriptor(impl):
    """What a server does at its start and at its end, with a library in between."""
    check_script(
        impl,
        """
import socket
async def main():
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    other.setblocking(False)
    signal.set_wakeup_fd(other.fileno())
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGTERM]).start()
    await stopped.wait()
    print("stopped")
    one.close()
    other.close()
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
""",
        "stopped",
    )


def test_overridden_inside(impl):
    """_handle_signal() and _process_self_data() are called, so may be replaced."""
    loop = impl.new_event_loop()
    seen = []
    loop._handle_signal = lambda number: (seen.append(number), loop.stop())
    loop.add_signal_handler(signal.SIGUSR1, print)
    send()
    loop.run_forever()
    del loop._handle_signal
    loop._process_self_data = lambda data: (seen.append(data), loop.stop())
    send()
    loop.run_forever()
    loop.close()
    assert seen == [signal.SIGUSR1, bytes([signal.SIGUSR1])]


def test_a_function_of_one_argument_in_its_place(loop, monkeypatch):
    """What somebody puts there is called as asyncio calls it."""
    set_wakeup_fd = signal.set_wakeup_fd
    seen = []

    def replaced(fd):
        seen.append(fd)
        return set_wakeup_fd(fd)

    monkeypatch.setattr(signal, "set_wakeup_fd", replaced)
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert seen[-1] >= 0
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert seen[-1] == -1
    monkeypatch.undo()
