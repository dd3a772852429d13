"""What a program puts into a Handle or a TimerHandle that waits."""

import asyncio
import contextvars
import gc
import socket
import weakref

import pytest

from tests.support import turns, until


def test_callback_and_arguments(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = []
        handle = loop.call_soon(calls.append, 1)
        handle._callback = lambda *args: calls.append(("wrapped", *args))
        await turns(2)
        handle = loop.call_soon(calls.append, 1)
        handle._args = (5,)
        await turns(2)
        handle = loop.call_soon(lambda *args: calls.append(args), 1, 2, 3)
        handle._args = [4, 5, 6, 7]
        assert list(handle._args) == [4, 5, 6, 7]
        await turns(2)
        timer = loop.call_later(0.001, print, 1)
        timer._callback = calls.append
        timer._args = ("timer",)
        await asyncio.sleep(0.01)
        assert calls == [("wrapped", 1), 5, (4, 5, 6, 7), "timer"]

    run(main())


def test_a_wrapped_callback_of_each_kind_of_call(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = []

        def wrap(handle):
            callback = handle._callback
            handle._callback = lambda *args: (calls.append("around"), callback(*args))

        wrap(loop.call_soon(calls.append, 1))
        wrap(loop.call_soon_threadsafe(calls.append, 2))
        wrap(loop.call_later(0, calls.append, 3))
        await asyncio.sleep(0.01)
        assert calls == ["around", 1, "around", 2, "around", 3]

    run(main())


def test_cancelled(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = []
        handle = loop.call_soon(calls.append, 1)
        handle._cancelled = False
        timer = loop.call_later(0, calls.append, 2)
        timer._cancelled = True
        assert timer.cancelled()
        other = loop.call_soon(calls.append, 3)
        other._cancelled = True
        await asyncio.sleep(0.01)
        assert calls == [1]

    run(main())


def test_when(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = []
        first = loop.call_later(100, calls.append, "first")
        second = loop.call_later(200, calls.append, "second")
        second._when = now = loop.time()
        loop._scheduled.sort()
        assert second.when() == now
        assert second < first
        await asyncio.sleep(0.01)
        assert calls == ["second"]
        first._when = 10**9
        loop._scheduled.sort()
        assert first.when() == 10**9
        assert isinstance(first.when(), int)
        first.cancel()

    run(main())


def test_context(run):
    variable = contextvars.ContextVar("variable", default="outside")

    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        context = contextvars.copy_context()
        context.run(variable.set, "inside")
        handle = loop.call_soon(lambda: seen.append(variable.get()))
        handle._context = context
        assert handle._context is context
        await turns(2)
        assert seen == ["inside"]

    run(main())


def test_text_traceback_and_loop(run):
    async def main():
        loop = asyncio.get_running_loop()
        handle = loop.call_soon(print)
        handle._repr = "<a name>"
        assert repr(handle) == "<a name>"
        handle._source_traceback = None
        assert handle._source_traceback is None
        handle._loop = loop
        handle.cancel()

    run(main())


def test_what_was_put_in_is_let_go(run):
    class Called:
        def __call__(self, *args):
            pass

    async def main():
        loop = asyncio.get_running_loop()
        old, new, argument = Called(), Called(), Called()
        references = [weakref.ref(thing) for thing in (old, new, argument)]
        handle = loop.call_soon(old)
        handle._callback = new
        handle._args = (argument,)
        del old, new, argument
        assert references[0]() is None
        assert references[1]() is not None
        await turns(2)
        del handle
        gc.collect()
        assert [reference() for reference in references] == [None, None, None]

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_what_is_put_into_a_cancelled_one_is_let_go(run, loop, debug):
    class Argument:
        pass

    async def main():
        loop.set_debug(debug)
        for schedule in loop.call_soon, lambda function: loop.call_later(100, function):
            handle = schedule(print)
            handle.cancel()
            assert handle._args is None
            argument = Argument()
            there = weakref.ref(argument)
            handle._args = (argument,)
            del argument
            assert handle._args == (there(),) and handle._callback is None
            handle.cancel()
            await turns(2)
            assert there() is not None and handle.cancelled()
            del handle
            await turns(2)
            gc.collect()
            assert there() is None
        loop.set_debug(False)

    run(main())


def test_wrong_things(run):
    async def main():
        loop = asyncio.get_running_loop()
        handle = loop.call_later(100, print)
        with pytest.raises(AttributeError):
            handle.no_such_attribute = 1
        handle.cancel()

    run(main())


def test_call_of_the_loops_own(impl, run, loop, contexts):
    """asyncio's calls are methods of its protocols, which can be exchanged; ours are C."""
    if not impl.ours:
        pytest.skip("asyncio has no such calls")

    async def main():
        one, other = socket.socketpair()
        connecting = asyncio.ensure_future(
            loop.create_connection(
                asyncio.Protocol, sock=one, ssl=contexts[1], server_hostname="localhost"
            )
        )
        await until(lambda: loop._scheduled)
        (timer,) = loop._scheduled
        for name, value in [("_callback", print), ("_args", (1,)), ("_context", object())]:
            setattr(timer, name, None)
            with pytest.raises(AttributeError, match=f"{name} of a call of the loop's own"):
                setattr(timer, name, value)
        timer.cancel()
        timer._cancelled = True
        with pytest.raises(AttributeError, match="_cancelled of a call of the loop's own"):
            timer._cancelled = False
        connecting.cancel()
        await asyncio.wait([connecting])
        other.close()

    run(main())


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("count", range(5))
def test_what_few_handles_keep_beside_their_arguments(run, count, debug):
    class Argument:
        pass

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        seen = []
        args = tuple(Argument() for _ in range(count))
        refs = [weakref.ref(argument) for argument in args]
        timer = loop.call_later(0, lambda *given: seen.append(given), *args)
        timer._when = when = int(timer.when())
        handle = loop.call_soon(lambda *given: seen.append(given), *args)
        handle._repr = "<what it was>"
        gc.collect()
        assert timer.when() == when and type(timer._when) is int
        assert tuple(handle._args) == tuple(timer._args) == args
        await asyncio.sleep(0.01)
        assert seen == [args, args]
        assert tuple(handle._args) == tuple(timer._args) == args
        seen.clear()
        del args, handle, timer
        gc.collect()
        assert [ref for ref in refs if ref() is not None] == []

    run(main())
