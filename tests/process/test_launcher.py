"""`asyncloop-run`: every Python process of a command gets asyncloop, and who chose another is told.

The commands here are small programs; servers are in tests/thirdparty/test_selection.py.
"""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
import venv
import zipfile
from pathlib import Path

import pytest

import asyncloop

PACKAGE_PARENT = str(Path(asyncloop.__file__).resolve().parent.parent)
OURS = "asyncloop._loop"
STOCK = "asyncio.unix_events"

NAME = """\
import asyncio
async def name():
    return type(asyncio.get_running_loop()).__module__
"""
RUN = NAME + "print(asyncio.run(name()))\n"


def launch(*words, options=(), env=None, cwd=None):
    environment = {**os.environ, **(env or {})}
    for name in ("ASYNCLOOP_RUN", "ASYNCLOOP_CHECK", "ASYNCLOOP_AS_UVLOOP", "UVICORN_LOOP"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "asyncloop._run", *options, *map(str, words)],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def python(code, *args, **kwargs):
    return launch(sys.executable, "-c", textwrap.dedent(code), *args, **kwargs)


def lines(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# -- what is switched ---------------------------------------------------------------------


WAYS = {
    "run": "print(asyncio.run(name()))",
    "runner": "with asyncio.Runner() as runner: print(runner.run(name()))",
    "new_event_loop": """
        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(name()))
        loop.close()""",
    "new_event_loop of events": """
        from asyncio.events import new_event_loop
        loop = new_event_loop()
        print(loop.run_until_complete(name()))
        loop.close()""",
    "selector loop by its name": """
        loop = asyncio.SelectorEventLoop()
        print(loop.run_until_complete(name()))
        loop.close()""",
    "unittest": """
        import unittest
        class Test(unittest.IsolatedAsyncioTestCase):
            async def test(self):
                print(await name())
        unittest.main(argv=["x"], exit=False)""",
}
if sys.version_info < (3, 14):
    WAYS["get_event_loop"] = """
        loop = asyncio.get_event_loop_policy().get_event_loop()
        print(loop.run_until_complete(name()))
        loop.close()"""
    WAYS["a default policy"] = """
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
        print(asyncio.run(name()))"""
    WAYS["no policy"] = """
        asyncio.set_event_loop_policy(None)
        print(asyncio.run(name()))"""


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_a_loop(way):
    done = python(NAME + textwrap.dedent(WAYS[way]))
    assert lines(done) == [OURS]
    assert "asyncloop-run" not in done.stderr


def test_asyncio_imported_by_a_module_that_is_imported_first(tmp_path):
    (tmp_path / "early.py").write_text("from asyncio import *\nfrom asyncio import events\n")
    code = "import early\nassert early.events is early.events\n" + RUN
    assert lines(python(code, cwd=tmp_path)) == [OURS]


def test_who_only_asks_where_asyncio_is():
    code = "import importlib.util as u, sys\nu.find_spec('asyncio')\n"
    code += "assert 'asyncio' not in sys.modules or sys.version_info >= (3, 16)\n" + RUN
    assert lines(python(code)) == [OURS]


CHILDREN = {
    "subprocess": "import subprocess, sys; subprocess.run([sys.executable, sys.argv[1]])",
    "shell": "import os, sys; os.system(f'{sys.executable} {sys.argv[1]}')",
    "fork": """
        import os, runpy, sys
        if os.fork() == 0:
            runpy.run_path(sys.argv[1])
            sys.stdout.flush()
            os._exit(0)
        os.wait()""",
    "fork after a loop": """
        import asyncio, os, runpy, sys
        asyncio.run(asyncio.sleep(0))
        if os.fork() == 0:
            runpy.run_path(sys.argv[1])
            sys.stdout.flush()
            os._exit(0)
        os.wait()""",
    "spawn": """
        import multiprocessing, runpy, sys
        if __name__ == "__main__":
            child = multiprocessing.get_context("spawn").Process(
                target=runpy.run_path, args=(sys.argv[1],))
            child.start()
            child.join()""",
    "forkserver": """
        import multiprocessing, runpy, sys
        if __name__ == "__main__":
            child = multiprocessing.get_context("forkserver").Process(
                target=runpy.run_path, args=(sys.argv[1],))
            child.start()
            child.join()""",
    "process pool": """
        import concurrent.futures, multiprocessing, runpy, sys
        if __name__ == "__main__":
            with concurrent.futures.ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(exec, f"import runpy; runpy.run_path({sys.argv[1]!r})").result()""",
    "exec": "import os, sys; os.execv(sys.executable, [sys.executable, sys.argv[1]])",
}


@pytest.mark.parametrize("way", CHILDREN)
def test_children(way, tmp_path):
    script = tmp_path / "child.py"
    script.write_text("if __name__ in ('__main__', '<run_path>'):\n" + textwrap.indent(RUN, "    "))
    parent = tmp_path / "parent.py"
    parent.write_text(textwrap.dedent(CHILDREN[way]))
    assert lines(launch(sys.executable, parent, script)) == [OURS]


def test_children_of_python_m_asyncloop(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(RUN)
    parent = tmp_path / "parent.py"
    parent.write_text(CHILDREN["subprocess"])
    done = subprocess.run(
        [sys.executable, "-m", "asyncloop", parent, script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert lines(done) == [OURS]


def test_script_with_a_shebang(tmp_path):
    script = tmp_path / "command"
    script.write_text(f"#!{sys.executable}\n{RUN}")
    script.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert lines(launch("command", env={"PATH": path})) == [OURS]


def test_zipapp(tmp_path):
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as app:
        app.writestr("__main__.py", RUN)
    assert lines(launch(sys.executable, tmp_path / "app.pyz")) == [OURS]


# -- what stays ------------------------------------------------------------------------------


def test_a_subclass_and_a_selector_of_the_programs_own_stay():
    done = python(
        NAME
        + textwrap.dedent("""
            import selectors
            class Own(asyncio.SelectorEventLoop):
                pass
            for loop in Own(), asyncio.SelectorEventLoop(selectors.SelectSelector()):
                print(loop.run_until_complete(name()))
                assert isinstance(loop, asyncio.SelectorEventLoop)
                loop.close()""")
    )
    assert lines(done) == ["__main__", STOCK] or lines(done) == [STOCK, STOCK]
    told = done.stderr.splitlines()
    assert len(told) == 2 and all("not on asyncloop: " in line for line in told), told


def test_the_programs_own_loop_is_told_of_once(tmp_path):
    done = python(
        NAME
        + textwrap.dedent("""
            import selectors
            factory = lambda: asyncio.SelectorEventLoop(selectors.DefaultSelector())
            for _ in range(3):
                with asyncio.Runner(loop_factory=factory) as runner:
                    print(runner.run(name()))""")
    )
    assert lines(done) == [STOCK] * 3
    assert done.stderr.count("not on asyncloop") == 1
    assert "asyncloop.new_event_loop" in done.stderr


def test_environment_and_path_of_the_program():
    look = "import sys, os; print(sys.path, sys.argv, sys.flags, 'sitecustomize' in sys.modules)"
    plain = subprocess.run([sys.executable, "-c", look, "a b"], capture_output=True, text=True)
    assert launch(sys.executable, "-c", look, "a b").stdout.replace("True", "False") == (
        plain.stdout.replace("True", "False")
    )


def test_pythonpath_is_kept(tmp_path):
    (tmp_path / "mine.py").write_text("value = 'mine'\n")
    done = python(
        "import mine, sys; print(mine.value)\n" + RUN, env={"PYTHONPATH": str(tmp_path)}
    )
    assert lines(done) == ["mine", OURS]


def test_a_sitecustomize_of_the_users_own_runs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.customized = __file__\n")
    done = python(
        "print(customized)\nimport sitecustomize; print(sitecustomize.__file__)\n" + RUN,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert lines(done) == [str(tmp_path / "sitecustomize.py")] * 2 + [OURS]


def test_a_sitecustomize_that_fails_is_the_users_affair(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import there_is_no_such_module\n")
    done = python(RUN, env={"PYTHONPATH": str(tmp_path)})
    assert lines(done) == [OURS]
    assert "there_is_no_such_module" in done.stderr


def test_exit_status_and_signals_are_the_commands():
    assert python("raise SystemExit(7)").returncode == 7
    assert python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode == -9
    done = python("raise SystemExit(7)", options=["--check"])
    assert done.returncode == 7
    done = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", options=["--check"])
    assert done.returncode == -9
    done = python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", options=["--check"])
    assert done.returncode == -15 and "no event loop ran" in done.stderr


def test_check_passes_signals_on(tmp_path):
    ready = tmp_path / "ready"
    code = f"""
        import pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        pathlib.Path({str(ready)!r}).touch()
        time.sleep(30)"""
    child = subprocess.Popen(
        [sys.executable, "-m", "asyncloop._run", "--check", sys.executable, "-c",
         textwrap.dedent(code)],
        stderr=subprocess.PIPE,
    )
    for _ in range(600):
        if ready.exists():
            break
        time.sleep(0.05)
    child.terminate()
    child.communicate(timeout=30)
    assert child.returncode == 3


def test_check_hands_on_no_second_ctrl_c():
    """The terminal gives it to the command as well, wherever its input comes from."""
    code = """if 1:
        import signal, time
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        print("ready", flush=True)
        until = time.monotonic() + 30
        while not seen and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.3)
        print("seen", len(seen))
    """
    on_terminal = """if 1:
        import fcntl, os, sys, termios
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    """
    terminal, end = os.openpty()
    words = ["-m", "asyncloop._run", "--check", sys.executable, "-c", code]
    with subprocess.Popen(
        [sys.executable, "-c", on_terminal, *words],
        stdin=subprocess.DEVNULL,
        stdout=end,
        stderr=end,
        start_new_session=True,
    ) as child:
        os.close(end)
        said = b""
        with open(terminal, "rb", buffering=0) as file:
            while b"ready" not in said:
                said += file.read(1000)
            os.write(terminal, b"\x03")
            with contextlib.suppress(OSError):  # Linux, when nobody has the other end any more
                while part := file.read(1000):
                    said += part
    assert child.returncode == 0
    assert b"seen 1" in said and b"no event loop ran" in said


# -- what is said ------------------------------------------------------------------------------


def test_check_names_each_process(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(RUN)
    done = python(CHILDREN["subprocess"] + "\n" + RUN, script, options=["--check"])
    assert lines(done) == [OURS, OURS]
    told = [line for line in done.stderr.splitlines() if ": asyncloop.Loop: " in line]
    assert len(told) == 2 and len({line.split()[2] for line in told}) == 2, done.stderr


def test_check_of_what_is_no_python():
    done = launch("true", options=["--check"])
    assert done.returncode == 0
    assert done.stderr == "asyncloop-run: no event loop was seen: no Python process was reached\n"


def test_check_by_the_environment_alone():
    code = NAME + "import asyncloop\nprint(asyncloop.run(name()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ASYNCLOOP_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert lines(done) == [OURS]
    assert "runs on asyncloop.Loop" in done.stderr


@pytest.mark.parametrize("flags", ["-I", "-E", "-S", "-uIB"])
def test_a_python_that_cannot_be_reached(flags):
    done = launch(sys.executable, flags, "-c", "print(1)")
    assert done.stdout == "1\n"
    assert "cannot act" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_shebang_that_cannot_be_reached(tmp_path):
    script = tmp_path / "command"
    script.write_text(f"#!{sys.executable} -I\nprint(1)\n")
    script.chmod(0o755)
    done = launch(script)
    assert done.stdout == "1\n"
    assert "cannot act" in done.stderr


@pytest.mark.parametrize(
    "words, status, message",
    [
        ([], 2, "no command given"),
        (["--bogus", "true"], 2, "unknown option --bogus"),
        (["there-is-no-such-command"], 127, "command not found"),
        (["/"], 126, "cannot run /: Is a directory"),
        ([__file__], 126, f"cannot run {__file__}: Permission denied"),
        (["--check"], 2, "no command given"),
    ],
)
def test_bad_command_lines(words, status, message):
    done = launch(*words)
    assert done.returncode == status
    assert message in done.stderr and "Traceback" not in done.stderr


def test_help_and_version():
    assert launch("--help").stdout.startswith("usage: asyncloop-run")
    assert launch("--version").stdout.startswith(f"asyncloop {asyncloop.__version__}")


def test_another_environment_finds_the_package_too(tmp_path):
    venv.create(tmp_path / "other", symlinks=True)
    other = tmp_path / "other" / "bin" / "python"
    done = launch(other, "-c", RUN, cwd=tmp_path, env={"PYTHONPATH": PACKAGE_PARENT})
    assert lines(done) == [OURS]


def test_a_python_without_asyncloop_ends_in_one_line(tmp_path):
    # A copy of what the launcher puts on the path, beside which there is no package.
    source = Path(asyncloop.__file__).parent
    (tmp_path / "p" / "_site").mkdir(parents=True)
    for name in ("_switch.py", "_site/sitecustomize.py"):
        (tmp_path / "p" / name).write_text((source / name).read_text())
    venv.create(tmp_path / "other", symlinks=True)
    done = subprocess.run(
        [tmp_path / "other" / "bin" / "python", "-c", RUN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "p" / "_site"), "ASYNCLOOP_RUN": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "cannot import asyncloop" in done.stderr and "Traceback" not in done.stderr


# -- in the place of uvloop --------------------------------------------------------------------


def test_as_uvloop():
    done = python(
        NAME
        + textwrap.dedent("""
            import uvloop, uvloop.loop
            from uvloop import Loop, new_event_loop
            assert uvloop.loop.Loop is Loop
            assert uvloop.__version__.split("+")[0] > "0.20"
            loop = new_event_loop()
            assert isinstance(loop, Loop)
            print(loop.run_until_complete(name()))
            loop.close()
            print(uvloop.run(name()))
            if hasattr(uvloop, "install"):
                import warnings
                warnings.simplefilter("ignore")
                uvloop.install()
                asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
                print(asyncio.run(name()))
            else:
                print(asyncio.run(name()))"""),
        options=["--as-uvloop"],
    )
    assert lines(done) == [OURS] * 3


def test_as_uvloop_does_not_invent_a_distribution():
    done = python(
        """
        import importlib.metadata
        try:
            version = importlib.metadata.version("uvloop")
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        import uvloop
        print(version == "none" or version != uvloop.__version__)""",
        options=["--as-uvloop"],
    )
    assert lines(done) == ["True"]


def test_as_uvloop_after_the_real_one(monkeypatch):
    from types import ModuleType

    from asyncloop import _switch

    monkeypatch.setitem(sys.modules, "uvloop", ModuleType("uvloop"))
    before = list(sys.meta_path)
    with pytest.warns(RuntimeWarning, match="imported already"):
        _switch.answer_for_uvloop()
    assert sys.meta_path == before


# -- pytest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, expected", [([], OURS), (["--no-asyncloop"], STOCK)])
def test_pytest_plugin(tmp_path, options, expected):
    (tmp_path / "test_it.py").write_text(
        NAME
        + textwrap.dedent(f"""
            import unittest
            def test_run():
                assert asyncio.run(name()) == {expected!r}
            class Test(unittest.IsolatedAsyncioTestCase):
                async def test(self):
                    assert await name() == {expected!r}""")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "asyncloop.pytest_plugin", "-p",
         "no:cacheprovider", *options, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PACKAGE_PARENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2 passed" in done.stdout, done.stdout
