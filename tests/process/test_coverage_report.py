"""tools/never_run.toml: why lines of the core never run in the tests."""

import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def report(monkeypatch):
    path = ROOT / "tools" / "coverage_report.py"
    spec = importlib.util.spec_from_file_location("coverage_report", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coverage_report", module)
    spec.loader.exec_module(module)
    return module


def test_what_has_a_reason_is_there(report):
    """Also what runs in some runs of the tests, of which `make coverage` asks no more."""
    entries = report.read_entries()
    assert len(entries) > 100
    assert [str(entry) for entry in report.gone(ROOT, entries)] == []


def test_what_is_gone_is_found(report):
    whys = [
        report.Entry("why", file="src/loop/nothing.c"),
        report.Entry("why", function="no_function_of_ours"),
        report.Entry("why", function="loop_report", text="nothing_of_ours()"),
        report.Entry("why", function="loop_report", text="return;"),
    ]
    assert report.gone(ROOT, whys) == whys[:3]
