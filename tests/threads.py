"""Threads that use one thing at once, for stress tests."""

import asyncio
import contextlib
import os
import sys
import threading

import pytest

from tests.support import FREE_THREADED

SCALE = int(os.environ.get("ASYNCLOOP_STRESS", "4" if FREE_THREADED else "1"))
"""How often each test goes round."""

WRONG_THREAD = "Non-thread-safe operation"


@pytest.fixture(autouse=True)
def switch_often():
    """With a GIL: other threads cut in at more places, and nobody waits long for a turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


class Threads:
    """Threads that start together; the first exception of one is raised at the end."""

    def __init__(self):
        self.threads = []
        self.failures = []
        self.go = threading.Event()

    def add(self, function, *args):
        def run():
            self.go.wait()
            try:
                function(*args)
            except BaseException as exc:
                self.failures.append(exc)

        self.threads.append(threading.Thread(target=run))

    def start(self):
        for thread in self.threads:
            thread.start()
        self.go.set()

    def join(self):
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    @contextlib.contextmanager
    def during(self):
        """Run beside the body of the `with` statement."""
        self.start()
        try:
            yield
        finally:
            self.join()

    def beside(self, coro, loop, stop):
        """Run until the coroutine has ended on the loop, which sets `stop`."""
        with self.during():
            try:
                asyncio.run_coroutine_threadsafe(coro, loop).result()
            finally:
                stop.set()


@contextlib.contextmanager
def loop_in_thread(impl, handler=None):
    """A loop that another thread runs."""
    loop = impl.new_event_loop()
    if handler is not None:
        loop.set_exception_handler(handler)
    started = threading.Event()

    def tick():
        # With a GIL a future that another thread settles does not end the loop's sleep, as with
        # asyncio: something else has to.
        loop.call_later(0.001, tick)

    loop.call_soon(started.set)
    loop.call_soon(tick)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started.wait()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def quiet(loop, context):
    """An exception handler for losers of races, which are expected here."""


def refused(function, *args):
    """Call what only the loop's thread may do: on a free-threaded build it may be refused."""
    try:
        return function(*args)
    except RuntimeError as exc:
        assert FREE_THREADED and WRONG_THREAD in str(exc), exc
        return None
