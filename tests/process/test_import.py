"""What `import asyncloop` and the first loop bring along: nothing that asyncio has not imported.

But for `typing`, from 3.14 on: asyncio does without it there, hardly any program does.
"""

import subprocess
import sys

PROGRAM = """\
import asyncio, sys
before = set(sys.modules)
import asyncloop
async def main(): ...
asyncloop.run(main())
print(*sorted(set(sys.modules) - before))
"""


def test_modules():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    brought = done.stdout.split()
    assert "asyncloop._core" in brought
    assert "asyncloop._views" not in brought  # for whoever looks inside of a loop
    known = {"typing", "_typing"} if sys.version_info >= (3, 14) else set()
    assert {name for name in brought if name.split(".")[0] != "asyncloop"} <= known
