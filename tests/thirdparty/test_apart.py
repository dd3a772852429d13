"""Packages that would change every test run where they are installed: in an environment apart.

It is made below build/ at the first run, with the versions in PINNED.
"""

import subprocess
import sys
import venv

import pytest

from .conftest import ROOT
from .test_libraries import check
from .test_plugins import count

PINNED = ["looptime==0.9", "pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-socket==0.8.1"]
PINNED += ["trio==0.35.0"]  # adds itself to hypothesis
OPTIONS = ["-o", "asyncio_default_fixture_loop_scope=function"]
# pytest-socket warns of what it refuses, and with looptime some loops are closed by the collector.
OPTIONS += ["-W", "ignore::UserWarning", "-W", "ignore::ResourceWarning"]
FOLDER = ROOT / "build" / f"plugins-{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="session")
def python_with_plugins():
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".packages"
    if not stamp.exists() or stamp.read_text() != repr(PINNED):
        venv.create(FOLDER, with_pip=True, clear=True)
        install = [python, "-m", "pip", "-qq", "install", *PINNED]
        subprocess.run(install, check=True, stdin=subprocess.DEVNULL, timeout=300)
        stamp.write_text(repr(PINNED))
    return python


@pytest.mark.parametrize(
    "name, tests",
    [
        ("looptime", 4),
        ("pytest_socket", 9),
    ],
)
def test_plugin(impl, run_suite, python_with_plugins, name, tests):
    output = run_suite(impl, f"{name}_suite.py", *OPTIONS, module=True, python=python_with_plugins)
    assert count(output) == tests


def test_trio_as_a_guest(impl, python_with_plugins):
    check(impl, "trio_guest", python=python_with_plugins)
