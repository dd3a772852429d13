"""`asyncloop-run`: what a command is given is what it is given without the launcher."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import asyncloop
from asyncloop import _run, _switch

from .test_launcher import OURS, RUN, launch, lines

LAUNCHER = [sys.executable, "-m", "asyncloop._run"]
WAYS = pytest.mark.parametrize("options", [[], ["--check"]], ids=["exec", "check"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def both(options, *command, before="", **settings):
    """What the command prints without and with the launcher, after a line of the shell."""
    line = f'{before}\nexec "$@"'
    return [
        subprocess.run(
            ["sh", "-c", line, "sh", *launcher, *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            **settings,
        )
        for launcher in ([], [*LAUNCHER, *options])
    ]


def same(options, *command, **settings):
    plain, ours = both(options, *command, **settings)
    assert (ours.stdout, ours.returncode) == (plain.stdout, plain.returncode), ours.stderr
    return ours


# -- signals ------------------------------------------------------------------------------


@linux
@WAYS
@pytest.mark.parametrize("before", [":", "trap '' HUP INT QUIT TSTP CHLD"])
def test_signals_that_are_ignored_and_that_are_not(options, before):
    assert b"SigIgn" in same(options, "grep", "Sig[BI]", "/proc/self/status", before=before).stdout


@WAYS
def test_nobody_reads_any_more(options):
    command = [*LAUNCHER, *options, "sh", "-c", "kill -PIPE $$"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60).returncode == (
        -signal.SIGPIPE
    )


@linux
def test_check_stops_and_goes_on_with_the_command():
    with subprocess.Popen(
        [*LAUNCHER, "--check", "sh", "-c", "echo $$; exec sleep 60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as child:
        command = int(child.stdout.readline())

        def reach(stopped):
            while True:
                states = [
                    Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                    for pid in (child.pid, command)
                ]
                if [state == "T" for state in states] == [stopped, stopped]:
                    return
                time.sleep(0.02)

        child.send_signal(signal.SIGTSTP)
        reach(True)
        child.send_signal(signal.SIGCONT)
        reach(False)
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.kill(command, 0)


# -- descriptors, systemd --------------------------------------------------------------------


@WAYS
def test_descriptors(options):
    read, write = os.pipe()
    command = [*LAUNCHER, *options, sys.executable, "-c", f"import os; os.write({write}, b'here')"]
    subprocess.run(command, pass_fds=[write], stderr=subprocess.DEVNULL, timeout=60)
    os.close(write)
    with open(read) as file:
        assert file.read() == "here"


@WAYS
def test_sockets_of_systemd_are_the_commands(options):
    ask = 'test "$LISTEN_PID" = $$ && test "$WATCHDOG_PID" = $$ && test "$LISTEN_FDS" = 1'
    before = "export LISTEN_PID=$$ WATCHDOG_PID=$$ LISTEN_FDS=1"
    assert same(options, "sh", "-c", ask, before=before).returncode == 0


@WAYS
def test_standard_streams_that_are_closed(options):
    code = "import os; os.write(1, b'ran'); os._exit(5)"
    for before, status in (("exec 2>&-", 5), ("exec 0<&- 2>&-", 5), ("exec 2>/dev/full", 5)):
        ours = same(options, sys.executable, "-I", "-c", code, before=before)
        assert (ours.stdout, ours.returncode) == (b"ran", status)


# -- commands ----------------------------------------------------------------------------------


@WAYS
def test_a_script_without_a_first_line(options, tmp_path):
    script = tmp_path / "command"
    script.write_text('echo "$0 $1"; exec "$PYTHON" -c "$CODE"\n')
    script.chmod(0o755)
    env = {"PYTHON": sys.executable, "CODE": RUN}
    assert launch(script, "a b", options=options, env=env).stdout.split("\n") == [
        f"{script} a b",
        OURS,
        "",
    ]


@WAYS
def test_what_no_kernel_runs(options, tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF\0\0\n")
    binary.chmod(0o755)
    wrong = tmp_path / "wrong"
    wrong.write_text(f"#!{tmp_path}/there-is-none\n")
    wrong.chmod(0o755)
    for command, message in ((binary, "Exec format error"), (wrong, "No such file or directory")):
        done = launch(command, options=options)
        assert done.returncode == 126
        assert done.stderr.splitlines()[0] == f"asyncloop-run: cannot run {command}: {message}"


def test_who_is_called_python():
    for name in ("python", "python3", "python3.14t", "pypy3.10", "python3.13-c", "python3d"):
        assert _run._is_python(f"/usr/bin/{name}"), name
    for name in ("python3-config", "python-argcomplete", "pythonic", "python3-coverage", "ipython"):
        assert not _run._is_python(f"/usr/bin/{name}"), name


def test_notes_that_were_cut():
    junk = ["", "1", "2\t", "3\tasyncio.Loop", "x\ufffd"]
    assert _run._told([*junk, "4\tasyncloop.Loop\tcommand"]) == [
        "process 4: asyncloop.Loop: command"
    ]
    assert _run._told(junk) == ["no event loop was seen: no Python process was reached"]


# -- the path of the program ---------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("path", ["", ":", "x:", ":x", "x::y z", "./x:../y"])
def test_parts_of_pythonpath(options, path, tmp_path):
    package = str(Path(asyncloop.__file__).resolve().parent.parent)
    look = tmp_path / "look.py"
    look.write_text("import sys; print(sys.path)\n")
    env = {**os.environ, "PYTHONPATH": path and f"{path}:{package}"}
    plain = subprocess.run([sys.executable, look], env=env, cwd=tmp_path, capture_output=True)
    if not path:
        env["PYTHONPATH"] = path
    ours = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.append({package!r})\nfrom asyncloop import _run; _run.main()",
            *options,
            sys.executable,
            look,
        ],
        env=env,
        cwd=tmp_path,
        capture_output=True,
    )
    assert ours.stdout == plain.stdout


def copy_of_the_launcher(folder):
    source = Path(asyncloop.__file__).parent
    (folder / "_site").mkdir(parents=True)
    for name in ("_switch.py", "_site/sitecustomize.py"):
        shutil.copy(source / name, folder / name)
    return str(folder / "_site")


def test_the_launcher_of_another_asyncloop(tmp_path):
    """The one that was typed last decides; both at once do no harm."""
    other = copy_of_the_launcher(tmp_path / "asyncloop")
    assert _switch.environment({"PYTHONPATH": f"x:{other}:"}, [])["PYTHONPATH"] == (
        f"{_switch.SITE}:x:"
    )
    package = str(Path(asyncloop.__file__).resolve().parent.parent)
    for path in ((_switch.SITE, other), (other, _switch.SITE)):
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            env={**os.environ, "PYTHONPATH": ":".join([*path, package]), "ASYNCLOOP_RUN": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert lines(done) == [OURS] and done.stderr == ""


@pytest.mark.parametrize("off", ["0", "", "off", "False"])
def test_switched_off_for_a_child(off):
    code = "import os, subprocess, sys\n"
    code += f"os.environ['ASYNCLOOP_RUN'] = {off!r}\n"
    code += "subprocess.run([sys.executable, '-c', sys.argv[1]])"
    done = launch(sys.executable, "-c", code, RUN)
    assert lines(done) == ["asyncio.unix_events"] and done.stderr == ""


def test_a_module_of_the_programs_own_that_is_called_asyncio(tmp_path):
    (tmp_path / "asyncio.py").write_text("mine = True\n")
    (tmp_path / "program.py").write_text("import asyncio\nprint(asyncio.mine)\n")
    done = launch(sys.executable, tmp_path / "program.py")
    assert lines(done) == ["True"] and done.stderr == ""


@pytest.mark.parametrize("place", ["sys.meta_path.insert(0, Hook)", "sys.meta_path[:] = [Hook]"])
def test_a_finder_of_the_programs_own_that_comes_first(place):
    code = f"""if 1:
        import sys
        from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
        class Hook:
            @staticmethod
            def find_spec(name, path=None, target=None):
                for finder in BuiltinImporter, FrozenImporter, PathFinder:
                    if spec := finder.find_spec(name, path, target):
                        return spec
        {place}
    """
    done = launch(sys.executable, "-c", code + "\n" + RUN)
    assert lines(done) == [OURS] and done.stderr == ""


def test_names_of_uvloop():
    code = """if 1:
        import inspect, uvloop
        assert uvloop.loop.Loop is uvloop.Loop
        from uvloop._version import __version__
        assert __version__ == uvloop.__version__
        print(inspect.getfile(uvloop) == uvloop.__file__)
    """
    assert lines(launch(sys.executable, "-c", code, options=["--as-uvloop"])) == ["True"]


@pytest.mark.parametrize("launcher", [LAUNCHER, [sys.executable, "-m", "asyncloop"]])
def test_a_folder_that_was_removed(launcher, tmp_path):
    script = tmp_path / "program.py"
    script.write_text("import sys; print(sys.path[0])\n" + RUN)
    gone = tmp_path / "gone"
    gone.mkdir()
    python = [sys.executable] if launcher is LAUNCHER else []
    package = str(Path(asyncloop.__file__).resolve().parent.parent)
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *launcher, *python, script],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=60,
    )
    with contextlib.suppress(FileNotFoundError):
        gone.rmdir()
    assert lines(done) == [str(tmp_path), OURS], done.stderr
