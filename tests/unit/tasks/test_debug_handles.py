"""Debug mode: what the loop reports from inside a step of a Task names where it was scheduled."""

import asyncio
import logging

import pytest


@pytest.fixture
def report(loop, caplog):
    """Reports something, and gives what the default handler has put into its context."""
    loop.set_debug(True)

    def report():
        context = {"message": "something"}
        with caplog.at_level(logging.CRITICAL + 1, "asyncio"):
            loop.call_exception_handler(context)
        return [frame.name for frame in context.get("handle_traceback", ())]

    return report


def test_first_step(loop, report):
    def make():
        return loop.create_task(main())

    async def main():
        return report()

    assert "make" in loop.run_until_complete(make())


def test_later_steps(loop, report):
    """What wakes the Task is named: a callback, or the Task that has settled the future."""

    def wake(future):
        future.set_result(None)

    async def main():
        future = loop.create_future()
        loop.call_soon(wake, future)
        await future
        seen = [report()]
        await asyncio.sleep(0)
        seen.append(report())
        await asyncio.sleep(0.001)
        seen.append(report())
        return seen

    seen = loop.run_until_complete(main())
    assert all(seen)


def test_callbacks_and_what_runs_inside(loop, report):
    seen = []

    def callback():
        seen.append(report())

    async def main():
        loop.call_soon(callback)
        await asyncio.sleep(0.001)
        return report()

    assert loop.run_until_complete(main())
    assert "main" in seen[0]


def test_without_debug_mode(loop, report):
    loop.set_debug(False)

    async def main():
        return report()

    assert loop.run_until_complete(main()) == []


def test_nothing_is_kept(loop, report):
    """Tasks come and go."""

    async def main():
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(100)))

    loop.run_until_complete(main())
    if hasattr(loop, "_task_records"):  # asyncloop
        assert loop._current_handle is None
