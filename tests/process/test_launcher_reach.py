"""`asyncloop-run`: what it says of Pythons that it cannot reach, or not switch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import asyncloop
from asyncloop import _missing, _run, _switch

from .test_launcher import OURS, RUN, launch, lines

CANNOT = "cannot act"


@pytest.mark.parametrize(
    "words",
    [
        ["-X", "utf8", "-I"],
        ["-Xutf8", "-E"],
        ["-W", "ignore", "-bS"],
        ["-Wignore", "-I"],
        ["--check-hash-based-pycs", "default", "-I"],
    ],
    ids=" ".join,
)
def test_flags_behind_options_that_take_a_value(words):
    done = launch(sys.executable, *words, "-c", "print(1)")
    assert done.stdout == "1\n"
    assert CANNOT in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["-c", RUN, "-I"],
        ["-uc", RUN, "-E"],
        ["-W", "ignore", "-X", "dev", "-c", RUN],
        ["-WI", "-c", RUN],
        ["script.py", "-I"],
        ["-m", "script", "-S"],
        ["--", "script.py", "-S"],
    ],
    ids=lambda words: " ".join(words).replace(RUN, "CODE"),
)
def test_arguments_of_the_program_are_no_flags_of_python(words, tmp_path):
    (tmp_path / "script.py").write_text(RUN)
    done = launch(sys.executable, *words, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert CANNOT not in done.stderr


@pytest.mark.parametrize(
    "first, expected",
    [
        ("#!/usr/bin/python3 -I", "I"),
        ("#!/usr/bin/env -S python3 -W ignore -I", "I"),
        ("#!/usr/bin/env -S A=1 B=2 python3 -ES", "ES"),
        ("#!/usr/bin/env python3", ""),
        ("#!/bin/sh -E", ""),
        ("#! /usr/bin/env", ""),
        ("#!", ""),
        ("", ""),
        ("#!/usr/bin/env -S A=1", ""),
    ],
)
def test_first_lines(first, expected, tmp_path):
    script = tmp_path / "command"
    script.write_bytes(first.encode() + b"\nprint(1)\n\xff")
    assert _run._deaf_flags(["command", "-I"], str(script)) == expected


def test_a_dash_is_where_the_program_is():
    assert _run._deaf_flags(["python", "-", "-I"], "/usr/bin/python") == ""
    assert _run._deaf_flags(["python"], "/usr/bin/python") == ""
    assert _run._deaf_flags(["python", "-X"], "/usr/bin/python") == ""


# -- --check ----------------------------------------------------------------------------------


def test_check_does_not_say_that_no_loop_ran_where_it_could_not_look():
    done = launch("env", "-i", sys.executable, "-c", RUN, options=["--check"])
    assert lines(done) == ["asyncio.unix_events"]
    assert "no Python process was reached" in done.stderr


def test_check_of_pythons_without_a_loop():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])"
    done = launch(sys.executable, "-c", code, options=["--check"])
    assert done.stderr.splitlines() == [
        "asyncloop-run: no event loop ran in the Python processes reached (2)"
    ]


@pytest.mark.parametrize("folder", ["ä b", "a\tb", "a\nb", "a\x1b[31mb"], ids=ascii)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_check_of_any_name_in_any_locale(folder, locale, tmp_path):
    script = tmp_path / folder / "ü.py"
    script.parent.mkdir()
    script.write_text(RUN)
    env = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = launch(sys.executable, script, options=["--check"], env=env)
    assert lines(done) == [OURS]
    told = done.stderr.splitlines()
    assert len(told) == 1 and ": asyncloop.Loop: " in told[0], told
    assert "\x1b" not in done.stderr


def test_check_inside_of_another():
    inner = [sys.executable, "-m", "asyncloop._run", "--check", sys.executable, "-c", RUN]
    package = str(Path(asyncloop.__file__).resolve().parent.parent)
    done = launch(*inner, options=["--check"], env={"PYTHONPATH": package})
    assert lines(done) == [OURS]
    told = [line for line in done.stderr.splitlines() if ": asyncloop.Loop: " in line]
    assert len(told) == 2 and told[0] == told[1], done.stderr


def test_check_of_a_process_that_is_killed():
    code = RUN + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = launch("sh", "-c", '"$0" -c "$1"; exit 4', sys.executable, code, options=["--check"])
    assert done.returncode == 4
    assert done.stderr.count(": asyncloop.Loop: ") == 1, done.stderr


def test_a_report_that_cannot_be_written_is_no_harm(tmp_path):
    env = {"ASYNCLOOP_CHECK_FILE": str(tmp_path / "no folder" / "loops")}
    assert lines(launch(sys.executable, "-c", RUN, env=env)) == [OURS]


# -- Pythons that asyncloop is not for ----------------------------------------------------------


def test_an_older_python_is_named(monkeypatch):
    monkeypatch.setattr(_missing.sys, "version_info", (3, 8, 18, "final", 0))
    assert _missing.not_built() == "asyncloop needs CPython 3.11 or newer; this is cpython 3.8.18"


def test_what_a_python_meets_that_is_too_old(tmp_path):
    """It may import asyncio, and ask where it is; when it makes a loop it ends in one line."""
    path = Path(_switch.SITE) / "sitecustomize.py"
    for node in ast.walk(ast.parse(path.read_text())):  # Python 2 and 3.6 read it as well
        assert not isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr))
        assert getattr(node, "returns", None) is None
    pretends = f"""if 1:
        import importlib.util, os, sys
        assert "asyncio" not in sys.modules
        version, sys.version_info = sys.version_info, (3, 10, 13, "final", 0)
        os.environ["ASYNCLOOP_RUN"] = "1"
        sys.path.insert(0, {os.fspath(path.parent)!r})
        sys.modules["sitecustomize"] = sys
        spec = importlib.util.spec_from_file_location("site_of_ours", {os.fspath(path)!r})
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        sys.version_info = version
        assert importlib.util.find_spec("asyncio") is not None
        import asyncio
        print("goes on", flush=True)
        async def main():
            print("runs")
    """
    makes = "asyncio.run(main())", "asyncio.new_event_loop()", "asyncio.Runner().get_loop()"
    if sys.version_info >= (3, 16):
        makes = ()
    for code in ("pass", *makes):
        done = subprocess.run(
            [sys.executable, "-c", f"{pretends}\n        {code}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "goes on\n", done.stderr
        if code != "pass":
            assert done.returncode == 2
            first = done.stderr.splitlines()[0]
            assert " makes an event loop, and asyncloop needs Python 3.11" in first


@pytest.mark.parametrize(
    "stranger",
    [
        "",
        "new_event_loop = None",
        "def new_event_loop(): pass",
        "def new_event_loop(): return 'loop'",
        "raise ImportError('broken')",
        "raise ModuleNotFoundError('no core', name='asyncloop._core')",
    ],
)
def test_a_package_of_that_name_that_gives_no_loop(stranger, tmp_path):
    """As somebody else's, or a module of the program's own: one line, and never another loop."""
    (tmp_path / "asyncloop.py").write_text(stranger)
    (tmp_path / "program.py").write_text(RUN)
    done = launch(sys.executable, tmp_path / "program.py")
    assert done.returncode == 2 and done.stdout == ""
    line = done.stderr.splitlines()[0]
    assert line.startswith("asyncloop-run: ") and "asyncloop" in line
    assert "Traceback" not in done.stderr


def test_no_descriptor_for_a_loop():
    """What asyncio's own loop would raise; and never another loop."""
    code = """if 1:
        import asyncio, os, resource
        asyncio.new_event_loop().close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        try:
            while True:
                os.dup(0)
        except OSError:
            pass
        try:
            asyncio.new_event_loop()
        except OSError as error:
            print("none", error.errno)
    """
    assert lines(launch(sys.executable, "-c", code)) == ["none", "24"]
