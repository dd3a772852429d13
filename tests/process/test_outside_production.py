"""What is said of a process that has no descriptor left, or very many tasks, or odd names.

asyncio has nothing like it, so all of this is about asyncloop alone.
"""

import asyncio
import errno
import io
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Coroutine

import pytest

import asyncloop
from asyncloop import _outside, _page, _ps, _stacks

from .test_outside import look, program, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks below /proc")


def test_no_descriptor_is_left_for_a_while(capsys):
    """Who asks meanwhile gets no answer; once there are descriptors again, everybody does."""
    service = """
import asyncio, asyncloop, os, resource, sys, threading

over = threading.Event()
taken = []

def take():
    while not over.wait(0.001):
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
    for each in taken:
        os.close(each)

async def main():
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taker = asyncio.to_thread(take)
    await asyncio.gather(taker, asyncio.to_thread(lambda: (sys.stdin.readline(), over.set())))
    print("free", flush=True)
    await asyncio.sleep(1000)

asyncloop.run(main())
"""
    with program(service, ASYNCLOOP_PAGE="1") as process:
        assert "1 running loop(s)" in look(capsys, "tree", process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        # The call of accept() that goes on has its number already.
        until(lambda: _ps.main(["tree", str(process.pid)]) == 2)
        assert "does not answer" in capsys.readouterr().err
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "free\n"
        until(lambda: _ps.main(["tree", str(process.pid)]) == 0)


@pytest.mark.parametrize("how", ["shut down", "closed"])
def test_it_ends_although_no_descriptor_is_left(how):
    """Then accept() says nothing of the end of the socket."""

    class Full(socket.socket):
        asked = 0

        def accept(self):
            self.asked += 1
            assert self.asked < 10
            raise OSError(errno.EMFILE, "too many")

    ended = threading.Event()
    with Full(socket.AF_UNIX) as listener:
        listener.bind(f"\0asyncloop-test-{os.getpid()}-{os.urandom(4).hex()}")
        listener.listen()
        if how == "closed":
            listener.close()
        else:
            listener.shutdown(socket.SHUT_RDWR)
        _page._serve(listener, ended)
    assert ended.is_set() and listener.asked == 1


def test_a_process_that_is_stopped(capsys, monkeypatch):
    """It looks as if it slept. Who asks for its tasks is told why there is no answer."""
    service = """
import asyncio, asyncloop

async def main():
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncloop.run(main())
"""
    with program(service, ASYNCLOOP_PAGE="1") as process:
        assert "stopped" not in look(capsys, "ps", process.pid)
        process.send_signal(signal.SIGSTOP)
        until(lambda: _outside.is_stopped(process.pid))
        said = f"process {process.pid}: it is stopped, by a signal or a debugger"
        assert said in look(capsys, "ps", process.pid)
        (found,) = json.loads(look(capsys, "ps", process.pid, "--json"))
        assert found["stopped"] is True
        with monkeypatch.context() as patch:
            patch.setattr(_outside, "_PATIENCE", 0.3)
            assert "it is stopped" in look(capsys, "tree", process.pid, status=2)
        process.send_signal(signal.SIGCONT)
        until(lambda: not _outside.is_stopped(process.pid))
        assert "1 task(s)" in look(capsys, "tree", process.pid)


def test_what_many_tasks_wait_for_is_described_once(monkeypatch):
    class Shared(asyncio.Future):
        described = 0

        def __repr__(self):
            type(self).described += 1
            return "<shared>"

    async def main():
        shared = Shared()

        async def wait():
            await shared

        tasks = [asyncio.create_task(wait()) for _ in range(30)]
        await asyncio.sleep(0)
        monkeypatch.setattr(_page, "_MOST_TASKS", 20)
        (found,) = _page._tasks(lambda: None)
        assert Shared.described == 1
        assert (len(found["tasks"]), found["tasks_not_shown"]) == (20, 11)
        shared.set_result(None)
        await asyncio.gather(*tasks)

    asyncloop.run(main())


def test_top_counts_the_tasks_that_it_does_not_show(capsys):
    service = """
import asyncio, asyncloop

async def main():
    tasks = [asyncio.create_task(asyncio.sleep(1000)) for _ in range(10_100)]
    await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncloop.run(main())
"""
    with program(service, ASYNCLOOP_PAGE="1") as process:
        text = look(capsys, "top", process.pid, "-d", "0.01", "-n", "1")
        assert ": 10101 task(s)" in text and "... and 10081 more" in text
        (loop,) = json.loads(look(capsys, "tree", process.pid, "--json"))
        assert (len(loop["tasks"]), loop["tasks_not_shown"]) == (10_000, 101)


def test_a_name_makes_no_lines_of_its_own():
    """Nor what a terminal would obey: neither in a dump nor in a census or a report."""
    forged = "x\n  task forged\n\x1b[2J"

    async def main():
        namespace = {"asyncio": asyncio}
        source = "async def waits(): await asyncio.sleep(1000)"
        exec(compile(source, f"{forged}.py", "exec"), namespace)
        task = asyncio.create_task(namespace["waits"](), name=forged)
        await asyncio.sleep(0)
        dumped = io.StringIO()
        asyncloop.dump(dumped)
        for text in (dumped.getvalue(), str(asyncloop.census())):
            assert "\\x1b[2J" in text and "\x1b" not in text
            assert not any(line.strip().startswith("task forged") for line in text.splitlines())
        task.cancel()

    asyncloop.run(main())


def test_a_circle_of_tasks_comes_after_the_others():
    """It has no root, and may have been made first."""

    async def main():
        tasks = []

        async def wait(number):
            await tasks[number]

        for number in (0, 1):
            tasks.append(asyncio.create_task(wait(1 - number), name=f"round-{number}"))
        tasks.append(asyncio.create_task(asyncio.sleep(1000), name="plain-2"))
        await asyncio.sleep(0)
        dumped = io.StringIO()
        asyncloop.dump(dumped)
        lines = dumped.getvalue().splitlines()
        names = [line.split()[1] for line in lines if line.strip().startswith("task ")]
        assert len(names) == 4 and "plain-2" in names[:2] and names[2:] == ["round-0", "round-1"]
        tasks[2].cancel()
        # Nothing but the end of the loop ends the others.

    loop = asyncloop.new_event_loop()
    loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False
    loop.close()


class Foreign(Coroutine):
    """A coroutine as an extension may have it."""

    def __init__(self, future):
        self.steps = future.__await__()

    def send(self, value):
        return self.steps.send(value)

    def throw(self, *error):
        return self.steps.throw(*error)

    def close(self):
        pass

    def __await__(self):
        return self.steps


class Raising(Foreign):
    def fail(self):
        raise KeyError("not for you")

    cr_await = cr_code = cr_frame = property(fail)

    def __repr__(self):
        raise SystemExit(1)


def test_coroutines_that_are_not_pythons_own():
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        tasks = [
            loop.create_task(Foreign(future), name="foreign"),
            loop.create_task(Raising(future), name="raising"),
        ]
        await asyncio.sleep(0)
        dumped = io.StringIO()
        asyncloop.dump(dumped)
        parts = re.split(r"\n  task ", dumped.getvalue())
        (foreign,) = (part for part in parts if part.startswith("foreign\n"))
        (raising,) = (part for part in parts if part.startswith("raising\n"))
        assert "Foreign(), which does not tell its line" in foreign and "waits for <Fu" in foreign
        assert "Raising(), which does not tell its line" in raising and "KeyError" in raising
        assert {place.where.split()[-1] for place in asyncloop.census().tasks} >= {
            "Foreign",
            "Raising",
        }
        assert asyncloop.lost_tasks(0) == []
        future.set_result(None)
        await asyncio.gather(*tasks)

    asyncloop.run(main())


def test_tasks_that_wait_for_each_other_in_a_long_row():
    """What is written grows with their number, and not with its square."""

    async def main():
        async def follow(before):
            await (before or asyncio.sleep(1000))

        tasks = [None]
        for number in range(2000):
            tasks.append(asyncio.create_task(follow(tasks[-1]), name=f"row-{number}"))
        await asyncio.sleep(0)
        dumped = io.StringIO()
        asyncloop.dump(dumped)
        text = dumped.getvalue()
        assert "[2000] task row-0\n" in text and "\n  task row-1999\n" in text
        assert len(text) < 2000 * 1000
        tasks[1].cancel()

    asyncloop.run(main())


def test_where_a_deep_chain_waits():
    """Its inner end is what is asked for; what is in the middle is left out."""

    async def down(left):
        if left:
            await down(left - 1)
        else:
            await inmost()

    async def inmost():
        await asyncio.sleep(1000)

    async def main():
        task = asyncio.create_task(down(300), name="deep")
        await asyncio.sleep(0)
        dumped = io.StringIO()
        asyncloop.dump(dumped)
        lines = dumped.getvalue().partition("task deep\n")[2].splitlines()
        assert all(".down()" in line for line in lines[:50])
        assert lines[50].strip() == "... and 203 more"
        assert ".inmost()" in lines[99] and "sleep()" in lines[100] and "waits for" in lines[101]
        task.cancel()

    asyncloop.run(main())


def test_who_asks_for_stacks_has_a_signal_and_a_pipe_of_his_own():
    one, other = _stacks.StackSignal(), _stacks.StackSignal()
    try:
        (number, pipe), (second, second_pipe) = one.acquire(), other.acquire()
        assert 0 < number != second > 0 and pipe != second_pipe
        signal.pthread_kill(threading.get_ident(), second)
        assert b"test_who_asks_for_stacks" in os.read(second_pipe, 4096)
        with pytest.raises(BlockingIOError):
            os.read(pipe, 4096)
    finally:
        one.release()
        other.release()


def test_a_child_of_fork_keeps_no_descriptor_of_the_liveness():
    service = """
import asyncloop, os

def count():
    return len(os.listdir("/proc/self/fd"))

before = count()
with asyncloop.liveness(probe="127.0.0.1:0"):
    pid = os.fork()
    if pid == 0:
        os._exit(count() - before)
    print("ready" if os.waitpid(pid, 0)[1] == 0 else "more", flush=True)
"""
    with program(service, PYTHONWARNINGS="ignore"):
        pass
