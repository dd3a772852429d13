"""The three things that can be awaited: coroutines, tasks and futures.

A coroutine is a body that waits to be run once. A task is a coroutine that the loop already drives.
A future is a place for a result that something else will put there.
"""

import asyncio


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def main() -> None:
    loop = asyncio.get_running_loop()

    coroutine = double(21)
    print("coroutine:", await coroutine)
    try:
        await coroutine
    except RuntimeError as error:
        print("a second time:", error)

    task = asyncio.create_task(double(4))
    print("task:", await task, "and again", await task)

    future: asyncio.Future[str] = loop.create_future()
    loop.call_later(0.01, future.set_result, "set by a callback")
    print("future:", await future)

    # Anything with __await__ will do.
    class Ready:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "an object of our own"

    print("other:", await Ready())


if __name__ == "__main__":
    asyncio.run(main())
