"""`python -m asyncloop top` with textual: what the view shows of another process."""

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

from .table import environment

if importlib.util.find_spec("textual") is None:
    pytest.skip("in an environment of its own: make selection", allow_module_level=True)

SERVICE = """
import asyncio, asyncloop, time

async def waits():
    await asyncio.sleep(1000)

async def main():
    tasks = [asyncio.create_task(waits(), name=f"[b]waiter {n}") for n in range(3)]
    await asyncio.sleep(0)
    time.sleep(0.5)
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncloop.run(main())
"""


@contextlib.contextmanager
def service():
    env = environment()
    env |= {"ASYNCLOOP_WATCHDOG": "0.1", "ASYNCLOOP_TASK_ACCOUNTING": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(condition)


def test_the_view():
    from textual.widgets import DataTable, Static

    from asyncloop._ps import Watch
    from asyncloop._top import Top

    async def main(process):
        app = Top(Watch(process.pid), 0.05)
        async with app.run_test(size=(160, 40)) as pilot:
            tasks = app.query_one("#tasks", DataTable)
            loops = app.query_one("#loops", DataTable)
            await until(lambda: tasks.row_count == 4)
            (row,) = [loops.get_row_at(n) for n in range(loops.row_count)]
            assert row[0] == str(process.pid) and row[2] == "asleep"
            await until(lambda: "last stall" in str(app.query_one("#stall", Static).render()))
            rows = [tasks.get_row_at(n) for n in range(4)]
            names = {row[2] for row in rows}
            assert "[b]waiter 0" in names
            await pilot.press("down", "down")
            chosen = tasks.get_row_at(tasks.cursor_row)[2]
            places = app.query_one("#places", Static)
            await until(lambda: "in sleep()" in str(places.render()))
            # It stays chosen when the table is filled again.
            await asyncio.sleep(0.3)
            assert tasks.get_row_at(tasks.cursor_row)[2] == chosen
            await pilot.press("p")
            assert app.sub_title == "paused"
            await pilot.press("p")
            process.kill()
            await until(lambda: app.return_value is not None)
        return app.return_value

    with service() as process:
        assert asyncio.run(main(process)) == f"process {process.pid} has ended"


def test_by_the_command_line():
    """On a terminal it is the view, and it goes with q."""
    with service() as process:
        ours, theirs = os.openpty()
        top = subprocess.Popen(
            [sys.executable, "-m", "asyncloop", "top", str(process.pid), "-d", "0.1"],
            env={**environment(), "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # its end
            while b"waiter 2" not in text:
                text += os.read(ours, 65536)
            os.write(ours, b"q")
            while True:
                text += os.read(ours, 65536)
        os.close(ours)
        assert top.wait(60) == 0, text[-2000:]
        assert b"\x1b[?1049h" in text and b"waiter 2" in text


def test_without_a_page_it_is_one_line():
    code = textwrap.dedent("""
        import sys
        sys.stdout.isatty = lambda: True
        from asyncloop import _ps
        sys.exit(_ps.main(["top", sys.argv[1]]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(os.getpid())],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "has no page" in done.stderr
