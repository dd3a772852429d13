"""What a program may see of tasks in passing: the order of a report, a name while one begins."""

import asyncio
import gc
import sys

import pytest

from tests.support import turns


def test_report_of_a_destroyed_task(run, reports):
    """The message comes first, as handlers that print a context show it."""

    async def main():
        loop = asyncio.get_running_loop()

        async def forever():
            await loop.create_future()

        loop.create_task(forever())
        await turns(2)
        gc.collect()
        await turns(2)

    run(main())
    assert [list(report) for report in reports] == [["message", "task"]]
    reports.clear()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came in 3.12")
def test_name_of_an_eager_task(run):
    """Earlier releases name a task of the factory when it has begun."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        names = []

        async def begin():
            names.append(asyncio.current_task().get_name())
            await asyncio.sleep(0)
            names.append(asyncio.current_task().get_name())

        task = loop.create_task(begin(), name="given")
        assert task.get_name() == "given"
        await task
        early = sys.version_info >= (3, 13, 3)
        assert (names[0] == "given") == early and names[1] == "given"

    run(main())
