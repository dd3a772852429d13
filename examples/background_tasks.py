"""Tasks that nobody awaits: keep them alive, and hear of their failures.

The loop holds tasks weakly, so a task that is only waiting for something can be collected when no
one else refers to it. A set of running tasks keeps them; a callback takes each one out and reports
how it ended.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Starts tasks, keeps them until they end, reports those that fail."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            print(f"{task.get_name()}: cancelled")
        elif (error := task.exception()) is not None:
            print(f"{task.get_name()}: failed with {error!r}")
        else:
            print(f"{task.get_name()}: done")

    async def close(self, seconds: float) -> None:
        """Give what still runs so many seconds, then cancel it."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def send_mail(seconds: float, bounces: bool = False) -> None:
    await asyncio.sleep(seconds)
    if bounces:
        raise ConnectionError("mailbox unavailable")


async def main() -> None:
    background = Background()
    background.start(send_mail(0.01), "welcome mail")
    background.start(send_mail(0.03, bounces=True), "invoice")
    background.start(send_mail(3600), "newsletter")
    print("the main work goes on at once")
    await background.close(0.2)


if __name__ == "__main__":
    asyncio.run(main())
