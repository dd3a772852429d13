"""redis-py's asyncio client against a real Redis: pools, pipelines, scripts, publish, subscribe."""

import asyncio

import pytest
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


@pytest.fixture
def connect(redis_url):
    """A client on an empty database; to be used in `async with`."""

    class Client:
        def __init__(self, **options):
            self._client = redis.from_url(redis_url, decode_responses=True, **options)

        async def __aenter__(self):
            await self._client.flushdb()
            return self._client

        async def __aexit__(self, *_):
            await self._client.aclose()

    return Client


@pytest.mark.parametrize("protocol", [2, 3])
def test_commands(run, connect, protocol):
    async def main():
        async with connect(protocol=protocol) as client:
            assert await client.ping()
            await client.set("key", "é" * 1000)
            assert await client.get("key") == "é" * 1000
            assert await client.get("none") is None
            big = "x" * 5_000_000
            await client.set("big", big)
            assert await client.get("big") == big
            await client.hset("hash", mapping={str(n): n for n in range(1000)})
            assert len(await client.hgetall("hash")) == 1000
            assert sorted([key async for key in client.scan_iter()]) == ["big", "hash", "key"]
            with pytest.raises(redis.ResponseError):
                await client.incr("key")
            script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
            assert [await script(["n"], [5]), await script(["n"], [7])] == [5, 12]

    run(main())


def test_many_at_once(run, connect):
    async def main():
        async with connect(max_connections=200) as client:
            await asyncio.gather(*(client.incr("counter") for _ in range(200)))
            assert await client.get("counter") == "200"
            async with client.pipeline(transaction=False) as pipe:
                for n in range(5000):
                    pipe.set(f"k{n}", n)
                assert all(await pipe.execute())
            assert await client.mget(*(f"k{n}" for n in range(5000))) == [
                str(n) for n in range(5000)
            ]

            # Optimistic locking: everyone repeats until nobody came in between.
            async def add_one():
                async with client.pipeline() as pipe:
                    while True:
                        try:
                            await pipe.watch("watched")
                            value = int(await pipe.get("watched") or 0)
                            pipe.multi()
                            pipe.set("watched", value + 1)
                            return await pipe.execute()
                        except redis.WatchError:
                            continue

            await asyncio.gather(*(add_one() for _ in range(20)))
            assert await client.get("watched") == "20"

    run(main())


def test_publish_and_subscribe(run, connect):
    async def main():
        async with connect() as client:

            async def listen(ready):
                heard = []
                async with client.pubsub() as pubsub:
                    await pubsub.psubscribe("news.*")
                    async for message in pubsub.listen():
                        if message["type"] == "psubscribe":
                            ready.set()
                        elif message["data"] == "end":
                            return heard
                        else:
                            heard.append((message["channel"], int(message["data"])))

            ready = [asyncio.Event() for _ in range(5)]
            tasks = [asyncio.create_task(listen(event)) for event in ready]
            for event in ready:
                await event.wait()
            for n in range(200):
                assert await client.publish(f"news.{n % 3}", n) == 5
            await client.publish("news.end", "end")
            expected = [(f"news.{n % 3}", n) for n in range(200)]
            assert await asyncio.gather(*tasks) == [expected] * 5

    run(main())


def test_blocking_and_streams(run, connect):
    async def main():
        async with connect() as client:
            waiting = [asyncio.create_task(client.blpop(["jobs"], timeout=30)) for _ in range(10)]
            await asyncio.sleep(0.02)
            await client.rpush("jobs", *range(10))
            got = await asyncio.gather(*waiting)
            assert sorted(int(job) for _, job in got) == list(range(10))
            assert await client.blpop(["jobs"], timeout=0.05) is None

            for n in range(20):
                await client.xadd("stream", {"n": n})
            [[_, entries]] = await client.xread({"stream": "0"})
            assert [int(entry["n"]) for _, entry in entries] == list(range(20))

    run(main())


def test_giving_up_and_lost_links(run, connect, redis_url):
    async def main():
        async with connect() as client:
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await client.blpop(["never"], timeout=30)
                # The connection that was given up must not answer somebody else.
                assert await client.echo("mine") == "mine"
            again = Retry(NoBackoff(), 2)
            victim = redis.from_url(redis_url, client_name="victim", retry=again)
            try:
                assert await victim.ping()
                for one in await client.client_list():
                    if one["name"] == "victim":
                        await client.client_kill(one["addr"])
                assert await victim.ping()  # on a new connection
            finally:
                await victim.aclose()
        nobody = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 1))
        with pytest.raises(redis.ConnectionError):
            await nobody.ping()
        await nobody.aclose()

    run(main())
