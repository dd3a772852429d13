"""`python -m asyncloop`: a program sees what it sees under plain `python`, but for the loop.

Most tests run a program both ways and compare all that it leaves: output, errors, exit status.
"""

import os
import py_compile
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import asyncloop

PACKAGE_PARENT = str(Path(asyncloop.__file__).resolve().parent.parent)

# Prints what a program can see of how it was started. Addresses differ from run to run.
LOOK_AROUND = """\
import re, sys
names = {k: v for k, v in globals().items() if k not in ("re", "sys", "__annotations__")}
print(sys.argv, sys.path[0], re.sub("0x[0-9a-f]+", "0x", repr(sorted(names.items()))))
print(sys.modules["__main__"].__dict__ is globals())
"""

WHICH_LOOP = """\
import asyncio
async def main():
    return type(asyncio.get_running_loop())
print(asyncio.run(main()).__module__.partition(".")[0])
"""


def start(*args, runner=(), flags=(), cwd=None, input=None, env=None):
    environment = {**os.environ, **(env or {})}
    environment["PYTHONPATH"] = PACKAGE_PARENT
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, *flags, *runner, *map(str, args)],
        cwd=cwd,
        env=environment,
        input=input if input is not None else "",
        capture_output=True,
        text=True,
        timeout=60,
    )


def cli(*args, **kwargs):
    return start(*args, runner=("-m", "asyncloop"), **kwargs)


def without_runpy(text):
    """A traceback without the frames of `python -m`'s own machinery, which we do not have."""
    kept = []
    for line in text.splitlines():
        if 'File "<frozen runpy>"' not in line:
            kept.append(line + "\n")
    return "".join(kept)


def assert_same(*args, **kwargs):
    plain, ours = start(*args, **kwargs), cli(*args, **kwargs)
    assert ours.stdout == plain.stdout
    assert ours.stderr == without_runpy(plain.stderr)
    assert ours.returncode == plain.returncode
    return ours


@pytest.fixture
def folder(tmp_path):
    """A folder with a few programs in it."""
    (tmp_path / "script.py").write_text(LOOK_AROUND)
    (tmp_path / "loop.py").write_text(WHICH_LOOP)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "__main__.py").write_text(LOOK_AROUND)
    (tmp_path / "pkg" / "part.py").write_text(LOOK_AROUND + "from . import __name__ as n; print(n)")
    (tmp_path / "link.py").symlink_to("pkg/part.py")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "__init__.py").write_text("")
    return tmp_path


def test_programs_run_on_asyncloop(folder):
    for args in (["loop.py"], ["-m", "loop"], ["-c", WHICH_LOOP]):
        done = cli(*args, cwd=folder)
        assert (done.stdout, done.stderr, done.returncode) == ("asyncloop\n", "", 0)
    done = cli("-", input=WHICH_LOOP, cwd=folder)
    assert (done.stdout, done.stderr) == ("asyncloop\n", "")
    assert start("loop.py", cwd=folder).stdout == "asyncio\n"


def test_every_default_loop_is_ours():
    done = cli(
        "-c",
        textwrap.dedent(
            """\
            import asyncio, unittest
            async def kind():
                return type(asyncio.get_running_loop()).__module__.partition(".")[0]
            with asyncio.Runner() as runner:
                print(runner.run(kind()))
            loop = asyncio.new_event_loop()
            print(loop.run_until_complete(kind()))
            loop.close()
            class Test(unittest.IsolatedAsyncioTestCase):
                async def test(self):
                    print(await kind())
            unittest.TextTestRunner(stream=open("/dev/null", "w")).run(
                unittest.defaultTestLoader.loadTestsFromTestCase(Test))
            """
        ),
        flags=["-W", "error::DeprecationWarning"],
    )
    assert (done.stdout, done.returncode) == ("asyncloop\n" * 3, 0), done.stderr


def test_no_warning_of_our_own_and_none_of_the_program_lost(folder):
    assert cli("loop.py", cwd=folder, flags=["-W", "error"]).stderr == ""
    (folder / "warns.py").write_text("import warnings; warnings.warn('old', DeprecationWarning)")
    assert "DeprecationWarning: old" in assert_same("warns.py", cwd=folder).stderr


def test_named_loops_stay_what_they_are():
    code = "import asyncio, selectors; l = asyncio.SelectorEventLoop(selectors.DefaultSelector())\n"
    code += "print(type(l).__module__); l.close()"
    assert cli("-c", code).stdout == "asyncio.unix_events\n"


def test_where_python_has_no_policies():
    """As it will be in Python 3.16: the functions are gone, and asyncio.run asks events."""
    code = WHICH_LOOP + "l = asyncio.new_event_loop(); print(type(l).__module__); l.close()"
    program = (
        "import asyncio, asyncio.events, runpy, sys\n"
        "asyncio.events.new_event_loop = asyncio.new_event_loop = asyncio.SelectorEventLoop\n"
        "del asyncio.set_event_loop_policy\n"
        f"sys.argv[1:] = ['-c', {code!r}]\n"
        "runpy.run_module('asyncloop', run_name='__main__', alter_sys=True)\n"
    )
    done = start("-c", program)
    assert done.stdout.split() == ["asyncloop", "asyncloop._loop"], done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["script.py"],
        ["./script.py", "a", "-b", "--", "-m", "c"],
        ["pkg/../script.py"],
        ["link.py"],
        ["-m", "script", "x"],
        ["-mscript"],
        ["-m", "pkg", "-h"],
        ["-m", "pkg.part"],
        ["-m", "pkg.__main__"],
        ["pkg", "y"],
        ["-c", LOOK_AROUND, "-c", "--version"],
        ["-c" + LOOK_AROUND],
    ],
    ids=lambda args: " ".join(args)[:20].partition("\n")[0],
)
def test_surroundings(folder, args):
    done = assert_same(*args, cwd=folder)
    assert done.returncode == (1 if args == ["link.py"] else 0), done.stderr


def test_surroundings_from_stdin(folder):
    assert_same("-", "a", input=LOOK_AROUND, cwd=folder)


def test_absolute_path_from_elsewhere(folder, tmp_path_factory):
    assert_same(folder / "script.py", cwd=tmp_path_factory.mktemp("elsewhere"))


def test_safe_path(folder):
    for args in (["script.py"], ["pkg"], ["-c", LOOK_AROUND]):
        plain = start(*args, cwd=folder, flags=["-P"])
        ours = cli(*args, cwd=folder, flags=["-P"])
        assert ours.stdout == plain.stdout


def test_compiled_and_zipped(folder):
    py_compile.compile(str(folder / "script.py"), str(folder / "script.pyc"))
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK_AROUND + "import beside; print(beside.__file__)")
        archive.writestr("beside.py", "")
    assert assert_same("script.pyc", cwd=folder).stdout
    assert "app.zip" in assert_same("app.zip", "z", cwd=folder).stdout


def test_encoding_cookie(folder):
    (folder / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))\n")
    assert assert_same("latin.py", cwd=folder).stdout == "'\\xe4'\n"


@pytest.mark.parametrize(
    "args",
    [
        ["missing.py"],
        ["-m", "missing"],
        ["-m", "missing.part"],
        ["-m", "pkg.missing"],
        ["-m", "empty"],
        ["empty"],
        ["-m", "sys"],
    ],
    ids=" ".join,
)
def test_programs_that_are_not_there(folder, args):
    plain, ours = start(*args, cwd=folder), cli(*args, cwd=folder)
    assert ours.returncode == plain.returncode
    assert ours.stderr.count("\n") == 1
    assert "Traceback" not in ours.stderr
    # Plain Python adds the reason why the parent was not found; the beginning is the same.
    assert plain.stderr.startswith(ours.stderr.partition(" (")[0].rstrip("\n").partition(": No")[0])
    assert args[-1].partition(".")[0] in ours.stderr


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit",
        "raise SystemExit(0)",
        "raise SystemExit(3)",
        "raise SystemExit('goodbye')",
        "raise SystemExit((1, 2))",
        "import sys; sys.exit(-1)",
        "def f():\n    1 / 0\ndef g():\n    f()\ng()",
        "x = 1\nthis is no Python",
        "raise ValueError('outer') from KeyError('inner')",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError",
        "raise BaseExceptionGroup('both', [ValueError(), KeyboardInterrupt()])",
        "import nothing_of_this_name",
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise OSError('x')\n"
        "async def main():\n    await f()\nimport os\ntry:\n    asyncio.run(main())\n"
        "except OSError as e:\n    print(e)\nos._exit(7)",
    ],
)
def test_how_it_ends(folder, code):
    (folder / "program.py").write_text(code)
    assert_same("program.py", cwd=folder)
    assert_same("-m", "program", cwd=folder)
    plain, ours = start("-c", code, cwd=folder), cli("-c", code, cwd=folder)
    assert (ours.stdout, ours.returncode) == (plain.stdout, plain.returncode)
    assert ours.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]


def test_traceback_out_of_the_loop_has_no_frames_of_the_runner(folder):
    (folder / "fails.py").write_text(
        "import asyncio\nasync def main():\n    raise OSError('from inside')\nasyncio.run(main())\n"
    )
    done = cli("fails.py", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f'Traceback (most recent call last):\n  File "{folder}/fails.py", line 4, in <module>\n'
    )
    assert done.stderr.endswith("OSError: from inside\n")
    assert "__main__.py" not in done.stderr


def test_keyboard_interrupt_ends_by_the_signal(folder):
    for code in (
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)",
        "raise KeyboardInterrupt",
    ):
        (folder / "program.py").write_text(code)
        assert assert_same("program.py", cwd=folder).returncode == -signal.SIGINT
        assert assert_same("-m", "program", cwd=folder).returncode == -signal.SIGINT


def test_ctrl_c_out_of_a_running_loop(folder):
    (folder / "program.py").write_text(
        "import asyncio, os, signal\n"
        "async def main():\n"
        "    try:\n"
        "        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)\n"
        "        await asyncio.sleep(30)\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "asyncio.run(main())\n"
    )
    done = cli("program.py", cwd=folder)
    assert done.stdout == "cleaned up\n"
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.returncode == -signal.SIGINT


def test_excepthook_of_the_program_gets_its_own_frames_only(folder):
    (folder / "program.py").write_text(
        "import atexit, sys, traceback\n"
        "def hook(kind, error, tb):\n"
        "    print(kind.__name__, [f.name for f in traceback.extract_tb(tb)])\n"
        "    print(error.__traceback__ is tb)\n"
        "sys.excepthook = hook\n"
        "atexit.register(lambda: print(sys.excepthook is hook))\n"
        "def f():\n"
        "    raise ValueError\n"
        "f()\n"
    )
    done = assert_same("program.py", cwd=folder)
    assert done.stdout == "ValueError ['<module>', 'f']\nTrue\nTrue\n"


def test_atexit_and_threads_after_the_end(folder):
    (folder / "program.py").write_text(
        "import atexit, sys, threading, time\n"
        "value = 'still here'\n"
        "def late():\n"
        "    time.sleep(0.2)\n"
        "    print(value, sys.modules['__main__'].value)\n"
        "atexit.register(lambda: print('bye', value, __name__))\n"
        "threading.Thread(target=late).start()\n"
    )
    done = assert_same("program.py", cwd=folder)
    assert done.stdout == "still here still here\nbye still here __main__\n"


def test_pickle_and_multiprocessing_find_main(folder):
    (folder / "program.py").write_text(
        "import multiprocessing, pickle\n"
        "class Thing:\n"
        "    pass\n"
        "def square(x):\n"
        "    return x * x\n"
        "if __name__ == '__main__':\n"
        "    assert type(pickle.loads(pickle.dumps(Thing()))) is Thing\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(square, [1, 2, 3]))\n"
    )
    assert assert_same("program.py", cwd=folder).stdout == "[1, 4, 9]\n"
    assert assert_same("-m", "program", cwd=folder).stdout == "[1, 4, 9]\n"


def test_python_flags_reach_the_program():
    code = "import sys; print(sys.flags.dev_mode, sys.flags.optimize); assert False"
    assert_same("-c", code, flags=["-O", "-X", "dev"])


def test_help_version_and_wrong_usage():
    done = cli("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m asyncloop")
    assert cli("-h").stdout == done.stdout

    done = cli("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"asyncloop {asyncloop.__version__} (libev 4.")
    assert cli("-V").stdout == done.stdout

    for args in ([], ["-m"], ["-c"], ["--unknown"], ["-x", "script.py"]):
        done = cli(*args)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "usage: python -m asyncloop" in done.stderr
