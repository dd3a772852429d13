"""Which loop really runs in the servers and tools that people start: see table.py.

With the launcher every program runs on asyncloop, but those that name another loop, which is said.
"""

import importlib.metadata
import importlib.util

import pytest

from . import table as selection

try:
    importlib.metadata.version("granian")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("in an environment of its own: make selection", allow_module_level=True)


def check(name, way, answer, output, expected):
    assert answer.startswith(expected), f"{answer}\n{output[-3000:]}"
    said = "not on asyncloop" in output
    # Who runs on another loop is told, if anything can tell: the line goes to standard error.
    assert said == (not answer.startswith(selection.OURS)) or name in selection.TOOLS, output


@pytest.mark.parametrize("name", [*selection.SERVERS, *selection.TOOLS])
def test_launcher_that_answers_for_uvloop(name):
    way = selection.WAYS["asyncloop-run --as-uvloop"]
    answer, output = selection.running_loop(name, way)
    expected = selection.NAMES_ANOTHER.get(name, selection.OURS)
    check(name, way, answer, output, expected)


@pytest.mark.parametrize("name", [*selection.SERVERS, *selection.TOOLS])
def test_launcher_where_uvloop_is_not_installed(name, tmp_path):
    if name in selection.NEEDS_UVLOOP:
        pytest.skip("does not start without uvloop, on any loop")
    way = selection.WAYS["asyncloop-run"]
    answer, output = selection.running_loop(name, way, selection.hide_uvloop(tmp_path))
    expected = selection.NAMES_ANOTHER.get(name, selection.OURS)
    check(name, way, answer, output, expected)


@pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="no uvloop for this Python"
)
@pytest.mark.parametrize("name", sorted(selection.TAKES_UVLOOP))
def test_who_takes_uvloop_is_told_of(name):
    answer, output = selection.running_loop(name, selection.WAYS["asyncloop-run"])
    assert answer == "uvloop.Loop", output[-3000:]
    assert "asyncloop-run --as-uvloop" in output

