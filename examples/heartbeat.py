"""A sign of life while the real work goes on, and its orderly end afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pulse:
    def __init__(self) -> None:
        self.beats = 0
        self.beaten = asyncio.Condition()

    async def run(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            async with self.beaten:
                self.beats += 1
                if self.beats <= 3:
                    print("beat", self.beats)
                self.beaten.notify_all()


@asynccontextmanager
async def heartbeat(seconds: float) -> AsyncIterator[Pulse]:
    """Beats as long as the block runs; the block's own errors are not hidden."""
    pulse = Pulse()
    task = asyncio.create_task(pulse.run(seconds), name="heartbeat")
    try:
        yield pulse
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        print("heartbeat stopped:", task.cancelled())


async def main() -> None:
    async with heartbeat(0.01) as pulse:
        print("work begins")
        async with pulse.beaten:  # stands for work that takes as long as three beats
            await pulse.beaten.wait_for(lambda: pulse.beats >= 3)
        print("work ends")

    try:
        async with heartbeat(0.01):
            raise RuntimeError("the work failed")
    except RuntimeError as error:
        print("caught:", error)


if __name__ == "__main__":
    asyncio.run(main())
