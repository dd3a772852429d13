"""What is public says what it does, and has types: the API reference and editors show both."""

import asyncio
import inspect

import pytest

import asyncloop

# asyncio's own names on classes that derive from its classes are asyncio's to describe.
BASES = (asyncio.AbstractEventLoop, asyncio.Future, asyncio.Task, Exception, tuple)


def functions_of(name):
    """(what it is called, function or property) of a public name, itself among them."""
    value = getattr(asyncloop, name)
    if not inspect.isclass(value):
        yield name, value
        return
    for attribute, own in vars(value).items():
        if not attribute.startswith("_") and not any(hasattr(base, attribute) for base in BASES):
            if callable(own) or isinstance(own, (property, staticmethod, classmethod)):
                yield f"{name}.{attribute}", own


def plain(function):
    if isinstance(function, property):
        return function.fget
    return getattr(function, "__func__", function)


@pytest.mark.parametrize("name", sorted(asyncloop.__all__))
def test_says_what_it_does(name):
    first = (inspect.getdoc(getattr(asyncloop, name)) or "").partition("\n")[0]
    assert first.endswith((".", ":")), first
    for called, function in functions_of(name):
        assert inspect.getdoc(function), called


@pytest.mark.parametrize("name", sorted(asyncloop.__all__))
def test_has_types(name):
    for called, function in functions_of(name):
        if not inspect.isfunction(plain(function)):
            continue  # of C: its types are in _core.pyi, which `make lint` compares
        signature = inspect.signature(plain(function))
        assert signature.return_annotation is not signature.empty, called
        for parameter in signature.parameters.values():
            if parameter.name not in ("self", "cls"):
                assert parameter.annotation is not parameter.empty, (called, parameter)
