"""asyncio.as_completed: take results as they come, with a line of progress for each."""

import asyncio
import random


async def measure(station: int, seconds: float) -> tuple[int, float]:
    await asyncio.sleep(seconds)
    return station, 15 + station / 2


async def main() -> None:
    stations = list(range(8))
    # Each station needs a different time, in an order that has nothing to do with its number.
    random.Random(4).shuffle(stations)
    work = [measure(station, 0.04 * turn) for turn, station in enumerate(stations)]
    random.Random(5).shuffle(work)

    arrived = []
    for next_one in asyncio.as_completed(work):
        station, degrees = await next_one
        arrived.append(station)
        print(f"{len(arrived)} of {len(work)}: station {station} has {degrees} degrees")
    print("in the order of their times:", arrived == stations)

    # With a time limit the loop ends early and what is unfinished has to be cancelled by hand.
    tasks = [asyncio.create_task(measure(n, n * 600)) for n in range(3)]
    try:
        for next_one in asyncio.as_completed(tasks, timeout=0.05):
            print("in time: station", (await next_one)[0])
    except TimeoutError:
        unfinished = [task for task in tasks if not task.done()]
        print("too late:", len(unfinished))
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
