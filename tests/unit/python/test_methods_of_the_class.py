"""The methods of C that asyncloop.Loop has as its own."""

import asyncio
import inspect
import types

import pytest

import asyncloop

METHODS = ["call_soon", "call_later", "call_at", "time", "create_future", "add_reader", "is_closed"]


@pytest.mark.our_loop("only asyncloop's methods are C")
@pytest.mark.parametrize("name", METHODS)
def test_methods_of_c_are_of_the_class(loop, name):
    # Of the object's class exactly, CPython calls them without a look along its bases.
    method = vars(asyncloop.Loop)[name]
    core = getattr(asyncloop._core.Loop, name)
    assert isinstance(method, types.MethodDescriptorType)
    assert method.__objclass__ is asyncloop.Loop
    assert inspect.signature(method) == inspect.signature(core)
    assert method.__doc__ == core.__doc__


@pytest.mark.our_loop("only asyncloop has classes between the core and the loop")
def test_method_of_a_class_between_is_not_passed_over(loop):
    assert isinstance(asyncloop.Loop.stop, types.FunctionType)


@pytest.mark.our_loop("only asyncloop has a core")
def test_only_a_class_of_loops_gets_methods(loop):
    for wrong in (object, asyncio.BaseEventLoop, None, 1):
        with pytest.raises(TypeError):
            asyncloop._core._give_methods(wrong)


async def waits_for_a_future():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, 1)
    return await future


def test_mixin_before_the_loop(loop):
    class Between:
        seen: list[str] = []

        def call_soon(self, callback, *args, context=None):
            self.seen.append("call_soon")
            return super().call_soon(callback, *args, context=context)

    class Mixed(Between, type(loop)):
        pass

    mixed = Mixed()
    try:
        assert mixed.run_until_complete(waits_for_a_future()) == 1
        # by the task that is made, by the one above, by the future for the task
        assert len(Between.seen) >= 3
    finally:
        mixed.close()


def test_method_is_replaced_and_put_back(loop, monkeypatch):
    kind = type(loop)
    standard = kind.call_soon
    seen = []

    def call_soon(self, callback, *args, context=None):
        seen.append(callback)
        return standard(self, callback, *args, context=context)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "call_soon", call_soon)
        assert loop.run_until_complete(waits_for_a_future()) == 1
        assert len(seen) >= 3
    seen.clear()
    assert loop.run_until_complete(waits_for_a_future()) == 1
    assert seen == []


def test_methods_want_a_loop(loop):
    for name in ("call_soon", "call_later", "call_at", "add_reader"):
        method = getattr(type(loop), name)
        with pytest.raises(TypeError):
            method()
        with pytest.raises((TypeError, AttributeError)):
            method(object(), 1, print)
