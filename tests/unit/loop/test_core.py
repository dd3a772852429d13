"""Corners of the core: arguments by name, calls inside calls, what is left at the end."""

import asyncio
import gc
import os
import selectors
import socket
import weakref

import pytest

from tests.support import check_script, collect, spin

# -- arguments by name --------------------------------------------------------------------------


def test_callbacks_by_name(loop):
    seen = []
    loop.call_soon(callback=lambda: seen.append("soon"))
    loop.call_soon_threadsafe(callback=lambda: seen.append("threadsafe"))
    loop.call_later(delay=0, callback=lambda: seen.append("later"))
    loop.call_later(0, callback=lambda: seen.append("later, too"))
    loop.call_at(when=loop.time(), callback=lambda: seen.append("at"))
    spin(loop, 3)
    assert sorted(seen) == ["at", "later", "later, too", "soon", "threadsafe"]


def test_context_beside_a_callback_by_name(loop):
    import contextvars

    variable = contextvars.ContextVar("variable")
    context = contextvars.Context()
    context.run(variable.set, 1)
    seen = []

    def note():
        seen.append(variable.get(None))

    loop.call_soon(context=context, callback=note)
    loop.call_soon(callback=note, context=None)
    loop.call_soon_threadsafe(callback=note, context=context)
    spin(loop, 2)
    loop.call_later(context=context, delay=0, callback=note)
    loop.call_at(loop.time(), callback=note, context=context)
    spin(loop, 2)
    assert seen == [1, None, 1, 1, 1]


def test_arguments_that_are_missing_or_wrong(loop):
    for call in (
        lambda: loop.call_soon(),
        lambda: loop.call_soon(context=None),
        lambda: loop.call_soon(callbac=print),
        lambda: loop.call_soon(print, callback=print),
        lambda: loop.call_soon_threadsafe(),
        lambda: loop.call_later(1),
        lambda: loop.call_later(callback=print),
        lambda: loop.call_later(1, delay=1, callback=print),
        lambda: loop.call_later(1, print, delay=1),
        lambda: loop.call_at(),
        lambda: loop.call_at(None, callback=print),
        lambda: loop.add_reader(0),
        lambda: loop.add_reader(callback=print),
        lambda: loop.remove_reader(),
        lambda: loop.remove_writer(0, 1),
        lambda: loop.create_task(),
    ):
        with pytest.raises(TypeError):
            call()


def test_callback_by_name_on_a_closed_loop(impl):
    loop = impl.new_event_loop()
    loop.close()
    for call in (
        lambda: loop.call_soon(callback=print),
        lambda: loop.call_soon_threadsafe(callback=print),
        lambda: loop.call_later(delay=0, callback=print),
        lambda: loop.call_at(when=0, callback=print),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()


def test_callback_by_name_is_checked_in_debug_mode(loop):
    async def coroutine():
        pass

    loop.set_debug(True)
    with pytest.raises(TypeError):
        loop.call_soon(callback=coroutine)
    with pytest.raises(TypeError):
        loop.call_later(delay=0, callback=5)


def test_descriptors_by_name(loop):
    one, other = socket.socketpair()
    seen = []
    with one, other:
        loop.add_reader(fd=one, callback=lambda: seen.append("reader"))
        loop.add_writer(one, callback=lambda: seen.append("writer"))
        other.send(b"x")
        spin(loop, 3)
        assert set(seen) == {"reader", "writer"}
        assert loop.remove_reader(fd=one) is True
        assert loop.remove_writer(fd=one.fileno()) is True


def test_task_by_name(loop, run):
    async def main():
        return 5

    assert run(loop.create_task(coro=main(), name="name")) == 5


@pytest.mark.our_loop("the standard one takes any selector")
def test_arguments_of_a_loop(impl):
    import asyncloop._core

    impl.Loop(None).close()
    impl.Loop(selector=None).close()
    with selectors.DefaultSelector() as selector:
        for wrong in 5, selector:
            with pytest.raises(TypeError):
                impl.Loop(wrong)
    for wrong in ((5,), {}), ((), {"debug": True}):
        with pytest.raises(TypeError, match="takes no arguments"):
            asyncloop._core.Loop(*wrong[0], **wrong[1])


# -- handles ------------------------------------------------------------------------------------


def test_repr_of_a_handle_that_was_cancelled_in_debug_mode(loop):
    loop.set_debug(True)
    for handle in (loop.call_soon(print, 1), loop.call_later(5, print, 1)):
        handle.cancel()
        assert " cancelled " in repr(handle)
        assert "print(1)" in repr(handle)


def test_callback_whose_repr_cancels_it(loop):
    class Callback:
        def __call__(self):
            pass

        def __repr__(self):
            handle.cancel()
            return "Callback"

    loop.set_debug(True)
    handle = loop.call_soon(Callback())
    handle.cancel()
    assert handle.cancelled()
    assert "Callback" in repr(handle)


def test_exit_exception_out_of_an_exception_handler_in_a_nested_call(loop):
    """handle._run() inside a callback, as libraries that wrap handles do it."""

    def handler(loop, context):
        raise SystemExit(5)

    def fail():
        raise ZeroDivisionError

    inner = loop.call_later(1000, fail)
    loop.set_exception_handler(handler)
    loop.call_soon(lambda: inner._run())
    with pytest.raises(SystemExit):
        loop.run_forever()
    inner.cancel()
    loop.set_exception_handler(None)


@pytest.mark.our_loop("the standard one does not run inside itself")
def test_run_inside_a_run_in_debug_mode(loop):
    loop.set_debug(True)
    seen = []

    def outer():
        before = loop._current_handle
        loop.call_soon(loop.stop)
        loop._run()
        seen.append(loop._current_handle is before)

    handle = loop.call_soon(outer)
    reference = weakref.ref(handle)
    del handle
    spin(loop, 2)
    assert seen == [True]
    collect()
    assert reference() is None


# -- descriptors --------------------------------------------------------------------------------


def test_ready_descriptor_while_the_loop_is_left_by_an_exception(loop):
    """What the same poll brought besides comes in the next run."""
    pairs = [socket.socketpair() for _ in range(3)]
    seen = []

    def readable(one):
        try:
            one.recv(10)
        except BlockingIOError:
            return  # the standard loop calls it again
        seen.append(one)
        if len(seen) == 1:
            raise KeyboardInterrupt

    for one, other in pairs:
        one.setblocking(False)
        other.send(b"x")
        loop.add_reader(one, readable, one)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert len(seen) == 1
    while len(seen) < 3:
        spin(loop)
    assert set(seen) == {one for one, _ in pairs}
    for one, other in pairs:
        loop.remove_reader(one)
        one.close()
        other.close()


# -- the end ------------------------------------------------------------------------------------


def test_end_of_the_process_with_everything_in_one_cycle(impl):
    """Objects of every kind die together with the modules that made them."""
    check_script(
        impl,
        """
warnings.simplefilter("ignore")
import builtins
if LOOP == "asyncloop":
    from asyncloop import _core
    Future = asyncloop.Future
else:
    Future = asyncio.Future
loop = new_event_loop()
async def sleeper():
    await asyncio.sleep(1000)
async def main():
    tasks = [asyncio.ensure_future(sleeper()) for _ in range(300)]
    await asyncio.sleep(0)
    return tasks
class Everything:
    def __del__(self):
        for _ in range(10):
            Future(loop=self.loop).cancel()
everything = Everything()
everything.loop = loop
everything.self = everything
everything.tasks = loop.run_until_complete(main())
for task in everything.tasks:
    task._log_destroy_pending = False
everything.futures = [loop.create_future() for _ in range(300)]
everything.handles = [loop.call_soon(print) for _ in range(300)]
everything.timers = [loop.call_later(1000, print) for _ in range(300)]
everything.modules = list(sys.modules.values())
builtins.everything = everything
print("end")
""",
        "end",
    )


def test_many_loops_in_sequence(impl):
    """Each leaves nothing behind but memory for the next."""
    for i in range(50):
        loop = impl.new_event_loop()
        loop.call_later(1000, os.getpid)
        loop.call_soon(os.getpid)
        loop.create_task(asyncio.sleep(0))
        spin(loop)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None
