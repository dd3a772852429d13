"""asyncloop.dump(): what the loops of a process are about, as text; also by a signal.

asyncio has nothing like it before Python 3.14, and there it shows tasks alone.
"""

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import asyncloop


def dumped():
    file = io.StringIO()
    asyncloop.dump(file)
    return file.getvalue()


def section(text, task):
    """The lines of a task, without those of the tasks below it, and its depth."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(f"task {task}"))
    depth = len(lines[start]) - len(lines[start].lstrip())
    found = []
    for line in lines[start + 1 :]:
        if not line.startswith(" " * (depth + 4)) or line.strip().startswith("task "):
            break
        found.append(line.strip())
    return depth, found


async def leaf():
    await asyncio.Event().wait()


def run(make):
    """Runs make(), which returns the tasks to be dumped, and gives what was dumped."""

    async def main():
        tasks = await make()
        await asyncio.sleep(0.01)
        text = dumped()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return text

    return asyncloop.run(main())


def test_no_loop():
    assert dumped() == f"asyncloop: process {os.getpid()}, 0 running loop(s)\n"


def test_chain_of_coroutines():
    async def inner():
        await leaf()

    async def outer():
        await inner()

    async def make():
        return [asyncio.create_task(outer(), name="chained")]

    _, lines = section(run(make), "chained")
    functions = [re.search(r" in (\S+)\(\)$", line)[1].rpartition(".")[2] for line in lines[:4]]
    assert functions == ["outer", "inner", "leaf", "wait"]
    assert lines[-1].startswith("waits for <Future pending")


def test_async_generator_is_part_of_the_chain():
    async def numbers():
        await leaf()
        yield 1

    async def reads():
        async for _ in numbers():
            pass

    async def make():
        return [asyncio.create_task(reads(), name="reads")]

    _, lines = section(run(make), "reads")
    assert any("numbers()" in line for line in lines), lines


@pytest.mark.parametrize("way", ["await", "gather", "group", "shield", "wait"])
def test_tree(way):
    async def parent():
        child = asyncio.ensure_future(leaf())
        child.set_name("child")
        children.append(child)
        if way == "await":
            await child
        elif way == "gather":
            await asyncio.gather(child, leaf())
        elif way == "shield":
            await asyncio.shield(child)
        elif way == "wait":
            await asyncio.wait([child])

    async def group():
        async with asyncio.TaskGroup() as tasks:
            children.append(tasks.create_task(leaf(), name="child"))

    children = []

    async def make():
        task = asyncio.create_task(group() if way == "group" else parent(), name="parent")
        await asyncio.sleep(0)
        return [task, *children]

    text = run(make)
    above, _ = section(text, "parent")
    below, _ = section(text, "child")
    if way == "wait" and sys.version_info < (3, 14):
        pytest.skip("wait() keeps nothing that leads to who waits before 3.14")
    assert below == above + 2, text


def test_tasks_in_a_circle_end(monkeypatch):
    """Real ones could never be cancelled."""
    from asyncloop import _dump

    tasks = []
    monkeypatch.setattr(
        _dump, "_awaited_by", lambda task: [tasks[0 if task is tasks[1] else 1]] if tasks else []
    )

    async def make():
        tasks.extend(asyncio.create_task(leaf(), name=f"circle-{i}") for i in (0, 1))
        return tasks

    text = run(make)
    assert text.count("task circle-") == 2


def test_timers_transports_and_what_is_ready():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(1000, print, "a timer of its own")
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        await asyncio.sleep(0.01)  # both ends begin to read
        loop.call_soon(print)
        text = dumped()
        transport.close()
        server.close()
        await asyncio.sleep(0.05)
        return text, port

    text, port = asyncloop.run(main())
    assert re.search(r"in 9\d\d\.\d+ s: <TimerHandle .*print", text)
    assert f"0 bytes buffered, peer ('127.0.0.1', {port})" in text
    assert re.search(r"[1-9]\d* ready, [1-9]\d* timers", text)


def test_what_runs_now():
    async def main():
        return dumped()

    text = asyncloop.run(main())
    assert "running now" in text and re.search(r"test_dump\.py:\d+ in .*main\(\)", text)


def test_from_another_thread_while_the_loop_is_blocked():
    found = []
    blocked = threading.Event()
    looked = threading.Event()

    def look():
        blocked.wait(20)
        found.append(dumped())
        looked.set()

    async def main():
        task = asyncio.create_task(leaf(), name="bystander")
        await asyncio.sleep(0)
        blocked.set()
        looked.wait(20)  # the blocking line
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    thread = threading.Thread(target=look)
    thread.start()
    asyncloop.run(main())
    thread.join()
    assert "task bystander" in found[0]
    assert re.search(r"threading\.py:\d+ in .*wait\(\)", found[0])


def test_loops_of_several_threads():
    barrier = threading.Barrier(3)
    done = threading.Event()

    async def main():
        barrier.wait(20)
        while not done.is_set():
            await asyncio.sleep(0.01)

    threads = [
        threading.Thread(target=asyncloop.run, args=(main(),), name=f"worker-{i}") for i in (1, 2)
    ]
    for thread in threads:
        thread.start()
    barrier.wait(20)
    text = dumped()
    done.set()
    for thread in threads:
        thread.join()
    assert "2 running loop(s)" in text
    assert "in thread worker-1" in text and "in thread worker-2" in text


def test_a_repr_that_raises_is_contained():
    class Bad:
        def __repr__(self):
            raise ValueError

        def __call__(self):
            pass

    async def main():
        timer = asyncio.get_running_loop().call_later(1000, Bad())
        text = dumped()
        timer.cancel()
        return text

    assert "describe raised ValueError" in asyncloop.run(main())


def test_a_file_that_cannot_be_written():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        asyncloop.dump(Full())
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError):
        asyncloop.dump(closed)


def test_ten_thousand_tasks():
    async def make():
        return [asyncio.create_task(leaf(), name=f"leaf-{i}") for i in range(10_000)]

    text = run(make)
    assert text.count("task leaf-") == 10_000


def test_ten_thousand_tasks_that_wait_for_the_same():
    async def make():
        future = asyncio.get_running_loop().create_future()

        async def wait():
            await future

        return [asyncio.create_task(wait(), name=f"leaf-{i}") for i in range(10_000)]

    text = run(make)
    assert text.count("task leaf-") == 10_000
    assert text.count("waits for <Future pending") == 10_000


# -- by a signal ---------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, signal, sys, time, asyncloop
async def leaf():
    await asyncio.Event().wait()
async def main():
    task = asyncio.create_task(leaf(), name="the-leaf")
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGUSR1)
    WAIT
    task.cancel()
asyncloop.run(main())
print("done")
"""


def child(program, **env):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("wait", ["await asyncio.sleep(0.1)", "time.sleep(0.1)"])
@pytest.mark.parametrize("name", ["USR1", "SIGUSR1", "usr1", str(int(signal.SIGUSR1))])
def test_signal(name, wait):
    done = child(PROGRAM.replace("WAIT", wait), ASYNCLOOP_DUMP_SIGNAL=name)
    assert done.stdout == "done\n", done.stderr
    assert "most recent call first" in done.stderr  # faulthandler's, at once
    assert "task the-leaf" in done.stderr and "in leaf()" in done.stderr


BAD = ["KILL", "STOP", "0", "999", "NOSUCH", "_signal", "SIG_DFL", "-1", "SEGV", "FPE", "ABRT"]


@pytest.mark.parametrize("name", BAD)
def test_bad_signal(name):
    done = child("import asyncloop; print('done')", ASYNCLOOP_DUMP_SIGNAL=name)
    assert done.stdout == "done\n"
    assert len(done.stderr.splitlines()) == 1 and "ASYNCLOOP_DUMP_SIGNAL" in done.stderr


def test_a_program_that_crashes_still_does():
    program = """
import asyncloop, os, signal, sys
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV)
"""
    assert child(program, ASYNCLOOP_DUMP_SIGNAL="SEGV").stdout == "True\n"


def test_signal_that_the_program_handles():
    program = "import signal; signal.signal(signal.SIGUSR1, print)\nimport asyncloop; print('done')"
    done = child(program, ASYNCLOOP_DUMP_SIGNAL="USR1")
    assert done.stdout == "done\n" and len(done.stderr.splitlines()) == 1


def test_many_signals():
    wait = "[(os.kill(os.getpid(), signal.SIGUSR1), time.sleep(0.001)) for _ in range(50)]"
    done = child(PROGRAM.replace("WAIT", wait), ASYNCLOOP_DUMP_SIGNAL="USR1")
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


def dumped_elsewhere():
    found = []
    thread = threading.Thread(target=lambda: found.append(dumped()))
    thread.start()
    return thread, found


def test_transports_of_a_loop_in_another_thread():
    """Without a GIL the loop's own thread looks at them if it has a turn; else they are counted."""

    async def main():
        timer = asyncio.get_running_loop().call_later(1000, print)
        server = await asyncio.start_server(lambda *pair: kept.append(pair), "127.0.0.1", 0)
        kept.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
        thread, free = dumped_elsewhere()
        await asyncio.to_thread(thread.join)
        thread, blocked = dumped_elsewhere()
        thread.join()
        for _, writer in kept:
            writer.close()
        server.close()
        timer.cancel()
        return free[0], blocked[0]

    kept = []
    free, blocked = asyncloop.run(main())
    assert free.count("bytes buffered, peer ('127.0.0.1'") == 2
    assert re.search(r"^    in \d+\.\d+ s: <TimerHandle", free, re.MULTILINE)
    assert " ready, " in free and " ready, " in blocked
    assert re.search(r"^  (timers, )?2 transports", blocked, re.MULTILINE)


LOCKED = """
import asyncio, os, signal, sys, threading, asyncloop
from asyncloop import _dump

class Locks(asyncio.Future):
    def __repr__(self):
        with lock:
            return "has it"

async def main():
    loop = asyncio.get_running_loop()
    waits = asyncio.create_task(waits_for(Locks()), name="waits")
    await asyncio.sleep(0)
    _dump._HELD = 0.2
    with lock:
        os.kill(os.getpid(), signal.SIGUSR1)
        print("goes on", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def waits_for(what):
    await what

lock = threading.Lock()
asyncloop.run(main())
"""


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="it is made in the loop's thread"
)
def test_a_repr_that_waits_for_what_was_interrupted():
    """The program goes on after a while, and the dump comes then."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED],
        env={**os.environ, "ASYNCLOOP_DUMP_SIGNAL": "USR1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        text = ""
        while "has it" not in text:
            line = process.stderr.readline()
            assert line, text
            text += line
        assert "asyncloop: the dump waits for something" in text
        assert process.stdout.readline() == "goes on\n"
        process.stdin.close()
        process.stderr.read()
        assert process.wait(60) == 0
