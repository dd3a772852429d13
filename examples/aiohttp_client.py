"""Several requests with one aiohttp session: shared connections, time limits, errors as values."""

import asyncio

import aiohttp
from local_http import LocalServer


async def price(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as response:
        response.raise_for_status()
        return (await response.json())["price"]


async def main() -> None:
    async with LocalServer() as server:
        async with aiohttp.ClientSession(
            server.url,
            connector=aiohttp.TCPConnector(limit=4),
            timeout=aiohttp.ClientTimeout(total=5),
        ) as session:
            prices = await asyncio.gather(*(price(session, f"/items/{n}") for n in range(12)))
            print("prices:", prices)
            print("at most four connections:", server.most_at_once <= 4)

            results = await asyncio.gather(
                price(session, "/items/5"), price(session, "/nowhere"), return_exceptions=True
            )
            print("found:", results[0])
            print("not found:", results[1].status, results[1].message)

            try:
                async with session.get("/never", timeout=aiohttp.ClientTimeout(total=0.05)):
                    print("never printed")
            except TimeoutError:
                print("no answer in time")


if __name__ == "__main__":
    asyncio.run(main())
