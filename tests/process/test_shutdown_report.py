"""ASYNCLOOP_SHUTDOWN: what holds up the end of a program. asyncio has nothing like it."""

import subprocess
import sys

import pytest

from tests.support import FREE_THREADED, Impl, import_root, run_script

OURS = Impl.named("asyncloop")
LONG = 4 if FREE_THREADED else 1
"""Seconds that the end takes. Without a GIL the loop's thread is asked first, and waited for."""

PROGRAM = """
import asyncloop, time

async def stubborn():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        await asyncio.sleep({stubborn})

async def numbers():
    try:
        yield 1
    finally:
        await asyncio.sleep({generator})

async def main():
    asyncio.create_task(stubborn(), name="stubborn")
    server = await asyncio.start_server(lambda *pair: served.append(pair), "127.0.0.1", 0)
    kept.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
    kept.append(numbers())
    await kept[-1].__anext__()
    loop = asyncio.get_running_loop()
    if {executor}:
        loop.run_in_executor(None, work)
    await asyncio.sleep(0.01)

def work():
    time.sleep({executor})

kept, served = [], []
if {runner}:
    with asyncio.Runner(loop_factory=asyncloop.new_event_loop) as runner:
        runner.run(main())
else:
    asyncloop.run(main())
kept[0][1].transport.abort = int
import warnings
warnings.simplefilter("ignore")
"""


def run(bound, **values):
    values = {"stubborn": 0, "generator": 0, "executor": 0, "runner": False, **values}
    done = run_script(OURS, PROGRAM.format(**values), env={"ASYNCLOOP_SHUTDOWN": str(bound)})
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("runner", [False, True])
def test_report(runner):
    text = run(0.2, stubborn=LONG, executor=LONG, runner=runner)
    assert text.count("the end of the program takes") == 1
    head = next(line for line in text.splitlines() if "the end of the program" in line)
    for part in ("1 task(s)", "2 connection(s)", "1 call(s) in the default", "1 async generator"):
        assert part in head
    assert "task stubborn was cancelled 1 time(s) and goes on:" in text
    assert "in stubborn()" in text
    assert "in work()" in text
    assert "in numbers()" in text
    assert "bytes buffered, peer ('127.0.0.1'" in text


def test_later_parts():
    """Tasks are gone, and the generators hold it up, or the executor."""
    assert "in numbers()" in run(0.2, generator=1)
    text = run(0.2, executor=1)
    assert "1 call(s) in the default executor" in text
    assert "in work()" in text


INTERRUPTED = """
import asyncloop, logging, os, signal, time

class Told(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())

async def main():
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        GOES_ON
    holds.append(asyncio.create_task(hold()))
    await asyncio.sleep(0)

async def hold():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        while len(told) < WANTED:
            await asyncio.sleep(0.01)

holds, told = [], []
logging.getLogger("asyncio").addHandler(Told())
asyncloop.run(main())
print(*told, sep="\\n")
"""


def interrupted(bound, *goes_on, wanted=0):
    source = INTERRUPTED.replace("GOES_ON", "\n        ".join(goes_on))
    source = source.replace("WANTED", str(wanted))
    done = run_script(OURS, source, env={"ASYNCLOOP_SHUTDOWN": str(bound)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["await asyncio.sleep(0.01)", "time.sleep(0.01)"])
def test_ctrl_c_that_main_swallows(how):
    text = interrupted(0.2, "while not told:", f"    {how}")
    assert text.count("the end of the program takes") == 1
    assert "was cancelled 1 time(s) and goes on:" in text and "in main()" in text


def test_main_that_says_that_it_goes_on_after_ctrl_c():
    goes_on = "asyncio.current_task().uncancel()", "await asyncio.sleep(1)"
    assert interrupted(0.5, *goes_on).strip() == ""


def test_the_end_after_a_ctrl_c_that_was_swallowed():
    """The time counts from the Ctrl-C. After the record of that one the end has its own."""
    text = interrupted(1, "pass", wanted=1)
    assert text.count("the end of the program takes") == 1 and "in hold()" in text
    text = interrupted(0.2, "while not told:", "    await asyncio.sleep(0.01)", wanted=2)
    assert text.count("the end of the program takes") == 2 and "in hold()" in text


def test_no_report_in_time():
    assert "the end of the program" not in run(30)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "1e99"])
def test_bad_value(value):
    done = run_script(OURS, "import asyncloop\nprint('goes on')", env={"ASYNCLOOP_SHUTDOWN": value})
    assert done.stdout == "goes on\n"
    assert done.stderr.count("\n") == 1
    assert f"ASYNCLOOP_SHUTDOWN={value!r}" in done.stderr


def test_blocked_loop():
    """A task that catches its cancellation and blocks: the record comes during the block."""
    source = f"BLOCKS = {LONG}" + """
import asyncloop, time

async def blocks():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        time.sleep(BLOCKS)
        print("over", file=sys.stderr)

async def main():
    asyncio.create_task(blocks(), name="blocks")
    await asyncio.sleep(0)

asyncloop.run(main())
"""
    done = run_script(OURS, source, env={"ASYNCLOOP_SHUTDOWN": "0.1"})
    assert done.returncode == 0
    report, _, rest = done.stderr.partition("over")
    assert "task blocks was cancelled 1 time(s)" in report
    assert "in blocks()" in report


def test_a_repr_that_raises_is_contained():
    source = """
import asyncloop

class Evil(asyncio.Future):
    def __repr__(self):
        raise KeyError("no")

async def waits(future):
    try:
        await future
    except asyncio.CancelledError:
        await asyncio.sleep(0.5)
        await later

async def main():
    global later
    later = Evil()
    asyncio.get_running_loop().call_later(0.4, later.set_result, 1)
    asyncio.create_task(waits(Evil()), name="waits")
    await asyncio.sleep(0)

asyncloop.run(main())
"""
    done = run_script(OURS, source, env={"ASYNCLOOP_SHUTDOWN": "0.1"})
    assert done.returncode == 0
    assert "task waits was cancelled" in done.stderr


@pytest.mark.parametrize("method", ["get_name", "get_coro", "cancelling"])
@pytest.mark.parametrize("error", ["ValueError", "SystemExit"])
def test_a_task_that_raises_is_contained(method, error):
    """The other one is told of all the same."""
    source = f"""
import asyncloop, io, threading

class Evil(asyncio.Task):
    evil = False
    def {method}(self):
        if Evil.evil:
            raise {error}
        return super().{method}()

async def waits():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        await asyncio.sleep(0.6)

async def main():
    loop = asyncio.get_running_loop()
    evil = Evil(waits(), loop=loop)
    good = loop.create_task(waits(), name="the good one")
    await asyncio.sleep(0)
    Evil.evil = True
    text = io.StringIO()
    asyncloop.dump(text)
    assert "task the good one" in text.getvalue() and text.getvalue().count("in waits()") >= 1
    return evil, good

kept = asyncloop.run(main())
"""
    done = run_script(OURS, source, env={"ASYNCLOOP_SHUTDOWN": "0.1"})
    assert done.returncode == 0, done.stderr
    assert "task the good one was cancelled 1 time(s)" in done.stderr, done.stderr
    assert "2 task(s)" in done.stderr


def test_nothing_is_imported_without_it():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, asyncloop; print('asyncloop._shutdown' in sys.modules)",
        ],
        cwd=import_root(OURS),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
