"""Cancelling a task: it hears of it at its next await, cleans up, and passes it on."""

import asyncio


async def worker(name: str, started: asyncio.Event) -> None:
    try:
        print(f"{name}: at work")
        started.set()
        await asyncio.sleep(3600)
        print("never printed")
    except asyncio.CancelledError as cancelled:
        print(f"{name}: asked to stop{': ' if cancelled.args else ''}{' '.join(cancelled.args)}")
        # Cleaning up may await; a second cancel() would interrupt that, too.
        await asyncio.sleep(0.01)
        print(f"{name}: cleaned up")
        raise  # without this the one who awaits takes it for an ordinary end
    finally:
        print(f"{name}: left")


async def stop(task: asyncio.Task[None], reason: str) -> None:
    task.cancel(reason)
    try:
        await task
    except asyncio.CancelledError:
        # Ours, or of the task that runs this function?
        if asyncio.current_task().cancelling():
            raise


async def main() -> None:
    started = asyncio.Event()
    task = asyncio.create_task(worker("first", started))
    await started.wait()
    await stop(task, "closing time")
    print("cancelled:", task.cancelled(), "- done:", task.done())

    # A task that has not begun never begins.
    task = asyncio.create_task(worker("second", started))
    await stop(task, "changed our mind")
    print("cancelled before it began:", task.cancelled())

    # Cancelling what has ended changes nothing.
    print("cancel() after the end:", task.cancel())


if __name__ == "__main__":
    asyncio.run(main())
