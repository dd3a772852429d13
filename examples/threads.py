"""From other threads into the loop: the two calls that are allowed, and a loop in a thread.

Everything else of a loop, its tasks and futures belongs to the thread that runs it.
"""

import asyncio
import threading


async def look_up(word: str) -> str:
    await asyncio.sleep(0.005)
    if not word.islower():
        raise ValueError(f"{word!r} is not in the dictionary")
    return word.upper()


def reader_thread(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str | None]) -> None:
    """A thread that brings data: call_soon_threadsafe for plain callbacks."""
    for line in ("one", "two", "three"):
        loop.call_soon_threadsafe(queue.put_nowait, line)
    loop.call_soon_threadsafe(queue.put_nowait, None)


def asking_thread(loop: asyncio.AbstractEventLoop, answers: list[str]) -> None:
    """A thread that wants answers: run_coroutine_threadsafe gives a concurrent.futures.Future."""
    answers.append(asyncio.run_coroutine_threadsafe(look_up("tree"), loop).result(timeout=30))
    try:
        asyncio.run_coroutine_threadsafe(look_up("Oak"), loop).result(timeout=30)
    except ValueError as error:
        answers.append(str(error))


async def main() -> None:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    threading.Thread(target=reader_thread, args=(loop, queue)).start()
    while (line := await queue.get()) is not None:
        print("from the thread:", line)

    answers: list[str] = []
    await asyncio.to_thread(asking_thread, loop, answers)
    for answer in answers:
        print("to the thread:", answer)


class LoopThread:
    """A loop of its own for a program that is not asynchronous."""

    def __enter__(self) -> "LoopThread":
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()


if __name__ == "__main__":
    asyncio.run(main())
    with LoopThread() as background:
        print("from plain code:", background.call(look_up("leaf")))
