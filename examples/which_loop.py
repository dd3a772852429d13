"""The event loop itself: who runs, what it says of itself, and why there is only one per thread.

`python -m asyncloop examples/which_loop.py` and `python examples/which_loop.py` differ in the first
line of the output alone.
"""

import asyncio


async def main() -> None:
    loop = asyncio.get_running_loop()
    print(f"loop: {type(loop).__module__}.{type(loop).__qualname__}")
    print("running:", loop.is_running(), "- closed:", loop.is_closed())

    # The loop's clock is the one that call_later, call_at and timeouts count on.
    before = loop.time()
    await asyncio.sleep(0.01)
    print("slept long enough:", loop.time() - before >= 0.01)

    # A thread that runs a loop cannot start another one inside of it: await instead.
    inner = asyncio.sleep(0)
    try:
        asyncio.run(inner)
    except RuntimeError as error:
        print("refused:", error)
    finally:
        inner.close()


if __name__ == "__main__":
    asyncio.run(main())
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        print("afterwards:", error)
