"""psycopg: connections, a pipeline, notifications, COPY, a cancelled statement."""

import psycopg

URL = sys.argv[1]


async def main():
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
        await connection.execute("CREATE TEMPORARY TABLE numbers (n integer, text text)")
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO numbers VALUES (%s, %s)", [(n, "x" * n) for n in range(500)]
            )
            async with cursor.copy("COPY numbers FROM STDIN") as copy:
                for n in range(500, 1000):
                    await copy.write_row((n, "y"))
            await cursor.execute("SELECT count(*), sum(n) FROM numbers")
            assert await cursor.fetchone() == (1000, 499_500)
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", [n]) for n in range(20)]
        assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(20))
        await connection.execute("LISTEN news")
        async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as other:
            await other.execute("SELECT pg_notify('news', 'text')")
        async for notification in connection.notifies(timeout=10, stop_after=1):
            assert notification.payload == "text"
        try:
            async with asyncio.timeout(0.05):
                await connection.execute("SELECT pg_sleep(100)")
        except TimeoutError:
            pass
        else:
            raise AssertionError("not cancelled")
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)


loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
