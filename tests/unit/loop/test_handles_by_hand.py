"""Handle._run() by hand, of calls that wait: when their turn comes they run all the same."""

import gc
import logging
import weakref

import pytest


def run_for(loop, seconds):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def test_ready_call_runs_again(loop):
    seen = []
    handle = loop.call_soon(seen.append, "soon")
    handle._run()
    handle._run()
    assert seen == ["soon"] * 2
    run_for(loop, 0)
    assert seen == ["soon"] * 3


def test_timer_runs_again(loop):
    seen = []
    handle = loop.call_later(0.001, seen.append, "later")
    handle._run()
    assert seen == ["later"]
    run_for(loop, 0.01)
    assert seen == ["later"] * 2


def test_inside_of_a_callback(loop):
    seen = []
    timer = loop.call_later(0.001, seen.append, "later")
    loop.call_soon(timer._run)
    ready = loop.call_soon(seen.append, "soon")
    loop.call_soon(ready.cancel)
    run_for(loop, 0.01)
    assert sorted(seen) == ["later", "later", "soon"]    # that one has run


def test_cancelled_after_it(loop):
    seen = []
    soon = loop.call_soon(seen.append, "soon")
    later = loop.call_later(0.001, seen.append, "later")
    for handle in (soon, later):
        handle._run()
        handle.cancel()
        assert handle.cancelled()
    run_for(loop, 0.01)
    assert seen == ["soon", "later"]


def test_cancelled_by_itself(loop):
    seen = []

    def callback():
        seen.append(1)
        handle.cancel()

    for schedule in (loop.call_soon, lambda call: loop.call_later(0.001, call)):
        handle = schedule(callback)
        handle._run()
        assert handle.cancelled()
    run_for(loop, 0.01)
    assert seen == [1, 1]


def test_taken_out_and_run(loop):
    """As programs with a loop of their own do it: each call runs once, and is gone."""

    class Owner:
        def call(self):
            seen.append(1)

    seen, owners = [], []
    for schedule in (loop.call_soon, lambda call: loop.call_later(1000, call)):
        owner = Owner()
        owner.handle = schedule(owner.call)
        owners.append(weakref.ref(owner))
        del owner
    for place in (loop._ready, loop._scheduled):
        while place:
            handle = place.pop()
            handle._run()
            del handle
    run_for(loop, 0)
    assert seen == [1, 1]
    gc.collect()
    assert [owner() for owner in owners] == [None, None]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("how", ["its turn comes inside", "it is taken out"])
def test_nothing_stays_of_what_ran_by_hand(loop, asyncio_log, monkeypatch, how, debug):
    class Thing:
        pass

    def callback(thing):
        thing.runs += 1
        if thing.runs == 1 and how == "it is taken out":
            loop._ready.popleft()
        elif thing.runs == 1:
            loop._run_once()

    monkeypatch.setattr(logging.getLogger("asyncio"), "propagate", False)    # pytest keeps records
    loop.set_debug(debug)
    thing = Thing()
    gone = weakref.ref(thing)
    thing.runs = 0
    thing.handle = loop.call_soon(callback, thing)
    thing.handle._run()
    run_for(loop, 0)
    assert thing.runs == 1
    del thing
    asyncio_log.take()    # the context is entered already when its turn comes inside
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, LookupError])
def test_what_the_exception_handler_raises_leaves_it(loop, error):
    def handler(context):
        raise error(context["message"])

    loop.call_exception_handler = handler
    handle = loop.call_soon(lambda: 1 / 0)
    loop._ready.clear()
    with pytest.raises(error, match="Exception in callback"):
        handle._run()
    del loop.call_exception_handler
