"""The last resort: what happens to errors that nobody is there to catch.

An exception in a callback, or in a task whose result is never asked for, goes to the loop's
exception handler. Without one of our own asyncio logs it.
"""

import asyncio
import gc


def report(loop: asyncio.AbstractEventLoop, context: dict) -> None:
    print(f"handler: {context['message'].partition('(')[0].strip()}: {context['exception']!r}")


async def forgotten() -> None:
    raise ValueError("nobody asked for this result")


async def awaited() -> None:
    raise ValueError("somebody did")


def broken_callback() -> None:
    raise KeyError("in a callback")


async def main() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)

    loop.call_soon(broken_callback)
    await asyncio.sleep(0)

    task = asyncio.create_task(forgotten())
    await asyncio.sleep(0)
    # The report comes when the last reference to the task goes.
    del task
    gc.collect()

    # A task that is awaited hands its error to the one who waits, and to no one else.
    try:
        await asyncio.create_task(awaited())
    except ValueError as error:
        print("caught:", error)
    print("the loop is still running:", loop.is_running())


if __name__ == "__main__":
    asyncio.run(main())
