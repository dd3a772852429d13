"""aiosqlite: a thread for each connection, which answers through call_soon_threadsafe()."""

import aiosqlite


async def main():
    async with aiosqlite.connect(":memory:") as database:
        await database.execute("CREATE TABLE numbers (n integer)")
        await database.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(1000)])
        await database.commit()
        async with database.execute("SELECT n FROM numbers ORDER BY n") as cursor:
            assert [n async for (n,) in cursor] == list(range(1000))
        answers = await asyncio.gather(
            *(database.execute_fetchall("SELECT ?", (n,)) for n in range(200))
        )
        assert [rows[0][0] for rows in answers] == list(range(200))


loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
