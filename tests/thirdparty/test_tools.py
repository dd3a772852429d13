"""Other people's tools on asyncloop: profilers, tracers, monitors, debuggers.

Each cell of the table in docs/tools.md is a test here: the program tools/use_NAME.py, in a process
of its own, on the standard loop and on asyncloop, in an environment below build/ with the versions
in PINNED. A cell that says anything else than "yes" is in one of the tables below with its reason,
and has to fail: a tool that works all the same, or can be had, fails the run.
"""

import importlib.util
import json
import os
import subprocess
import sys
import venv

import pytest

from tests.support import Impl, import_root

from .conftest import ROOT

PY = sys.version_info[:2]
PROGRAMS = ROOT / "tests" / "thirdparty" / "tools"
FOLDER = ROOT / "build" / f"tools-{PY[0]}.{PY[1]}"

PINNED = {
    "aiomonitor": ["aiomonitor==0.7.1"],
    "blockbuster": ["blockbuster==1.5.29"],
    "coverage": ["coverage==7.17.5"],
    "ddtrace_profiler": ["ddtrace==4.16.0", "zstandard==0.25.0"],
    "ddtrace_tracing": ["ddtrace==4.16.0"],
    "debugpy": ["debugpy==1.8.22"],
    "opentelemetry": [
        "opentelemetry-instrumentation-asyncio==0.66b1",
        "opentelemetry-sdk==1.45.1",
    ],
    "profiling_sampling": [],
    "py_spy": ["py-spy==0.4.3"],
    "pyinstrument": ["pyinstrument==5.1.3"],
    "pystack": ["pystack==1.7.2"],
    "sentry": ["sentry-sdk==2.75.0"],
    "viztracer": ["viztracer==1.1.1"],
}

# How the page calls them; the numbers are those of PINNED.
TITLES = {
    "aiomonitor": "aiomonitor 0.7.1",
    "blockbuster": "blockbuster 1.5.29",
    "coverage": "coverage 7.17.5",
    "ddtrace_profiler": "ddtrace 4.16.0, profiler",
    "ddtrace_tracing": "ddtrace 4.16.0, tracing",
    "debugpy": "debugpy 1.8.22",
    "opentelemetry": "OpenTelemetry's asyncio instrumentation 0.66b1",
    "profiling_sampling": "`python -m profiling.sampling --async-aware`",
    "py_spy": "py-spy 0.4.3",
    "pyinstrument": "pyinstrument 5.1.3",
    "pystack": "pystack 1.7.2",
    "sentry": "sentry-sdk 2.75.0",
    "viztracer": "viztracer 1.1.1",
}

PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

# {tool: {version of Python: reason}}: it does not work there on asyncloop, and does on asyncio.
EXPECTED = {}
# The same on both loops.
BROKEN = {}
# The tool cannot be installed for that Python.
MISSING = {
    "ddtrace_profiler": {(3, 15): "ddtrace 4.16.0 has no release for it"},
    "ddtrace_tracing": {(3, 15): "ddtrace 4.16.0 has no release for it"},
    "profiling_sampling": {
        version: "the interpreter has it from 3.15 on" for version in PYTHONS if version < (3, 15)
    },
}


def cell(tool, version):
    """What docs/tools.md says of a tool on a Python."""
    for table, text in ((MISSING, "none"), (BROKEN, "asyncio neither"), (EXPECTED, "no")):
        if version in table.get(tool, {}):
            return text
    return "yes"


@pytest.fixture(scope="session")
def environment():
    """An interpreter with the tools, and what could not be installed: {tool: why}."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".packages"
    wanted = json.dumps(PINNED)
    if stamp.exists() and json.loads(stamp.read_text())["wanted"] == wanted:
        return python, json.loads(stamp.read_text())["missing"]
    venv.create(FOLDER, with_pip=True, clear=True)
    pip = [python, "-m", "pip", "-qq", "install", "--prefer-binary"]
    missing = {}
    everything = sorted({name for names in PINNED.values() for name in names})
    alone = [([tool], names) for tool, names in PINNED.items() if names]
    for tools, names in [(list(PINNED), everything), *alone]:
        done = subprocess.run(
            [*pip, *names], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        if done.returncode == 0 and len(tools) > 1:
            break
        if done.returncode != 0 and len(tools) == 1:
            missing[tools[0]] = done.stderr.strip()[-300:]
    stamp.write_text(json.dumps({"wanted": wanted, "missing": missing}))
    return python, missing


@pytest.mark.parametrize("tool", sorted(PINNED))
def test_tool(request, impl, tool, environment, tmp_path):
    python, missing = environment
    if (reason := MISSING.get(tool, {}).get(PY)) is not None:
        to_be_had = tool not in missing and (PINNED[tool] or importlib.util.find_spec("profiling"))
        assert not to_be_had, f"there is {tool} for this Python: {reason}"
        pytest.skip(reason)
    assert tool not in missing, missing[tool]
    for table, counts in ((EXPECTED, impl.ours), (BROKEN, True)):
        reason = table.get(tool, {}).get(PY)
        if counts and reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    root = import_root(Impl.named("asyncloop")) or str(ROOT)
    done = subprocess.run(
        [python, PROGRAMS / f"use_{tool}.py", impl.loops],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, str(PROGRAMS)])},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip().endswith("works"), done.stdout


def test_the_page_has_a_cell_for_each():
    rows = {}
    for line in (ROOT / "docs" / "tools.md").read_text().splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 2 + len(PYTHONS):
            rows[cells[0]] = tuple(cells[1:-1])
    head = rows.pop("tool")
    assert head == tuple(f"{major}.{minor}" for major, minor in PYTHONS)
    for tool, title in TITLES.items():
        wanted = tuple(cell(tool, version) for version in PYTHONS)
        assert rows.pop(title) == wanted, title
        assert not PINNED[tool] or PINNED[tool][0].partition("==")[2] in title
    assert set(TITLES) == set(PINNED)
    # Tests of other files, of what comes with Python.
    assert set(rows) == {
        "`python -m asyncio ps`, `pstree`",
        "`asyncio.format_call_graph()`",
        "debug mode (`PYTHONASYNCIODEBUG=1`)",
    }
