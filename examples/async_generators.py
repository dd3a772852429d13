"""Asynchronous iteration: generators, comprehensions, iterators of one's own, and closing early."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing


async def pages(count: int) -> AsyncIterator[list[int]]:
    """As from an API that is asked for one page at a time."""
    try:
        for page in range(count):
            await asyncio.sleep(0.005)
            yield [page * 3 + item for item in range(3)]
    finally:
        # Runs after the last page, and also when the reader stops before it.
        await asyncio.sleep(0)
        print("pages: closed")


async def items(source: AsyncIterator[list[int]]) -> AsyncIterator[int]:
    async for page in source:
        for item in page:
            yield item


class Countdown:
    """An iterator written by hand: __aiter__ and __anext__."""

    def __init__(self, start: int) -> None:
        self._left = start

    def __aiter__(self) -> "Countdown":
        return self

    async def __anext__(self) -> int:
        if self._left == 0:
            raise StopAsyncIteration
        await asyncio.sleep(0)
        self._left -= 1
        return self._left + 1


async def main() -> None:
    print("all:", [item async for item in items(pages(3))])
    print("odd, by page:", {page[0]: page[1::2] async for page in pages(2)})

    # aclosing() ends the generator at the end of the block, not when somebody collects it.
    async with aclosing(pages(1_000_000)) as endless:
        async for page in endless:
            if 4 in page:
                print("found on", page)
                break

    print("countdown:", [number async for number in Countdown(3)])

    source = pages(1)
    print("by hand:", await anext(source), await anext(source, "nothing more"))


if __name__ == "__main__":
    asyncio.run(main())
