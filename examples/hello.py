"""Coroutine functions, coroutines and `await`: the smallest program.

Calling an `async def` function only makes a coroutine. Its body runs when somebody awaits it, and
asyncio.run awaits the outermost one.
"""

import asyncio


async def greet(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)  # the loop is free for others meanwhile
    return f"Hello, {name}!"


async def main() -> None:
    greeting = greet("world", 0.01)
    print("calling it made a", type(greeting).__name__)
    print("awaiting it gave", repr(await greeting))


if __name__ == "__main__":
    asyncio.run(main())
