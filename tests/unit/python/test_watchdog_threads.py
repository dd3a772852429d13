"""asyncloop.watchdog(): who has held the GIL, if it was not the loop's own call.

asyncio has nothing like it, so all of this is about asyncloop alone.
"""

import asyncio
import io
import logging
import re
import sys
import threading
import time

import pytest

import asyncloop
from asyncloop import _stacks, _watchdog

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="no call holds the GIL"
)

LONG = 0.5  # seconds that the last call of hold_the_gil() takes, at least


def hold_the_gil():
    length, took = 15, 0.0
    while took < LONG:
        begin = time.monotonic()
        re.match("(a|a)*$", "a" * length + "b")  # the call that holds it
        took = time.monotonic() - begin
        length += 1


def test_a_call_of_another_thread(monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def hold():
            hold_the_gil()
            loop.call_soon_threadsafe(over.set_result, None)

        thread = threading.Thread(target=hold, name="the hog\nof all")
        thread.start()
        while not over.done():
            await asyncio.sleep(0.01)
        thread.join()

    text = io.StringIO()
    handler = logging.StreamHandler(text)
    _watchdog.logger.addHandler(handler)
    try:
        # On a busy machine the report may be made before the call has the GIL.
        for _ in range(10):
            with asyncloop.watchdog(0.05):
                asyncloop.run(main())
            if "the hog\\nof all" in text.getvalue():
                break
    finally:
        _watchdog.logger.removeHandler(handler)
    said = text.getvalue()
    assert "while a call holds the GIL" in said
    (line,) = set(re.findall(r"^  the hog\\nof all: .*", said, re.MULTILINE)[:1])
    assert "in hold_the_gil(), " in line and "in match()" in line


def test_threads_that_wait_are_left_out():
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="waits")
    thread.start()
    try:
        assert not any("waits" in each for each in _stacks.other_threads(0))
    finally:
        go.set()
        thread.join()
