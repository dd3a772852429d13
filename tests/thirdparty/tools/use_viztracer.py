"""viztracer with --log_async: calls of coroutines, each below its task."""

import json
import os
import subprocess
import sys

PROGRAM = """
import asyncio
from looped import run

async def child():
    await asyncio.sleep(0.001)

async def main():
    await asyncio.gather(asyncio.create_task(child(), name="one"), child())

run(main())
"""

with open("program.py", "w") as file:
    file.write(PROGRAM)
command = [os.path.join(os.path.dirname(sys.executable), "viztracer"), "--log_async", "--quiet"]
subprocess.run([*command, "-o", "result.json", "program.py", sys.argv[1]], check=True)
with open("result.json") as file:
    events = json.load(file)["traceEvents"]
names = [event["name"] for event in events if event["name"].startswith("child ")]
assert len(names) >= 2, names
assert any(event.get("args", {}).get("name") == "one" for event in events), events[:3]
print("works")
