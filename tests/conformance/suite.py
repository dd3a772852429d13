"""Which modules of ``test.test_asyncio`` are run, and how their classes meet our types.

Runs in the child process only. Three ways lead a test to a loop that is not the
standard one, and each class needs one of them:

* the default policy's ``_loop_factory`` is replaced (not the policy itself, because the
  modules put the default policy back with ``set_event_loop_policy(None)``), and so are
  the names ``asyncio.SelectorEventLoop`` and ``asyncio.EventLoop``;
* a hook of the class (``create_event_loop``, ``new_loop``, ``setUp``) is overridden;
* class attributes (``Task``, ``Future``, ``cls``) are set to our types. Those tests run
  on the suite's own ``TestLoop``, a loop that knows nothing of us.

With the standard library's types in place of ours the same mapping runs the suite
nearly as it is, which tells a fault of ours from one of the machine.
"""

import asyncio
import functools
import importlib
import re
import sys
import types as pytypes
import unittest
import warnings
from unittest import mock

from ..support import ROOT

# Module names below test.test_asyncio. The ones that an interpreter does not have are
# passed over. QUICK is the part that a core without TLS, pipes and the like must pass.
QUICK = (
    "test_futures", "test_futures2", "test_tasks", "test_eager_task_factory",
    "test_locks", "test_queues", "test_timeouts", "test_taskgroups", "test_waitfor",
    "test_staggered", "test_threads", "test_runners", "test_context", "test_streams",
    "test_server", "test_server_context", "test_buffered_proto", "test_events",
    "test_sock_lowlevel", "test_pep492", "test_graph", "test_free_threading",
)
REST = (
    "test_base_events", "test_unix_events", "test_subprocess", "test_sendfile",
    "test_ssl", "test_sslproto", "test_tools",
)
# Imported only to be counted among the excluded.
NOT_RUN = (
    "test_protocols", "test_transports", "test_selector_events",
    "test_proactor_events", "test_windows_events", "test_windows_utils",
)
MODULES = QUICK + REST + NOT_RUN

# The part of the loop that a test is about, decided by its name; the first match wins.
FEATURES = (
    ("sendfile", re.compile(r"sendfile", re.I)),
    ("tls", re.compile(r"^test_ssl|ssl|tls", re.I)),
    ("subprocess", re.compile(r"subprocess|child_watcher|ChildWatcher", re.I)),
    ("datagram", re.compile(r"datagram|udp|sock_recvfrom|sock_sendto", re.I)),
    ("pipes", re.compile(r"pipe|pty|fifo", re.I)),
    ("signals", re.compile(r"signal", re.I)),
)
# --quick leaves these to the whole run.
NOT_QUICK = ("sendfile", "tls", "subprocess", "datagram", "pipes")


def feature_of(test_id):
    """The part of the loop that the test `test_id` is about; 'core' for most."""
    for name, pattern in FEATURES:
        if pattern.search(test_id):
            return name
    return "core"


class Types:
    """The loop and the types under test, by the name given to ``--loop``."""

    def __init__(self, name):
        self.name = name
        self.stock = name == "asyncio"
        import _asyncio
        self.Task, self.Future = _asyncio.Task, _asyncio.Future
        if name == "asyncio":
            self.Loop = asyncio.SelectorEventLoop
        elif name == "uvloop":
            import uvloop

            class Loop(uvloop.Loop):
                _default_executor = None    # the suite's own clean-up reads it

            self.Loop = Loop
        elif name == "asyncloop":
            import asyncloop
            self.Loop = asyncloop.Loop
            self.Task, self.Future = asyncloop.Task, asyncloop.Future
        else:
            raise ValueError(f"unknown loop {name!r}")

    def install(self):
        """Make the loop under test the one that the interpreter gives by default."""
        if self.stock:
            return
        from asyncio import unix_events
        for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy",
                     "DefaultEventLoopPolicy"):
            policy = getattr(unix_events, name, None)
            if policy is not None:
                policy._loop_factory = self.Loop
        asyncio.SelectorEventLoop = self.Loop
        if hasattr(asyncio, "EventLoop"):
            asyncio.EventLoop = self.Loop


# --- how each module's classes are pointed at the types ---------------------------------

_ADAPTERS = {}


def adapts(name):
    """Register a function(module, types) that maps the classes of module `name`."""
    def register(function):
        _ADAPTERS[name] = function
        return function
    return register


def load(name, types, package="test.test_asyncio"):
    """Import ``<package>.<name>`` and map its classes. None if it is not there.

    Raises unittest.SkipTest if the module itself says that it cannot run here.
    """
    full = f"{package}.{name}"
    try:
        module = importlib.import_module(full)
    except ModuleNotFoundError as exc:
        if exc.name == full:
            return None
        raise
    with warnings.catch_warnings():
        # Some of the names that are looked up here are deprecated from 3.14 on.
        warnings.simplefilter("ignore")
        adapter = _ADAPTERS.get(name)
        if adapter is not None:
            adapter(module, types)
    return module


def classes(module):
    """The test classes of `module` with their test names, in the order of definition."""
    loader = unittest.TestLoader()
    found = {}
    for name, cls in vars(module).items():
        if (isinstance(cls, type) and issubclass(cls, unittest.TestCase)
                and cls.__module__ == module.__name__):
            names = loader.getTestCaseNames(cls)
            if names:
                found[name] = list(names)
    return found


def each(module, *names):
    """Those of the named classes that this version of the module has."""
    for name in names:
        cls = vars(module).get(name)
        if cls is not None:
            yield cls


def variant(module, name, bases, **attributes):
    """Add a class of our own making to the module."""
    cls = type(name, bases, {"__module__": module.__name__, **attributes})
    setattr(module, name, cls)
    return cls


def _hook(cls, name, types):
    setattr(cls, name, lambda self: types.Loop())


class _Stand:
    """A module seen through a test module's eyes, with one name changed."""

    def __init__(self, module, **changed):
        self.__dict__.update(changed, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def _replacing(module, cls, hook, seen, name, types, loop=None):
    """While `hook` of `cls` runs, `name` of the module `seen` makes the loop under test.

    For hooks and tests that dress up the loop which they make themselves: with mocks of
    a selector, which another loop never looks at. Only the test module sees the change,
    because our loop may need the name as it is. `loop` is a class to be taken instead.
    """
    if types.stock:
        return
    original = cls.__dict__[hook]
    stand = _Stand(getattr(module, seen), **{name: loop or types.Loop})

    @functools.wraps(original)
    def replaced(self):
        with mock.patch.object(module, seen, stand):
            return original(self)
    setattr(cls, hook, replaced)


def _with_one_turn(cls, run_once, types):
    """Let ``loop._run_once()`` run one turn of a loop that does not have it.

    For tests of public behaviour that happen to turn the standard loop by hand.
    """
    if types.stock or hasattr(types.Loop, "_run_once"):
        return
    original = cls.setUp

    def setUp(self):
        original(self)
        self.loop._run_once = functools.partial(run_once, self.loop)
    cls.setUp = setUp


def _with_our_futures(cls, types):
    """Let the suite's own TestLoop give our Futures and Tasks."""
    if types.stock:
        return
    original = cls.new_test_loop

    def new_test_loop(self, gen=None):
        loop = original(self, gen)
        loop.create_future = lambda: types.Future(loop=loop)
        loop.set_task_factory(
            lambda loop, coro, **kwargs: types.Task(coro, loop=loop, **kwargs))
        return loop
    cls.new_test_loop = new_test_loop


@adapts("test_futures")
def _futures(module, types):
    Future = types.Future

    class CSubFuture(Future):
        pass

    module.CFutureTests.cls = Future
    module.CSubFutureTests.cls = CSubFuture
    module.CFutureDoneCallbackTests._new_future = (
        lambda self: Future(loop=self.loop))
    module.CSubFutureDoneCallbackTests._new_future = (
        lambda self: CSubFuture(loop=self.loop))
    for cls in each(module, "CFutureInheritanceTests"):
        cls._get_future_cls = lambda self: Future


@adapts("test_futures2")
def _futures2(module, types):
    stock = module.CFutureTests.cls
    bases = (module.FutureTests, unittest.IsolatedAsyncioTestCase)
    module.CFutureTests.cls = types.Task
    variant(module, "StockTask_FutureTests", bases, cls=stock)


@adapts("test_tasks")
def _tasks(module, types):
    import _asyncio
    stock_task, stock_future = _asyncio.Task, _asyncio.Future
    c_pair = vars(module.CTask_CFuture_Tests)
    py_pair = vars(module.PyTask_PyFuture_Tests)
    TestCase = module.test_utils.TestCase
    base = module.BaseTaskTests

    def native(Task, Future):
        """Attributes for a Task that asyncio's C functions know."""
        kept = {name: c_pair[name] for name in ("all_tasks", "current_task")
                if name in c_pair}
        return dict(kept, Task=Task, Future=Future)

    def python(Future):
        kept = {name: py_pair[name] for name in ("all_tasks", "current_task")
                if name in py_pair}
        return dict(kept, Task=module.tasks._PyTask, Future=Future)

    plain, subclassed = (base, TestCase), module.add_subclass_tests
    PyFuture = module.futures._PyFuture

    # Ours with ours keeps the original class: it has tests of its own.
    module.CTask_CFuture_Tests.Task = types.Task
    module.CTask_CFuture_Tests.Future = types.Future
    for cls in each(module, "CTask_PyFuture_Tests"):
        cls.Task = types.Task
    for cls in each(module, "PyTask_CFuture_Tests"):
        cls.Future = types.Future
    subclassed(variant(module, "CTask_CFuture_SubclassTests", plain,
                       **native(types.Task, types.Future)))
    subclassed(variant(module, "CTaskSubclass_PyFuture_Tests", plain,
                       **native(types.Task, PyFuture)))
    subclassed(variant(module, "PyTask_CFutureSubclass_Tests", plain,
                       **python(types.Future)))
    # The suite has one C implementation; with ours there are two to be mixed.
    variant(module, "CTask_StockFuture_Tests", plain,
            **native(types.Task, stock_future))
    variant(module, "StockTask_CFuture_Tests", plain,
            **native(stock_task, types.Future))
    subclassed(variant(module, "CTaskSubclass_StockFutureSubclass_Tests", plain,
                       **native(types.Task, stock_future)))
    subclassed(variant(module, "StockTaskSubclass_CFutureSubclass_Tests", plain,
                       **native(stock_task, types.Future)))

    if getattr(module.CIntrospectionTests, "Task", None) is not None:
        module.CIntrospectionTests.Task = types.Task
    module.CCurrentLoopTests.new_task = (
        lambda self, coro: types.Task(coro, loop=self.loop))
    variant(module, "StockTask_CurrentLoopTests", (module.CCurrentLoopTests,),
            new_task=lambda self, coro: stock_task(coro, loop=self.loop))
    for cls in each(module, "FutureGatherTests", "CoroutineGatherTests",
                    "RunCoroutineThreadsafeTests", "SleepTests"):
        _with_our_futures(cls, types)


def _in_fresh_interpreters(module, types):
    """Let the interpreters that tests start with ``-c`` have the loop under test."""
    if types.stock:
        return
    original = module.assert_python_ok
    first = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
             "from tests.conformance import suite; "
             f"suite.Types({types.name!r}).install(); del sys, suite\n")

    def assert_python_ok(*args, **env):
        args = list(args)
        code = args.index("-c") + 1
        args[code] = first + args[code]
        return original(*args, **env)
    module.assert_python_ok = assert_python_ok


@adapts("test_eager_task_factory")
def _eager(module, types):
    # EagerTests and NonEagerTests stay with the stock Task, on our loop.
    for cls in each(module, "CEagerTaskFactoryLoopTests", "NonEagerCTaskTests",
                    "EagerCTaskTests"):
        stock, cls.Task = cls.Task, types.Task
    variant(module, "StockTask_EagerTaskFactoryLoopTests",
            (module.CEagerTaskFactoryLoopTests,), Task=stock)
    _in_fresh_interpreters(module, types)


@adapts("test_free_threading")
def _free_threading(module, types):
    module.TestCFreeThreading.factory = (
        lambda self, loop, coro, **kwargs: types.Task(coro, loop=loop, **kwargs))
    module.TestEagerCFreeThreading.factory = (
        lambda self, loop, coro, eager_start=True, **kwargs:
        types.Task(coro, loop=loop, eager_start=eager_start, **kwargs))


@adapts("test_events")
def _events(module, types):
    _hook(module.EPollEventLoopTests, "create_event_loop", types)


@adapts("test_sock_lowlevel")
def _sock_lowlevel(module, types):
    _hook(module.EPollEventLoopTests, "create_event_loop", types)


@adapts("test_sendfile")
def _sendfile(module, types):
    _hook(module.EPollEventLoopTests, "create_event_loop", types)


@adapts("test_server")
def _server(module, types):
    _hook(module.SelectorStartServerTests, "new_loop", types)


@adapts("test_buffered_proto")
def _buffered_proto(module, types):
    _hook(module.BufferedProtocolSelectorTests, "new_loop", types)


@adapts("test_sslproto")
def _sslproto(module, types):
    _hook(module.SelectorStartTLSTests, "new_loop", types)


@adapts("test_runners")
def _runners(module, types):
    _replacing(module, module.BaseTest, "new_loop", "asyncio", "BaseEventLoop", types)


@adapts("test_pep492")
def _pep492(module, types):
    _replacing(module, module.BaseTest, "setUp", "asyncio", "BaseEventLoop", types)


class _AsSeenBy:
    """The module that another module has under `name` at this moment: maybe a mock."""

    def __init__(self, module, name):
        self.__dict__.update(_module=module, _name=name)

    def __getattr__(self, name):
        return getattr(getattr(self._module, self._name), name)


def _looks_through(cls, ours, theirs, names):
    """While a test of `cls` runs, our module has what asyncio's has under these names.

    For tests that put a mock in the place of a module that asyncio's module uses.
    """
    original = cls.setUp

    def setUp(self):
        for name in names:
            patch = mock.patch.object(ours, name, _AsSeenBy(theirs, name))
            patch.start()
            self.addCleanup(patch.stop)
        original(self)
    cls.setUp = setUp


@adapts("test_unix_events")
def _unix_events(module, types):
    if types.name != "asyncloop":
        return
    from asyncio import unix_events

    from asyncloop import _sendfile, _signals
    _looks_through(module.SelectorEventLoopUnixSockSendfileTests, _sendfile, unix_events,
                   ["os"])
    _looks_through(module.SelectorEventLoopSignalTests, _signals, unix_events,
                   ["signal", "sys"])


@adapts("test_base_events")
def _base_events(module, types):
    _replacing(module, module.BaseEventLoopTests, "setUp", "base_events",
               "BaseEventLoop", types)
    _with_one_turn(module.BaseEventLoopTests, module.test_utils.run_once, types)
    _in_fresh_interpreters(module, types)
    # These make a subclass of their own.
    turned = types.Loop
    if not hasattr(turned, "_run_once"):
        turned = type("Loop", (turned,), {"_run_once": module.test_utils.run_once})
    for test in ("test_create_task", "test_default_exc_handler_broken"):
        _replacing(module, module.BaseEventLoopTests, test, "base_events",
                   "BaseEventLoop", types, loop=turned)
    if not types.stock:
        # Imported inside setUp(). Our loop does not derive from it, and has a native
        # sendfile, which these tests are about the lack of.
        original = module.BaseLoopSockSendfileTests.setUp

        def setUp(self):
            with mock.patch("asyncio.selector_events.BaseSelectorEventLoop", types.Loop):
                original(self)
            if types.name == "asyncloop":
                self.loop._sock_sendfile_native = functools.partial(
                    asyncio.BaseEventLoop._sock_sendfile_native, self.loop)
        module.BaseLoopSockSendfileTests.setUp = setUp


# --- discovery --------------------------------------------------------------------------

def discover(types):
    """What every module holds: {module: {"classes": {class: [test]}} or {"skip": why}}.

    A module that this interpreter does not have is left out.
    """
    found = {}
    for name in MODULES:
        try:
            module = load(name, types)
        except unittest.SkipTest as exc:
            found[name] = {"skip": str(exc)}
            continue
        if isinstance(module, pytypes.ModuleType):
            found[name] = {"classes": classes(module)}
    return found


def suite_available():
    """True if this interpreter has its own test suite installed."""
    try:
        importlib.import_module("test.test_asyncio")
        importlib.import_module("test.support")
    except ImportError:
        return False
    return True


def install_hint():
    """One line: how to get the suite where the interpreter came without it."""
    version = "{}.{}".format(*sys.version_info[:2])
    return (f"this interpreter has no test.test_asyncio; on Debian install "
            f"libpython{version}-testsuite")
