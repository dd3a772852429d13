"""Fixtures and guards for the whole suite.

Each behaviour test asks for `impl`, `loop_factory`, `loop` or `run` and so
runs once on asyncloop and once on the standard loop: a test that fails on the
standard loop is a wrong test. In modules with `MIXED = True` it also runs with
our Future and Task on the standard loop and with the stock ones on ours.

After every test the guard looks for descriptors left open, for errors that
went to an exception handler nobody expected, and (through warnings as errors)
for anything that was not closed or awaited.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import threading

import pytest

from .certificates import make_contexts
from .support import Impl, collect, live_objects, lost_memory, open_descriptors

_stderr_fd = None


def pytest_addoption(parser):
    group = parser.getgroup("asyncloop")
    group.addoption(
        "--loop",
        choices=("both", "asyncloop", "asyncio"),
        default="both",
        help="run the tests on this loop only (default: both)",
    )
    group.addoption(
        "--test-limit",
        type=float,
        default=60,
        metavar="SECONDS",
        help="end the run with all tracebacks when one test takes longer",
    )
    group.addoption(
        "--lost-memory",
        action="store_true",
        help="under AddressSanitizer: look for lost memory after each test, not only at the end",
    )
    group.addoption(
        "--debug-mode",
        action="store_true",
        help="run every loop in asyncio's debug mode",
    )


def pytest_configure(config):
    global _stderr_fd
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line(
        "markers",
        "our_types(reason): not with the standard Future and Task, for this reason",
    )
    config.addinivalue_line(
        "markers", "our_loop(reason): not with the standard loop, for this reason"
    )
    if _stderr_fd is None:
        _stderr_fd = os.dup(2)
        os.set_inheritable(_stderr_fd, False)
    # A shell's background job ignores it, and so would the programs that tests interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--debug-mode"):
        os.environ["PYTHONASYNCIODEBUG"] = "1"
    else:
        os.environ.pop("PYTHONASYNCIODEBUG", None)


def pytest_generate_tests(metafunc):
    if "impl" in metafunc.fixturenames:
        names = ["asyncloop", "asyncio"]
        if getattr(metafunc.module, "MIXED", False):
            names += ["asyncloop-on-asyncio", "asyncio-on-asyncloop"]
        metafunc.parametrize("impl", names, indirect=True)


def _wanted(item):
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("impl") if callspec else None
    if name is None:
        return True
    chosen = item.config.getoption("--loop")
    if chosen != "both" and (name == "asyncio") != (chosen == "asyncio"):
        return False
    # A test that the standard library cannot pass names its reason in a mark.
    if item.get_closest_marker("our_types") and not name.startswith("asyncloop"):
        return False
    return not item.get_closest_marker("our_loop") or name.endswith("asyncloop")


def pytest_collection_modifyitems(config, items):
    unwanted = [item for item in items if not _wanted(item)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if _wanted(item)]


_left_alive = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Notes tests after which objects of the core live on, though nothing leads to them.

    Around the whole test: fixtures and pytest itself hold what a test has made until its end.
    """
    before = live_objects()
    result = yield
    if live_objects() - before:
        collect()
        more = live_objects() - before
        if more:
            # From 3.14 on something frozen can hold a test's frames: they are garbage together.
            seen = live_objects()
            gc.unfreeze()
            frozen = live_objects() - seen
            collect()
            more = live_objects() - before - frozen
            gc.freeze()
        if more:
            _left_alive.append((item.nodeid, dict(more)))
    if item.config.getoption("--lost-memory") and lost_memory():
        _left_alive.append((item.nodeid, "memory, see above"))
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """What the tests of one of pytest-xdist's processes have left."""
    _left_alive.extend(getattr(node, "workeroutput", {}).get("left_alive", ()))


def pytest_terminal_summary(terminalreporter):
    for name, objects in _left_alive:
        terminalreporter.write_line(f"LEFT ALIVE by {name}: {objects}", red=True)


def pytest_sessionfinish(session):
    """Lost objects are an error and, where AddressSanitizer is preloaded, lost memory is.

    Asked here and not at the end of the process: what the interpreter itself leaves behind
    when it shuts down would hide ours. The sanitizer prints where each piece came from.
    """
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_alive"] = _left_alive
    if (lost_memory() or _left_alive) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def pytest_collection_finish(session):
    # What was imported so far lives as long as the run: without it each
    # collection after a test takes a millisecond.
    gc.collect()
    gc.freeze()


class _Log(logging.Handler):
    """Keeps asyncio's log records of one test."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def messages(self, level=logging.WARNING):
        return [r.getMessage() for r in self.records if r.levelno >= level]

    def take(self, level=logging.WARNING):
        """The messages so far; they count as expected."""
        found = self.messages(level)
        self.records.clear()
        return found


@pytest.fixture(autouse=True)
def asyncio_log(request):
    """The guard, and asyncio's log of this test: errors left in it fail the test."""
    # Works where a signal would not: in C code that never comes back.
    limit = request.config.getoption("--test-limit")
    faulthandler.dump_traceback_later(limit, exit=True, file=_stderr_fd)
    collect()
    before = open_descriptors()
    log = _Log()
    logger = logging.getLogger("asyncio")
    logger.addHandler(log)
    try:
        yield log
        collect()
        after = open_descriptors()
        left = {fd: what for fd, what in after.items() if before.get(fd) != what}
        lost = {fd: what for fd, what in before.items() if fd not in after}
        errors = log.messages(logging.ERROR)
        assert not errors, "unexpected reports:\n" + "\n".join(errors)
        assert not left, f"descriptors left open: {left}"
        assert not lost, f"descriptors closed that were not the test's own: {lost}"
        with contextlib.suppress(RuntimeError):
            running = asyncio.get_running_loop()
            pytest.fail(f"a loop still counts as running: {running}")
    finally:
        logger.removeHandler(log)
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def impl(request):
    """The implementation under test; an import error of asyncloop is an error."""
    return Impl.named(request.param)


@pytest.fixture
def loop_factory(impl):
    """Makes loops of this run's kind; they are closed after the test."""
    made = []

    def factory():
        loop = impl.new_event_loop()
        made.append(loop)
        return loop

    yield factory
    for loop in made:
        if not loop.is_closed():
            loop.set_task_factory(None)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


@pytest.fixture
def loop(loop_factory):
    return loop_factory()


@pytest.fixture
def run(loop):
    """Run a coroutine on `loop` and return its result."""
    return loop.run_until_complete


@pytest.fixture
def reports(loop):
    """The contexts that reach the exception handler of `loop`, in order."""
    found = []
    loop.set_exception_handler(lambda _, context: found.append(context))
    return found


@pytest.fixture
def unraisable(monkeypatch):
    """What reached sys.unraisablehook, as text; taken as expected."""
    import sys

    found = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda info: found.append(repr(info.exc_value))
    )
    return found


@pytest.fixture(params=["direct", "portable"])
def engine(request, impl):
    """Both TLS engines of asyncloop; the standard loop has one of its own."""
    if not impl.ours:
        if request.param != "direct":
            pytest.skip("the standard loop has no engines")
        yield None
        return
    from asyncloop import _core

    _core._tls_set_engine("portable" if request.param == "portable" else None)
    yield request.param
    _core._tls_set_engine(None)


@pytest.fixture(scope="session")
def contexts(tmp_path_factory):
    """(server's, client's) SSLContext."""
    return make_contexts(tmp_path_factory.mktemp("contexts"))


@pytest.fixture
def size():
    """size(small, full): how large a test is; full with ASYNCLOOP_FULL=1 in the environment."""
    return lambda small, full: full if os.environ.get("ASYNCLOOP_FULL") == "1" else small


@pytest.fixture
def thread():
    """Starts threads that are joined at the end of the test."""
    started = []

    def start(target, *args):
        one = threading.Thread(target=target, args=args)
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.join()
