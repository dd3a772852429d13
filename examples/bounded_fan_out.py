"""Many requests, a few at a time: a semaphore bounds what is under way, gather keeps the order."""

import asyncio

from local_http import LocalServer, get_json

LIMIT = 5


async def fetch(url: str, slots: asyncio.Semaphore) -> tuple[int, object]:
    async with slots:
        return await get_json(url)


async def main() -> None:
    slots = asyncio.Semaphore(LIMIT)
    async with LocalServer() as server:
        urls = [f"{server.url}/items/{number}" for number in range(40)]
        urls.append(f"{server.url}/nowhere")
        answers = await asyncio.gather(*(fetch(url, slots) for url in urls))

        good = [answer for status, answer in answers if status == 200]
        print("answers:", len(answers), "- good:", len(good))
        print("in the order asked:", [item["item"] for item in good] == list(range(40)))
        print("sum of prices:", sum(item["price"] for item in good))
        print("the server never saw more than", server.most_at_once, "at once")


if __name__ == "__main__":
    asyncio.run(main())
