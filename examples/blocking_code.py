"""Code that blocks, kept off the loop: threads for one call, a pool of one's own, a time limit."""

import asyncio
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


def slow_square(number: int) -> int:
    time.sleep(0.03)  # as a library would that knows nothing of asyncio
    return number * number


def thread_name() -> str:
    return threading.current_thread().name


def who_am_i() -> str:
    on_loop = threading.current_thread() is threading.main_thread()
    return f"{'the main thread' if on_loop else 'another thread'}, request {request_id.get()}"


async def beat(times: list[float]) -> None:
    while True:
        times.append(time.monotonic())
        await asyncio.sleep(0.002)


async def main() -> None:
    # The loop goes on while threads block, and does not while it blocks itself.
    times: list[float] = []
    beating = asyncio.create_task(beat(times))
    print(await asyncio.gather(*(asyncio.to_thread(slow_square, n) for n in range(5))))
    during_threads = len(times)
    slow_square(3)
    during_blocking = len(times) - during_threads
    beating.cancel()
    print("the loop went on meanwhile:", during_threads > 1, "- and when blocked:", during_blocking)

    # to_thread takes the context along, run_in_executor does not.
    request_id.set("42")
    loop = asyncio.get_running_loop()
    print("to_thread:", await asyncio.to_thread(who_am_i))
    print("run_in_executor:", await loop.run_in_executor(None, who_am_i))

    # A pool of one's own bounds how many run at a time.
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="disk") as pool:
        names = await asyncio.gather(*(loop.run_in_executor(pool, thread_name) for _ in range(6)))
    print("names begin with:", {name.partition("_")[0] for name in names})
    print("at most two threads:", len(set(names)) <= 2)

    # The caller can stop waiting; the thread itself cannot be stopped and ends when it ends.
    ended = threading.Event()

    def stubborn() -> None:
        time.sleep(0.1)
        ended.set()

    try:
        await asyncio.wait_for(asyncio.to_thread(stubborn), 0.01)
    except TimeoutError:
        print("stopped waiting")
    await asyncio.to_thread(ended.wait)
    print("the thread ended by itself:", ended.is_set())


if __name__ == "__main__":
    asyncio.run(main())
