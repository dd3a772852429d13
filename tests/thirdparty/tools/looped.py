"""What the programs here share: the loop that is asked for, and a run on it."""

import asyncio
import sys

OURS = sys.argv[1] == "asyncloop"


def new_event_loop():
    if OURS:
        import asyncloop

        return asyncloop.new_event_loop()
    return asyncio.new_event_loop()


def run(main):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
