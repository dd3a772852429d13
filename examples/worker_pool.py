"""Producers and a pool of consumers around one queue, all in a TaskGroup.

The queue is short, so producers wait for consumers. One producer failing, or one consumer, ends the
whole pool; at the regular end each consumer finds a mark that says so.
"""

import asyncio
from collections import Counter

END = object()


async def produce(queue: asyncio.Queue, source: range) -> None:
    for number in source:
        await queue.put(number)


async def consume(queue: asyncio.Queue, results: dict[int, int], done: Counter[str]) -> None:
    name = asyncio.current_task().get_name()
    while (number := await queue.get()) is not END:
        await asyncio.sleep(0.002)  # the work
        results[number] = number * number
        done[name] += 1


async def run_pool(sources: list[range], consumers: int) -> tuple[dict[int, int], Counter[str]]:
    queue: asyncio.Queue = asyncio.Queue(maxsize=4)
    results: dict[int, int] = {}
    done: Counter[str] = Counter()
    async with asyncio.TaskGroup() as pool:
        for number in range(consumers):
            pool.create_task(consume(queue, results, done), name=f"consumer-{number}")
        async with asyncio.TaskGroup() as producers:
            for source in sources:
                producers.create_task(produce(queue, source))
        for _ in range(consumers):
            await queue.put(END)
    return results, done


async def main() -> None:
    results, done = await run_pool([range(0, 20), range(20, 30), range(30, 60)], consumers=3)
    print("results:", len(results), "- right:", all(results[n] == n * n for n in range(60)))
    print("work was shared by", len(done), "consumers:", ", ".join(sorted(done)))

    try:
        await run_pool([range(5), ["not a number"]], consumers=2)
    except* TypeError as errors:
        print("the pool stopped:", errors.exceptions[0])
    print("tasks left over:", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main())
