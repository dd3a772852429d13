"""Something every so often: in a steady rhythm, whatever it takes, and although it sometimes fails.

The next turn is counted from the plan, not from the end of the last one, so the rhythm does not
drift; turns that were missed are left out.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable


async def every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Run `action` every so many seconds until cancelled; errors are reported, not fatal."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    turn = 0
    while True:
        turn = max(turn + 1, math.ceil((loop.time() - start) / seconds))
        await asyncio.sleep(start + turn * seconds - loop.time())
        try:
            await action()
        except Exception as error:
            print("this turn failed:", error)


class Probe:
    def __init__(self) -> None:
        self.readings = 0
        self.enough = asyncio.Event()

    async def read(self) -> None:
        self.readings += 1
        if self.readings == 2:
            raise OSError("sensor busy")
        print("reading", self.readings)
        if self.readings == 4:
            self.enough.set()
            await asyncio.sleep(3600)  # to be cancelled in the middle of a turn


async def main() -> None:
    probe = Probe()
    task = asyncio.create_task(every(0.01, probe.read))
    await probe.enough.wait()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("stopped after", probe.readings)

    # The same with call_later, without a task: a callback that sets itself up again.
    loop = asyncio.get_running_loop()
    ticks = asyncio.Queue()

    def tick(count: int) -> None:
        ticks.put_nowait(count)
        timer[:] = [loop.call_later(0.01, tick, count + 1)]

    timer = [loop.call_soon(tick, 1)]
    print("ticks:", [await ticks.get() for _ in range(3)])
    timer[0].cancel()


if __name__ == "__main__":
    asyncio.run(main())
