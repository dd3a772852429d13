"""call_later and call_at."""

import asyncio
import contextvars
import math
import random
import sys
import time
import weakref

import pytest

from tests.support import check_script, spin, until

HOUR = 3600


def test_call_later(loop):
    seen = []
    loop.call_later(0.001, seen.append, 1)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_call_at(loop):
    seen = []
    loop.call_at(loop.time() + 0.001, seen.append, 1)
    loop.call_at(loop.time() + 0.002, loop.stop)
    loop.run_forever()
    assert seen == [1]


@pytest.mark.parametrize("delay", [0, -1, 0.0, -0.0, -1e300, -math.inf, False])
def test_due_at_once(loop, delay):
    seen = []
    handle = loop.call_later(delay, seen.append, 1)
    assert isinstance(handle, asyncio.TimerHandle)
    assert isinstance(handle.when(), (int, float))
    spin(loop)
    assert seen == [1]
    assert not handle.cancelled()
    handle.when()


def test_timer_from_callback_waits_for_the_next_iteration(loop):
    seen = []

    def first():
        loop.call_later(0, seen.append, "timer")
        loop.call_soon(seen.append, "soon")

    loop.call_soon(first)
    spin(loop)
    assert seen == []
    spin(loop)
    assert seen == ["soon", "timer"]


@pytest.mark.parametrize("delay", [math.inf, 1e300, 1e18, 1e12, 1e9, 10**30])
def test_huge_delay_never_fires(loop, delay):
    seen = []
    handle = loop.call_later(delay, seen.append, 1)
    assert handle.when() >= delay
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert seen == []
    handle.cancel()
    assert handle.cancelled()


def test_huge_delay_does_not_hide_a_near_one(loop):
    handles = [loop.call_later(delay, print) for delay in (math.inf, 1e12, 1e300)]
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    for handle in handles:
        handle.cancel()


def test_nan(loop):
    """Whatever becomes of it, the loop and other timers go on afterwards."""
    try:
        handle = loop.call_later(math.nan, lambda: None)
    except ValueError:
        handle = None
    loop.call_later(0.001, loop.stop)
    try:
        loop.run_forever()
    except ValueError:
        pass  # the standard loop of 3.13 and later, out of its selector
    if handle is not None:
        handle.cancel()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()


@pytest.mark.parametrize("bad", ["1", object(), []])
def test_bad_delay(loop, bad):
    with pytest.raises(TypeError):
        loop.call_later(bad, print)


def test_none_is_refused(loop):
    with pytest.raises(TypeError):
        loop.call_later(None, print)
    with pytest.raises(TypeError):
        loop.call_at(None, print)


def test_delay_too_big_for_a_float(loop):
    with pytest.raises(OverflowError):
        loop.call_later(10**400, print)


def test_missing_arguments(loop):
    for call in (loop.call_later, loop.call_at):
        with pytest.raises(TypeError):
            call()
        with pytest.raises(TypeError):
            call(1)
        with pytest.raises(TypeError):
            call(1, print, unknown=2)


def test_bad_callback(loop, reports):
    async def coroutine():
        pass

    loop.set_debug(True)
    for call in (loop.call_later, loop.call_at):
        for bad in (3, coroutine):
            with pytest.raises(TypeError):
                call(0, bad)
    loop.set_debug(False)
    for call in (loop.call_later, loop.call_at):
        call(0, 3)
    spin(loop, 2)
    assert [type(r["exception"]) for r in reports] == [TypeError, TypeError]


def test_number_like_delays(loop):
    from decimal import Decimal
    from fractions import Fraction

    class Seconds(float):
        pass

    class Index:
        def __float__(self):
            return 0.0

        def __radd__(self, other):
            return other

    seen = []
    loop.call_later(Seconds(0), seen.append, "float")
    loop.call_later(True, seen.append, "bool").cancel()
    loop.call_later(Fraction(0), seen.append, "fraction")
    loop.call_later(Index(), seen.append, "odd")
    with pytest.raises(TypeError):
        loop.call_later(Decimal(0), seen.append, "decimal")
    spin(loop)
    assert sorted(seen) == ["float", "fraction", "odd"]


def test_order_by_deadline(loop):
    seen = []
    base = loop.time() - 1
    offsets = [i / 1000 for i in range(200)]
    shuffled = offsets[:]
    random.Random(1).shuffle(shuffled)
    for offset in shuffled:
        loop.call_at(base + offset, seen.append, offset)
    spin(loop)
    assert seen == offsets


def test_order_of_times_long_ago(loop):
    times = [1e-300, -1.0, 0.5, -math.inf, -1e-300, -2.5e10, -5e-324, -1e300, 5e-324, -2.5]
    seen = []
    timers = [loop.call_at(when, seen.append, when) for when in times]
    assert [timer.when() for timer in timers] == times
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert seen == sorted(times)
    assert [timer.when() for timer in timers] == times


def test_equal_deadlines_all_fire(loop):
    seen = []
    when = loop.time() + 0.002
    for i in range(100):
        loop.call_at(when, seen.append, i)
    loop.call_at(when + 0.001, loop.stop)
    loop.run_forever()
    assert sorted(seen) == list(range(100))


def test_never_early(loop):
    """Judged by time.monotonic, the clock that the users have."""
    early = []
    rng = random.Random(7)

    def check(due):
        if time.monotonic() < due:
            early.append(due)

    for _ in range(1000):
        delay = rng.uniform(0, 0.3)
        due = time.monotonic() + delay
        loop.call_later(delay, check, due)
    loop.call_later(0.31, loop.stop)
    loop.run_forever()
    # The standard loop may be early by its clock's resolution, a nanosecond.
    assert not early


def test_sleep_is_never_short(run):
    async def sleeper(delay):
        before = time.monotonic()
        await asyncio.sleep(delay)
        return time.monotonic() - before >= delay

    async def main():
        delays = [0.0001, 0.0005, 0.001, 0.0015, 0.01] * 20
        return await asyncio.gather(*map(sleeper, delays))

    assert all(run(main()))


def test_blocking_callback_does_not_shorten_later_timers(loop):
    results = []

    def block():
        time.sleep(0.05)
        start = time.monotonic()
        loop.call_later(0.02, lambda: finish(start))

    def finish(start):
        results.append(time.monotonic() - start >= 0.02)
        loop.stop()

    loop.call_soon(block)
    loop.run_forever()
    assert results == [True]


def test_when(loop):
    before = loop.time()
    handle = loop.call_later(10, print)
    assert before + 10 <= handle.when() <= loop.time() + 10
    assert handle._when == handle.when()
    exact = loop.call_at(before + 12.5, print)
    assert exact.when() == before + 12.5
    exact.cancel()
    assert exact.when() == before + 12.5
    handle.cancel()


def test_when_after_fire(loop):
    when = loop.time()
    handle = loop.call_at(when, lambda: None)
    spin(loop)
    assert handle.when() == when
    assert not handle.cancelled()
    handle.cancel()
    assert handle.when() == when


def test_isinstance(loop):
    for handle in (loop.call_later(0, print), loop.call_at(HOUR * 1e6, print)):
        assert isinstance(handle, asyncio.TimerHandle)
        assert isinstance(handle, asyncio.Handle)
        handle.cancel()


def test_cancel(loop):
    seen = []
    handle = loop.call_later(0.001, seen.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    handle.cancel()
    loop.call_later(0.003, loop.stop)
    loop.run_forever()
    assert seen == []


def test_cancel_of_a_due_timer_in_the_same_turn(loop):
    seen = []
    handles = []
    now = loop.time() - 1
    loop.call_at(now, lambda: handles[0].cancel())
    handles.append(loop.call_at(now + 0.5, seen.append, 1))
    spin(loop, 2)
    assert seen == []


def test_cancel_itself_while_running(loop):
    handles = []
    seen = []

    def callback():
        handles[0].cancel()
        seen.append(handles[0].cancelled())

    handles.append(loop.call_later(0, callback))
    spin(loop)
    assert seen == [True]


class Thing:
    def method(self):
        pass


def test_cancel_drops_callback_and_arguments(loop):
    thing, argument = Thing(), Thing()
    refs = weakref.ref(thing), weakref.ref(argument)
    handle = loop.call_later(HOUR, thing.method, argument)
    del thing, argument
    assert all(ref() for ref in refs)
    handle.cancel()
    assert [ref() for ref in refs] == [None, None]
    assert handle.cancelled()


def test_fired_timer_drops_callback(loop):
    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_later(0, thing.method)
    del thing
    spin(loop)
    assert ref() is None


def test_cancel_many_in_random_order(loop):
    rng = random.Random(3)
    seen = []
    base = loop.time() - 1
    handles = [
        loop.call_at(base + rng.random(), seen.append, i) for i in range(5000)
    ]
    order = list(range(5000))
    rng.shuffle(order)
    gone = set(order[:2500])
    for i in gone:
        handles[i].cancel()
    spin(loop)
    assert set(seen) == set(range(5000)) - gone
    assert seen == sorted(seen, key=lambda i: handles[i].when())


def test_context_dropped_on_cancel(loop):
    """A cancelled timer must not keep what its context holds."""
    var = contextvars.ContextVar("var")
    context = contextvars.copy_context()
    thing = Thing()
    context.run(var.set, thing)
    ref = weakref.ref(thing)
    handle = loop.call_later(HOUR, print, context=context)
    handle.cancel()
    del context, thing
    del handle
    spin(loop)
    assert ref() is None


def test_repr(loop):
    def named():
        pass

    handle = loop.call_later(0.001, named)
    assert repr(handle).startswith("<TimerHandle when=")
    assert "named" in repr(handle)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert repr(handle).startswith("<TimerHandle when=")
    handle.cancel()
    assert "cancelled" in repr(handle)
    other = loop.call_later(HOUR, named)
    other.cancel()
    assert repr(other).startswith("<TimerHandle cancelled when=")


def test_comparison_and_hash(loop):
    first = loop.call_at(1e9, print)
    second = loop.call_at(2e9, print)
    assert first < second and first <= second
    assert second > first and second >= first
    assert not first > second and not first >= second
    assert first <= first and first >= first and first == first
    assert first != second
    assert hash(first) == hash(first.when())
    assert len({first, second}) == 2
    assert sorted([second, first]) == [first, second]
    with pytest.raises(TypeError):
        first < 3
    assert first != 3
    assert (first == object()) is False
    first.cancel()
    second.cancel()


def test_sort_with_stock_handles(loop):
    """Compared with a handle of the standard type, by the same rule."""
    stock = asyncio.TimerHandle(1.5e9, print, (), loop)
    handle = loop.call_at(1e9, print)
    assert handle < stock
    assert stock > handle
    stock.cancel()
    handle.cancel()


def test_equality_is_by_value(loop):
    def callback():
        pass

    one = loop.call_at(1e9, callback)
    two = loop.call_at(1e9, callback)
    three = loop.call_at(1e9, callback, 1)
    assert one == two
    assert one != three
    assert one <= two and one >= two
    for handle in (one, two, three):
        handle.cancel()


def test_weakref(loop):
    handle = loop.call_later(HOUR, print)
    ref = weakref.ref(handle)
    assert ref() is handle
    handle.cancel()
    del handle
    spin(loop, 2)
    loop.close()
    assert ref() is None


def test_timer_kept_by_the_loop(loop):
    seen = []
    ref = weakref.ref(loop.call_later(0.001, seen.append, 1))
    assert ref() is not None
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_million_cancelled_timers(impl):
    """An hour's delay each, cancelled at once: the memory stays where it was."""
    check_script(
        impl,
        """
import resource
loop = new_event_loop()
loop.set_debug(False)
gc.disable()

def rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

def batch(count):
    for _ in range(count):
        loop.call_later(3600, print, "x" * 10).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()

for _ in range(5):
    batch(10_000)
before = rss()
for _ in range(100):
    batch(10_000)
grown = rss() - before
assert grown < 4 << 20, grown
loop.close()
print("flat")
""",
        "flat",
        env={"PYTHONASYNCIODEBUG": ""},
    )


def test_time_overridden_in_a_subclass(impl):
    class Clock(impl.Loop):
        now = 1000.0

        def time(self):
            return self.now

    loop = Clock()
    try:
        seen = []
        handle = loop.call_later(HOUR, seen.append, "hour")
        assert handle.when() == 1000.0 + HOUR
        loop.call_at(1001.0, seen.append, "second")
        spin(loop, 3)
        assert seen == []
        loop.now = 1001.5
        spin(loop, 2)
        assert seen == ["second"]
        loop.now = 1000.0 + HOUR + 1
        spin(loop, 2)
        assert seen == ["second", "hour"]
    finally:
        loop.close()


def test_time_replaced_on_the_instance(loop):
    now = loop.time()
    seen = []
    loop.call_at(now + HOUR, seen.append, "hour")
    spin(loop, 2)
    assert seen == []
    loop.time = lambda: now + HOUR + 1
    assert loop.call_later(5, seen.append, "later").when() == now + HOUR + 6
    spin(loop, 2)
    assert seen == ["hour"]
    loop.time = lambda: now + HOUR + 7
    spin(loop, 2)
    assert seen == ["hour", "later"]


@pytest.mark.parametrize("resolution", [1e-9, 1e-6])
@pytest.mark.parametrize("now", [2.0**24, 123_456_789.1, 1.7e9])
def test_time_of_a_clock_that_is_far_on(loop, now, resolution):
    """Its floats are further apart than nanoseconds."""
    loop.time = lambda: now
    loop._clock_resolution = resolution
    seen = []
    for seconds in (2, 1, 0):
        loop.call_at(now + seconds, seen.append, seconds)
    now += 0.5
    for seconds in (0, 1, 2):
        spin(loop, 2)
        assert seen == list(range(seconds + 1))
        now += 1


def test_time_replaced_moves_sleep(loop):
    """The way test helpers with a clock of their own work."""
    now = loop.time()
    loop.time = lambda: now

    async def main():
        nonlocal now
        sleeper = asyncio.ensure_future(asyncio.sleep(HOUR, "slept"))
        await asyncio.sleep(0)
        now += HOUR + 1
        return await sleeper

    assert loop.run_until_complete(main()) == "slept"


def test_exception_in_timer(loop, reports):
    loop.call_later(0, lambda: 1 / 0)
    seen = []
    loop.call_later(0, seen.append, 1)
    spin(loop)
    assert seen == [1]
    assert isinstance(reports.pop()["exception"], ZeroDivisionError)


def test_timers_from_timers(loop):
    seen = []

    def tick(left):
        seen.append(left)
        if left:
            loop.call_later(0, tick, left - 1)
        else:
            loop.stop()

    loop.call_later(0, tick, 100)
    loop.run_forever()
    assert seen == list(range(100, -1, -1))


def test_many_timers_due_at_once(loop):
    count = 0

    def tick():
        nonlocal count
        count += 1

    for _ in range(50_000):
        loop.call_later(0, tick)
    spin(loop)
    assert count == 50_000


def test_timer_cancelled_by_its_argument_destructor(loop):
    """cancel() may run any code: here it cancels the timer's neighbours."""
    handles = []

    class Evil:
        def __del__(self):
            for handle in handles:
                handle.cancel()

    for _ in range(20):
        handles.append(loop.call_later(HOUR, print, Evil()))
    handles[7].cancel()
    assert all(handle.cancelled() for handle in handles)
    spin(loop)


def test_handle_class_of_timer_is_final_enough(loop):
    """Half-made handles answer with an exception at worst."""
    handle = loop.call_later(HOUR, print)
    kind = type(handle)
    handle.cancel()
    try:
        raw = kind.__new__(kind)
    except TypeError:
        return
    for name in ("when", "cancel", "cancelled", "__repr__", "__hash__"):
        try:
            getattr(raw, name)()
        except Exception:
            pass


def test_reference_count_of_callback(loop):
    def callback():
        pass

    before = sys.getrefcount(callback)
    for _ in range(100):
        loop.call_later(HOUR, callback).cancel()
        loop.call_later(0, callback)
        loop.call_soon(callback)
        loop.call_soon(callback).cancel()
    spin(loop, 2)
    assert sys.getrefcount(callback) == before


def test_wait_for_timers_do_not_pile_up(run, loop):
    async def main():
        for _ in range(500):
            await asyncio.wait_for(asyncio.sleep(0), HOUR)
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, None)
        await until(future.done)

    run(main())
