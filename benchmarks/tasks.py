"""Rows of tasks and scheduling, and the floor below them: code that runs in the loop's process.

Every row is a coroutine function that performs ``n`` operations. The same function is run on
each loop; worker.py measures it. The floor is the interpreter's own work for such code with
no loop at all: no event loop can be faster than that.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque

from .body import Body
from .inprocess import row_of


async def empty() -> None:
    """Do nothing, as most of what is awaited in these rows."""


def nothing(*args: object) -> None:
    """Do nothing, as a callback."""


# --- tasks -----------------------------------------------------------------------------


async def sleep_one(n: int) -> None:
    """One task that yields n times."""
    sleep = asyncio.sleep
    for _ in range(n):
        await sleep(0)


async def sleep_hundred(n: int) -> None:
    """A hundred tasks that take turns."""
    await asyncio.gather(*[sleep_one(n // 100) for _ in range(100)])


async def future_round_trip(n: int) -> None:
    """A future that a callback completes while the task waits for it."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def queue_pair(n: int) -> None:
    """A producer and a consumer at a queue with room for one item."""
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for i in range(n):
            await queue.put(i)

    async def consume() -> None:
        for _ in range(n):
            await queue.get()

    await asyncio.gather(produce(), consume())


async def gather_hundred(n: int) -> None:
    """A hundred new tasks at a time, awaited by gather."""
    for _ in range(n // 100):
        await asyncio.gather(*[empty() for _ in range(100)])


async def await_task(n: int) -> None:
    """A new task that is awaited at once."""
    create_task = asyncio.create_task
    for _ in range(n):
        await create_task(empty())


async def group_hundred(n: int) -> None:
    """A hundred new tasks at a time in a TaskGroup."""
    for _ in range(n // 100):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(empty())


async def timeout_block(n: int) -> None:
    """A timeout that never strikes around one yield."""
    for _ in range(n):
        async with asyncio.timeout(10):
            await asyncio.sleep(0)


async def wait_for_coroutine(n: int) -> None:
    """The same by wait_for."""
    for _ in range(n):
        await asyncio.wait_for(sleep_one(1), 10)


async def lock_of_ten(n: int) -> None:
    """Ten tasks that all want one lock, which each holds over a yield."""
    lock = asyncio.Lock()

    async def work() -> None:
        for _ in range(n // 10):
            async with lock:
                await asyncio.sleep(0)

    await asyncio.gather(*[work() for _ in range(10)])


# --- callbacks -------------------------------------------------------------------------


async def call_soon_chain(n: int) -> None:
    """A callback that schedules itself."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = n

    def turn() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(turn)
        else:
            done.set_result(None)

    loop.call_soon(turn)
    await done


async def call_later_cancel(n: int) -> None:
    """A timer far away that is cancelled at once, with a turn of the loop now and then."""
    call_later = asyncio.get_running_loop().call_later
    for _ in range(n // 100):
        for _ in range(100):
            call_later(10, nothing).cancel()
        await asyncio.sleep(0)


async def timers_due(n: int) -> None:
    """n timers in no order within ten milliseconds; scheduling and firing both count."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = n

    def fire() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    for i in range(n):
        loop.call_later(0.000_01 * (i * 7919 % 1000), fire)
    await done


async def threadsafe_chain(n: int) -> None:
    """call_soon_threadsafe from the loop's own thread, one call per turn of the loop."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = n

    def turn() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon_threadsafe(turn)
        else:
            done.set_result(None)

    loop.call_soon_threadsafe(turn)
    await done


async def threadsafe_burst(n: int) -> None:
    """The same in bursts of a hundred calls."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        for _ in range(100):
            loop.call_soon_threadsafe(nothing)
        await asyncio.sleep(0)


async def threadsafe_thread(n: int) -> None:
    """Another thread that hands over work as fast as it can, 100 calls under way."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    room = threading.Semaphore(100)
    left = n

    def arrive() -> None:
        nonlocal left
        left -= 1
        room.release()
        if not left:
            done.set_result(None)

    def send() -> None:
        for _ in range(n):
            room.acquire()
            loop.call_soon_threadsafe(arrive)

    thread = threading.Thread(target=send)
    thread.start()
    await done
    thread.join()


# --- executors -------------------------------------------------------------------------


async def executor_one(n: int) -> None:
    """A trivial C function in the default executor, one call after the other."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        await loop.run_in_executor(None, abs, -1)


async def executor_hundred(n: int) -> None:
    """The same, a hundred calls at once."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        await asyncio.gather(*[loop.run_in_executor(None, abs, -1) for _ in range(100)])


async def to_thread_one(n: int) -> None:
    """The same by asyncio.to_thread(), one after the other."""
    for _ in range(n):
        await asyncio.to_thread(abs, -1)


# --- floor -----------------------------------------------------------------------------


async def floor_callback(n: int) -> None:
    """Calls of an empty Python function from C."""
    deque(itertools.starmap(nothing, itertools.repeat((), n)), maxlen=0)


async def floor_await(n: int) -> None:
    """Awaiting an empty coroutine."""
    for _ in range(n):
        await empty()


async def floor_queue(n: int) -> None:
    """put_nowait and get_nowait of a queue."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    put, get = queue.put_nowait, queue.get_nowait
    for i in range(n):
        put(i)
        get()


async def floor_lock(n: int) -> None:
    """A lock that nobody else wants."""
    lock = asyncio.Lock()
    for _ in range(n):
        async with lock:
            pass


BODIES = (
    Body("sleep-one", "sleep(0), one task", sleep_one),
    Body("sleep-100", "sleep(0), 100 tasks", sleep_hundred, step=100),
    Body("future", "create_future, call_soon(set_result), await", future_round_trip),
    Body("queue", "Queue(1) put and get between two tasks", queue_pair),
    Body("gather-100", "create and gather 100 tasks, per task", gather_hundred, step=100),
    Body("await-task", "await create_task(coro())", await_task),
    Body("taskgroup-100", "TaskGroup of 100, per task", group_hundred, step=100),
    Body("timeout", "async with timeout(10) around sleep(0)", timeout_block),
    Body("wait-for", "wait_for around a coroutine", wait_for_coroutine),
    Body("lock-10", "Lock shared by 10 tasks", lock_of_ten, step=10),
    Body("call-soon", "call_soon chain", call_soon_chain),
    Body("call-later", "call_later and cancel", call_later_cancel, step=100),
    Body("timers-due", "100,000 timers due", timers_due, fixed=100_000),
    Body("threadsafe", "call_soon_threadsafe, bursts of 100", threadsafe_burst, step=100),
    Body("threadsafe-chain", "call_soon_threadsafe, chain", threadsafe_chain),
    Body(
        "threadsafe-thread",
        "call_soon_threadsafe from a thread",
        threadsafe_thread,
        threads=True,
    ),
    Body("executor-1", "run_in_executor, one by one", executor_one, threads=True),
    Body(
        "executor-100",
        "run_in_executor, 100 at once, per call",
        executor_hundred,
        threads=True,
        step=100,
    ),
    Body("to-thread", "to_thread, one by one", to_thread_one, threads=True),
    Body("floor-sleep", "sleep(0)", sleep_one, floor=True, group="floor"),
    Body("floor-callback", "call of an empty callback", floor_callback, floor=True, group="floor"),
    Body("floor-await", "await of an empty coroutine", floor_await, floor=True, group="floor"),
    Body("floor-queue", "Queue put_nowait and get_nowait", floor_queue, floor=True, group="floor"),
    Body("floor-lock", "uncontended async with Lock", floor_lock, floor=True, group="floor"),
)


ROWS = [row_of(code) for code in BODIES]
