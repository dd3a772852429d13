"""asyncio.shield: the caller may give up, the work goes on.

The shielded work has to be in a task that somebody keeps and awaits in the end.
"""

import asyncio


async def write_journal(entries: list[str], may_finish: asyncio.Event) -> str:
    entries.append("begin")
    await may_finish.wait()
    entries.append("commit")
    return f"{len(entries)} entries written"


async def main() -> None:
    entries: list[str] = []
    may_finish = asyncio.Event()
    journal = asyncio.create_task(write_journal(entries, may_finish))

    try:
        async with asyncio.timeout(0.02):
            await asyncio.shield(journal)
    except TimeoutError:
        print("no patience left; journal so far:", entries)
    print("cancelled:", journal.cancelled())

    may_finish.set()
    print("in the end:", await journal)

    # Without the shield the same time limit takes the work with it.
    journal = asyncio.create_task(write_journal([], asyncio.Event()))
    try:
        await asyncio.wait_for(journal, 0.02)
    except TimeoutError:
        print("unshielded, cancelled:", journal.cancelled())


if __name__ == "__main__":
    asyncio.run(main())
