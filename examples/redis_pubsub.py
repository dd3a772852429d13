"""Redis: publish and subscribe, a pipeline, and a queue between tasks.

    REDIS_URL=redis://localhost python -m asyncloop examples/redis_pubsub.py
"""

import asyncio
import os
import sys

import redis.asyncio as redis

PREFIX = "asyncloop-example:"


async def listen(name: str, client: redis.Redis, ready: asyncio.Event) -> list[str]:
    """What comes on the channel, up to the word `end`."""
    heard = []
    async with client.pubsub() as channel:
        await channel.subscribe(PREFIX + "news")
        async for message in channel.listen():
            if message["type"] == "subscribe":
                ready.set()
            elif message["data"] == "end":
                break
            else:
                heard.append(message["data"])
    return heard


async def main() -> None:
    async with redis.from_url(os.environ["REDIS_URL"], decode_responses=True) as client:
        listeners = {name: asyncio.Event() for name in ("ann", "bob", "eve")}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(listen(name, client, listeners[name])) for name in listeners]
            for ready in listeners.values():
                await ready.wait()
            for text in ("first", "second", "end"):
                print(text, "reached", await client.publish(PREFIX + "news", text))
        for name, task in zip(listeners, tasks, strict=True):
            print(f"{name} heard:", task.result())

        counter, jobs = PREFIX + "counter", PREFIX + "jobs"
        await client.delete(counter, jobs)
        async with client.pipeline(transaction=True) as pipe:
            for _ in range(3):
                pipe.incr(counter)
            print("pipeline:", await pipe.execute())
        await asyncio.gather(*(client.incr(counter) for _ in range(50)))
        print("counter:", await client.get(counter))

        waiting = asyncio.create_task(client.blpop([jobs], timeout=30))
        await client.rpush(jobs, "a job")
        print("taken:", (await waiting)[1])
        await client.delete(counter, jobs)


if __name__ == "__main__":
    if "REDIS_URL" not in os.environ:
        sys.exit("set REDIS_URL to a Redis server in which a few keys may be written")
    asyncio.run(main())
