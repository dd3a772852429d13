"""Other programs, several at a time: input, output, exit status, time limits, what can go wrong."""

import asyncio
import os
import signal


async def run(*command: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command that gets `stdin`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    return process.returncode, out.decode(), err.decode()


async def main() -> None:
    slots = asyncio.Semaphore(3)

    async def square(number: int) -> int:
        async with slots:
            _, out, _ = await run("expr", str(number), "*", str(number))
            return int(out)

    print("squares:", await asyncio.gather(*(square(number) for number in range(6))))

    print("input:", await run("tr", "a-z", "A-Z", stdin="through a pipe and back"))
    print("status:", await run("sh", "-c", "echo so far >&2; exit 3"))

    # The shell's own syntax; never with text that somebody else wrote.
    shell = await asyncio.create_subprocess_shell(
        'echo "$GREETING" | tr a-z b-za', env={**os.environ, "GREETING": "gdkkn"}, stdout=-1
    )
    print("shell:", (await shell.stdout.read()).decode().strip(), await shell.wait())

    # A time limit: ask it to end, and wait, so that nothing is left behind.
    sleeper = await asyncio.create_subprocess_exec("sleep", "3600")
    try:
        await asyncio.wait_for(sleeper.wait(), 0.05)
    except TimeoutError:
        sleeper.terminate()
        print("ended by", signal.Signals(-await sleeper.wait()).name)

    try:
        await run("a-program-that-does-not-exist")
    except FileNotFoundError as error:
        print("missing:", error.filename)


if __name__ == "__main__":
    asyncio.run(main())
