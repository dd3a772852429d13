"""asyncio.gather: run at the same time, take the results in the order of the arguments.

By default the first failure reaches the caller at once while the others go on; with
return_exceptions=True failures come back among the results.
"""

import asyncio

STOCK = {"apples": 12, "pears": 7, "plums": 30}


async def count(fruit: str, seconds: float, finished: list[str]) -> int:
    await asyncio.sleep(seconds)
    if fruit not in STOCK:
        raise LookupError(f"no {fruit} here")
    finished.append(fruit)
    return STOCK[fruit]


async def main() -> None:
    finished: list[str] = []
    results = await asyncio.gather(
        count("apples", 0.06, finished),
        count("pears", 0.03, finished),
        count("plums", 0.0, finished),
    )
    print("results in the order asked:", results)
    print("finished in the order:", ", ".join(finished))

    finished.clear()
    slow = asyncio.create_task(count("apples", 0.03, finished))
    try:
        await asyncio.gather(slow, count("kiwis", 0, finished))
    except LookupError as error:
        print("failed:", error)
    print("the other one was cancelled:", slow.cancelled())
    print("and still gives:", await slow)

    mixed = await asyncio.gather(
        count("pears", 0, finished), count("kiwis", 0, finished), return_exceptions=True
    )
    for result in mixed:
        kind = "error" if isinstance(result, Exception) else "value"
        print(f"{kind}: {result}")


if __name__ == "__main__":
    asyncio.run(main())
