"""What a program finds that looks closely at a loop and its futures: as asyncio has it."""

import asyncio
import logging
import time
from fractions import Fraction

import pytest

from tests.compare import same
from tests.support import turns


@pytest.mark.parametrize("value", ["yes", "", 0, 2, None, [], True, False])
def test_debug_is_what_it_was_set_to(loop, value):
    loop.set_debug(value)
    assert loop.get_debug() is value and loop._debug is value
    loop._debug = [value]
    assert loop.get_debug() == [value]
    loop.set_debug(False)
    assert loop.get_debug() is False


class Slow:
    """No number, but something to compare with one."""

    def __init__(self, limit):
        self.limit = limit

    def __le__(self, seconds):
        return self.limit <= seconds


@pytest.mark.parametrize("limit", [None, "0.1", Slow(0), Slow(100), Fraction(1, 100), 10**400])
def test_slow_callback_duration_of_any_kind(impl, asyncio_log, limit):
    async def nothing():
        time.sleep(0.02)

    with asyncio.Runner(loop_factory=impl.new_event_loop) as runner:
        loop = runner.get_loop()
        loop.slow_callback_duration = limit
        assert loop.slow_callback_duration is limit
        runner.run(nothing())  # without debug mode nobody compares it
        loop.set_debug(True)
        if limit is None or limit == "0.1":
            with pytest.raises(TypeError, match="not supported between"):
                loop.run_until_complete(nothing())
        else:
            loop.run_until_complete(nothing())
        loop.slow_callback_duration = 100
    slow = [text for text in asyncio_log.take() if text.startswith("Executing")]
    assert bool(slow) == (limit == Fraction(1, 100) or (type(limit) is Slow and limit.limit == 0))


def test_new_loop_names_its_selector(impl, asyncio_log, monkeypatch):
    monkeypatch.setattr(logging.getLogger("asyncio"), "level", logging.DEBUG)
    logging.getLogger("asyncio").manager._clear_cache()
    loop = impl.new_event_loop()
    try:
        name = type(loop._selector).__name__
    finally:
        loop.close()
    logging.getLogger("asyncio").manager._clear_cache()
    assert asyncio_log.take(logging.DEBUG)[0] == f"Using selector: {name}"


@pytest.mark.our_loop("runs both loops itself")
@pytest.mark.parametrize("settle", ["result", "exception", "cancel"])
def test_iterator_of_a_future_that_has_ended(settle):
    """It has nothing more to say before 3.14, and says the same again from then on."""

    async def program(log, loop):
        future = loop.create_future()
        iterator = iter(future)
        log.call("first", next, iterator)
        if settle == "result":
            future.set_result((settle,))
        elif settle == "exception":
            future.set_exception(KeyError(settle))
        else:
            future.cancel("why")
        for _ in range(3):
            try:
                log("next", next(iterator))
            except (StopIteration, KeyError, asyncio.CancelledError) as exc:
                log(repr(exc))

    same(program)


def test_comparison_that_adds_callbacks(impl, loop):
    """remove_done_callback() looks at what its own comparisons add."""
    future = impl.Future(loop=loop)

    class Callback:
        adds = 2

        def __call__(self, _):
            pass

        def __eq__(self, other):
            if Callback.adds:
                Callback.adds -= 1
                future.add_done_callback(print)
            return False

        __hash__ = None

    for _ in range(3):
        future.add_done_callback(Callback())
    assert future.remove_done_callback(print) == 2
    assert future.remove_done_callback(print) == 0


def test_create_future_that_is_replaced_in_a_wait(loop, run):
    """What waits has its future; the next wait asks the new method."""
    import socket

    made = []

    async def main():
        theirs = loop.create_future

        def create_future():
            made.append(theirs())
            return made[-1]

        ours, others = socket.socketpair()
        with ours, others:
            ours.setblocking(False)
            waits = asyncio.ensure_future(loop.sock_recv(ours, 10))
            await turns(2)
            loop.create_future = create_future
            others.send(b"1")
            assert await waits == b"1"
            before = len(made)
            waits = asyncio.ensure_future(loop.sock_recv(ours, 10))
            await turns(2)
            assert len(made) == before + 1
            others.send(b"2")
            assert await waits == b"2"
        del loop.create_future

    run(main())
    assert len(made) == 1
