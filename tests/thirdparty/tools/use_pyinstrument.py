"""pyinstrument: the time in which a task waits is the await's, not the loop's."""

import asyncio

from looped import run
from pyinstrument import Profiler


async def work():
    for _ in range(3):
        await asyncio.sleep(0.1)


async def main():
    with Profiler(interval=0.001) as profiler:
        await work()
    return profiler.output_text(show_all=True)


text = run(main())
assert "[await]" in text, text
assert "work" in text, text
assert "asyncloop/" not in text, text
print("works")
