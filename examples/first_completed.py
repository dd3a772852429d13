"""asyncio.wait: ask several, take the first answer, give up on the rest.

Unlike gather it raises nothing by itself: it says which tasks are done, and the tasks say how.
"""

import asyncio


async def mirror(name: str, seconds: float, works: bool = True) -> str:
    await asyncio.sleep(seconds)
    if not works:
        raise ConnectionError(f"{name} is down")
    return f"file from {name}"


async def first_good(*tasks: asyncio.Task[str]) -> str:
    """The first answer that is not an error; the others are cancelled and waited for."""
    pending = set(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    return task.result()
                print("not this one:", task.exception())
        raise ConnectionError("no mirror answers")
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        print("given up:", sorted(task.get_name() for task in pending))


async def main() -> None:
    start = asyncio.create_task
    print(
        await first_good(
            start(mirror("north", 600), name="north"),
            start(mirror("south", 0.05), name="south"),
            start(mirror("west", 0.01, works=False), name="west"),
        )
    )

    # The other two ways: until something fails, and for a limited time.
    tasks = [start(mirror("east", 0.01, works=False)), start(mirror("north", 600))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    print("first exception:", [str(task.exception()) for task in done], "- waiting:", len(pending))
    done, pending = await asyncio.wait(pending, timeout=0.02)
    print("after a moment:", len(done), "done, waiting:", len(pending))
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)


if __name__ == "__main__":
    asyncio.run(main())
