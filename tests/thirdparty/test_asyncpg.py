"""asyncpg against a real PostgreSQL: pools, transactions, cursors, COPY, cancelling, lost links."""

import asyncio
import datetime
import decimal
import io

import asyncpg
import pytest


def test_queries_and_types(run, postgresql_url):
    async def main():
        link = await asyncpg.connect(postgresql_url)
        try:
            assert await link.fetchval("SELECT 1") == 1
            row = await link.fetchrow(
                "SELECT $1::numeric AS n, $2::timestamptz AS t, $3::jsonb AS j, $4::int[] AS a,"
                " NULL AS x",
                decimal.Decimal("1.50"),
                datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
                '{"k": [1, 2]}',
                [1, None, 3],
            )
            assert row["n"] == decimal.Decimal("1.50") and row["a"] == [1, None, 3]
            assert row["t"].year == 2024 and row["x"] is None

            big = "x" * 5_000_000
            assert await link.fetchval("SELECT $1::text || ''", big) == big
            rows = await link.fetch(
                "SELECT i, repeat('y', 100) AS t FROM generate_series(1, 20000) i"
            )
            assert len(rows) == 20_000 and rows[-1]["i"] == 20_000

            with pytest.raises(asyncpg.DivisionByZeroError):
                await link.fetchval("SELECT 1 / 0")
            first, second = await asyncio.gather(
                link.fetchval("SELECT 1"), link.fetchval("SELECT 2"), return_exceptions=True
            )
            assert first == 1 and isinstance(second, asyncpg.InterfaceError)
            assert await link.fetchval("SELECT 2") == 2
        finally:
            await link.close()

    run(main())


def test_pool(run, postgresql_url):
    async def main():
        async with asyncpg.create_pool(postgresql_url, min_size=2, max_size=8) as pool:

            async def one(n):
                async with pool.acquire() as link, link.transaction():
                    return await link.fetchval("SELECT $1::int * 2", n)

            doubled = await asyncio.gather(*(one(n) for n in range(500)))
            assert doubled == [2 * n for n in range(500)]
            assert pool.get_size() <= 8

            # Cancelled in the middle, again and again: no connection is spoilt.
            for round_ in range(20):
                tasks = [asyncio.create_task(one(n)) for n in range(16)]
                await asyncio.sleep(0.0005 * round_)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for n, result in enumerate(results):
                    assert result == 2 * n or isinstance(result, asyncio.CancelledError)
            assert await asyncio.gather(*(one(n) for n in range(50))) == [2 * n for n in range(50)]

    run(main())


def test_transactions_and_cursors(run, postgresql_url):
    async def main():
        link = await asyncpg.connect(postgresql_url)
        try:
            await link.execute("CREATE TEMP TABLE t (i int PRIMARY KEY, s text)")
            with pytest.raises(asyncpg.UniqueViolationError):
                async with link.transaction():
                    await link.execute("INSERT INTO t VALUES (1, 'a')")
                    async with link.transaction():
                        await link.execute("INSERT INTO t VALUES (2, 'b')")
                    await link.execute("INSERT INTO t VALUES (1, 'again')")
            assert await link.fetchval("SELECT count(*) FROM t") == 0

            await link.executemany(
                "INSERT INTO t VALUES ($1, $2)", [(n, f"row {n}") for n in range(3000)]
            )
            async with link.transaction():
                seen = [r["i"] async for r in link.cursor("SELECT i FROM t ORDER BY i", prefetch=7)]
            assert seen == list(range(3000))

            out = io.BytesIO()
            await link.copy_from_query("SELECT i, s FROM t ORDER BY i", output=out, format="csv")
            assert out.getvalue().count(b"\n") == 3000
            await link.execute("TRUNCATE t")
            out.seek(0)
            await link.copy_to_table("t", source=out, format="csv")
            assert await link.fetchval("SELECT sum(i) FROM t") == sum(range(3000))
        finally:
            await link.close()

    run(main())


def test_notifications(run, postgresql_url):
    async def main():
        listener = await asyncpg.connect(postgresql_url)
        sender = await asyncpg.connect(postgresql_url)
        try:
            heard = asyncio.Queue()
            await listener.add_listener("news", lambda _c, _p, _ch, text: heard.put_nowait(text))
            for n in range(50):
                await sender.execute("SELECT pg_notify('news', $1)", str(n))
            assert [await heard.get() for _ in range(50)] == [str(n) for n in range(50)]
        finally:
            await listener.close()
            await sender.close()

    run(main())


def test_giving_up_and_lost_links(run, postgresql_url):
    async def main():
        link = await asyncpg.connect(postgresql_url)
        other = await asyncpg.connect(postgresql_url)
        try:
            with pytest.raises(asyncio.TimeoutError):
                await link.fetchval("SELECT pg_sleep(3600)", timeout=0.05)
            assert await link.fetchval("SELECT 3") == 3
            task = asyncio.create_task(link.fetchval("SELECT pg_sleep(3600)"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await link.fetchval("SELECT 4") == 4

            lost = asyncio.get_running_loop().create_future()
            link.add_termination_listener(lost.set_result)
            task = asyncio.create_task(link.fetchval("SELECT pg_sleep(3600)"))
            await asyncio.sleep(0.05)
            await other.execute("SELECT pg_terminate_backend($1)", link.get_server_pid())
            with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError)):
                await task
            assert await lost is link
            assert link.is_closed()
        finally:
            await link.close()
            await other.close()
        with pytest.raises(OSError):
            await asyncpg.connect("postgresql://tester@127.0.0.1:1/postgres", timeout=10)

    run(main())
