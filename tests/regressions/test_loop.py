"""Threads, timers, futures and tasks: regressions 12, 14, 22, 23, and those next in line."""

import asyncio
import contextlib
import contextvars
import signal
import socket
import sys
import threading

import pytest

from tests.support import PY, check_script, collect, rss_kib, spin, turns, until, without_collector

# -- 12 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["stays", "stops and runs"])
def test_12_lost_wakeup(loop, thread, size, then):
    """uvloop #720, #408: a call from another thread that came while the loop went to sleep was lost
    until something else woke it. Each of eight threads waits for its call to be made before the
    next, so that one lost call hangs its thread."""
    count = size(300, 20_000)
    lost = []
    left = [8]

    def body():
        for _ in range(count):
            called = threading.Event()
            loop.call_soon_threadsafe(called.set)
            if not called.wait(30):
                lost.append(threading.get_ident())
                break
            if then == "stops and runs":
                loop.call_soon_threadsafe(loop.stop)
        left[0] -= 1
        loop.call_soon_threadsafe(loop.stop)

    for _ in range(8):
        thread(body)
    while left[0]:
        loop.run_forever()
    assert not lost


def test_12_wakeup_out_of_a_signal_handler(loop, thread):
    """uvloop #408: a Python signal handler that calls call_soon_threadsafe() wakes a loop that
    sleeps."""
    seen = []

    def handler(number, frame):
        loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(loop.stop)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for _ in range(20):
            waiting = loop.call_later(30, loop.stop)
            main = threading.main_thread().ident
            thread(lambda: signal.pthread_kill(main, signal.SIGUSR1))
            loop.run_forever()
            waiting.cancel()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1] * 20


# -- 14 -------------------------------------------------------------------------------------------


@pytest.mark.our_loop("asyncio keeps cancelled timers until it has many of them")
def test_14_cancelled_timers(loop, run, size):
    """uvloop #37, #201, #239, codex-lb #2042: cancelled timers kept what their callbacks were
    bound to, for as long as the time limit was."""
    count = size(20_000, 1_000_000)

    class Request:
        alive = 0

        def __init__(self):
            Request.alive += 1
            self.body = bytes(2000)

        def __del__(self):
            Request.alive -= 1

        def expire(self):
            raise AssertionError

    async def main():
        async def wave(count):
            for _ in range(count):
                handle = loop.call_later(3600, Request().expire)
                handle.cancel()
                assert Request.alive == 0
            forever = loop.create_future()
            for _ in range(count // 10):
                try:
                    await asyncio.wait_for(asyncio.shield(forever), 0)
                except TimeoutError:
                    pass
                async with asyncio.timeout(3600):
                    await asyncio.sleep(0)
            forever.cancel()

        await wave(2000)
        before = rss_kib()
        await wave(count)
        assert rss_kib() - before < 4096

    with without_collector():
        run(main())


# -- 22 -------------------------------------------------------------------------------------------


def futures_of(impl, loop):
    return impl.Future(loop=loop)


def test_22_equality_that_clears_the_callbacks(impl, loop):
    """cpython gh-97592, gh-125966: remove_done_callback() went on with a list that __eq__ of one
    of the callbacks had emptied."""
    future = futures_of(impl, loop)

    class Evil:
        busy = False

        def __eq__(self, other):
            if not Evil.busy:
                Evil.busy = True
                future.remove_done_callback(other)
                future.remove_done_callback(nothing)
                Evil.busy = False
            return False

        def __call__(self, future):
            pass

        __hash__ = None

    def nothing(future):
        pass

    for _ in range(5):
        future.add_done_callback(nothing)
        future.add_done_callback(Evil())
    assert future.remove_done_callback(lambda future: None) >= 0
    future.remove_done_callback(Evil())
    future.cancel()
    while future.remove_done_callback(nothing):
        pass


def test_22_equality_that_finishes_the_future(impl, loop, reports):
    """cpython gh-125984: callbacks scheduled while they are being removed."""
    future = futures_of(impl, loop)
    called = []

    class Evil:
        def __eq__(self, other):
            if not future.done():
                future.set_result(1)
            return True

        def __call__(self, future):
            called.append(future)

        __hash__ = None

    for _ in range(10):
        future.add_done_callback(Evil())
    future.remove_done_callback(Evil())
    spin(loop, 3)
    assert future.result() == 1
    assert len(called) <= 10


@pytest.mark.our_types("the standard Future of 3.12.1 and 3.13.0 crashes here")
def test_22_loop_with_evil_attributes(impl):
    """cpython gh-126405, gh-125789: attributes of a foreign loop that change the future while it
    asks for them."""
    future = None

    class Loop:
        calls = 0

        def get_debug(self):
            if future is not None:
                try:
                    future._asyncio_future_blocking = True
                except RuntimeError:
                    pass  # it is being made anew
            return False

        def __getattribute__(self, name):
            if name == "call_soon" and future is not None:
                Loop.calls += 1
                future.remove_done_callback(callback)
                if Loop.calls < 3:
                    with contextlib.suppress(RuntimeError):  # refused from 3.15 on
                        future.__init__(loop=self)
            return object.__getattribute__(self, name)

        def call_soon(self, callback, *args, context=None):
            pass

        def call_exception_handler(self, context):
            pass

        def is_running(self):
            return False

    def callback(future):
        pass

    future = impl.Future(loop=Loop())
    for _ in range(4):
        future.add_done_callback(callback)
    try:
        future.set_result(object())
    except (asyncio.InvalidStateError, RuntimeError):
        pass
    future.add_done_callback(callback)
    repr(future)
    future = None
    collect()


def test_22_destructor_of_a_result(impl, loop):
    """cpython gh-75011: __del__ of what a future held looked at the future."""
    seen = []

    class Result:
        def __init__(self, future):
            self.future = future

        def __del__(self):
            future = self.future
            try:
                future.add_done_callback(seen.append)
                future.remove_done_callback(seen.append)
            except RuntimeError:
                pass  # it is on its way out, or on its way in again
            impl.Future(loop=loop).cancel()

    for _ in range(20):
        future = futures_of(impl, loop)
        future.set_result(Result(future))
        with contextlib.suppress(RuntimeError):  # refused from 3.15 on
            future.__init__(loop=loop)
        future.cancel()
    collect()
    spin(loop, 2)


def test_22_task_whose_coroutine_is_evil(impl, loop, reports):
    """cpython gh-77804: what a task steps may be anything with send() and throw(), and may call
    the task back."""

    class Evil:
        def __init__(self):
            self.steps = 0

        def send(self, value):
            self.steps += 1
            task.cancel()
            task.uncancel()
            repr(task)
            task.get_stack()
            task.add_done_callback(lambda task: None)
            if self.steps > 3:
                raise StopIteration(self)
            return None

        def throw(self, *args):
            return self.send(None)

        def close(self):
            pass

        def __await__(self):
            return self

        def __iter__(self):
            return self

        __next__ = lambda self: self.send(None)

        cr_await = cr_frame = cr_running = cr_code = gi_frame = None

    import collections.abc

    collections.abc.Coroutine.register(Evil)
    task = impl.Task(Evil(), loop=loop)
    spin(loop, 10)
    assert task.done()
    if not task.cancelled():  # from 3.13 on uncancel() takes the cancellation back
        assert isinstance(task.result(), Evil)
    del task  # asyncio.iscoroutine() keeps the class, and so what its methods refer to


# -- 23 -------------------------------------------------------------------------------------------

needs_eager = pytest.mark.skipif(PY < (3, 12), reason="eager tasks came in 3.12")


@needs_eager
@pytest.mark.our_types("fixed in 3.14 and 3.15 only, in part")
@pytest.mark.parametrize("how", ["context type", "context entered", "not a coroutine", "bad loop"])
def test_23_eager_start_that_fails(impl, run, how):
    """cpython gh-157301, gh-155338, gh-154697: an eager start that failed left the wrong current
    task behind, or a loop that hung. Afterwards the loop runs other tasks as before."""

    async def child():
        return asyncio.current_task()

    async def main():
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        coroutine = child()
        arguments = {"loop": loop, "eager_start": True}
        if how == "context type":
            arguments["context"] = 5
        elif how == "context entered":
            arguments["context"] = me.get_context()
        elif how == "bad loop":
            arguments["loop"] = object()
        else:
            coroutine.close()
            coroutine = 5
        try:
            task = impl.Task(coroutine, **arguments)
        except Exception:
            task = None
        assert asyncio.current_task() is me
        if task is not None:
            await asyncio.wait([task])
            task.exception()
        elif how != "not a coroutine":
            coroutine.close()
        assert asyncio.current_task() is me
        other = impl.Task(child(), loop=loop, eager_start=True)
        assert await other is other
        assert asyncio.all_tasks() == {me}
        return 1

    assert run(main()) == 1


@needs_eager
def test_23_eager_tasks_and_happy_eyeballs(loop, run):
    """cpython gh-124309: with eager tasks and happy_eyeballs_delay, create_connection() never
    ended."""
    if sys.version_info < (3, 12, 8) or (3, 13) <= sys.version_info < (3, 13, 1):
        pytest.skip("asyncio.staggered, which every loop uses, was wrong before 3.12.8 and 3.13.1")
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        async def serve(reader, writer):
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

        async def getaddrinfo(*args, **kwargs):
            return addresses

        loop.getaddrinfo = getaddrinfo
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("name", port, happy_eyeballs_delay=0.25), 30
        )
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with socket.socket() as refused:
        refused.bind(("127.0.0.1", 0))
        closed = refused.getsockname()[1]
        run(main())


@needs_eager
def test_23_eager_start_in_a_foreign_thread(impl, loop, thread):
    """cpython gh-152020: an eager start outside of the loop's thread. It does not run the coroutine
    there: it raises, or leaves the first step to the loop."""

    async def child():
        return threading.get_ident()

    found = []

    def body():
        coroutine = child()
        try:
            found.append(impl.Task(coroutine, loop=loop, eager_start=True))
        except RuntimeError as exc:
            coroutine.close()
            found.append(exc)

    thread(body).join()
    (found,) = found
    if not isinstance(found, RuntimeError):
        assert loop.run_until_complete(found) == threading.get_ident()


# -- next in line ---------------------------------------------------------------------------------

FUZZ = """
import asyncloop._core as core, inspect, types

def hostile():
    return [None, 0, -1, 1 << 70, 1.5, float("nan"), "text", b"bytes", (), [], {}, object(), int,
            lambda *a, **k: None, asyncio.Protocol(), core]

loop = new_event_loop()
loop.set_exception_handler(lambda *args: None)
sys.unraisablehook = lambda info: None
warnings.simplefilter("ignore")
count = 0
kept = []
for name, kind in sorted(vars(core).items()):
    if not isinstance(kind, type) or issubclass(kind, BaseException):
        continue
    try:
        made = kind.__new__(kind)
    except TypeError:
        continue
    kept.append(made)
    for method in dir(kind):
        if method in ("__class__", "__reduce__", "__reduce_ex__", "__init_subclass__",
                      "__subclasshook__", "run_forever", "__new__", "__getattribute__"):
            continue
        try:
            found = getattr(made, method)
        except Exception:
            continue
        if not callable(found):
            continue
        for arguments in [()] + [(one,) for one in hostile()] + [(one, one) for one in hostile()]:
            count += 1
            try:
                result = found(*arguments)
                if inspect.iscoroutine(result):
                    result.close()
            except (Exception, asyncio.CancelledError):
                pass
    for attribute in dir(kind):
        for value in hostile():
            try:
                setattr(made, attribute, value)
            except Exception:
                pass
    try:
        repr(made)
    except Exception:
        pass
del made, kept
gc.collect()
loop.close()
assert count > 1000, count
print("ok")
"""


@pytest.mark.our_loop("what is tried is our core")
def test_next_types_without_init(impl):
    """uvloop #760: Server(None).close() was a segmentation fault. Every type of the core that can
    be made by __new__ alone, every method of it, with arguments that make no sense."""
    assert check_script(impl, FUZZ).stdout.endswith("ok\n")


def test_next_context_after_resume_reading(run, loop, impl):
    """cpython gh-140947, uvicorn #2167: data came in the context of whoever had called
    resume_reading(). Also for a BufferedProtocol, and over the whole life of a connection."""
    if not impl.ours:
        pytest.skip("open in asyncio")
    request = contextvars.ContextVar("request", default="none")
    seen = []

    class Protocol(asyncio.BufferedProtocol):
        def connection_made(self, transport):
            seen.append(request.get())

        def get_buffer(self, hint):
            seen.append(request.get())
            return bytearray(10)

        def buffer_updated(self, size):
            seen.append(request.get())

        def connection_lost(self, exc):
            seen.append(request.get())

    async def main():
        request.set("server")
        one, peer = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(Protocol, one)

        async def handle(number):
            request.set(number)
            transport.pause_reading()
            await turns(2)
            transport.resume_reading()
            peer.send(b"x")

        for number in range(5):
            count = len(seen)
            await loop.create_task(handle(number))
            await until(lambda: len(seen) >= count + 2)
        peer.close()
        await turns(5)

    run(main())
    assert len(seen) > 7
    assert set(seen) == {"server"}
