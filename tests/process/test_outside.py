"""`python -m asyncloop ps`, `tree` and `top`: the loops of another process.

asyncio has nothing like it, so all of this is about asyncloop alone.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import asyncloop
from asyncloop import _core, _outside, _page, _ps

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks below /proc")

FOREVER = 60


@contextlib.contextmanager
def program(code, **environment):
    """A process that has printed a line."""
    env = {**os.environ, "PYTHONFAULTHANDLER": "", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=FOREVER)
        yield process
    finally:
        process.kill()
        process.communicate()


def look(capsys, *arguments, status=0):
    """What a command prints."""
    capsys.readouterr()
    assert _ps.main([str(each) for each in arguments]) == status
    out, err = capsys.readouterr()
    if status:
        assert out == "" and err.count("\n") == 1, (out, err)
        return err
    assert err == ""
    return out


def until(condition):
    deadline = time.monotonic() + FOREVER
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


SERVICE = """
import asyncio, sys, time
import asyncloop

async def waits():
    await asyncio.sleep(1000)

async def outer():
    await asyncio.gather(waits(), waits())

async def main():
    tasks = [asyncio.create_task(waits(), name=f"waiter {n}") for n in range(3)]
    tasks.append(asyncio.create_task(outer(), name="the outer one"))
    await asyncio.sleep(0)
    print("ready", flush=True)
    await BLOCK()

async def sleep():
    await asyncio.sleep(1000)

async def block():
    time.sleep(1000)

async def hold():
    import re
    re.match("(a+)+$", "a" * 60 + "b")

asyncloop.run(main())
"""


def test_a_process_that_sleeps(capsys):
    with program(SERVICE.replace("BLOCK", "sleep"), ASYNCLOOP_PAGE="1") as process:
        until(lambda: "asleep" in look(capsys, "ps", process.pid))
        (page,) = json.loads(look(capsys, "ps", process.pid, "--json"))
        assert page["pid"] == process.pid
        assert page["asyncloop"] == asyncloop.__version__
        assert page["python"] == sys.version.split()[0]
        assert page["last_stall"] is None and page["loops_not_shown"] == 0
        (loop,) = page["loops"]
        assert loop["tasks"] == 7 and loop["running"] and loop["blocked"] == 0
        assert loop["native_thread"] == process.pid
        assert 0 <= loop["utilization"] <= 1 and loop["delay"]["p99"] <= loop["delay"]["max"]

        head, row = look(capsys, "ps", process.pid).splitlines()
        assert head.split()[:3] == ["PID", "LOOP", "STATE"]
        assert row.split()[:3] == [str(process.pid), "1", "asleep"]
        assert str(process.pid) in [line.split()[0] for line in look(capsys, "ps").splitlines()]
        assert process.pid in [each["pid"] for each in json.loads(look(capsys, "ps", "--json"))]

        tree = look(capsys, "tree", process.pid)
        assert "task waiter 0" in tree and "in waits()" in tree and "in outer()" in tree
        (loop,) = json.loads(look(capsys, "tree", process.pid, "--json"))
        tasks = {task["name"]: task for task in loop["tasks"]}
        assert len(tasks) == 7 and loop["thread"] == "MainThread"
        assert tasks["waiter 1"]["state"] == "waiting"
        assert any("in waits()" in place for place in tasks["waiter 1"]["stack"])
        inner = [task for task in tasks.values() if task["awaited_by"] == ["the outer one"]]
        assert len(inner) == 2


def test_a_process_that_is_blocked(capsys):
    block = SERVICE.replace("BLOCK", "block")
    with program(block, ASYNCLOOP_WATCHDOG="0.05") as process:
        page = until(
            lambda: next(
                page
                for page in json.loads(look(capsys, "ps", process.pid, "--json"))
                if page["last_stall"] is not None or page["loops"][0]["blocked"] < 0.5
            )
        )
        stalled = until(
            lambda: json.loads(look(capsys, "ps", process.pid, "--json"))[0]["last_stall"]
        )
        assert stalled["still_running"] and stalled["lasted"] >= 0.05
        assert "in block()" in stalled["text"]
        assert page["loops"][0]["utilization"] > 0
        text = look(capsys, "ps", process.pid)
        assert "blocked " in text or "busy" in text
        assert "last stall: loop 1, " in text and "in block()" in text
        # Its tasks are told all the same.
        tree = look(capsys, "tree", process.pid)
        assert "task waiter 2" in tree and "running now" in tree and "in block()" in tree
        states = [
            task["state"]
            for loop in json.loads(look(capsys, "tree", process.pid, "--json"))
            for task in loop["tasks"]
        ]
        assert states.count("running") == 1


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="no call holds the GIL"
)
def test_a_process_that_holds_the_gil(capsys, monkeypatch):
    monkeypatch.setattr(_outside, "_PATIENCE", 0.3)
    hold = SERVICE.replace("BLOCK", "hold")
    with program(hold, ASYNCLOOP_WATCHDOG="0.05") as process:
        # What comes before the call may be told of first; what lasts is told of again.
        until(lambda: "while a call holds the GIL" in look(capsys, "ps", process.pid))
        (page,) = json.loads(look(capsys, "ps", process.pid, "--json"))
        assert "in hold" in page["last_stall"]["text"]
        line = look(capsys, "tree", process.pid, status=2)
        assert f"process {process.pid} does not answer" in line and "last stall: " in line
        # What needs no answer goes on.
        (shown,) = json.loads(look(capsys, "top", process.pid, "--json", "-n1", "-d0.05"))
        assert shown["loops"][0]["utilization"] == pytest.approx(1.0)
        assert "does not answer" in look(capsys, "top", process.pid, "-n1", "-d0.05")


def test_top(capsys, monkeypatch):
    with program(SERVICE.replace("BLOCK", "sleep"), ASYNCLOOP_PAGE="1") as process:
        text = look(capsys, "top", process.pid, "-n", 2, "-d", 0.05)
        assert text.count("TURNS/S") == text.count("WAKEUPS") == 2
        assert text.count("loop 1 in thread MainThread: 7 task(s)") == 2
        assert "waiting" in text and "waiter 0" in text and "in waits()" in text
        lines = look(capsys, "top", process.pid, "--json", "-n", 3, "-d", 0.05).splitlines()
        assert len(lines) == 3
        assert all(json.loads(line)[0]["pid"] == process.pid for line in lines)

        class Clock:
            def __init__(self):
                self.sleeps = 0

            def __getattr__(self, name):
                return getattr(time, name)

            def sleep(self, seconds):
                self.sleeps += 1
                if self.sleeps == 3:
                    process.kill()
                    process.wait()

        monkeypatch.setattr(_ps, "time", Clock())
        text = look(capsys, "top", process.pid, "-d", 0.05)
        assert f"process {process.pid} has ended" in text and text.count("TURNS/S") == 2


def test_by_the_command_line():
    with program(SERVICE.replace("BLOCK", "sleep"), ASYNCLOOP_PAGE="1") as process:
        command = [sys.executable, "-m", "asyncloop", "ps", str(process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FOREVER)
        assert done.returncode == 0 and done.stderr == ""
        assert str(process.pid) in done.stdout
        command[3:] = ["top", str(process.pid), "-d", "0.01"]
        top = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert b"STATE" in top.stdout.readline()
        top.send_signal(signal.SIGINT)
        _, err = top.communicate(timeout=FOREVER)
        assert (top.returncode, err) == (0, b"")
        top = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        top.stdout.readline()
        top.stdout.close()  # as `| head` does
        assert top.stderr.read() == b""
        top.stderr.close()
        assert top.wait(FOREVER) == 0
    done = subprocess.run(
        [sys.executable, "-m", "asyncloop", "ps", str(process.pid)],
        capture_output=True,
        text=True,
        timeout=FOREVER,
    )
    assert done.returncode == 2
    assert done.stderr == f"asyncloop: there is no process {process.pid}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["tree"],
        ["ps", "x"],
        ["ps", "0"],
        ["top", "-5"],
        ["top", "1", "-d", "0"],
        ["top", "1", "-d", "nan"],
        ["top", "1", "-n", "-1"],
        ["ps", "1", "2"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        _ps.main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1


# -- what cannot be looked at --------------------------------------------------------------


def test_a_process_that_is_gone(capsys):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    line = look(capsys, "ps", process.pid, status=2)
    assert line == f"asyncloop: there is no process {process.pid}\n"
    assert "no process" in look(capsys, "tree", 2**31 - 1, status=2)
    assert "no process" in look(capsys, "ps", 2**70, status=2)


def test_a_process_that_has_ended_and_is_not_waited_for(capsys):
    with program("print('ready')", ASYNCLOOP_PAGE="1") as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert str(process.pid) in look(capsys, "ps", process.pid, status=2)


def test_a_process_without_a_page(capsys):
    for code in ("print('ready', flush=True); input()", SERVICE.replace("BLOCK", "sleep")):
        with program(code, ASYNCLOOP_PAGE="0") as process:
            line = look(capsys, "ps", process.pid, status=2)
            assert f"process {process.pid} has no page" in line and "ASYNCLOOP_PAGE=1" in line
            assert line == look(capsys, "top", process.pid, status=2)


@contextlib.contextmanager
def own_page(change):
    """A page of this process, as a file that may be changed."""
    assert _page.acquire()
    try:
        with _outside.open_pages(os.getpid()) as (descriptor,):
            data = bytearray(os.pread(descriptor, 1 << 20, 0))
    finally:
        _page.release()
    fake = os.memfd_create("asyncloop-page")
    try:
        os.write(fake, change(data))
        yield
    finally:
        os.close(fake)


@pytest.mark.parametrize("length", [0, 16, 1000, 4095, 4096, 100_000])
def test_a_page_that_is_truncated(length, capsys):
    with own_page(lambda data: data[:length]):
        assert "is truncated" in look(capsys, "ps", os.getpid(), status=2)


@pytest.mark.parametrize("offset", [16, 20, 24, 28, 32, 36])
def test_a_page_of_another_version(offset, capsys):
    def change(data):
        data[offset] += 1
        return data

    with own_page(change):
        line = look(capsys, "ps", os.getpid(), status=2)
        assert "has version " in line and f"of asyncloop {asyncloop.__version__}" in line
        assert f"this one reads version {_core._page_layout()[0]}" in line


def test_a_page_that_is_something_else(capsys):
    with own_page(lambda data: b"x" * len(data)):
        assert "something else" in look(capsys, "ps", os.getpid(), status=2)
    with own_page(lambda data: data[:16] + data[16:]):
        # A copy is as good; whoever it tells of does not answer any more.
        assert "STATE" in look(capsys, "ps", os.getpid())
        assert "does not answer" in look(capsys, "tree", os.getpid(), status=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_process_of_another_user(capsys):
    """Asked by a child that has given up its rights."""
    code = """
    import os, sys
    from asyncloop import _ps
    _ps._parser().format_help()  # imports what nobody else may read
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    sys.exit(_ps.main(["ps", sys.argv[1]]))
    """
    with program(SERVICE.replace("BLOCK", "sleep"), ASYNCLOOP_PAGE="1") as process:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(process.pid)],
            capture_output=True,
            text=True,
            timeout=FOREVER,
        )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"asyncloop: process {process.pid} belongs to another user (0)\n"


# -- the page ------------------------------------------------------------------------------


def pages_of_this_process():
    with contextlib.suppress(_outside.Trouble):
        return _outside.read_process(os.getpid())
    return []


def test_it_is_private_and_cannot_be_cut():
    assert pages_of_this_process() == []
    assert _page.acquire() and _page.acquire()
    try:
        with _outside.open_pages(os.getpid()) as (descriptor,):
            about = os.fstat(descriptor)
            assert stat.S_IMODE(about.st_mode) == 0o600
            assert about.st_uid == os.geteuid()
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            assert seals & fcntl.F_SEAL_SHRINK and seals & fcntl.F_SEAL_SEAL
    finally:
        _page.release()
        assert len(pages_of_this_process()) == 1
        _page.release()
    assert pages_of_this_process() == []


def test_loops_come_and_go():
    assert _page.acquire()
    try:
        loops = [asyncloop.new_event_loop() for _ in range(70)]
        (page,) = pages_of_this_process()
        assert len(page.loops) == 63 and page.not_shown == 7
        numbers = [loop.stats().loop for loop in loops]
        assert [seen.stats.loop for seen in page.loops] == numbers[:63]
        assert {seen.state for seen in page.loops} == {"stopped"}
        for loop in loops:
            loop.close()
        del loop
        loops.clear()
        assert pages_of_this_process()[0].loops == ()
        again = asyncloop.new_event_loop()
        again.run_until_complete(asyncio.sleep(0))
        (seen,) = pages_of_this_process()[0].loops
        assert seen.stats.turns == again.stats().turns > 0
        assert seen.native_thread == threading.get_native_id()
    finally:
        _page.release()
    # It counts on where nobody sees it, also in the next page, which does not have it.
    before = again.stats()
    again.run_until_complete(asyncio.sleep(0))
    assert again.stats().turns > before.turns
    assert _page.acquire()
    assert pages_of_this_process()[0].loops == ()
    _page.release()
    again.close()


def test_what_is_read_is_what_is_counted():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        time.sleep(0.01)
        await asyncio.sleep(0)
        (seen,) = pages_of_this_process()[0].loops
        own = loop.stats()
        for name in ("loop", "turns", "callbacks", "task_steps", "tasks", "idle", "transports"):
            assert getattr(seen.stats, name) == getattr(own, name), name
        assert 0 <= own.busy - seen.stats.busy < 1
        assert seen.state in ("busy",) or seen.state.startswith("blocked")
        assert seen.stats.delay.max <= own.delay.max

    assert _page.acquire()
    try:
        asyncloop.run(main())
    finally:
        _page.release()


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="without a GIL they stay"
)
def test_a_loop_that_sleeps_has_nothing_ready_and_all_its_timers():
    """What it did before it fell asleep is in the page."""
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        wake = loop.create_future()

        def look():
            until(lambda: loop.stats().asleep)
            (process,) = _outside.read_process(os.getpid())
            (found,) = [each.stats for each in process.loops if each.stats.loop == number]
            seen.append((found.ready, found.timers))
            loop.call_soon_threadsafe(wake.set_result, None)

        await asyncio.sleep(0.001)
        number = loop.stats().loop
        timers = [loop.call_later(1000, print) for _ in range(5)]
        thread = threading.Thread(target=look)
        thread.start()
        await wake
        thread.join()
        for timer in timers:
            timer.cancel()

    assert _page.acquire()
    try:
        asyncloop.run(main())
    finally:
        _page.release()
    assert seen == [(0, 5)]


def test_a_loop_that_runs_already_moves_there():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        before = loop.stats()
        with asyncloop.watchdog(5):
            await asyncio.sleep(0.001)
            (page,) = pages_of_this_process()
            (seen,) = page.loops
            assert seen.stats.loop == before.loop
            assert seen.stats.turns == loop.stats().turns > before.turns
            assert seen.stats.idle >= before.idle > 0
        assert pages_of_this_process() == []
        await asyncio.sleep(0.001)
        after = loop.stats()
        assert after.turns > seen.stats.turns and after.idle >= seen.stats.idle

    asyncloop.run(main())


def test_a_stall_is_noted():
    async def main():
        until(lambda: any(f.name == "main" for stall in dog.stalls for f in stall.stack))
        await asyncio.sleep(0)

    with asyncloop.watchdog(0.05, on_stall=lambda stall: None) as dog:
        asyncloop.run(main())
        stall = until(lambda: pages_of_this_process()[0].stall)
        until(lambda: not pages_of_this_process()[0].stall.still_running)
        assert re.search(r"in main\b", stall.text) and stall.lasted > 0
        _core._page_note(7, 1.5, True, "x" * 5000)
        stall = pages_of_this_process()[0].stall
        assert (stall.loop, stall.lasted, stall.still_running) == (7, 1.5, True)
        assert stall.text == "x" * 2047
    _core._page_note(7, 1.5, True, "nobody reads it")


def test_a_watchdog_may_be_without_it(monkeypatch):
    monkeypatch.setenv("ASYNCLOOP_PAGE", "0")
    with asyncloop.watchdog(5):
        assert pages_of_this_process() == []


def test_no_page_is_to_be_had(monkeypatch, capsys):
    def fails(*args):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_core, "_page_open", fails)
    monkeypatch.setenv("ASYNCLOOP_PAGE", "1")
    asyncloop._start("_page", "ASYNCLOOP_PAGE")
    assert capsys.readouterr().err == "asyncloop: ASYNCLOOP_PAGE: [Errno 24] Too many open files\n"
    with asyncloop.watchdog(5):
        pass


def test_bytes_that_are_no_slot():
    with pytest.raises(ValueError, match="not the bytes"):
        _core._page_counters(b"x")
    with pytest.raises(ValueError, match="not the bytes"):
        _core._page_counters("x")
    size = _core._page_layout()[4]
    assert _core._page_counters(bytes(size)) is None
    for garbage in (b"\xff" * size, b"\x7f" * size, b"\x80" * size, os.urandom(size)):
        _outside.stats_of(_core._page_counters(b"\x01" + garbage[1:]))


def test_somebody_closes_its_descriptor():
    """A program that closes all descriptors that it does not know: there is no page any more."""
    assert _page.acquire()
    try:
        loop = asyncloop.new_event_loop()
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith("/memfd:asyncloop-page"):
                    os.close(int(number))
                    taken = os.open(os.devnull, os.O_RDONLY)
        assert pages_of_this_process() == []
        loop.run_until_complete(asyncio.sleep(0.001))
    finally:
        _page.release()
    os.fstat(taken)  # it was not closed in its place
    os.close(taken)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert loop.stats().turns > 0
    loop.close()


def test_fork(capsys):
    """A child has a page of its own, and does not count in its parent's."""
    code = """
    import asyncio, os, sys
    import asyncloop

    async def turns(n):
        for _ in range(n):
            await asyncio.sleep(0)

    loop = asyncloop.new_event_loop()
    loop.run_until_complete(turns(3))
    print("ready", flush=True)
    child = os.fork()
    if child == 0:
        loop.run_until_complete(turns(1000))
        new = asyncloop.new_event_loop()
        new.run_until_complete(turns(2000))
        print(os.getpid(), flush=True)
        sys.stdin.readline()
        os._exit(0)
    os.waitpid(child, 0)
    """
    with program(code, ASYNCLOOP_PAGE="1", PYTHONWARNINGS="ignore") as process:
        child = int(process.stdout.readline())
        (parent_page,) = json.loads(look(capsys, "ps", process.pid, "--json"))
        (child_page,) = json.loads(look(capsys, "ps", child, "--json"))
        (loop,) = parent_page["loops"]
        assert loop["turns"] < 100
        (loop,) = child_page["loops"]
        assert loop["turns"] >= 2000
        assert child_page["pid"] == child
        assert "running loop" in look(capsys, "tree", child)
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(FOREVER)


def test_loops_of_threads_that_come_and_go_while_they_are_read():
    stop = threading.Event()
    wrong = []

    async def main():
        for _ in range(20):
            await asyncio.sleep(0)

    def works():
        try:
            while not stop.is_set():
                asyncloop.run(main())
        except Exception as error:
            wrong.append(error)

    assert _page.acquire()
    threads = [threading.Thread(target=works) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            (page,) = pages_of_this_process()
            assert len(page.loops) <= 8
            for seen in page.loops:
                assert seen.stats.turns < 1000
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        _page.release()
    assert not wrong


def test_top_tells_what_tasks_have_cost_where_that_is_counted(capsys):
    asleep = SERVICE.replace("BLOCK", "sleep")
    for value, counted in (("1", True), ("0", False)):
        env = {"ASYNCLOOP_PAGE": "1", "ASYNCLOOP_TASK_ACCOUNTING": value}
        with program(asleep, **env) as process:
            (loop,) = json.loads(look(capsys, "tree", process.pid, "--json"))
            (task,) = [task for task in loop["tasks"] if task["name"] == "waiter 0"]
            assert (task["steps"], task["wakeups"]) == ((1, 1) if counted else (None, None))
            assert (task["ran"] or 0) >= 0 and (task["ran"] is not None) == counted
            text = look(capsys, "top", process.pid, "-n", 1, "-d", 0.01)
            (row,) = [line for line in text.splitlines() if " waiter 0 " in line]
            assert (row.split()[3:7].count("-") == 4) == (not counted), row


def test_top_is_text_on_a_terminal_without_textual():
    code = """
    import sys
    sys.modules["textual"] = None
    from asyncloop import _ps
    sys.exit(_ps.main(["top", sys.argv[1], "-d", "0.01"]))
    """
    ours, theirs = os.openpty()
    with program(SERVICE.replace("BLOCK", "sleep"), ASYNCLOOP_PAGE="1") as process:
        command = [sys.executable, "-c", textwrap.dedent(code), str(process.pid)]
        top = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        text = b""
        while b"waiter 0" not in text:
            text += os.read(ours, 4096)
        assert b"\x1b[2J" in text and b"WAKEUPS" in text
        process.kill()
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                text += os.read(ours, 4096)
        os.close(ours)
        assert top.wait(FOREVER) == 0
        assert b"has ended" in text
