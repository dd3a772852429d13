"""The pytest plugins of anyio and pytest-asyncio, in child processes, with suites of their own."""

import re

import pytest

PYTEST_ASYNCIO = ["-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:anyio"]


def count(output):
    """How many tests passed; nothing else than passing and expected failures is accepted."""
    last = output.strip().splitlines()[-1]
    kinds = {kind.rstrip("s") for kind in re.findall(r"\d+ ([a-z]+)", last)}
    assert kinds <= {"passed", "xfailed"}, output
    return int(last.split()[0])


def test_anyio(impl, run_suite):
    assert count(run_suite(impl, "anyio_suite.py", "-p", "no:asyncio")) >= 28


def test_anyio_unchanged(impl, run_suite):
    """The suite knows nothing of asyncloop: `python -m asyncloop -m pytest`."""
    output = run_suite(impl, "anyio_suite.py", "-p", "no:asyncio", module=True)
    assert count(output) >= 28


@pytest.mark.parametrize("module", [False, True], ids=["hook", "python-m"])
def test_pytest_asyncio(impl, run_suite, module):
    output = run_suite(impl, "pytest_asyncio_suite.py", *PYTEST_ASYNCIO, module=module)
    assert count(output) == 8
