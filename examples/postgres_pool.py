"""PostgreSQL with a pool of asyncpg connections.

    DATABASE_URL=postgresql://user@localhost/database python -m asyncloop examples/postgres_pool.py
"""

import asyncio
import os
import sys

import asyncpg

TABLE = "asyncloop_example_users"


async def user(pool: asyncpg.Pool, number: int) -> asyncpg.Record | None:
    async with pool.acquire() as connection:
        return await connection.fetchrow(f"SELECT id, name FROM {TABLE} WHERE id = $1", number)


async def show(pool: asyncpg.Pool) -> None:
    await pool.executemany(
        f"INSERT INTO {TABLE} (id, name) VALUES ($1, $2)",
        [(number, f"user {number}") for number in range(1, 101)],
    )
    # A hundred queries share four connections.
    found = await asyncio.gather(*(user(pool, number) for number in range(1, 101)))
    print("found:", len(found), "- first:", dict(found[0]), "- connections:", pool.get_size())
    print("not there:", await user(pool, 999))

    # A transaction: all or nothing.
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"DELETE FROM {TABLE}")
            await connection.execute(f"INSERT INTO {TABLE} VALUES (1, 'again'), (1, 'twice')")
    except asyncpg.UniqueViolationError as error:
        print("rolled back:", error.sqlstate)
    print("rows:", await pool.fetchval(f"SELECT count(*) FROM {TABLE}"))

    async with pool.acquire() as connection:
        # Row by row from a cursor, without all of them in memory.
        async with connection.transaction():
            rows = connection.cursor(f"SELECT id FROM {TABLE} ORDER BY id", prefetch=10)
            print("sum:", sum([row["id"] async for row in rows]))

        # A notification from one connection to another.
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await connection.add_listener("news", lambda *args: heard.set_result(args[-1]))
        await pool.execute("SELECT pg_notify('news', 'hello from the other connection')")
        print("heard:", await heard)
        await connection.reset()

        # A query that is given up is cancelled on the server, and the connection goes on.
        try:
            await connection.fetchval("SELECT pg_sleep(3600)", timeout=0.05)
        except TimeoutError:
            print("too slow; still works:", await connection.fetchval("SELECT 6 * 7"))


async def main() -> None:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=2, max_size=4) as pool:
        await pool.execute(f"CREATE TABLE {TABLE} (id integer PRIMARY KEY, name text NOT NULL)")
        try:
            await show(pool)
        finally:
            await pool.execute(f"DROP TABLE {TABLE}")


if __name__ == "__main__":
    if "DATABASE_URL" not in os.environ:
        sys.exit("set DATABASE_URL to a PostgreSQL database in which a table may be made")
    asyncio.run(main())
