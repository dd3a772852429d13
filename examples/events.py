"""Event and Barrier: many tasks that start on one signal, and tasks that wait for each other."""

import asyncio


async def runner(name: str, start: asyncio.Event, barrier: asyncio.Barrier, log: list[str]) -> None:
    log.append(f"{name} at the line")
    await start.wait()
    log.append(f"{name} running")
    # Nobody goes on before all have come this far.
    async with barrier as arrived:
        log.append(f"{name} was number {arrived + 1} at the bridge")


async def main() -> None:
    names = ["ann", "bob", "eve"]
    start, barrier, log = asyncio.Event(), asyncio.Barrier(len(names)), []

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(runner(name, start, barrier, log))
        await asyncio.sleep(0.01)
        print("before the signal:", ", ".join(log))
        log.clear()
        start.set()

    print("after it:", ", ".join(log[:3]))
    for line in sorted(log[3:]):
        print(line)

    # Once set it stays set, until somebody clears it.
    await start.wait()
    start.clear()
    try:
        async with asyncio.timeout(0.01):
            await start.wait()
    except TimeoutError:
        print("cleared: waiting again")


if __name__ == "__main__":
    asyncio.run(main())
