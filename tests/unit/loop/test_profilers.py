"""A profiler that is told of calls learns of the time that passed when the next one comes, and
takes it for the code, and for the context, of that. After a sleep of the loop one comes outside of
all tasks, so that a sleep is nobody's time.
"""

import asyncio
import contextvars
import sys

var = contextvars.ContextVar("var", default="outside")


def test_a_call_after_each_sleep(run):
    """Between two steps of a task a call is told in the loop's own context."""
    seen = []

    def profile(frame, event, arg):
        seen.append((event, var.get(), frame.f_code.co_name))

    async def main():
        var.set("in the task")
        sys.setprofile(profile)
        try:
            for _ in range(3):
                seen.append("sleeps")
                await asyncio.sleep(0.002)
                seen.append("goes on")
        finally:
            sys.setprofile(None)

    run(main())
    for _ in range(3):
        between = seen[seen.index("sleeps") + 1 : seen.index("goes on")]
        del seen[: seen.index("goes on") + 1]
        assert any(event == "call" and value == "outside" for event, value, _ in between)


def test_a_profile_function_that_raises(loop):
    """It is taken off by the interpreter, and the exception ends the run, as on asyncio."""

    def profile(frame, event, arg):
        if var.get() == "outside":
            raise KeyError("no")

    async def main():
        var.set("in the task")
        sys.setprofile(profile)
        await asyncio.sleep(0.002)

    try:
        loop.run_until_complete(main())
    except KeyError:
        pass
    finally:
        assert sys.getprofile() is None
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
