"""Several API calls at a time with httpx, each with its time limit and its own error."""

import asyncio

import httpx
from local_http import LocalServer


async def item(client: httpx.AsyncClient, number: int | str) -> dict:
    response = await client.get(f"/items/{number}")
    response.raise_for_status()
    return response.json()


async def never(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(0.05):
        await client.get("/never")


async def main() -> None:
    async with (
        LocalServer() as server,
        httpx.AsyncClient(
            base_url=server.url,
            timeout=httpx.Timeout(5),
            limits=httpx.Limits(max_connections=4),
            trust_env=False,
        ) as client,
    ):
        calls = [item(client, 1), item(client, 2), item(client, "unknown"), never(client)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            match result:
                case httpx.HTTPStatusError(response=response):
                    print("error:", response.status_code, response.json()["error"])
                case TimeoutError():
                    print("error: no answer in time")
                case BaseException():
                    raise result
                case _:
                    print("item:", result)

        items = await asyncio.gather(*(item(client, number) for number in range(20)))
        print("twenty items cost", sum(one["price"] for one in items))

        # httpx's own time limits are for connecting, reading, writing and waiting for a connection.
        try:
            await client.get("/never", timeout=httpx.Timeout(5, read=0.05))
        except httpx.ReadTimeout:
            print("read timeout")


if __name__ == "__main__":
    asyncio.run(main())
