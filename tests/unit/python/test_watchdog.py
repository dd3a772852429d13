"""asyncloop.watchdog(): what blocks a loop is named while it blocks.

asyncio has nothing like it, so all of this is about asyncloop alone. A block lasts until it is
told of, so that a busy machine makes a report late and not wrong; and more than that blocks on such
a machine, so only what is told of the block itself counts.
"""

import asyncio
import gc
import logging
import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import asyncloop

pytestmark = pytest.mark.skipif(
    not hasattr(os, "register_at_fork"), reason="the watchdog follows forks"
)

THRESHOLD = 0.05
FOREVER = 20  # seconds: a block ends by itself when it is told, or after this time


class Told:
    """on_stall: what was told of blocks in a function, and an event for the first report of one."""

    def __init__(self, function):
        self.function = function
        self.stalls = []
        self.seen = threading.Event()

    def __call__(self, stall):
        if self.function in [frame.name for frame in stall.stack]:
            self.stalls.append(stall)
            self.seen.set()

    @property
    def running(self):
        return [stall for stall in self.stalls if stall.still_running]

    @property
    def ended(self):
        return [stall for stall in self.stalls if not stall.still_running]


def line_of(function, text):
    """The number of the line of `function` that has `text` in it."""
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def block_in_python(told):
    deadline = time.monotonic() + FOREVER
    while not told.seen.is_set() and time.monotonic() < deadline:
        pass  # the blocking line


def block_without_the_gil(told):
    deadline = time.monotonic() + FOREVER
    while not told.seen.is_set() and time.monotonic() < deadline:
        time.sleep(0.3)


def run_blocked(block, **options):
    told = Told(block.__name__)

    async def main():
        await asyncio.sleep(0.01)
        block(told)
        await asyncio.sleep(0.2)

    with asyncloop.watchdog(THRESHOLD, on_stall=told, **options) as dog:
        asyncloop.run(main())
    return told, dog


@pytest.mark.parametrize(
    "block, line", [(block_in_python, None), (block_without_the_gil, "sleep(")]
)
def test_the_blocking_line_is_named_during_the_block(block, line):
    told, _ = run_blocked(block)
    stall = told.running[0]
    assert stall.duration >= THRESHOLD
    assert stall.thread == threading.get_ident()
    # A loop in Python may be seen inside of what it calls.
    assert [frame.name for frame in stall.stack][:2] == ["main", block.__name__]
    if line is not None:
        assert stall.stack[-1].lineno == line_of(block, line)
        assert block.__name__ in stall.where
    assert "main()" in stall.task and "so far" in str(stall)


def test_the_end_is_told_with_the_duration():
    told, dog = run_blocked(block_without_the_gil)
    (stall,) = told.ended
    assert stall.duration >= told.running[0].duration and stall.stack == told.running[0].stack
    assert [each for each in dog.stalls if each.stack == stall.stack] == [stall]
    assert dog.failures == 0


def test_a_call_that_holds_the_gil():
    """A child, whose standard error has the stack during the call and the log after it."""
    program = textwrap.dedent("""
        import asyncio, re, time, asyncloop
        async def main():
            await asyncio.sleep(0.01)
            length, took = 20, 0
            while took < 1:
                begin = time.monotonic()
                re.match("(a|a)*$", "a" * length + "b")  # the blocking line
                took = time.monotonic() - begin
                length += 1
                await asyncio.sleep(0)  # each call blocks by itself, the last for a second
            await asyncio.sleep(0.2)
        asyncloop.run(main())
        """)
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    for _ in range(10):
        done = child(program, ASYNCLOOP_WATCHDOG="0.1")
        assert done.returncode == 0, done.stderr
        assert "is blocked" in done.stderr and "was blocked" in done.stderr
        assert "in main" in done.stderr
        raw = done.stderr.partition("while a call holds the GIL\n")[2]
        # On a busy machine the block may begin before the call does, and is told of by then.
        if not has_gil or 'File "<string>", line 8 in main' in raw:
            return
    pytest.fail(done.stderr)


def child(program, *flags, **env):
    return subprocess.run(
        [sys.executable, *flags, "-c", program],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_log(caplog):
    told = Told("block_in_python")

    class Handler(logging.Handler):
        def emit(self, record):
            if ", in block_in_python\n" in record.getMessage():
                told.seen.set()

    handler = Handler()
    logging.getLogger("asyncio").addHandler(handler)

    async def main():
        block_in_python(told)
        await asyncio.sleep(0.2)

    try:
        with asyncloop.watchdog(THRESHOLD):
            asyncloop.run(main())
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    records = [record for record in caplog.records if record.levelno == logging.WARNING]
    messages = [record.getMessage() for record in records]
    first = next(each for each in messages if ", in block_in_python\n" in each)
    last = [each for each in messages if "was blocked" in each][-1]
    assert re.match(r"event loop \d+ is blocked, for \d+\.\d+ s so far, (.*, )?at ", first)
    assert ", in block_in_python\n" in first and "task: <Task" in first
    assert re.match(r"event loop \d+ was blocked for \d+\.\d+ s(,.*,)? at ", last)


def test_a_callback_that_blocks_has_no_task():
    told = Told("block_in_python")

    async def main():
        asyncio.get_running_loop().call_soon(block_in_python, told)
        await asyncio.sleep(0.2)

    with asyncloop.watchdog(THRESHOLD, on_stall=told):
        asyncloop.run(main())
    assert told.running[0].task is None
    assert told.running[0].stack[0].name == "block_in_python"


def block_until_told_three_times(told):
    deadline = time.monotonic() + FOREVER
    while len(told.running) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_block_that_lasts_is_told_of_again():
    told = Told("block_until_told_three_times")

    async def main():
        block_until_told_three_times(told)
        await asyncio.sleep(0.2)

    with asyncloop.watchdog(THRESHOLD, repeat=0.1, on_stall=told) as dog:
        asyncloop.run(main())
    durations = [stall.duration for stall in told.running]
    assert len(durations) >= 3 and durations == sorted(durations)
    (ended,) = told.ended
    assert ended in dog.stalls and not [each for each in dog.stalls if each in told.running]


def test_nothing_is_told_of_a_loop_that_goes_on():
    stalls = []

    async def main():
        for _ in range(2000):
            await asyncio.sleep(0)
        await asyncio.sleep(2.5)

    with asyncloop.watchdog(2, on_stall=stalls.append):
        asyncloop.run(main())
        time.sleep(2.2)  # no loop runs
    assert stalls == []


def test_a_loop_that_waits_for_another_threads_gil_or_lock():
    """The thread that blocks is the loop's own here; the lock is another's."""
    told = Told("main")
    lock = threading.Lock()
    lock.acquire()

    async def main():
        lock.acquire(timeout=FOREVER)

    def let_go():
        told.seen.wait(FOREVER)
        lock.release()

    thread = threading.Thread(target=let_go)
    thread.start()
    with asyncloop.watchdog(THRESHOLD, on_stall=told):
        asyncloop.run(main())
    thread.join()
    assert told.running[0].stack[-1].lineno == line_of(main, "acquire(timeout")


def test_loops_in_several_threads_are_told_apart():
    told = Told("block_without_the_gil")
    blocked = threading.Event()

    async def blocks():
        await asyncio.sleep(0.05)
        blocked.set()
        block_without_the_gil(told)
        await asyncio.sleep(0.1)

    async def goes_on():
        while not told.seen.is_set():
            await asyncio.sleep(0.005)

    with asyncloop.watchdog(0.3, on_stall=told):
        threads = [threading.Thread(target=asyncloop.run, args=(goes_on(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        asyncloop.run(blocks())
        for thread in threads:
            thread.join()
    assert told.running[0].thread == threading.get_ident()
    assert len({stall.loop for stall in told.stalls}) == 1


def test_time_in_the_collector():
    class Slow:
        def __init__(self):
            self.itself = self

        def __del__(self):
            told.seen.wait(FOREVER)
            time.sleep(0.05)

    told = Told("__del__")
    gc.collect()

    async def main():
        Slow()
        gc.collect()
        await asyncio.sleep(0.2)

    with asyncloop.watchdog(THRESHOLD, on_stall=told):
        asyncloop.run(main())
    assert 0 < told.running[0].gc_seconds <= told.running[0].duration
    assert 0.05 <= told.ended[0].gc_seconds <= told.ended[0].duration


def test_on_stall_that_raises_is_counted():
    told = Told("block_in_python")
    called = []

    def raises(stall):
        called.append(stall)
        told(stall)
        raise ValueError("contained")

    async def main():
        block_in_python(told)
        await asyncio.sleep(0.2)

    with asyncloop.watchdog(THRESHOLD, on_stall=raises) as dog:
        asyncloop.run(main())
    assert len(told.stalls) == 2
    assert dog.failures == len(called)


def test_a_repr_that_raises():
    told = Told("block_in_python")

    async def main():
        asyncio.current_task().set_name("bad")
        block_in_python(told)
        await asyncio.sleep(0.1)

    class Name(str):
        def __repr__(self):
            raise ValueError("no repr")

    async def outer():
        task = asyncio.get_running_loop().create_task(main())
        task.set_name(Name("x"))
        await task

    with asyncloop.watchdog(THRESHOLD, on_stall=told) as dog:
        asyncloop.run(outer())
    assert told.running and dog.failures == 0


def test_raise_makes_the_block_an_error():
    async def main():
        deadline = time.monotonic() + FOREVER
        while time.monotonic() < deadline:
            if any(frame.name == "main" for stall in dog.stalls for frame in stall.stack):
                break
            time.sleep(0.05)
        await asyncio.sleep(0.1)

    with pytest.raises(asyncloop.BlockedError, match="in main") as caught:
        with asyncloop.watchdog(0.1, on_stall="raise") as dog:
            asyncloop.run(main())
    names = [[frame.name for frame in stall.stack] for stall in caught.value.stalls]
    assert sum("main" in each for each in names) == 1
    with asyncloop.watchdog(20, on_stall="raise"):
        asyncloop.run(asyncio.sleep(0))
    with pytest.raises(KeyError):  # the program's own error goes first
        with asyncloop.watchdog(0.1, on_stall="raise") as dog:
            asyncloop.run(main())
            raise KeyError


@pytest.mark.parametrize(
    "value", [0, -1, -0.0, math.nan, math.inf, -math.inf, "0.1", None, True, 10**400, 1e12, b"1"]
)
def test_bad_thresholds(value):
    with pytest.raises(ValueError, match="threshold"):
        asyncloop.watchdog(value)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None])
def test_bad_repeats(value):
    with pytest.raises(ValueError, match="repeat"):
        asyncloop.watchdog(1, repeat=value)


@pytest.mark.parametrize("value", ["log", 1, [], "RAISE"])
def test_bad_on_stall(value):
    with pytest.raises(ValueError, match="on_stall"):
        asyncloop.watchdog(1, on_stall=value)


def test_start_and_stop():
    before = threading.active_count()
    dog = asyncloop.watchdog(1)
    dog.stop()  # not started: nothing
    for _ in range(3):
        dog.start()
        with pytest.raises(RuntimeError, match="started"):
            dog.start()
        assert threading.active_count() == before + 1
        dog.stop()
        dog.stop()
        assert threading.active_count() == before
    assert not [each for each in gc.callbacks if type(each).__name__ == "_Collector"]


def test_many_watchdogs_leave_nothing():
    def descriptors():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    with asyncloop.watchdog(1):
        pass
    before = descriptors()
    for _ in range(50):
        with asyncloop.watchdog(1), asyncloop.watchdog(0.5):
            asyncloop.run(asyncio.sleep(0))
    assert descriptors() == before


def test_loops_come_and_go_under_a_quick_watchdog():
    async def main():
        for _ in range(20):
            await asyncio.sleep(0)

    def work():
        for _ in range(50):
            asyncloop.run(main())

    with asyncloop.watchdog(0.003, on_stall=lambda stall: None) as dog:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert dog.failures == 0


# -- in a process of its own -------------------------------------------------------------


BLOCK = """
import asyncio, logging, time, asyncloop
told = []
def look(record):
    if "in main" in record.getMessage():
        told.append(record)
    return True
logging.getLogger("asyncio").addFilter(look)
async def main():
    until = time.monotonic() + 20
    while not told and time.monotonic() < until:
        time.sleep(0.2)
    await asyncio.sleep(0.2)
"""
BLOCKS = f"{BLOCK}\nasyncloop.run(main())\nprint('done')\n"
QUIET = "import asyncio, asyncloop; asyncloop.run(asyncio.sleep(0)); print('done')"


def test_environment():
    done = child(BLOCKS, ASYNCLOOP_WATCHDOG="0.1")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "is blocked" in done.stderr and "in main()" in done.stderr


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "yes", "1s", "0x1", " "])
def test_bad_environment(value):
    done = child(QUIET, ASYNCLOOP_WATCHDOG=value)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert len(done.stderr.splitlines()) == 1 and "ASYNCLOOP_WATCHDOG" in done.stderr


def test_no_environment_no_thread():
    program = "import asyncloop, threading, sys; print(threading.active_count(), "
    program += "'asyncloop._watchdog' in sys.modules)"
    env = {key: value for key, value in os.environ.items() if key != "ASYNCLOOP_WATCHDOG"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout == "1 False\n"


def test_fork():
    """The child watches itself; a watchdog of a block in the parent is the parent's."""
    program = BLOCK + textwrap.dedent("""
        import os, sys
        with asyncloop.watchdog(30) as own:
            pid = os.fork()
            if pid == 0:
                asyncloop.run(main())
                own.stop()
                sys.stderr.flush()
                os._exit(0)
            os.waitpid(pid, 0)
        print("done")
        """)
    done = child(program, "-W", "ignore", ASYNCLOOP_WATCHDOG="0.1")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    blocked = [text for text in done.stderr.split("event loop ") if "is blocked" in text]
    assert sum("in main" in text.partition("\n")[0] for text in blocked) == 1


def test_a_child_has_a_pipe_of_its_own():
    """Stacks that are taken while a call holds the GIL go to the process that asked for them."""
    program = textwrap.dedent("""
        import faulthandler, gc, os, threading, asyncloop
        from asyncloop import _stacks
        def descriptors():
            return [fd for dump in _stacks._acquired for fd in (dump._read, dump._write)]
        with asyncloop.watchdog(5):
            parent = descriptors()
            identity = [os.fstat(fd).st_ino for fd in parent]
            callbacks = len(gc.callbacks)
            locked, go = threading.Event(), threading.Event()
            def hold():
                with _stacks._choosing:
                    locked.set()
                    go.wait()
            thread = threading.Thread(target=hold)
            thread.start()
            locked.wait()
            pid = os.fork()
            if pid == 0:
                assert not descriptors() and len(gc.callbacks) == callbacks - 1
                for fd in parent:
                    try:
                        os.fstat(fd)
                    except OSError:
                        pass
                    else:
                        os._exit(1)
                with asyncloop.watchdog(5):
                    inodes = [os.fstat(fd).st_ino for fd in descriptors()]
                    os._exit(2 if set(inodes) & set(identity) else 0)
            go.set()
            thread.join()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert [os.fstat(fd).st_ino for fd in parent] == identity
            print("status", status)
        """)
    done = child(program, "-W", "ignore")
    assert (done.returncode, done.stdout) == (0, "status 0\n"), done.stderr


def test_what_cannot_start_leaves_nothing(monkeypatch):
    from asyncloop import _stacks, _watchdog

    def fail(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_watchdog.threading.Thread, "start", fail)
    dog = asyncloop.watchdog(5)
    signals = len(_stacks._acquired)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        dog.start()
    assert len(_stacks._acquired) == signals
    dog.stop()
    monkeypatch.undo()
    with dog:
        assert len(_stacks._acquired) == signals + 1
    assert len(_stacks._acquired) == signals


def test_the_program_may_end_in_a_block():
    program = BLOCKS.replace("time.sleep(0.2)", "time.sleep(0.3); raise SystemExit(3)")
    done = child(program, ASYNCLOOP_WATCHDOG="0.05")
    assert done.returncode == 3 and "Traceback" not in done.stderr


def test_signals_of_the_program_are_left_alone():
    program = "import signal, os\n"
    program += "taken = [n for n in range(signal.SIGRTMAX - 2, signal.SIGRTMAX)]\n"
    program += "calls = []\n"
    program += "for n in taken: signal.signal(n, lambda n, f: calls.append(n))\n"
    program += QUIET + "\n"
    program += "for n in taken: os.kill(os.getpid(), n)\n"
    program += "print(sorted(calls) == taken)\n"
    if not hasattr(__import__("signal"), "SIGRTMAX"):
        pytest.skip("no real-time signals")
    done = child(program, ASYNCLOOP_WATCHDOG="0.1")
    assert done.stdout == "done\nTrue\n", done.stderr


def test_a_block_is_counted_once_however_often_it_is_told_of():
    told = Told("block_until_told_three_times")
    stalls = []

    def on_stall(stall):
        stalls.append(stall)
        told(stall)

    async def main():
        loop = asyncio.get_running_loop()
        block_until_told_three_times(told)
        await asyncio.sleep(0.2)
        return loop

    with asyncloop.watchdog(THRESHOLD, repeat=0.1, on_stall=on_stall):
        loop = asyncloop.run(main())
    assert len(told.running) >= 3
    assert loop.stats().stalls == len([each for each in stalls if not each.still_running]) > 0
    assert loop.stats().spins == 0
