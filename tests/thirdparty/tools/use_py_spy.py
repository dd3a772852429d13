"""py-spy shows the line at which a loop is, from outside of the process."""

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
        command = [os.path.join(os.path.dirname(sys.executable), "py-spy"), "dump"]
        text = subprocess.run(
            [*command, "--pid", str(child.pid)], capture_output=True, text=True, timeout=60
        )
    finally:
        child.kill()
assert "blocked (<string>:7)" in text.stdout, text
assert "run_forever" in text.stdout, text
print("works")
