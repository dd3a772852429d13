"""A polite API client: so many requests a second, so many at a time, with time limits and retries.

It uses aiohttp. The server of this example refuses what is too much with 429; a client that keeps
to its limits sees none of that.
"""

import asyncio
from collections import Counter

import aiohttp
from local_http import LocalServer


class RateLimit:
    """Lets one through every 1/rate seconds, in the order in which they come."""

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate
        self._next = 0.0

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        mine = max(self._next, loop.time())
        self._next = mine + self._gap
        await asyncio.sleep(mine - loop.time())


class Client:
    def __init__(self, session: aiohttp.ClientSession, *, rate: float, at_once: int) -> None:
        self._session = session
        self._rate = RateLimit(rate)
        self._slots = asyncio.Semaphore(at_once)
        self.seen: Counter[int] = Counter()

    async def get(self, path: str, attempts: int = 4) -> dict | None:
        """The JSON object at `path`, or None where every attempt failed."""
        for number in range(attempts):
            if number:
                await asyncio.sleep(0.01 * 2**number)
            try:
                async with self._slots:
                    await self._rate.wait()
                    async with asyncio.timeout(5), self._session.get(path) as response:
                        self.seen[response.status] += 1
                        response.raise_for_status()
                        return await response.json()
            except aiohttp.ClientResponseError as error:
                if error.status not in (429, 503):
                    return None
            except (aiohttp.ClientError, TimeoutError) as error:
                print("trying again after", type(error).__name__)
        return None


async def main() -> None:
    paths = [f"/busy/{n}" for n in range(15)] + ["/shaky/1", "/shaky/2", "/nowhere"]
    async with LocalServer() as server, aiohttp.ClientSession(server.url) as session:
        loop = asyncio.get_running_loop()
        client = Client(session, rate=200, at_once=4)
        start = loop.time()
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        requests = client.seen.total()
        print("rate kept:", loop.time() - start >= (requests - 1) / 200)
        print("answers by status:", dict(sorted(client.seen.items())))
        print("items:", [answer["item"] for answer in answers if answer])
        print("most at once:", server.most_at_once if server.most_at_once > 4 else "4 or fewer")


if __name__ == "__main__":
    asyncio.run(main())
