"""An HTTP answer that is sent while it is made, and a client that reads it while it comes.

The server makes each line only when asked for: the client sees early lines although later ones do
not exist yet, and when it goes away the server stops. Uses aiohttp on both sides.
"""

import asyncio
import json

import aiohttp
from aiohttp import web


class Feed:
    """A server whose answer has as many lines as were released."""

    def __init__(self) -> None:
        self.released = asyncio.Semaphore(0)
        self.made = 0
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        how = "by its client"
        try:
            for number in range(int(request.query["lines"])):
                await self.released.acquire()
                self.made += 1
                await response.write(json.dumps({"number": number}).encode() + b"\n")
            await response.write_eof()
            how = "regularly"
        except ConnectionError:
            pass
        finally:
            self.ended.put_nowait(how)
        return response


async def main() -> None:
    feed = Feed()
    app = web.Application()
    app.router.add_get("/feed", feed.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]

    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        async with session.get("/feed?lines=3") as response:
            for _ in range(3):
                feed.released.release()
                line = json.loads(await response.content.readline())
                print("read line", line["number"], "when the server had made", feed.made)
            print("then:", await response.content.readline())
        print("ended", await feed.ended.get())

        async with session.get("/feed?lines=1000000") as response:
            feed.released.release()
            await response.content.readline()
            # Leaving the block before the end closes the connection.
        while feed.ended.empty():
            feed.released.release()
            await asyncio.sleep(0.001)
        print("ended", await feed.ended.get())
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
