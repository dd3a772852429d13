"""ddtrace's profiler knows tasks by name, those that wait as well as the one that runs."""

import glob
import os
import re
import subprocess
import sys

PROGRAM = """
import asyncio, time
from looped import OURS, new_event_loop, run

async def waiting():
    await asyncio.sleep(30)

async def busy():
    until = time.monotonic() + 3
    while time.monotonic() < until:
        for _ in range(10_000):
            pass
        await asyncio.sleep(0)

async def main():
    tasks = [asyncio.create_task(waiting(), name=f"waiting-{n}") for n in range(5)]
    await asyncio.create_task(busy(), name="busy-task")
    for task in tasks:
        task.cancel()

# It does not learn of the standard loop where that comes from a factory.
run(main()) if OURS else asyncio.run(main())
"""

env = {
    **os.environ,
    "DD_TRACE_ENABLED": "false",
    "DD_PROFILING_ENABLED": "1",
    "DD_PROFILING_OUTPUT_PPROF": os.path.abspath("profile"),
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
}
command = [os.path.join(os.path.dirname(sys.executable), "ddtrace-run"), sys.executable]
subprocess.run([*command, "-c", PROGRAM, sys.argv[1]], env=env, check=True)

import zstandard

found = set()
for name in glob.glob("profile*.pprof"):
    with open(name, "rb") as file:
        data = zstandard.ZstdDecompressor().decompressobj().decompress(file.read())
    found |= set(re.findall(rb"waiting-\d|busy-task", data))
wanted = {b"busy-task", *(b"waiting-%d" % n for n in range(5))}
assert wanted <= found, found
print("works")
