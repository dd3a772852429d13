"""asyncloop.watchdog(): false alarms, awkward callbacks, and programs in an awkward state.

Most of it happens in a process of its own. A block lasts until it is told of, so that a busy
machine makes a report late and not wrong.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import asyncloop
from tests.support import Impl, import_root

pytestmark = pytest.mark.skipif(
    not hasattr(os, "register_at_fork"), reason="the watchdog follows forks"
)

ROOT = import_root(Impl.named("asyncloop"))
HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGRTMAX"), reason="no real-time signals")

PRELUDE = """
import asyncio, os, signal, sys, threading, time, asyncloop
def until(condition):
    limit = time.monotonic() + 20
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
def hold_the_gil(condition):
    limit = time.monotonic() + 20
    while not condition() and time.monotonic() < limit:
        sum(range(30_000_000))  # one call of C that gives the GIL to nobody
"""


def child(program, *args, stderr=subprocess.PIPE, **env):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + textwrap.dedent(program), *args],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
    )


def child_says(program, *args, **env):
    done = child(program, *args, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- no false alarm -------------------------------------------------------------------------


def test_a_process_that_was_stopped():
    """The time for which it was is no part of a block."""
    said = child_says("""
        async def main():
            await asyncio.sleep(0.05)
            parent, (get, put) = os.getpid(), os.pipe()
            if os.fork() == 0:
                os.read(get, 1)
                os.kill(parent, signal.SIGSTOP)
                time.sleep(2)
                os.kill(parent, signal.SIGCONT)
                os._exit(0)
            began = time.monotonic()
            os.write(put, b"x")
            os.wait()
            print(time.monotonic() - began)
            await asyncio.sleep(0.05)
        with asyncloop.watchdog(0.1, on_stall=lambda stall: None) as dog:
            asyncloop.run(main())
        print(sum(stall.duration for stall in dog.stalls))
        """)
    took, blocked = map(float, said.split())
    assert took >= 1.9 and blocked <= took - 0.9


def test_a_breakpoint(tmp_path):
    (tmp_path / "commands").write_text("w\nc\n")
    said = child_says(
        """
        import pdb
        class Slow:
            def __init__(self, path):
                self.lines = open(path)
            def readline(self):
                time.sleep(0.5)
                return self.lines.readline()
        async def main():
            await asyncio.sleep(0.05)
            where = pdb.Pdb(stdin=Slow(sys.argv[1]), stdout=sys.stderr, nosigint=True, readrc=False)
            where.set_trace()
            await asyncio.sleep(0.05)
        with asyncloop.watchdog(0.1, on_stall="raise") as dog:
            asyncloop.run(main())
        print(list(dog.stalls))
        """,
        str(tmp_path / "commands"),
    )
    assert said == "[]"


def test_what_is_not_the_loops():
    """Between runs nothing is blocked, nor by what an executor does."""
    told = []

    async def main():
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.4)

    loop = asyncloop.new_event_loop()
    with asyncloop.watchdog(0.3, on_stall=told.append):
        for _ in range(3):
            loop.run_until_complete(main())
            time.sleep(0.4)
    loop.close()
    assert not [each for each in told if each.stack and "main" in each.stack[-1].name]
    assert not [each for each in told if not each.stack and each.duration > 0.35]


def test_a_run_inside_of_another():
    """The outer turn is watched again when the inner run has ended."""
    said = child_says("""
        asyncloop.allow_nested()
        told = []
        def names():
            return [stall.stack[-1].name for stall in told if stall.still_running and stall.stack]
        async def inside():
            until(lambda: "until" in names())
        async def main():
            loop = asyncio.get_running_loop()
            loop.run_until_complete(asyncio.sleep(0.01))
            seen = len(told)
            limit = time.monotonic() + 20
            while "main" not in names() and time.monotonic() < limit:
                time.sleep(0.2)
            loop.run_until_complete(inside())
            await asyncio.sleep(0.01)
        with asyncloop.watchdog(0.05, on_stall=told.append):
            asyncloop.run(main())
        print("main" in names(), "until" in names())
        """)
    assert said == "True True"


# -- what is told ---------------------------------------------------------------------------


def test_two_loops_that_block_at_once():
    told = []

    def both():
        return {stall.loop for stall in told if stall.stack and "blocks" in str(stall.stack)}

    async def blocks():
        limit = time.monotonic() + 20
        while len(both()) < 2 and time.monotonic() < limit:
            time.sleep(0.02)

    with asyncloop.watchdog(0.05, on_stall=told.append):
        threads = [threading.Thread(target=asyncloop.run, args=(blocks(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(both()) == 2


def test_a_function_in_c_as_a_callback():
    told = []
    seen = threading.Event()

    def on_stall(stall):
        told.append(stall)
        if "in C" in stall.where:
            seen.set()

    async def main():
        lock = threading.Lock()
        lock.acquire()
        thread = threading.Thread(target=lambda: (seen.wait(20), lock.release()))
        thread.start()
        asyncio.get_running_loop().call_soon(lock.acquire)
        await asyncio.sleep(0.01)
        thread.join()

    with asyncloop.watchdog(0.05, on_stall=on_stall):
        asyncloop.run(main())
    assert seen.is_set()


@pytest.mark.parametrize("name", ["deep.py", "<eval'd é>", "caf\udce9.py"])
def test_stacks_of_all_kinds(name, tmp_path):
    """Deep, of code without a file, and of files whose name is no text; in a log in UTF-8."""
    done = child(
        """
        import logging
        handler = logging.FileHandler(sys.argv[1], encoding="utf-8")
        logging.getLogger("asyncio").addHandler(handler)
        told = []
        def look(record):
            told.append(record.getMessage())
            return True
        logging.getLogger("asyncio").addFilter(look)
        def deep(n):
            return deep(n - 1) if n else blocks(lambda: "in blocks" in str([*map(str, told)]))
        sys.setrecursionlimit(3000)
        name = os.fsdecode(sys.stdin.buffer.read())
        source = "def blocks(told):\\n  limit = time.monotonic() + 20\\n"
        source += "  while not told() and time.monotonic() < limit: time.sleep(0.2)\\n"
        exec(compile(source, name, "exec"), globals())
        async def main():
            await asyncio.sleep(0.01)
            deep(900)
            await asyncio.sleep(0.01)
        with asyncloop.watchdog(0.05) as dog:
            asyncloop.run(main())
        print(dog.failures)
        """.replace("os.fsdecode(sys.stdin.buffer.read())", f"os.fsdecode({os.fsencode(name)!r})"),
        str(tmp_path / "log"),
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert "Logging error" not in done.stderr
    text = (tmp_path / "log").read_bytes().decode()
    assert name.encode("utf-8", "backslashreplace").decode() in text and "in blocks" in text


def test_a_log_handler_that_blocks():
    """It holds the lock that the report needs: that comes to standard error meanwhile."""
    done = child("""
        import logging
        get, put = os.pipe()
        os.dup2(put, 2)
        class Handler(logging.Handler):
            def emit(self, record):
                if record.name == "program":
                    text = b""
                    while b"in emit" not in text:
                        text += os.read(get, 10000)
                    print("told")
        logging.getLogger().addHandler(Handler())
        async def main():
            logging.getLogger("program").warning("blocks")
        signal.alarm(30)
        with asyncloop.watchdog(0.05) as dog:
            asyncloop.run(main())
        """)
    assert (done.returncode, done.stdout) == (0, "told\n")


# -- awkward callbacks ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_callbacks_that_raise_anything(error):
    told = []

    def raises(stall):
        told.append(stall)
        raise error

    def begun():  # the end of the one before may be told late
        return sum(each.still_running for each in told)

    async def blocks():
        count = begun()
        limit = time.monotonic() + 20
        while begun() == count and time.monotonic() < limit:
            time.sleep(0.1)

    async def main():
        for _ in range(3):  # the thread goes on
            await blocks()
            await asyncio.sleep(0.01)

    with asyncloop.watchdog(0.05, on_stall=raises) as dog:
        asyncloop.run(main())
    assert begun() >= 3
    assert dog.failures == len(told)


@pytest.mark.parametrize("name", ["on_stall", "on_spin"])
def test_coroutine_functions_are_refused(name):
    async def told(stall):
        raise AssertionError("nobody awaits it")

    with pytest.raises(ValueError, match=name):
        asyncloop.watchdog(1, **{name: told})


@needs_signals
def test_a_callback_that_is_slow():
    """Blocks while it runs are told of afterwards, and not as calls that hold the GIL."""
    said = child_says("""
        told, first, second, go = [], threading.Event(), threading.Event(), threading.Event()
        def on_stall(stall):
            told.append(stall)
            if not first.is_set():
                first.set()
                second.wait(20)
        def one():
            first.wait(20)
        def other():
            # Nobody is told yet, so it has to last for long enough.
            time.sleep(1.5)
        async def main():
            one()
            await asyncio.sleep(0.01)
            other()
            await asyncio.sleep(0.01)
            second.set()
            until(lambda: len(told) >= 4)
        with asyncloop.watchdog(0.1, on_stall=on_stall):
            asyncloop.run(main())
        print(any("in other" in stall.where for stall in told))
        print(any(stall.gil_held for stall in told))
        """)
    assert said == "True\nFalse"


def test_callbacks_that_use_the_watchdog():
    """To stop it, to begin again, to make a dump, to run a loop, to fork."""
    said = child_says("""
        async def main(told):
            for _ in range(2):
                count = len(told)
                until(lambda: len(told) > count)
                await asyncio.sleep(0.01)
        def fork(stall):
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        def restart(stall):
            dog.stop()
            dog.start()
        does = {
            "restart": restart, "fork": fork,
            "run": lambda stall: asyncloop.run(asyncio.sleep(0.01)),
            "dump": lambda stall: asyncloop.dump(open(os.devnull, "w")),
            "other": lambda stall: asyncloop.watchdog(5).__enter__().stop(),
        }
        for name, do in does.items():
            told = []
            def on_stall(stall):
                told.append(stall)
                do(stall)
            with asyncloop.watchdog(0.05, on_stall=on_stall) as dog:
                asyncloop.run(main(told))
            print(name, len(told) >= 2, dog.failures)
        """)
    assert said.splitlines() == [f"{name} True 0" for name in "restart fork run dump other".split()]


# -- standard error ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("ASYNCLOOP_WATCHDOG", "bad"),
        ("ASYNCLOOP_DUMP_SIGNAL", "bad"),
        ("ASYNCLOOP_DUMP_SIGNAL", "USR1"),
        ("ASYNCLOOP_SHUTDOWN", "bad"),
        ("ASYNCLOOP_STRONG_TASKS", "perhaps"),
        ("ASYNCLOOP_PROBE", "bad"),
    ],
)
@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_a_program_without_standard_error(name, value, how):
    """Closed, or on a full disk: a line that has nowhere to go is lost, and all else goes on."""
    if "full" in how and not os.path.exists("/dev/full"):
        pytest.skip("there is no such device")
    program = "import asyncio, os, signal, sys, asyncloop\n"
    program += "asyncloop.run(asyncio.sleep(0))\n"
    if value == "USR1":
        program += "os.kill(os.getpid(), signal.SIGUSR1)\n"
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "$PROGRAM" {how}'],
        env={**os.environ, "PROGRAM": program + "print('done')\n", name: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.skipif(not HAS_GIL, reason="no call holds the GIL")
def test_its_number_is_another_files(tmp_path):
    """A program that was started without one opens a file, which becomes descriptor 2."""
    program = PRELUDE + textwrap.dedent("""
        victim = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        told = []
        async def main():
            await asyncio.sleep(0.01)
            hold_the_gil(lambda: told)
            await asyncio.sleep(0.01)
        with asyncloop.watchdog(0.05, on_stall=told.append):
            asyncloop.run(main())
        print(victim, len(told) > 0, os.fstat(victim).st_size)
        """)
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "$PROGRAM" {tmp_path}/victim 2>&-'],
        env={**os.environ, "PROGRAM": program},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "2 True 0\n")


@pytest.mark.skipif(not HAS_GIL, reason="no call holds the GIL")
def test_it_is_a_pipe_that_is_full():
    """What is written without the GIL does not wait for a reader, so the watchdog ends."""
    done = child("""
        get, put = os.pipe()
        os.set_blocking(put, False)
        try:
            while True:
                os.write(put, bytes(4096))
        except BlockingIOError:
            os.set_blocking(put, True)
        os.dup2(put, 2)
        told = []
        async def main():
            await asyncio.sleep(0.01)
            hold_the_gil(lambda: any(stall.gil_held for stall in told))
            await asyncio.sleep(0.01)
        with asyncloop.watchdog(0.05, on_stall=told.append):
            asyncloop.run(main())
        print("over", flush=True)
        os._exit(0)
        """)
    assert (done.returncode, done.stdout) == (0, "over\n")


# -- the signal --------------------------------------------------------------------------------


@needs_signals
@pytest.mark.skipif(not HAS_GIL, reason="no call holds the GIL")
def test_watchdog_and_probe_have_a_signal_each():
    """Both look for one that is free, and each reads what its own brings."""
    said = child_says("""
        import faulthandler
        number = signal.SIGRTMAX - 1
        is_free = asyncloop._core.Watchdog.is_free
        faulthandler.register(number, open(os.devnull, "w"))  # the program's own
        assert not is_free(number)
        with asyncloop.liveness(probe="127.0.0.1:0"), asyncloop.watchdog(5):
            taken = [n for n in range(signal.SIGRTMIN, number) if not is_free(n)]
            print(len(taken))
        free = [n for n in range(signal.SIGRTMIN, number) if is_free(n)]
        print(len(free) == len(range(signal.SIGRTMIN, number)))
        """)
    assert said == "2\nTrue"


@needs_signals
@pytest.mark.skipif(not HAS_GIL, reason="no call holds the GIL")
@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "lambda *args: taken.append(args)"])
def test_a_program_that_takes_the_signal_afterwards(handler):
    """By the system's own way with it the process would end."""
    said = child_says(f"""
        told, taken = [], []
        async def main():
            await asyncio.sleep(0.01)
            for number in range(signal.SIGRTMIN, signal.SIGRTMAX):
                signal.signal(number, {handler})
            hold_the_gil(lambda: told)
            await asyncio.sleep(0.01)
        with asyncloop.watchdog(0.05, on_stall=told.append):
            asyncloop.run(main())
        print(len(told) > 0, taken)
        """)
    assert said == "True []"


@needs_signals
@pytest.mark.skipif(not HAS_GIL, reason="no call holds the GIL")
def test_a_thread_that_blocks_signals():
    """The one that it was sent is pending still when the watchdog has ended, and harms nobody."""
    said = child_says("""
        ended = threading.Event()
        def run():
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            async def main():
                sum(range(30_000_000))
            asyncloop.run(main())
            ended.wait()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            time.sleep(0.01)
        thread = threading.Thread(target=run)
        with asyncloop.watchdog(0.05, on_stall=lambda stall: None) as dog:
            thread.start()
            until(lambda: any(not stall.still_running for stall in dog.stalls))
        ended.set()
        thread.join()
        print(len(dog.stalls))
        """)
    assert said == "1"


def test_more_loops_that_block_than_may_be_told_of_at_once():
    """None of them is forgotten."""
    said = child_says("""
        told = set()
        def run(number):
            async def main():
                await asyncio.sleep(0.01)
                started.wait()
                until(lambda: len(told) == 100)
            asyncloop.run(main())
        started = threading.Barrier(100)
        threads = [threading.Thread(target=run, args=[number]) for number in range(100)]
        with asyncloop.watchdog(0.3, on_stall=lambda stall: told.add(stall.loop), repeat=0):
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        print(len(told))
        """)
    assert said == "100"


@pytest.mark.parametrize("value", ["x", 2**70, None])
def test_is_free_of_what_is_no_signal(value):
    with pytest.raises((TypeError, OverflowError)):
        asyncloop._core.Watchdog.is_free(value)
    assert not asyncloop._core.Watchdog.is_free(-1)
    assert not asyncloop._core.Watchdog.is_free(0)


def test_names_that_faulthandler_has_escaped():
    from asyncloop._stacks import stack_of_dump

    text = 'Stack:\n  File "/caf\\xe9/\\u20ac\\U0001f600.py", line 3 in gr\\xfc\\xdfe\n'
    (frame,) = stack_of_dump(text)
    assert (frame.filename, frame.lineno) == ("/café/€\U0001f600.py", 3)
    assert re.match("grüße", frame.name)
