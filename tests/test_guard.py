"""The guards of conftest.py see what they are there for."""

import os
import subprocess
import sys

import pytest

from .support import CLASSES_ARE_IMMORTAL, Impl, import_root

PLANTED = """\
import asyncio, ctypes, socket, weakref
import asyncloop

kept = []


def lose(op):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(op))


def test_future(loop):
    lose(asyncloop.Future(loop=loop))


def test_task(run):
    async def main():
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        lose(task)

    run(main())


def test_transport(loop, run):
    async def main():
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
        transport.close()
        await asyncio.sleep(0)
        lose(transport)

    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        run(main())


def test_held_by_what_is_lost(loop):
    holder = type("Holder", (), {})()
    holder.future = asyncloop.Future(loop=loop)
    lose(holder)


def test_kept(loop):
    kept.append(asyncloop.Future(loop=loop))


def test_one_goes_and_one_stays(loop):
    kept.clear()
    lose(asyncloop.Future(loop=loop))


def test_good_cycle(loop):
    future = asyncloop.Future(loop=loop)
    future.add_done_callback(lambda _: future)


def test_good_with_a_proxy_of_nothing(loop):
    proxies.append(weakref.proxy(type("Thing", (), {})()))


def test_good(run):
    run(asyncio.sleep(0))


proxies = []
"""


def under_guard(folder, source):
    """The CompletedProcess of pytest on tests with this text, in a child under our conftest."""
    (folder / "test_planted.py").write_text(source)
    root = import_root(Impl.named("asyncloop"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest"]
    command += ["-p", "no:cacheprovider", "--loop", "asyncloop"]
    command += ["--rootdir", str(folder), "-c", os.devnull, str(folder)]
    return subprocess.run(
        command,
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )


@pytest.mark.skipif(CLASSES_ARE_IMMORTAL, reason="objects are not counted there")
@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="the planted leaks are found as such"
)
def test_objects_that_outlive_their_test(tmp_path):
    done = under_guard(tmp_path, PLANTED)
    found = {
        line.partition("::")[2].partition("[")[0]
        for line in done.stdout.splitlines()
        if line.startswith("LEFT ALIVE by ")
    }
    assert found == {
        "test_future",
        "test_task",
        "test_transport",
        "test_held_by_what_is_lost",
        "test_kept",
        "test_one_goes_and_one_stays",
    }, done.stdout
    assert done.returncode == pytest.ExitCode.INTERNAL_ERROR, done.stdout


def test_open_descriptors_and_reports(tmp_path):
    source = """\
import os


def test_opened(loop):
    os.dup(0)


def test_closed(loop):
    os.close(spare)


def test_reported(loop):
    loop.call_exception_handler({"message": "nobody expects it"})


def test_good(loop):
    pass


spare = os.dup(0)
"""
    done = under_guard(tmp_path, source)
    for reason in ("left open", "not the test's own", "nobody expects it"):
        assert reason in done.stdout, done.stdout
    # Each guard speaks up at the end of its test, whose own outcome stands.
    assert "4 passed" in done.stdout and "3 errors" in done.stdout, done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
