"""The pretty-printers of tools/gdb: what they show of a process that gdb has stopped."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support import PY, ROOT, import_root

PRINTERS = ROOT / "tools" / "gdb" / "asyncloop_gdb.py"
pytestmark = [
    pytest.mark.our_loop("asyncio has no C structs of a loop"),
    pytest.mark.skipif(not shutil.which("gdb"), reason="there is no gdb here"),
    pytest.mark.skipif(not PRINTERS.exists(), reason="no source tree"),
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="gdb itself would run with it"),
]

PROGRAM = """\
import asyncio, os, signal, sys
import asyncloop

async def sleeper():
    await asyncio.get_running_loop().create_future()

async def main():
    loop = asyncio.get_running_loop()
    waited = loop.create_future()
    waited.add_done_callback(print)
    failed = loop.create_future()
    failed.set_exception(ValueError())
    failed.exception()
    named = asyncio.create_task(sleeper(), name="the sleeper")
    unnamed = asyncio.create_task(sleeper())
    for _ in range(3):
        await asyncio.sleep(0)
    loop.call_soon(print)
    loop.call_later(1000, print)
    other = asyncio.create_task(sleeper())
    kinds = {"Loop": [loop], "Task": [named, unnamed], "Future": [waited, failed]}
    with open(sys.argv[1], "w") as file:
        for kind, objects in kinds.items():
            for one in objects:
                print(f"print *(struct {kind} *){id(one)}", file=file)
    os.kill(os.getpid(), signal.SIGUSR1)
    os._exit(0)

asyncloop.run(main())
"""


@pytest.fixture
def shown(impl, tmp_path):
    """What gdb prints of the loop, two tasks and two futures."""
    commands = tmp_path / "commands"
    gdb = ["gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", f"source {PRINTERS}"]
    for command in "set print pretty off", "run", f"source {commands}", "kill":
        gdb += ["-ex", command]
    done = subprocess.run(
        [*gdb, "--args", sys.executable, "-c", PROGRAM, str(commands)],
        env={**os.environ, "PYTHONPATH": import_root(impl)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=55,
    )
    output = done.stdout
    if "SIGUSR1" not in output:
        pytest.skip(f"gdb can run no program here: {output[-300:]}")
    if "No struct type named Loop" in output:
        pytest.skip("the extension has no debug information")
    return [line.partition(" = ")[2] for line in output.splitlines() if line.startswith("$")]


def test_printers(shown):
    loop, named, unnamed, waited, failed = (re.sub("asyncloop[.](_core[.])?", "", s) for s in shown)
    assert loop.startswith("Loop, running, 2 ready, 1 timers = {ready = ring of 2, room for ")
    assert "{[0] = handle <Handle at 0x" in loop
    assert ", [1] = task <Task at 0x" in loop
    assert "current_task = <Task at 0x" in loop
    assert named.startswith("Task 'the sleeper', pending, 0 waiting = {coro = <coroutine at 0x")
    # From 3.14 on the headers do not say how a coroutine is laid out.
    assert "of sleeper(), waiter = <Future at 0x" in named or PY >= (3, 14)
    assert unnamed.startswith("Task 'Task-")
    assert waited.startswith("Future, pending, 1 waiting = {loop = <Loop at 0x")
    assert "outcome = NULL, callback0 = <builtin_function_or_method at 0x" in waited
    assert failed.startswith("Future, failed, 0 waiting")
    assert "outcome = <ValueError at 0x" in failed
