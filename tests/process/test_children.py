"""Child processes beside others who look after children: watchers, signal handlers, waiters."""

import asyncio
import fcntl
import os
import pty
import subprocess
import warnings

import pytest

from tests.support import PY, check_script, turns, until

WATCHERS = pytest.mark.skipif(PY >= (3, 14), reason="there are no child watchers any more")
BOTH_KINDS = "exit 3", "exit 4"
SLEEP = "sleep", "1000"


async def statuses(*lines):
    """The statuses of shells that run at the same time."""
    processes = [await asyncio.create_subprocess_exec("/bin/sh", "-c", line) for line in lines]
    return [await process.wait() for process in processes]


def kernel_knows():
    """Whether this kernel tells of a child whose status somebody has taken."""
    child = subprocess.Popen(["true"])
    try:
        descriptor = os.pidfd_open(child.pid)
    except (AttributeError, OSError):
        child.wait()
        return False
    try:
        child.wait()
        fcntl.ioctl(descriptor, 0xC040FF0B, bytearray(b"\x08" + bytes(63)))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@pytest.fixture
def watch(loop):
    """Make a child watcher the policy's, attached to this test's loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = asyncio.get_event_loop_policy()
        before = policy._watcher
        chosen = []

        def use(watcher, attach=True):
            asyncio.set_child_watcher(watcher)
            if attach:
                watcher.attach_loop(loop)
            chosen.append(watcher)
            return watcher

        yield use
        for watcher in chosen:
            watcher.close()
        policy._watcher = before


@WATCHERS
@pytest.mark.parametrize(
    "name",
    ["FastChildWatcher", "SafeChildWatcher", "MultiLoopChildWatcher"]
    + ["ThreadedChildWatcher", "PidfdChildWatcher"],
)
def test_chosen_watcher(run, watch, name):
    """Some reap every child of the process: what ends is theirs to tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watch(getattr(asyncio, name)())
    for _ in range(20):
        if name == "MultiLoopChildWatcher":
            # Its signal handler is not made to be entered again while it asks: one after the other.
            assert [run(statuses(line)) for line in BOTH_KINDS] == [[3], [4]]
        else:
            assert run(statuses(*BOTH_KINDS)) == [3, 4]


@WATCHERS
@pytest.mark.parametrize("how", ["subclass", "class", "instance"])
def test_watcher_of_ones_own(run, watch, monkeypatch, how):
    told = []

    def add(self, pid, callback, *args):
        told.append(pid)
        original(self, pid, callback, *args)

    base = asyncio.ThreadedChildWatcher
    original = base.add_child_handler
    if how == "subclass":
        watch(type("Own", (base,), {"add_child_handler": add})())
    elif how == "class":
        monkeypatch.setattr(base, "add_child_handler", add)
        watch(base())
    else:
        watcher = watch(base())
        watcher.add_child_handler = lambda *args: add(watcher, *args)
    assert run(statuses(*BOTH_KINDS)) == [3, 4]
    assert len(told) == 2


@WATCHERS
def test_inactive_watcher(run, watch):
    """A program that could not be watched is not started."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watch(asyncio.SafeChildWatcher(), attach=False)
    with pytest.raises(RuntimeError, match="is not activated"):
        run(statuses("exit 0"))


@WATCHERS
def test_chosen_watcher_and_pipes(run, watch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        watch(asyncio.FastChildWatcher())

    async def main():
        process = await asyncio.create_subprocess_shell(
            "cat; exit 5", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(b"text" * 100_000)
        assert out == b"text" * 100_000
        return process.returncode

    assert run(main()) == 5


@WATCHERS
@pytest.mark.our_loop("a policy without child watchers starts no children of the standard loop's")
def test_policy_without_watchers(run):
    class Policy(type(asyncio.get_event_loop_policy())):
        def get_child_watcher(self):
            raise NotImplementedError

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        assert run(statuses(*BOTH_KINDS)) == [3, 4]
    finally:
        asyncio.set_event_loop_policy(before)


@pytest.mark.skipif(PY < (3, 14), reason="the policy's child watcher is asked")
@pytest.mark.parametrize("how", ["replaced", "changed"])
def test_watcher_of_the_loop(run, loop, how):
    told = []
    watcher = loop._watcher
    original = watcher.add_child_handler

    class Own:
        def add_child_handler(self, pid, callback, *args):
            told.append(pid)
            original(pid, callback, *args)

    if how == "replaced":
        loop._watcher = Own()
    else:
        watcher.add_child_handler = Own().add_child_handler
    assert run(statuses(*BOTH_KINDS)) == [3, 4]
    assert len(told) == 2


# -- others who reap ---------------------------------------------------------------------------


REAPED = """
import logging, subprocess
logging.disable()
def reap(*args):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
def reap_always():
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.0001)
async def main(turn):
    # The pipe holds the children back until they are watched.
    children = [
        await asyncio.create_subprocess_exec("/bin/sh", "-c", f"read line; exit {n}",
                                             stdin=subprocess.PIPE)
        for n in (3, 4)
    ]
    for child in children:
        child.stdin.close()
    if sys.argv[1] == "callback":
        time.sleep(0.02)
        reap()
    return [await child.wait() for child in children]
loop = new_event_loop()
how = sys.argv[1]
if how == "signal":
    signal.signal(signal.SIGCHLD, reap)
elif how == "handler":
    loop.add_signal_handler(signal.SIGCHLD, reap)
elif how == "thread":
    threading.Thread(target=reap_always, daemon=True).start()
for turn in range(20):
    assert loop.run_until_complete(main(turn)) == [3, 4]
loop.close()
print("right")
"""


@pytest.mark.our_loop("asyncio reports 255, or whether it does is decided by a race")
@pytest.mark.skipif(not kernel_knows(), reason="Linux 6.15 and later know what was taken")
@pytest.mark.parametrize("how", ["signal", "handler", "thread", "callback"])
def test_somebody_else_reaps(impl, how):
    check_script(impl, REAPED, "right", args=[how])


@pytest.mark.parametrize("when", ["before", "after"])
def test_somebody_asks_popen(run, when):
    """Popen has taken the status, at the user's wish: it is told by Popen."""

    async def main():
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sh", "-c", "read line; exit 3", stdout=None
        )
        process = transport.get_extra_info("subprocess")
        if when == "before":
            assert process.poll() is None
        transport.get_pipe_transport(0).close()
        await turns(2)
        if when == "after":
            assert process.wait() in (0, 3)  # 0 where a thread of asyncio's was faster
        assert await transport._wait() in (3, 255)
        transport.close()

    run(main())


def test_processes_of_multiprocessing(impl):
    """It waits for its own ones only, and nobody takes their status away."""
    script = """
    import multiprocessing
    async def main():
        context = multiprocessing.get_context("fork")
        for n in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)    # fork beside threads
                other = context.Process(target=os._exit, args=(n,))
                other.start()
            child = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {n}")
            multiprocessing.active_children()
            assert await child.wait() == n
            other.join()
            assert other.exitcode == n
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    print("right")
    """
    check_script(impl, "if True:" + script, "right")


# -- a terminal ----------------------------------------------------------------------------------


def test_child_with_a_terminal(run, loop):
    """Its own session with a terminal; this side is watched as a pipe."""

    class Screen(asyncio.Protocol):
        def __init__(self):
            self.text = b""
            self.lost = loop.create_future()

        def data_received(self, data):
            self.text += data

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        ours, theirs = pty.openpty()
        file = os.fdopen(ours, "r+b", 0)
        keys = os.fdopen(os.dup(ours), "wb", 0)
        screen, shown = await loop.connect_read_pipe(Screen, file)
        keyboard, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, keys)
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "test -t 0 && stty -echo; echo ready; read a; echo got $a; exit 7",
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        await until(lambda: b"ready" in shown.text)
        keyboard.write(b"word\n")
        assert await process.wait() == 7
        error = await shown.lost
        # Linux reports the end of the other side as an error.
        assert error is None or isinstance(error, OSError)
        assert shown.text == b"ready\r\ngot word\r\n"
        keyboard.close()
        await asyncio.sleep(0.01)

    run(main())


def test_terminal_with_add_reader(run, loop):
    """As Twisted has it: the descriptor watched by hand, the child by whoever started it."""

    async def main():
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["/bin/sh", "-c", "echo text; exit 6"],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        text, ended = b"", loop.create_future()

        def readable():
            nonlocal text
            try:
                data = os.read(ours, 1000)
            except OSError:
                data = b""
            text += data
            if not data:
                loop.remove_reader(ours)
                ended.set_result(None)

        loop.add_reader(ours, readable)
        await ended
        os.close(ours)
        assert text == b"text\r\n"
        assert process.wait() == 6

    run(main())
