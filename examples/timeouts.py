"""Time limits: for a block, for one awaitable, until a point in time, and moved while they run."""

import asyncio


async def answer(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "an answer"


async def main() -> None:
    loop = asyncio.get_running_loop()

    # For everything inside of a block.
    try:
        async with asyncio.timeout(0.2):
            print("quick:", await answer(0))
            print("slow:", await answer(3600))
    except TimeoutError:
        print("the block took too long")

    # For one awaitable, which is cancelled when the time is up.
    try:
        await asyncio.wait_for(answer(3600), timeout=0.02)
    except TimeoutError:
        print("the call took too long")

    # Until a point in time, on the loop's clock: several steps share what is left.
    deadline = loop.time() + 0.1
    steps = 0
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                await answer(0.01)
                steps += 1
    except TimeoutError:
        print("steps before the deadline:", "some" if steps else "none")
    print("not before its time:", loop.time() >= deadline)

    # With a limit that moves on as long as there is progress.
    async with asyncio.timeout(0.02) as limit:
        for _ in range(3):
            limit.reschedule(loop.time() + 10)
            await answer(0.015)
    print("with progress: no timeout, expired:", limit.expired())


if __name__ == "__main__":
    asyncio.run(main())
