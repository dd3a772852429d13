"""What tracers, monitors and wrappers of loops put in asyncio's places, and what they look at."""

import asyncio
import types
import weakref
from unittest import mock

import pytest

from tests.support import collect

BASE = asyncio.BaseEventLoop


def test_run_forever_of_the_base(impl):
    """A wrapper that every run goes through, also one that goes on after an error."""
    runs = []
    original = BASE.run_forever

    def run_forever(self):
        runs.append(self)
        while True:
            try:
                return original(self)
            except SystemExit:
                runs.append("error")

    def leave():
        raise SystemExit

    with mock.patch.object(BASE, "run_forever", run_forever):
        loop = impl.new_event_loop()
        loop.call_soon(leave)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert runs == [loop, "error"]
        assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
        assert runs == [loop, "error", loop]
    loop.run_until_complete(asyncio.sleep(0))
    assert len(runs) == 3
    loop.close()


@pytest.mark.parametrize("name", ["create_task", "call_soon", "_run"])
def test_code_of_a_method(impl, name):
    """Tracers that give the function other code. It counts from the next run on."""
    function = getattr(asyncio.Handle if name == "_run" else BASE, name)
    copy = types.FunctionType(function.__code__, function.__globals__, name, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    calls = []

    def replaced(*args, **kwargs):
        return _spy(*args, **kwargs)

    def spy(*args, **kwargs):
        calls.append(name)
        return copy(*args, **kwargs)

    loop = impl.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    original = function.__code__
    function.__globals__["_spy"] = spy
    try:
        function.__code__ = replaced.__code__.replace(
            co_name=original.co_name,
            co_qualname=original.co_qualname,
            co_filename=original.co_filename,
        )
        loop.run_until_complete(asyncio.wait_for(asyncio.sleep(0), 5))
        another = impl.new_event_loop()
        before = len(calls)
        assert before > 0
        another.run_until_complete(asyncio.sleep(0))
        assert len(calls) > before
    finally:
        function.__code__ = original
        del function.__globals__["_spy"]
    loop.close()
    another.close()


def test_closed_loop_whose_check_is_replaced(impl):
    """So that what is collected later does not complain. Nothing of it is called."""
    loop = impl.new_event_loop()
    loop._check_closed = lambda: None
    loop.close()
    handle = loop.call_soon(print, 1)
    assert not handle.cancelled()
    loop.call_soon_threadsafe(print, 1).cancel()
    task = loop.create_task(asyncio.sleep(0))
    task._log_destroy_pending = False
    task.get_coro().close()
    del loop._check_closed
    with pytest.raises(RuntimeError):
        loop.call_soon(print, 1)


def test_calls_of_a_closed_loop_are_collected(impl):
    class Own:
        pass

    loop = impl.new_event_loop()
    loop._check_closed = lambda: None
    loop.close()
    own = Own()
    own.handle = loop.call_soon(print, own)
    seen = weakref.ref(own)
    del own, loop
    collect()
    assert seen() is None


def test_wrap_future(run, loop):
    wrapped = []
    original = asyncio.futures.wrap_future

    def wrap_future(future, *, loop=None):
        wrapped.append(future)
        return original(future, loop=loop)

    async def main():
        with mock.patch.object(asyncio.futures, "wrap_future", wrap_future):
            assert await loop.run_in_executor(None, int) == 0
        assert len(wrapped) == 1
        assert await loop.run_in_executor(None, int) == 0
        assert len(wrapped) == 1
        await loop.shutdown_default_executor()

    run(main())


def test_chain_future(run, loop):
    chained = []
    original = asyncio.futures._chain_future

    def chain_future(source, destination):
        chained.append(destination)
        original(source, destination)

    async def main():
        with mock.patch.object(asyncio.futures, "_chain_future", chain_future):
            future = loop.run_in_executor(None, int)
            assert await future == 0
            assert chained == [future]
        await loop.shutdown_default_executor()

    run(main())


def test_what_a_step_is_called(run, loop):
    """Who makes a task go on with an error asks the queue how it would go on."""

    async def main():
        task = loop.create_task(asyncio.sleep(0))
        (step,) = [h._callback for h in loop._ready if h._callback.__self__ is task]
        assert "TaskStepMethWrapper" in str(step)
        await task

    run(main())
