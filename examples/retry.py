"""Try again, with a growing and slightly random pause, and only what may go better next time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from local_http import LocalServer, get_json

T = TypeVar("T")


class Unavailable(Exception):
    """The other side asks to try again later."""


async def retry(
    attempt: Callable[[], Awaitable[T]],
    *,
    attempts: int = 5,
    first_pause: float = 0.01,
    longest_pause: float = 1.0,
    seconds_each: float = 5.0,
) -> T:
    """The result of the first attempt that works; the last failure where none does."""
    for number in range(1, attempts + 1):
        try:
            async with asyncio.timeout(seconds_each):
                return await attempt()
        except (Unavailable, OSError) as error:  # a TimeoutError is an OSError, too
            if number == attempts:
                raise
            pause = min(first_pause * 2 ** (number - 1), longest_pause)
            print(f"attempt {number}: {type(error).__name__}, pausing about {pause:.2f} s")
            # Many clients that failed together must not come back together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    raise ValueError("attempts must be at least 1")


async def price(url: str) -> int:
    status, answer = await get_json(url)
    if status == 503:
        raise Unavailable(answer["error"])
    if status != 200:
        raise LookupError(answer["error"])  # asking again would not help
    return answer["price"]


async def main() -> None:
    async with LocalServer() as server:
        print("price:", await retry(lambda: price(f"{server.url}/shaky/1")))
        try:
            await retry(lambda: price(f"{server.url}/nowhere"))
        except LookupError as error:
            print("at once:", error)
        try:
            await retry(lambda: price(f"{server.url}/never"), attempts=2, seconds_each=0.05)
        except TimeoutError:
            print("given up")


if __name__ == "__main__":
    asyncio.run(main())
