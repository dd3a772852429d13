"""Debug mode: what asyncio tells about callbacks that block, and what was forgotten.

Here it is switched on in the program; `PYTHONASYNCIODEBUG=1` or `python -X dev` do it from outside.
"""

import asyncio
import gc
import logging
import re
import time
import warnings


def blocks(seconds: float) -> None:
    time.sleep(seconds)


async def blocking_task() -> None:
    blocks(0.15)


async def never_awaited() -> None:
    pass


async def main() -> None:
    loop = asyncio.get_running_loop()
    print("debug:", loop.get_debug())
    loop.slow_callback_duration = 0.1

    # The log names the task, the coroutine, and where it was made.
    await asyncio.create_task(blocking_task(), name="sluggish")

    # A call from another thread that should have been call_soon_threadsafe.
    try:
        await asyncio.to_thread(loop.call_soon, print, "not allowed")
    except RuntimeError as error:
        print("wrong thread:", error)

    # The warning names the place where the forgotten coroutine was made.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        never_awaited()
        gc.collect()
    first_line, *origin = str(caught[0].message).splitlines()
    print("warning:", first_line)
    print("made in:", re.findall(r"in (\w+)$", origin[-2])[0])


class ShortLog(logging.Handler):
    """Shows asyncio's warnings without what differs from run to run."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        slow = re.search(r"name='sluggish' coro=<(\w+)\(\).* took \d", message)
        if slow:
            print(f"log: {slow.group(1)}() held up the loop")


if __name__ == "__main__":
    logger = logging.getLogger("asyncio")
    logger.addHandler(ShortLog())
    logger.propagate = False
    asyncio.run(main(), debug=True)
