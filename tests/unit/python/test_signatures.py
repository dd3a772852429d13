"""Every public name of this Python's asyncio classes, with its signature."""

import asyncio
import inspect

import pytest

from tests.support import PY

BASES = [asyncio.AbstractEventLoop, asyncio.BaseEventLoop]


def public_names(kind):
    return [name for name in dir(kind) if not name.startswith("_")]


def signature(function):
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def accepts(theirs, ours):
    """Every way to call `theirs` by position or keyword also calls `ours`."""
    P = inspect.Parameter
    var_keyword = any(p.kind is P.VAR_KEYWORD for p in ours.parameters.values())
    var_positional = any(p.kind is P.VAR_POSITIONAL for p in ours.parameters.values())
    problems = []
    for name, parameter in theirs.parameters.items():
        if parameter.kind is P.VAR_POSITIONAL:
            if not var_positional:
                problems.append(f"no *{name}")
        elif parameter.kind is P.VAR_KEYWORD:
            if not var_keyword:
                problems.append(f"no **{name}")
        else:
            own = ours.parameters.get(name)
            if own is None:
                if parameter.kind is P.KEYWORD_ONLY and var_keyword:
                    continue
                if parameter.kind is not P.KEYWORD_ONLY and var_positional:
                    continue
                problems.append(f"no {name}")
            elif (own.default is P.empty) and parameter.default is not P.empty:
                problems.append(f"{name} has lost its default")
            elif parameter.kind is P.KEYWORD_ONLY and own.kind is P.POSITIONAL_ONLY:
                problems.append(f"{name} is positional only")
    for name, parameter in ours.parameters.items():
        required = parameter.default is P.empty and parameter.kind not in (
            P.VAR_POSITIONAL,
            P.VAR_KEYWORD,
        )
        if required and name not in theirs.parameters:
            if not any(p.kind is P.VAR_POSITIONAL for p in theirs.parameters.values()):
                problems.append(f"{name} is required here only")
    return problems


@pytest.mark.parametrize("base", BASES, ids=lambda b: b.__name__)
def test_loop_has_every_public_name(impl, base):
    missing = [name for name in public_names(base) if not hasattr(impl.Loop, name)]
    assert missing == []


def test_loop_signatures(impl):
    """Against the standard Unix loop, which is what users call."""
    standard = asyncio.SelectorEventLoop
    problems = {}
    unknown = []
    for name in public_names(standard):
        theirs = signature(getattr(standard, name))
        if theirs is None or not callable(getattr(standard, name)):
            continue
        ours = signature(getattr(impl.Loop, name))
        if ours is None:
            unknown.append(name)
            continue
        found = accepts(theirs, ours)
        if found:
            problems[name] = f"{found}: {theirs} / {ours}"
    assert problems == {}
    assert unknown == [], "without a text signature"


def test_loop_coroutine_methods_return_awaitables(impl):
    names = [
        name
        for name in public_names(asyncio.AbstractEventLoop)
        if inspect.iscoroutinefunction(getattr(asyncio.AbstractEventLoop, name))
    ]
    assert "create_connection" in names
    for name in names:
        assert callable(getattr(impl.Loop, name))


def test_loop_overrides_every_abstract_method(impl, loop):
    """Nothing is left that would raise NotImplementedError from the abstract class."""
    left = [
        name
        for name in public_names(asyncio.AbstractEventLoop)
        if getattr(impl.Loop, name) is getattr(asyncio.AbstractEventLoop, name)
    ]
    assert left == []


@pytest.mark.parametrize(
    "kind", ["Future", "Task"], ids=["Future", "Task"]
)
def test_future_and_task_names(impl, kind):
    standard = getattr(asyncio, kind)
    ours = getattr(impl, kind)
    missing = [
        name
        for name in dir(standard)
        if not hasattr(ours, name) and name not in ("__text_signature__",)
    ]
    assert missing == []


@pytest.mark.parametrize("kind", ["Future", "Task"])
def test_future_and_task_are_overridden(impl, kind):
    """The inherited code would read fields that our types don't use."""
    standard = getattr(asyncio, kind)
    ours = getattr(impl, kind)
    if ours is standard:
        return
    skipped = {"__new__", "__doc__", "__module__", "__class_getitem__", "__weakref__"}
    own = set()
    for base in ours.__mro__:
        if base.__module__.startswith("_asyncio") or base is object:
            break
        own |= set(vars(base))
    inherited = [
        name
        for base in standard.__mro__[:-1]
        for name in vars(base)
        if name not in own and name not in skipped
    ]
    assert inherited == []


@pytest.mark.parametrize("kind", ["Future", "Task"])
def test_future_and_task_signatures(impl, kind):
    standard = getattr(asyncio, kind)
    ours = getattr(impl, kind)
    problems = {}
    for name in public_names(standard):
        theirs = signature(getattr(standard, name))
        own = signature(getattr(ours, name))
        if theirs is None or own is None:
            continue
        found = accepts(theirs, own)
        if found:
            problems[name] = f"{found}: {theirs} / {own}"
    assert problems == {}


@pytest.mark.parametrize("kind", ["Handle", "TimerHandle"])
def test_handle_names(loop, kind):
    standard = getattr(asyncio, kind)
    if kind == "Handle":
        handle = loop.call_soon(print)
    else:
        handle = loop.call_later(1000, print)
    handle.cancel()
    names = [n for n in dir(standard) if not n.startswith("__")]
    names += ["_callback", "_args", "_cancelled", "_loop", "_repr", "_context"]
    missing = [name for name in names if not hasattr(handle, name)]
    assert missing == []


def test_transport_names(loop):
    """Instances of asyncio's own classes, with all of their methods."""
    import socket

    one, other = socket.socketpair()

    async def main():
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
        missing = [n for n in public_names(asyncio.Transport) if not hasattr(transport, n)]
        assert missing == []
        problems = {}
        for name in public_names(asyncio.Transport):
            theirs = signature(getattr(asyncio.Transport, name))
            ours = signature(getattr(type(transport), name))
            if theirs and ours and (found := accepts(theirs, ours)):
                problems[name] = found
        assert problems == {}
        transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    other.close()


def test_server_names(loop):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with server:
            assert isinstance(server, asyncio.AbstractServer)
            for name in public_names(asyncio.base_events.Server):
                assert hasattr(server, name), name

    loop.run_until_complete(main())


def test_the_version_is_covered():
    assert PY >= (3, 11)
