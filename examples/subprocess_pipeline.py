"""A pipeline of programs, as `generator | sort | uniq -c` in a shell, read line by line.

The programs are joined by pipes of the system: what flows between them does not pass through
Python. The first gets its input from here, the last one's output is read while they run.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WORDS = "import sys\nfor line in sys.stdin:\n    print(*line.split(), sep='\\n', flush=True)\n"


@asynccontextmanager
async def pipeline(*commands: list[str]) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """The running processes; they have ended when the block is left."""
    processes: list[asyncio.subprocess.Process] = []
    upstream = asyncio.subprocess.PIPE
    try:
        for number, command in enumerate(commands):
            if number < len(commands) - 1:
                reading, writing = os.pipe()
            else:
                reading, writing = None, asyncio.subprocess.PIPE
            try:
                processes.append(
                    await asyncio.create_subprocess_exec(*command, stdin=upstream, stdout=writing)
                )
            finally:
                # The children have copies of their own; with ours open no one would see an end.
                for end in (upstream, writing):
                    if end != asyncio.subprocess.PIPE:
                        os.close(end)
                upstream = reading
        yield processes
    except BaseException:
        for process in processes:
            if process.returncode is None:
                process.kill()
        raise
    finally:
        for process in processes:
            await process.communicate()  # waits, and reads what is left, so that pipes close


async def feed(writer: asyncio.StreamWriter, lines: int) -> None:
    for number in range(lines):
        writer.write(b"the quick fox and the lazy dog\n" if number % 2 else b"the fox\n")
        await writer.drain()  # waits while the pipe is full
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    commands = [[sys.executable, "-I", "-S", "-c", WORDS], ["sort"], ["uniq", "-c"]]
    async with pipeline(*commands) as processes:
        feeding = asyncio.create_task(feed(processes[0].stdin, lines=4000))
        async for line in processes[-1].stdout:
            count, word = line.split()
            print(f"{word.decode()}: {int(count)}")
        await feeding
    print("exit statuses:", [process.returncode for process in processes])

    # Leaving in the middle: nothing keeps running.
    try:
        async with pipeline(["yes"], ["cat"]) as processes:
            print("endless:", (await processes[-1].stdout.readline()).decode().strip())
            raise KeyError("enough")
    except KeyError:
        # The second may have ended by itself, when nothing more came from the first.
        running = sum(process.returncode is None for process in processes)
        print("killed:", processes[0].returncode, "- still running:", running)


if __name__ == "__main__":
    asyncio.run(main())
