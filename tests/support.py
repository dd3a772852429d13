"""What several test files need: the two implementations, and small helpers."""

import asyncio
import collections
import contextlib
import ctypes
import gc
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading

PY = sys.version_info[:2]
ROOT = pathlib.Path(__file__).resolve().parent.parent
"""Of the repository."""


class Impl:
    """One loop with one set of Future and Task types.

    `loops` and `types` are "asyncloop" or "asyncio". They differ in the mixed
    runs, where our Future and Task run on the standard loop and the other way
    round.
    """

    def __init__(self, loops, types=None):
        types = types or loops
        self.loops = loops
        self.types = types
        self.name = loops if loops == types else f"{types}-on-{loops}"
        self.ours = loops == "asyncloop"
        if "asyncloop" in (loops, types):
            import asyncloop
        if self.ours:
            self.new_event_loop = asyncloop.new_event_loop
            self.Loop = asyncloop.Loop
        else:
            self.new_event_loop = asyncio.SelectorEventLoop
            self.Loop = asyncio.SelectorEventLoop
        source = asyncloop if types == "asyncloop" else asyncio
        self.Future = source.Future
        self.Task = source.Task

    @classmethod
    def named(cls, name):
        types, _, loops = name.partition("-on-")
        return cls(loops or types, types)

    def __repr__(self):
        return self.name


def import_root(impl):
    """The folder that a child process needs on its path for this run's loop."""
    if "asyncloop" not in impl.name:
        return None
    import asyncloop

    return os.path.dirname(os.path.dirname(os.path.abspath(asyncloop.__file__)))


PREAMBLE = """\
import asyncio, faulthandler, gc, os, signal, socket, sys, threading, time, warnings
faulthandler.dump_traceback_later({limit}, exit=True)
LOOP = {loops!r}
if LOOP == "asyncloop":
    import asyncloop
    new_event_loop = asyncloop.new_event_loop
    Loop = asyncloop.Loop
else:
    new_event_loop = Loop = asyncio.SelectorEventLoop
"""


RECORDS = """\
import logging
records = []    # the messages of asyncio's logger
class Records(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("asyncio").addHandler(Records())
logging.getLogger("asyncio").propagate = False
"""
"""For scripts that look at what is logged."""

SIGNAL_CASE = """\
def begin():
    return new_event_loop()
def act(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_forever()
def end(loop):
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, None)
    assert signal.set_wakeup_fd(-1) == -1
"""
"""For scripts in which descriptors run out: a loop that a signal stops."""

DESCRIPTORS = """\
def descriptors():
    return sorted(os.listdir("/proc/self/fd"))
"""
"""For the same scripts."""


def script(name):
    """The text of tests/scripts/NAME.py, for run_script(), whose preamble comes before it."""
    return (ROOT / "tests" / "scripts" / f"{name}.py").read_text()


def run_script(
    impl, source, *, limit=50, env=None, args=(), flags=("-W", "error"), python=sys.executable
):
    """Run `source` in a child interpreter; return the CompletedProcess.

    The child finds `new_event_loop` and `Loop` of this run's loop. It ends
    itself with a traceback of all threads after `limit` seconds.
    """
    child_env = {**os.environ, **(env or {})}
    root = import_root(impl)
    if root:
        rest = child_env.get("PYTHONPATH")
        child_env["PYTHONPATH"] = root + (os.pathsep + rest if rest else "")
    code = PREAMBLE.format(limit=limit, loops=impl.loops) + source
    return subprocess.run(
        [python, *flags, "-c", code, *args],
        env=child_env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit + 30,
    )


def check_script(impl, source, expect=None, **kwargs):
    """run_script, and the child has to end well and print `expect`."""
    done = run_script(impl, source, **kwargs)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    if expect is not None:
        assert done.stdout.strip() == expect, done.stdout + done.stderr
    return done


def check_program(module, *args, limit, env=None):
    """Run a program of the tests (python -m) on asyncloop: its output; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=import_root(Impl.named("asyncloop")),
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=limit,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def open_descriptors():
    """{number: what it is} of this process's open descriptors."""
    found = {}
    if sys.platform != "linux":
        for name in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):
                info = os.fstat(int(name))
                found[int(name)] = info.st_mode, info.st_dev, info.st_ino
        return found
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()

# A free-threaded 3.13 never frees classes and functions once it has had a second thread, and so
# nothing that a test keeps in a class of its own.
CLASSES_ARE_IMMORTAL = FREE_THREADED and PY == (3, 13)


def live_objects():
    """Counter of the core's objects that the collector knows, by the name of their type.

    Without loops: fixtures and frames of pytest hold those of a test until the next.
    """
    core = sys.modules.get("asyncloop._core")
    if core is None or CLASSES_ARE_IMMORTAL:
        return collections.Counter()
    never = (core.Loop, core._CoroutineMethod)  # the latter are parts of the type Loop
    kinds = tuple(
        kind for kind in vars(core).values() if isinstance(kind, type) and kind not in never
    )
    # By type: isinstance() asks the object, and a proxy of something dead raises.
    found = (type(op).__name__ for op in gc.get_objects() if issubclass(type(op), kinds))
    return collections.Counter(found)


def lost_memory():
    """Whether LeakSanitizer, if it is in this process, finds lost memory; it prints what."""
    check = getattr(ctypes.CDLL(None), "__lsan_do_recoverable_leak_check", None)
    if check is None:
        return False
    gc.collect()
    return check() != 0


def rss_kib():
    """Resident memory of this process in KiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)


def spin(loop, turns=1):
    """Run `turns` iterations of a loop that is not running."""
    for _ in range(turns):
        loop.call_soon(loop.stop)
        loop.run_forever()


def plain_repr(value):
    """A name for a parameter that is the same in every process: without an address."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


async def turns(count=1):
    for _ in range(count):
        await asyncio.sleep(0)


async def until(predicate):
    """Give the loop time until `predicate()` holds; the test's limit bounds it."""
    while not predicate():
        await asyncio.sleep(0.001)


def collect():
    for _ in range(3):
        gc.collect()


@contextlib.contextmanager
def without_collector():
    """Collect now, and not again before the end of the block: what dies in it dies by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def compile_hook(name, folder, *options):
    """Compile the library `name`.c of tests/hooks into `folder`; return its path.

    For tests that put functions of their own in the place of the C library's. Skips the test
    where that is not possible.
    """
    import pytest  # other users of this module do without it

    source = os.path.join(ROOT, "tests", "hooks", f"{name}.c")
    library = os.path.join(folder, f"{name}.so")
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE"]
    command += [*options, source, "-o", library, "-ldl"]
    # A sanitizer's library is for the tests alone.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    if done.returncode:
        pytest.skip(f"the hook cannot be compiled here: {done.stderr[-300:]}")
    return library


def in_thread(function, *args):
    """Call in a new thread, wait for it, return or raise what it did."""
    outcome = []

    def body():
        try:
            outcome.append((function(*args), None))
        except BaseException as exc:
            outcome.append((None, exc))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    value, exc = outcome.pop()
    if exc is not None:
        try:
            raise exc
        finally:
            exc = None
    return value


@contextlib.contextmanager
def listening(family=socket.AF_INET, address=("127.0.0.1", 0), backlog=100):
    """A plain listening socket and its address, closed afterwards."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen(backlog)
        yield sock


def tcp_pair():
    """Two connected, blocking TCP sockets over loopback."""
    with listening() as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other
