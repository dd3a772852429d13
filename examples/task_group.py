"""asyncio.TaskGroup: tasks that end together, and the errors of all of them.

The block is not left before every task in it has ended. When one fails the others are cancelled,
and what went wrong comes out as one ExceptionGroup.
"""

import asyncio


async def load(table: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"{table} loaded"


async def check(table: str) -> None:
    await asyncio.sleep(0.01)
    raise ValueError(f"{table} has a broken row")


async def connect(host: str) -> None:
    await asyncio.sleep(0.01)
    raise ConnectionRefusedError(f"{host} refuses")


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load(name, 0.01)) for name in ("users", "orders", "prices")]
    print([task.result() for task in tasks])

    try:
        async with asyncio.TaskGroup() as group:
            endless = group.create_task(load("history", 3600))
            group.create_task(check("users"))
            group.create_task(connect("replica"))
    except* ValueError as errors:
        print("data:", [str(error) for error in errors.exceptions])
    except* OSError as errors:
        print("network:", [str(error) for error in errors.exceptions])
    print("the one that was fine got cancelled:", endless.cancelled())


if __name__ == "__main__":
    asyncio.run(main())
