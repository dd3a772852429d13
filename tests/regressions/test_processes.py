"""Children and forks: regressions 18 to 20. The rest is in tests/unit/python/test_subprocess.py."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from tests.support import PY, check_script, in_thread, open_descriptors


def zombies():
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{int(name)}/stat") as stat:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(int(name))
    return found


def test_18_output_of_short_commands(run, size):
    """uvloop #363, #185: the output of a command that ends at once was empty now and then."""

    async def one(number):
        process = await asyncio.create_subprocess_exec(
            "/bin/echo", "test", str(number), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return await process.communicate()

    async def main():
        for start in range(0, size(200, 5000), 10):
            found = await asyncio.gather(*(one(start + n) for n in range(10)))
            assert found == [(b"test %d\n" % (start + n), b"") for n in range(10)]

    run(main())
    assert not zombies()


def test_18_missing_programs(run, size):
    """uvloop #128: each program that could not be started left descriptors behind."""

    async def main():
        before = None
        for number in range(size(200, 10_000)):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec(
                    "/no/such/program", stdin=-1, stdout=-1, stderr=-1
                )
            if number == 10:
                before = open_descriptors()
        assert open_descriptors().keys() == before.keys()

    run(main())
    assert not zombies()


def test_18_more_than_a_pipe_holds_in_each_direction(run, size):
    """cpython gh-100133: more output than a pipe holds, to both outputs at once, while the child
    reads its input."""
    code = (
        "import sys, threading\n"
        "data = sys.stdin.buffer.read()\n"
        "thread = threading.Thread(target=sys.stderr.buffer.write, args=(data[::-1],))\n"
        "thread.start()\n"
        "sys.stdout.buffer.write(data)\n"
        "thread.join()\n"
    )
    data = os.urandom(size(1 << 20, 16 << 20))

    async def main():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-E", "-c", code), stdin=-1, stdout=-1, stderr=-1
        )
        assert await asyncio.wait_for(process.communicate(data), 50) == (data, data[::-1])

    run(main())


def test_19_children_of_others(run, loop, thread, size):
    """gevent #622, #867, #1573, i3 #5510: a loop that reaps all children took the exit status of
    those that somebody else had started. Here user code waits for its own with every call there
    is, while the loop has children too."""
    wrong = []
    done = []

    def others():
        try:
            for _ in range(size(25, 500)):
                if subprocess.run(["/bin/false"]).returncode != 1:
                    wrong.append("subprocess.run")
                pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
                if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 7:
                    wrong.append("waitpid")
        finally:
            done.append(1)

    thread(others)

    async def main():
        while not done:
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
            assert await process.wait() == 3

    before = signal.getsignal(signal.SIGCHLD)
    run(main())
    assert signal.getsignal(signal.SIGCHLD) is before
    assert wrong == []


def test_19_children_of_a_loop_in_a_thread(impl, size):
    """gevent #1966, #867: children needed the main thread's loop."""

    def body():
        async def main():
            for _ in range(size(10, 200)):
                process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
                assert await process.communicate(b"abc") == (b"abc", None)
                assert process.returncode == 0

        loop = impl.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    in_thread(body)
    assert not zombies()


def test_20_popen_of_c_beside_the_loop(impl):
    """uvloop #268: popen() of C, called with the GIL held, waited for ever in the fork handlers
    that the loop had installed."""
    check_script(
        impl,
        """
import ctypes
libc = ctypes.PyDLL(None)  # its calls keep the GIL
libc.popen.restype = ctypes.c_void_p
libc.popen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.pclose.argtypes = [ctypes.c_void_p]
loop = new_event_loop()

def in_c():
    stream = libc.popen(b"exit 5", b"r")
    return os.waitstatus_to_exitcode(libc.pclose(stream))

async def main():
    process = await asyncio.create_subprocess_exec("/bin/true")
    await process.wait()
    for _ in range(5):
        assert in_c() == 5
        assert await asyncio.to_thread(in_c) == 5

loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
print("ok")
""",
        "ok",
    )


@pytest.mark.skipif(PY < (3, 12), reason="the interpreters differ too much before")
def test_20_spawn_beside_another_interpreter(impl):
    """uvloop #650: starting a child in a process with a second interpreter crashed it."""
    check_script(
        impl,
        """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
run = getattr(interpreters, "run_string")
run(other, "import json; x = 1")
loop = new_event_loop()

async def main():
    for _ in range(3):
        process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=-1)
        assert (await process.communicate())[0] == b"hi\\n"
        run(other, "x += 1")

loop.run_until_complete(main())
loop.close()
interpreters.destroy(other)
print("ok")
""",
        "ok",
    )
