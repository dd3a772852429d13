"""A Task that asyncio makes, and asyncloop does without, is made where a program would see it."""

import asyncio
import sys

import pytest


def names(loop, name):
    """What that method is called with, from now on."""
    calls, own = [], getattr(loop, name)

    def method(function, *args, **kwargs):
        calls.append(getattr(function, "__name__", None))
        return own(function, *args, **kwargs)

    setattr(loop, name, method)
    return calls


@pytest.mark.parametrize("pipes", [{}, {"stdin": -1, "stdout": -1}])
@pytest.mark.parametrize("way", ["create_task", "call_soon", "set_task_factory"])
def test_task_that_connects_the_pipes_of_a_child(loop, run, way, pipes):
    def factory(loop, coro, **kwargs):
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        nonlocal made
        if way == "set_task_factory":
            loop.set_task_factory(factory)
        else:
            made = names(loop, way)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", **pipes)
        told = list(made)
        if way != "call_soon":
            loop.__dict__.pop(way, None)
            loop.set_task_factory(None)
        output, _ = await process.communicate()
        assert process.returncode == 0 and output == (b"" if pipes else None)
        return told

    made = []
    told = run(main())
    if way == "call_soon":
        assert "connection_made" in told and len(told) >= 3
    else:
        assert told == ["_connect_pipes"]
