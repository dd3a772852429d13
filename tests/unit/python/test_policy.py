"""Switching asyncloop on: run(), new_event_loop(), the policy, install() and the package itself."""

import asyncio
import contextlib
import contextvars
import importlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import asyncloop
from tests.support import PY

PACKAGE_PARENT = str(Path(asyncloop.__file__).resolve().parent.parent)

HAS_POLICIES = hasattr(asyncio, "set_event_loop_policy")
needs_policies = pytest.mark.skipif(
    not HAS_POLICIES, reason="Python 3.16 and later have no event loop policies"
)


def child(code, *flags):
    """Run `code` in a new interpreter and return its CompletedProcess."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        env={**os.environ, "PYTHONPATH": PACKAGE_PARENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextlib.contextmanager
def policy(value):
    """`value` as the policy, without the warnings of 3.14 and later; the earlier one afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(value)
    try:
        yield value
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(None)


# --- run()




@pytest.fixture(params=["asyncloop", "asyncio"])
def any_run(request):
    return asyncloop.run if request.param == "asyncloop" else asyncio.run


def test_run_uses_our_loop_and_closes_it():
    async def main():
        return asyncio.get_running_loop()

    loop = asyncloop.run(main())
    assert type(loop) is asyncloop.Loop
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert loop.is_closed()


def test_run_returns_and_raises(any_run):
    async def answer():
        await asyncio.sleep(0)
        return 42

    async def fail():
        await asyncio.sleep(0)
        raise ZeroDivisionError("here")

    assert any_run(answer()) == 42
    with pytest.raises(ZeroDivisionError, match="here"):
        any_run(fail())


def test_run_twice_gives_new_loops(any_run):
    async def main():
        return asyncio.get_running_loop()

    assert any_run(main()) is not any_run(main())


@pytest.mark.parametrize("debug", [None, False, True])
def test_run_debug(any_run, debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert any_run(main(), debug=debug) is bool(debug)


def test_run_takes_debug_by_name_only(any_run):
    async def main():
        pass

    coro = main()
    with pytest.raises(TypeError):
        any_run(coro, True)
    coro.close()


def test_run_refuses_what_is_no_coroutine(any_run):
    for wrong in (None, 42, lambda: None, iter(())):
        with pytest.raises((TypeError, ValueError)) as caught:
            any_run(wrong)
        with pytest.raises(type(caught.value)):
            asyncio.run(wrong)


def test_run_inside_a_running_loop(any_run):
    async def inner():
        pass

    async def main():
        coro = inner()
        with pytest.raises(RuntimeError, match="asyncio.run\\(\\) cannot be called from a running"):
            any_run(coro)
        coro.close()
        return "unharmed"

    assert any_run(main()) == "unharmed"


def test_run_cleans_up(any_run):
    log = []

    async def background():
        try:
            await asyncio.sleep(60)
        finally:
            log.append("task cancelled")

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            log.append("generator closed")

    async def main():
        main.task = asyncio.create_task(background())
        main.numbers = numbers()
        await anext(main.numbers)
        await asyncio.to_thread(log.append, "executor used")

    any_run(main())
    assert log == ["executor used", "task cancelled", "generator closed"]
    assert main.task.cancelled()


def test_run_turns_ctrl_c_into_a_cancellation(any_run):
    log = []

    async def main():
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        any_run(main())
    assert log == ["cancelled"]
    assert signal.getsignal(signal.SIGINT) is before


def test_run_in_other_threads_at_once(any_run):
    loops = []

    async def main():
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)

    threads = [threading.Thread(target=lambda: any_run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, loops))) == 4


# --- new_event_loop()


def test_new_event_loop_is_a_factory():
    loop = asyncloop.new_event_loop()
    assert type(loop) is asyncloop.Loop
    assert not loop.is_running() and not loop.is_closed()
    loop.close()

    with asyncio.Runner(loop_factory=asyncloop.new_event_loop) as runner:
        assert type(runner.get_loop()) is asyncloop.Loop

    async def main():
        return type(asyncio.get_running_loop())

    if PY >= (3, 12):
        assert asyncio.run(main(), loop_factory=asyncloop.new_event_loop) is asyncloop.Loop


def test_the_class_itself_is_a_factory():
    with asyncio.Runner(loop_factory=asyncloop.Loop) as runner:
        assert type(runner.get_loop()) is asyncloop.Loop


def test_runner_keeps_context_and_loop():
    var = contextvars.ContextVar("var", default=0)

    async def increase():
        var.set(var.get() + 1)
        return var.get()

    with asyncio.Runner(loop_factory=asyncloop.new_event_loop) as runner:
        assert [runner.run(increase()) for _ in range(3)] == [1, 2, 3]


# --- policy and install()


@needs_policies
def test_policy_makes_our_loops():
    async def main():
        return type(asyncio.get_running_loop())

    with policy(asyncloop.EventLoopPolicy()):
        assert asyncio.run(main()) is asyncloop.Loop
        loop = asyncio.new_event_loop()
        assert type(loop) is asyncloop.Loop
        loop.close()
    assert asyncio.run(main()) is not asyncloop.Loop


@needs_policies
def test_policy_keeps_a_loop_per_thread():
    with policy(asyncloop.EventLoopPolicy()) as ours:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            assert asyncio.get_event_loop() is loop
            seen = []

            def other_thread():
                with pytest.raises(RuntimeError, match="no current event loop"):
                    asyncio.get_event_loop()
                own = ours.new_event_loop()
                seen.append(type(own))
                own.close()

            thread = threading.Thread(target=other_thread)
            thread.start()
            thread.join()
            assert seen == [asyncloop.Loop]
        finally:
            asyncio.set_event_loop(None)
            loop.close()


@needs_policies
def test_policy_is_made_once_and_can_be_subclassed():
    assert asyncloop.EventLoopPolicy is asyncloop.EventLoopPolicy
    assert asyncloop.EventLoopPolicy.__module__.partition(".")[0] == "asyncloop"

    class Own(asyncloop.EventLoopPolicy):
        pass

    loop = Own().new_event_loop()
    assert type(loop) is asyncloop.Loop
    loop.close()


@needs_policies
def test_install_switches_the_whole_process():
    done = child(
        "import asyncio, asyncloop\n"
        "asyncloop.install()\n"
        "async def main():\n"
        "    return type(asyncio.get_running_loop())\n"
        "assert asyncio.run(main()) is asyncloop.Loop\n",
    )
    assert done.returncode == 0, done.stderr


@needs_policies
def test_install_warns_its_caller_where_policies_are_deprecated():
    code = "import asyncloop\nasyncloop.install()\n"
    done = child(code, "-W", "error")
    if PY < (3, 14):
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("DeprecationWarning: asyncloop.install")
    shown = child(code, "-W", "always").stderr
    assert shown.startswith("<string>:2: DeprecationWarning: asyncloop.install()")
    assert shown.count("DeprecationWarning") == 1


@pytest.mark.parametrize(
    "use",
    [
        "",
        "dir(asyncloop)",
        "asyncloop.new_event_loop().close()",
        "asyncloop.build_info()",
        "asyncloop.run(main())",
        "hasattr(asyncloop, 'EventLoopPolicy')",
        "from asyncloop import *",
    ],
)
def test_import_and_use_never_warn(use):
    done = child(f"import asyncloop\nasync def main(): pass\n{use}\n", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_import_alone_does_not_touch_policies():
    code = "import sys, asyncloop; print('asyncloop._policy' in sys.modules)"
    assert child(code).stdout == "False\n"


def test_without_policies_the_error_says_what_to_use():
    """As it will be in Python 3.16."""
    done = child(
        "import asyncio\n"
        "del asyncio.set_event_loop_policy\n"
        "import asyncloop\n"
        "for name in ('install', 'EventLoopPolicy'):\n"
        "    assert name not in dir(asyncloop)\n"
        "    try:\n"
        "        getattr(asyncloop, name)\n"
        "    except AttributeError as error:\n"
        "        assert f'asyncloop.{name}' in str(error), error\n"
        "        assert 'loop_factory=asyncloop.new_event_loop' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(name)\n"
        "from asyncloop import *\n"
    )
    assert done.returncode == 0, done.stderr


# --- the package


def test_public_names():
    wanted = ["Future", "Loop", "Task", "build_info", "new_event_loop", "run"]
    wanted += ["QueueShutDown", "ThreadQueue", "Worker", "run_threads"]
    wanted += ["inherited_sockets", "listen_sockets"]
    wanted += ["BlockedError", "Stall", "Watchdog", "dump", "watchdog"]
    wanted += ["Delay", "LoopStats", "Spin"]
    if HAS_POLICIES:
        wanted += ["EventLoopPolicy", "install"]
    wanted += ["Liveness", "allow_nested", "liveness", "census", "lost_tasks", "task_stats"]
    wanted += ["Census", "TaskPlace", "TaskStats", "TransportSize"]
    assert sorted(asyncloop.__all__) == sorted(wanted)
    assert set(wanted) <= set(dir(asyncloop))
    for name in wanted:
        assert getattr(asyncloop, name).__doc__
    assert issubclass(asyncloop.Future, asyncio.Future)
    assert issubclass(asyncloop.Task, asyncio.Task)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        asyncloop.nonsense
    assert importlib.import_module("asyncloop") is asyncloop


def test_build_info():
    info = asyncloop.build_info()
    assert info["asyncloop"] == asyncloop.__version__
    assert info["python"] == sys.version.split()[0]
    assert info["implementation"] == "CPython"
    assert info["libev"] in ("system", "embedded")
    assert info["libev_version"].startswith("4.")
    assert info["backend"] in ("epoll", "kqueue", "poll")
    assert info is not asyncloop.build_info()
    info.clear()
    assert asyncloop.build_info()


def test_windows_import_names_the_alternatives():
    """Simulated: the package asks sys.platform before it imports anything of its own."""
    done = child(
        "import sys, asyncio\n"
        "sys.platform = 'win32'\n"
        "try:\n"
        "    import asyncloop\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "Linux and macOS" in done.stdout
    assert "asyncio's own event loop" in done.stdout and "winloop" in done.stdout
