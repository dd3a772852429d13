"""pystack shows the stack of a process whose loop is blocked."""

import os
import subprocess
import sys

PROGRAM = """
import asyncio, time
from looped import run

async def blocked():
    print("blocks", flush=True)
    time.sleep(60)

run(blocked())
"""

with subprocess.Popen(
    [sys.executable, "-c", PROGRAM, sys.argv[1]], stdout=subprocess.PIPE, text=True
) as child:
    try:
        child.stdout.readline()
        command = [os.path.join(os.path.dirname(sys.executable), "pystack"), "remote"]
        text = subprocess.run(
            [*command, str(child.pid)], capture_output=True, text=True, timeout=60
        )
    finally:
        child.kill()
assert "blocked" in text.stdout, text
assert "run_forever" in text.stdout, text
print("works")
