"""`async with`: resources whose beginning and end both take time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager


class Connection:
    """A class with __aenter__ and __aexit__."""

    def __init__(self, host: str) -> None:
        self.host = host

    async def __aenter__(self) -> "Connection":
        await asyncio.sleep(0.005)
        print(f"{self.host}: connected")
        return self

    async def __aexit__(self, kind, error, traceback) -> None:
        await asyncio.sleep(0.005)
        print(f"{self.host}: closed{' after ' + kind.__name__ if kind else ''}")


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[list[str]]:
    """The same as a generator: before the yield, and after it."""
    statements: list[str] = []
    try:
        yield statements
    except Exception:
        print(f"{connection.host}: rolled back {len(statements)}")
        raise
    else:
        await asyncio.sleep(0)
        print(f"{connection.host}: committed {len(statements)}")


async def main() -> None:
    async with Connection("alpha") as connection, transaction(connection) as statements:
        statements += ["insert", "update"]

    try:
        async with Connection("beta") as connection, transaction(connection) as statements:
            statements.append("insert")
            raise ValueError("duplicate key")
    except ValueError as error:
        print("caught:", error)

    # When their number is only known at run time: a stack, taken down in reverse order.
    async with AsyncExitStack() as stack:
        for host in ("one", "two", "three"):
            await stack.enter_async_context(Connection(host))


if __name__ == "__main__":
    asyncio.run(main())
