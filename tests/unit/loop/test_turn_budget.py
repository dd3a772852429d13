"""`loop.turn_budget`: I/O and timers have their turn although much is ready.

asyncio has no such bound. Where a time has to be over, the budget is a nanosecond, so that it is
over after each step; nothing is timed.
"""

import asyncio
import math
import socket
import sys

import pytest

pytestmark = pytest.mark.our_loop("only asyncloop can bound a turn")

BUSY = 100


class Crowd:
    """Tasks that are always ready, and count their steps."""

    def __init__(self, loop, at_step=None):
        self.steps = 0
        self.order = []
        self.at_step = at_step or {}
        self.tasks = [loop.create_task(self.spin(number)) for number in range(BUSY)]

    async def spin(self, number):
        while True:
            self.steps += 1
            self.order.append(number)
            self.at_step.get(self.steps, int)()
            await asyncio.sleep(0)

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def steps_until_read(loop, budget):
    """How many steps a task waits for its bytes, which come in the middle of a turn."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        loop.turn_budget = budget
        sent_at = []

        def send():
            right.send(b"x")
            sent_at.append(crowd.steps)

        crowd = Crowd(loop, {BUSY * 3 + 5: send})
        reader, writer = await asyncio.open_connection(sock=left)
        await reader.readexactly(1)
        waited = crowd.steps - sent_at[0]
        await crowd.leave()
        writer.close()
        await writer.wait_closed()
    return waited


def test_waiting_bytes(run, loop):
    assert loop.run_until_complete(steps_until_read(loop, 1e-9)) <= 3
    loop.turn_budget = None
    assert loop.run_until_complete(steps_until_read(loop, None)) >= BUSY - 5


def test_everybody_goes_on(loop):
    """Neither the ready ones wait for ever for those that are served, nor the other way round."""
    left, right = socket.socketpair()
    with left, right:
        loop.turn_budget = 1e-9
        got = 0

        def readable():  # always: nothing is read
            nonlocal got
            got += 1
            loop.call_soon(int)

        async def main():
            right.send(b"x")
            crowd = Crowd(loop)
            loop.add_reader(left, readable)
            while crowd.steps < 10 * BUSY:
                await asyncio.sleep(0)
            loop.remove_reader(left)
            await crowd.leave()
            # All have had as many turns: the order is that in which they came.
            assert crowd.order[: 9 * BUSY] == list(range(BUSY)) * 9
            assert got > BUSY

        loop.run_until_complete(main())


def test_timers(loop):
    """One that is due in the middle of a turn does not wait for its end, nor whom it wakes."""
    loop.turn_budget = 1e-9
    ran = []

    async def main():
        woken = loop.create_future()

        def arm():
            loop.call_at(loop.time() - 1, lambda: ran.append(crowd.steps))
            loop.call_at(loop.time() - 1, woken.set_result, None)

        crowd = Crowd(loop, {BUSY * 2 + 5: arm})
        await woken
        ran.append(crowd.steps)
        await crowd.leave()

    loop.run_until_complete(main())
    assert [steps - (BUSY * 2 + 5) <= 3 for steps in ran] == [True, True]


def test_order_without_haste(loop):
    """As long as turns are shorter than the budget, their order is asyncio's."""

    def turn():
        seen = []

        def read():
            left.recv(1)
            seen.append("reader")
            loop.call_soon(seen.append, "after the reader")

        left, right = socket.socketpair()
        with left, right:
            loop.add_reader(left, read)
            loop._run_once()
            right.send(b"x")
            loop.call_at(loop.time() - 1, seen.append, "timer")
            loop.call_soon(seen.append, "ready")
            loop._run_once()
            loop._run_once()
            loop.remove_reader(left)
        return seen

    loop.call_soon(int)
    assert turn() == ["ready", "reader", "timer", "after the reader"]
    loop.call_soon(int)
    loop.turn_budget = 1000
    assert turn() == ["ready", "reader", "timer", "after the reader"]


def test_set_while_it_runs(loop):
    async def main():
        assert await steps_until_read(loop, None) >= BUSY - 5
        assert await steps_until_read(loop, 1e-9) <= 3
        assert await steps_until_read(loop, None) >= BUSY - 5

    loop.run_until_complete(main())


def test_exception_in_the_middle(loop):
    """What has to leave the run leaves it, and what was not run stays for the next one."""
    loop.turn_budget = 1e-9
    seen = []

    def leave():
        raise SystemExit(3)

    loop.call_at(loop.time() - 1, leave)
    for number in range(10):
        loop.call_soon(seen.append, number)
    loop.call_soon(loop.stop)
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == list(range(10))


def test_views_are_looked_at(loop):
    """With a selector of somebody else's the looks in between are made by it."""
    loop.turn_budget = 1e-9
    select = loop._selector.select
    asked = []

    def replaced(timeout):
        asked.append(timeout)
        return select(timeout)

    loop._selector.select = replaced
    assert loop.run_until_complete(steps_until_read(loop, 1e-9)) <= 3
    assert len(asked) > BUSY


def test_emptied_in_the_middle(loop):
    """A callback that takes away what is ready."""
    loop.turn_budget = 1e-9
    seen = []
    loop.call_soon(lambda: loop._ready.clear())
    for number in range(10):
        loop.call_soon(seen.append, number)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == []


@pytest.mark.parametrize(
    "value",
    [0, 0.0, -1, -0.0, math.nan, math.inf, -math.inf, "0.1", b"1", 10**400, True, False, [], 1j],
    ids=repr,
)
def test_bad_values(loop, value):
    loop.turn_budget = 0.25
    with pytest.raises(ValueError, match="turn_budget has to be"):
        loop.turn_budget = value
    assert loop.turn_budget == 0.25


def test_value(loop):
    assert loop.turn_budget is None
    for value in (0.01, 1, 1e-9, sys.float_info.min, 999_999_999):
        loop.turn_budget = value
        assert math.isclose(loop.turn_budget, max(value, 1e-9))
    loop.turn_budget = None
    assert loop.turn_budget is None
    loop.turn_budget = 1
    del loop.turn_budget
    assert loop.turn_budget is None


def test_value_that_raises(loop):
    class Evil:
        def __float__(self):
            raise KeyError("no")

    with pytest.raises(KeyError):
        loop.turn_budget = Evil()
    assert loop.turn_budget is None
