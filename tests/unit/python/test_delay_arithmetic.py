"""The histogram of a loop's delay: what its buckets make of blocks that are known.

The core counts each block as it counts a turn that goes on: of a page, whose moments are made up,
so that nothing is timed. Seconds stand for milliseconds: all octaves have as many buckets.
"""

import random
import struct
import time

import pytest

import asyncloop
from asyncloop import _core
from asyncloop._stats import stats_of

pytestmark = pytest.mark.skipif(
    not hasattr(asyncloop.Loop, "stats"), reason="asyncio has no statistics"
)

NS = 1_000_000_000
NUMBER, RUN, IDLE, LOOKED, UNLOOKED, DELAY_MAX, DELAY = 0, 16, 17, 18, 19, 20, 23
WORDS = _core._page_layout()[4] // 8


class Histogram:
    """Adds blocks, one after the other, and what came due while nobody looked."""

    def __init__(self):
        self.words = [0] * WORDS
        self.words[NUMBER] = 1
        self.spans = []  # from, to: each moment of it as likely as any other
        self.counters = None

    def block(self, seconds, queued=0.0):
        """Blocked for so long; queued: and what came due meanwhile waits for so long after it."""
        now = time.monotonic_ns()
        words = self.words
        words[RUN] = -now
        words[LOOKED] = now - int((queued or seconds) * NS)
        words[UNLOOKED] = int(seconds * NS) if queued else 0
        data = struct.pack(f"={WORDS}q", *words)
        self.counters = _core._page_counters(data)
        words[DELAY_MAX] = self.counters["delay_max"]
        words[DELAY:] = self.counters["delay"]
        self.spans.append((queued, queued + seconds))
        if queued:
            self.spans.append((0.0, queued))

    def delay(self, asleep=0.0):
        """What the statistics make of it, if the loop has slept for so long besides."""
        self.total = asleep + sum(high - low for low, high in self.spans)
        return stats_of({**self.counters, "run": int(self.total * NS)}).delay

    def exact(self, percent):
        """The same without buckets, of the last delay()."""
        left = self.total * (1 - percent / 100)
        low, high = 0.0, max(high for _, high in self.spans)
        for _ in range(60):
            middle = (low + high) / 2
            above = sum(max(0.0, to - max(begin, middle)) for begin, to in self.spans)
            low, high = (middle, high) if above > left else (low, middle)
        return low


def check(histogram, asleep, percents=(50, 90, 99, 99.9)):
    delay = histogram.delay(asleep)
    assert delay.total == pytest.approx(histogram.total, rel=0.01)
    for percent in percents:
        assert delay.percentile(percent) == pytest.approx(
            histogram.exact(percent), rel=0.1, abs=0.01
        )


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_blocks_of_one_length(share):
    """Wherever it lies between the bounds of the buckets; blocked all the time, or a part of it."""
    for step in range(64):
        seconds = 40 * 2 ** (step / 16)
        histogram = Histogram()
        for _ in range(10):
            histogram.block(seconds)
        check(histogram, 10 * seconds * (1 / share - 1), (99, 99.9))


@pytest.mark.parametrize("seed", range(5))
def test_blocks_of_all_lengths(seed):
    choose = random.Random(seed)
    histogram = Histogram()
    for _ in range(200):
        histogram.block(min(900.0, 30 * choose.paretovariate(0.8)))
    check(histogram, asleep=choose.uniform(0, 20_000))


def test_what_was_ready_before():
    """It goes first, which nothing that comes due can get around."""
    for queued in (50.0, 100.0, 300.0):
        histogram = Histogram()
        for seconds in (60.0, 120.0, 400.0):
            histogram.block(seconds, queued)
        check(histogram, asleep=500.0)


def test_the_longest_delay_bounds_them_all():
    histogram = Histogram()
    histogram.block(100.0)
    delay = histogram.delay()
    assert 100.0 <= delay.max <= 101.0
    assert delay.percentile(100) == pytest.approx(delay.max)
    assert delay.mean == pytest.approx(50.0, rel=0.05)


def test_all_of_it_is_the_longest_however_it_is_rounded():
    chance = random.Random(1)
    for _ in range(1000):
        seconds = tuple(chance.random() for _ in range(5))
        delay = asyncloop.Delay((0.0, 1.0, 2.0, 3.0, 4.0), seconds, 4.5)
        assert delay.percentile(100) == pytest.approx(4.5)
