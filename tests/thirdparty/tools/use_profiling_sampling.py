"""The interpreter's own sampling profiler (3.15) shows tasks, below those that await them."""

import subprocess
import sys

PROGRAM = """
import asyncio, time
from looped import run

async def computes():
    while True:
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            pass
        await asyncio.sleep(0.001)

async def waits():
    await asyncio.sleep(1000)

async def parent():
    async with asyncio.TaskGroup() as group:
        group.create_task(computes(), name="the one that computes")
        group.create_task(waits(), name="the one that waits")
        print("runs", flush=True)

run(parent())
"""

PROFILER = [sys.executable, "-m", "profiling.sampling", "attach", "--async-aware"]

with subprocess.Popen(
    [sys.executable, "-c", PROGRAM, sys.argv[1]], stdout=subprocess.PIPE, text=True
) as child:
    try:
        child.stdout.readline()
        shown = {}
        for mode in ("running", "all"):
            options = ["--async-mode", mode, "-d", "2", "--collapsed", "-o", f"{mode}.txt"]
            done = subprocess.run(
                [*PROFILER, *options, str(child.pid)], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stdout + done.stderr
            with open(f"{mode}.txt") as file:
                shown[mode] = file.read()
    finally:
        child.kill()
for function, name in (("computes", "the one that computes"), ("waits", "the one that waits")):
    lines = [line for line in shown["all"].splitlines() if function in line]
    assert lines and all("parent" in line for line in lines), shown["all"]
    assert any(name in line for line in lines), shown["all"]
assert "computes" in shown["running"] and "waits" not in shown["running"], shown["running"]
print("works")
