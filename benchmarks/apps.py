"""Rows of clients that people use: aiohttp's, asyncpg, redis-py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from .body import US_CPU_AND_WALL, Body, Run, Session
from .inprocess import row_of
from .loops import NETWORK

WORKERS = 20
"""Requests of the HTTP client under way at the same time."""

PIPELINE = 100
"""Commands in one pipeline."""


@contextlib.asynccontextmanager
async def aiohttp_client(port: str) -> AsyncIterator[Run]:
    """GET of a small JSON document over kept connections."""
    import aiohttp

    url = f"http://127.0.0.1:{port}/"

    async def run(n: int) -> None:
        async def work() -> None:
            for _ in range(n // WORKERS):
                async with client.get(url) as response:
                    await response.json()

        await asyncio.gather(*[work() for _ in range(WORKERS)])

    async with aiohttp.ClientSession() as client:
        await run(WORKERS)
        yield run


def postgresql(query: str) -> Session:
    """Fetch what a query gives, again and again."""

    @contextlib.asynccontextmanager
    async def session(url: str) -> AsyncIterator[Run]:
        import asyncpg

        connection = await asyncpg.connect(url)

        async def run(n: int) -> None:
            for _ in range(n):
                await connection.fetch(query)

        try:
            await run(2)
            yield run
        finally:
            await connection.close()

    return session


def redis(pipelined: bool) -> Session:
    """SET and GET in turn; pipelined: fifty of both in one round trip."""

    @contextlib.asynccontextmanager
    async def session(url: str) -> AsyncIterator[Run]:
        from redis.asyncio import Redis

        async with Redis.from_url(url) as client:

            async def one_by_one(n: int) -> None:
                for _ in range(n // 2):
                    await client.set("key", b"value")
                    await client.get("key")

            async def in_pipelines(n: int) -> None:
                for _ in range(n // PIPELINE):
                    pipeline = client.pipeline(transaction=False)
                    for _ in range(PIPELINE // 2):
                        pipeline.set("key", b"value")
                        pipeline.get("key")
                    await pipeline.execute()

            run = in_pipelines if pipelined else one_by_one
            await run(PIPELINE)
            yield run

    return session


def _body(key: str, title: str, session: Session, needs: str, step: int = 1) -> Body:
    return Body(
        key,
        title,
        step=step,
        group="apps",
        session=session,
        needs=needs,
        traits=frozenset({NETWORK}),
        metrics=US_CPU_AND_WALL,
        unit="µs",
    )


ROWS_QUERY = "select i, i * 2 as double, 'row ' || i as text from generate_series(1, 1000) as i"

BODIES = (
    _body("aiohttp-client", "aiohttp client, 20 at a time", aiohttp_client, "http", WORKERS),
    _body("asyncpg-1", "asyncpg: select 1", postgresql("select 1"), "postgresql"),
    _body("asyncpg-1000", "asyncpg: 1,000 rows", postgresql(ROWS_QUERY), "postgresql"),
    _body("redis", "redis-py: set and get, per command", redis(False), "redis", 2),
    _body("redis-pipeline", "redis-py: pipelines of 100", redis(True), "redis", PIPELINE),
)

ROWS = [row_of(code) for code in BODIES]
