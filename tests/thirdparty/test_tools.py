"""Other people's tools on asyncloop: profilers, tracers, monitors, debuggers.

Each row of the table in docs/tools.md is a test here: the program tools/use_NAME.py, in a process
of its own, on the standard loop and on asyncloop, in an environment below build/ with the versions
in PINNED. What cannot work is in EXPECTED with its reason, and has to fail.
"""

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
    "py_spy": ["py-spy==0.4.3"],
    "pyinstrument": ["pyinstrument==5.1.3"],
    "pystack": ["pystack==1.7.2"],
    "sentry": ["sentry-sdk==2.75.0"],
    "viztracer": ["viztracer==1.1.1"],
}

# tool: (versions of Python, reason). It has to fail there, on asyncloop alone.
EXPECTED = {}
# The same on both loops: the tool does not work with this Python.
BROKEN = {}


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
    for tools, names in [(list(PINNED), everything), *(([tool], PINNED[tool]) for tool in PINNED)]:
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
    if tool in missing:
        pytest.skip(f"not to be had for this Python: {missing[tool]}")
    for table, counts in ((EXPECTED, impl.ours), (BROKEN, True)):
        versions, reason = table.get(tool, ((), ""))
        if counts and PY in versions:
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
