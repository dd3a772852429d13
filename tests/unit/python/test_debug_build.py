"""The build that checks itself (ASYNCLOOP_DEBUG=1), and that no other has any of it."""

import pathlib
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from asyncloop import _core

CHECKED = hasattr(_core, "_break")

# What is broken, how the object comes about that it is broken in, and who finds it.
BROKEN = {
    "ring": ("None", "ready_verify"),
    "heap": ("loop.call_later(1000, int) and loop.call_later(1, int)", "timer_verify"),
    "inbox": ("None", "inbox_verify"),
    "table": ("(await pair()).transport", "watch_verify"),
    "watch": ("(await pair()).transport", "watch_verify_list"),
    "queue": ("(await pair(full=True)).transport", "wqueue_verify"),
    "transport": ("(await pair()).transport", "transport_verify"),
    "scratch": ("None", "loop_verify"),
    "owed": ("None", "owed_verify"),
    "future": ("waited_for()", "future_verify"),
    "waiters": ("waited_for()", "future_verify_waiters"),
    # Its node, which is in the list of all tasks, too: who comes first depends on what runs.
    "tasks": ("asyncio.current_task()", "(task|all_tasks)_verify"),
}

PROGRAM = """
import asyncio, socket, asyncloop
from asyncloop import _core

kept = []

def waited_for():
    future = asyncio.get_running_loop().create_future()
    async def wait():
        await future
    kept.append(asyncio.ensure_future(wait()))
    return future

async def pair(full=False):
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=one)
    kept.extend([other, reader, writer])
    if full:
        writer.write(bytes(10_000_000))
    return writer

async def main():
    loop = asyncio.get_running_loop()
    object = OBJECT
    await asyncio.sleep(0.01)
    print("broken", flush=True)
    _core._break(WHAT, loop, object)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print("not found", flush=True)

asyncloop.run(main())
"""


def test_other_builds_have_nothing_of_it():
    code = pathlib.Path(_core.__file__).read_bytes()
    assert (b"this does not hold" in code) == CHECKED
    # Where `make` has built it, with its own switches.
    switches = pathlib.Path(sys.prefix, ".switches")
    if switches.exists() and pathlib.Path(_core.__file__).parents[1] == switches.parents[1]:
        assert CHECKED == ("debug=1" in switches.read_text())


@pytest.mark.skipif(not CHECKED, reason="a build with ASYNCLOOP_DEBUG=1 only")
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(what):
    made, finder = BROKEN[what]
    program = textwrap.dedent(PROGRAM).replace("WHAT", repr(what)).replace("OBJECT", made)
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout == "broken\n"
    assert re.search(f" {finder}: this does not hold: ", result.stderr)
    assert result.returncode == -signal.SIGABRT
