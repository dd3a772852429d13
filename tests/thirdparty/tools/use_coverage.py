"""coverage sees the lines of coroutines, tasks, callbacks and of a thread of the executor."""

import os
import subprocess
import sys

PROGRAM = """
import asyncio
from looped import run

def in_thread():
    return 1

def callback():
    seen.append(1)

async def child():
    await asyncio.sleep(0.001)
    return 2

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(callback)
    assert await loop.run_in_executor(None, in_thread) == 1
    assert await asyncio.create_task(child()) == 2

seen = []
run(main())
assert seen
"""

with open("program.py", "w") as file:
    file.write(PROGRAM)
command = [sys.executable, "-m", "coverage"]
subprocess.run([*command, "run", "--include=program.py", "program.py", sys.argv[1]], check=True)
report = subprocess.run([*command, "report"], capture_output=True, text=True, check=True).stdout
assert "100%" in report, report
assert os.path.exists(".coverage")
print("works")
