"""asyncio.Queue and its kin: a full queue makes its producer wait, join() waits for the work."""

import asyncio


async def producer(queue: asyncio.Queue[int | None], count: int) -> None:
    for number in range(count):
        waits = queue.full()
        await queue.put(number)
        print(f"put {number}{' after waiting' if waits else ''}")
    await queue.put(None)  # no more to come


async def consumer(queue: asyncio.Queue[int | None]) -> list[int]:
    taken = []
    while (number := await queue.get()) is not None:
        taken.append(number)
        queue.task_done()
    queue.task_done()
    return taken


async def main() -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue(maxsize=2)
    async with asyncio.TaskGroup() as group:
        group.create_task(producer(queue, 4))
        consuming = group.create_task(consumer(queue))
    await queue.join()
    print("consumed:", consuming.result())

    # Without waiting: at once, or an exception.
    queue.put_nowait(1)
    queue.put_nowait(2)
    print("size:", queue.qsize(), "- full:", queue.full(), "- empty:", queue.empty())
    try:
        queue.put_nowait(3)
    except asyncio.QueueFull:
        print("no room for a third")
    print("out:", queue.get_nowait(), queue.get_nowait())
    try:
        queue.get_nowait()
    except asyncio.QueueEmpty:
        print("nothing left")

    # The smallest first, and the latest first.
    for kind in (asyncio.PriorityQueue, asyncio.LifoQueue):
        other = kind()
        for number in (3, 1, 2):
            other.put_nowait(number)
        print(f"{kind.__name__}:", [await other.get() for _ in range(3)])


if __name__ == "__main__":
    asyncio.run(main())
