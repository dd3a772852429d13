"""What the environment asks of asyncloop, with bad values of every kind: a line, no more.

asyncio has nothing like it. Each program runs in a process of its own.
"""

import os
import subprocess
import sys

import pytest

from tests.support import Impl, import_root

ROOT = import_root(Impl.named("asyncloop"))
PROGRAM = "import asyncio, asyncloop; asyncloop.run(asyncio.sleep(0)); print('runs')"
SWITCHES = ("ASYNCLOOP_PAGE", "ASYNCLOOP_STRONG_TASKS", "ASYNCLOOP_TASK_ACCOUNTING")
TIMES = ("ASYNCLOOP_WATCHDOG", "ASYNCLOOP_SHUTDOWN")
NONSENSE = (" ", "-1", "nan", "1e999", "0x1", b"\xff\xfe", "a\nb", "[::1]x", "\u0661:")


def run(code=PROGRAM, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout == "runs\n", done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize("value", NONSENSE, ids=ascii)
def test_nonsense_everywhere(value):
    """A line for each variable that names it."""
    names = (*SWITCHES, *TIMES, "ASYNCLOOP_DUMP_SIGNAL", "ASYNCLOOP_PROBE")
    lines = run(**dict.fromkeys(names, value))
    assert sorted(line.split()[1].partition("=")[0].rstrip(":") for line in lines) == sorted(names)
    assert all(line.startswith("asyncloop: ASYNCLOOP_") for line in lines)


def test_words_that_switch_off():
    names = (*SWITCHES, "ASYNCLOOP_CHECK", "ASYNCLOOP_SYSTEMD")
    code = f"""if 1:
        import asyncloop, os, sys
        assert "asyncloop._page" not in sys.modules or not asyncloop._page._users
        assert not asyncloop.Loop._strong_by_default
        {PROGRAM}
    """
    for word in ("0", "false", "No", " OFF "):
        assert run(code, **dict.fromkeys(names, word), NOTIFY_SOCKET="/nowhere/at/all") == []


def test_what_cannot_be_loaded():
    """As where there are no descriptors left, or no memory."""
    names = {
        "ASYNCLOOP_PAGE": "_page",
        "ASYNCLOOP_WATCHDOG": "_watchdog",
        "ASYNCLOOP_DUMP_SIGNAL": "_dump",
        "ASYNCLOOP_STRONG_TASKS": "_tasks",
        "ASYNCLOOP_PROBE": "_liveness",
        "ASYNCLOOP_SHUTDOWN": "_shutdown",
    }
    code = f"""if 1:
        import sys
        class Refuses:
            def find_spec(self, name, path=None, target=None):
                if name.removeprefix("asyncloop.") in {set(names.values())}:
                    raise OSError(24, "Too many open files")
        sys.meta_path.insert(0, Refuses())
        {PROGRAM}
    """
    assert run(code, **dict.fromkeys(names, "1")) == [
        f"asyncloop: {name}: [Errno 24] Too many open files" for name in names
    ]


@pytest.mark.parametrize("path", ["{}/none/alive", "{}"])
def test_a_health_file_that_cannot_be(path, tmp_path):
    (line,) = run(ASYNCLOOP_HEALTH_FILE=path.format(tmp_path))
    assert line.startswith("asyncloop: the health file '/") and " cannot be made as it is" in line


def test_a_health_file_whose_folder_comes_later(tmp_path):
    code = f"""if 1:
        import os, time
        def wait():
            os.mkdir({os.fspath(tmp_path / "later")!r})
            while not os.path.exists(os.environ["ASYNCLOOP_HEALTH_FILE"]):
                time.sleep(0.01)
        {PROGRAM.replace("sleep(0)", "to_thread(wait)")}
    """
    assert len(run(code, ASYNCLOOP_HEALTH_FILE=os.fspath(tmp_path / "later" / "alive"))) == 1


def test_a_health_file_whose_name_is_no_text(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff"
    code = f"""if 1:
        import os, time
        def wait():
            while not os.path.exists(os.environb[b"ASYNCLOOP_HEALTH_FILE"]):
                time.sleep(0.01)
        {PROGRAM.replace("sleep(0)", "to_thread(wait)")}
    """
    assert run(code, ASYNCLOOP_HEALTH_FILE=path) == []
