"""Looking at tasks: names, states, results, what exists, and where each one is waiting."""

import asyncio
import io


async def inner(go: asyncio.Event) -> str:
    await go.wait()
    return "tea"


async def outer(go: asyncio.Event) -> str:
    return await inner(go)


def state(task: asyncio.Task) -> str:
    if not task.done():
        return "waiting"
    if task.cancelled():
        return "cancelled"
    return f"failed: {task.exception()}" if task.exception() else f"result: {task.result()}"


async def main() -> None:
    asyncio.current_task().set_name("main")
    go = asyncio.Event()
    brew = asyncio.create_task(outer(go), name="brew")
    spare = asyncio.create_task(outer(go))
    print("a name by itself:", spare.get_name().startswith("Task-"))
    spare.set_name("spare")
    print("new:", state(brew), "- its coroutine:", brew.get_coro().__name__)

    await asyncio.sleep(0)
    print("all:", sorted(task.get_name() for task in asyncio.all_tasks()))
    print("this one:", asyncio.current_task().get_name())

    # The stack of a waiting task: from the outermost coroutine, here only its own frame.
    print("stopped in:", [frame.f_code.co_name for frame in brew.get_stack()])
    text = io.StringIO()
    brew.print_stack(file=text)
    print("as text:", text.getvalue().splitlines()[-1].strip())

    if hasattr(asyncio, "capture_call_graph"):  # Python 3.14 and later
        graph = asyncio.capture_call_graph(brew)
        frames = [entry.frame.f_code.co_name for entry in graph.call_stack]
    else:
        frames, coroutine = [], brew.get_coro()
        while hasattr(coroutine, "cr_frame"):
            frames.insert(0, coroutine.cr_frame.f_code.co_name)
            coroutine = coroutine.cr_await
    print("the whole way:", " < ".join(name for name in frames if name != "wait"))

    spare.cancel()
    go.set()
    await asyncio.wait([brew, spare])
    for task in (brew, spare):
        print(f"{task.get_name()}: {state(task)}")


if __name__ == "__main__":
    asyncio.run(main())
