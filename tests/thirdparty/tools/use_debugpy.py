"""A program runs under debugpy, with its tracing on."""

import subprocess
import sys

PROGRAM = """
import asyncio
from looped import run

async def child(n):
    await asyncio.sleep(0.001)
    return n

async def main():
    assert await asyncio.gather(*(child(n) for n in range(3))) == [0, 1, 2]

run(main())
print("program has run")
"""

with open("program.py", "w") as file:
    file.write(PROGRAM)
done = subprocess.run(
    [sys.executable, "-Xfrozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:0"]
    + ["program.py", sys.argv[1]],
    capture_output=True,
    text=True,
    timeout=60,
)
assert done.returncode == 0, done.stderr
assert "program has run" in done.stdout, done
print("works")
