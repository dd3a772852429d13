"""What asyncio's own methods call of a loop, replaced by a program: called as by asyncio."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import ssl
import sys
import threading

import pytest

from tests.support import turns, until
from tests.unit.loop.test_replaced_loop import (
    a_task,
    by_subclass,
    calls,
    on_base,
    on_instance,
    timers,
    two_waiters,
)

CHECKS = ["_check_closed", "_call_soon", "_timer_handle_cancelled", "get_debug", "_check_callback"]


async def threads(loop):
    await loop.run_in_executor(None, int)
    loop.call_soon_threadsafe(int)
    await asyncio.sleep(0)


@pytest.mark.parametrize("way", [by_subclass, on_instance, on_base])
@pytest.mark.parametrize("scenario", [a_task, two_waiters, timers, threads])
@pytest.mark.parametrize("name", CHECKS)
def test_what_scheduling_calls(impl, name, scenario, way):
    expected = calls(asyncio.SelectorEventLoop, way, [name], scenario)
    found = calls(impl.Loop, way, [name], scenario)
    if scenario is threads:  # how often asyncio's thread comes in between
        found, expected = set(found), set(expected)
    assert found == expected


@pytest.mark.parametrize("way", [by_subclass, on_instance])
def test_checks_in_debug_mode(impl, way):
    async def scenario(loop):
        loop.set_debug(True)
        loop.call_soon(int)
        loop.call_later(0, int)
        await turns(3)
        loop.set_debug(False)

    names = ["_check_thread", "_check_callback"]
    assert calls(impl.Loop, way, names, scenario) == calls(
        asyncio.SelectorEventLoop, way, names, scenario
    )


@pytest.mark.our_loop("about its short ways")
def test_ordinary_loop_has_nothing_replaced(run, loop):
    """Else everything works, and takes the long way."""

    async def main():
        timer = loop.call_later(0, int)
        things = [timer, loop.call_soon(int), loop.create_future(), asyncio.current_task()]
        assert [type(thing).__module__.partition(".")[0] for thing in things] == ["asyncloop"] * 4

    run(main())


def test_check_that_raises(impl):
    class Loop(impl.Loop):
        refuses = False

        def _check_closed(self):
            if self.refuses:
                raise ZeroDivisionError
            super()._check_closed()

    loop = Loop()
    with contextlib.closing(loop):

        async def main():
            left, right = socket.socketpair()
            with left, right:
                loop.refuses = True
                for call in (
                    lambda: loop.call_soon(int),
                    lambda: loop.call_later(0, int),
                    lambda: loop.call_at(0, int),
                    lambda: loop.call_soon_threadsafe(int),
                    lambda: loop.add_reader(left, int),
                    lambda: loop.add_writer(left, int),
                    lambda: loop.run_in_executor(None, int),
                ):
                    with pytest.raises(ZeroDivisionError):
                        call()
                loop.refuses = False

        loop.run_until_complete(main())


def test_debug_by_method_alone(impl):
    class Loop(impl.Loop):
        def get_debug(self):
            return True

    loop = Loop()
    with contextlib.closing(loop):
        handles = [loop.call_soon(int), loop.call_later(100, int), loop.call_soon_threadsafe(int)]
        for handle in handles:
            assert handle._source_traceback
            handle.cancel()
            assert "int" in repr(handle)
        assert loop.create_future()._source_traceback


def test_descriptors_are_looked_at(impl):
    class Loop(impl.Loop):
        def _ensure_fd_no_transport(self, fd):
            seen.append(fd)
            if refused:
                raise ZeroDivisionError
            return super()._ensure_fd_no_transport(fd)

    seen, refused = [], []
    loop = Loop()
    with contextlib.closing(loop):

        async def main():
            left, right = socket.socketpair()
            left.setblocking(False)
            with left, right:
                seen.clear()
                for call in (
                    lambda: loop.add_reader(left, int),
                    lambda: loop.remove_reader(left),
                    lambda: loop.add_writer(left.fileno(), int),
                    lambda: loop.remove_writer(left.fileno()),
                ):
                    call()
                    refused.append(1)
                    with pytest.raises(ZeroDivisionError):
                        call()
                    refused.clear()
                assert seen == [left] * 4 + [left.fileno()] * 4
                seen.clear()
                receiving = asyncio.ensure_future(loop.sock_recv(left, 1))
                await turns(2)
                assert seen == [left.fileno()]
                right.send(b"x")
                assert await receiving == b"x"

        loop.run_until_complete(main())


@pytest.mark.parametrize("way", [by_subclass, on_instance, on_base])
@pytest.mark.parametrize("timer", [False, True])
def test_time_is_asked_in_each_iteration(impl, way, timer):
    async def scenario(loop):
        handle = loop.call_later(1000, int) if timer else None
        await turns(5)
        if timer:
            handle.cancel()

    expected = calls(asyncio.SelectorEventLoop, way, ["time"], scenario)
    assert len(calls(impl.Loop, way, ["time"], scenario)) == len(expected) > 4


def test_threadsafe_is_replaced_while_an_executor_works(run, loop):
    seen = []

    async def main():
        released = threading.Event()

        def seen_call(*args, **kwargs):
            seen.append(1)
            return own(*args, **kwargs)

        own = loop.call_soon_threadsafe
        waiting = loop.run_in_executor(None, released.wait)
        loop.call_soon_threadsafe = lambda *args, **kwargs: (seen.append(1), own(*args, **kwargs))[
            1
        ]
        released.set()
        assert await waiting
        del loop.call_soon_threadsafe

    run(main())
    assert seen == [1]


def test_signals_come_by_the_method(impl):
    class Loop(impl.Loop):
        def _add_callback_signalsafe(self, handle):
            seen.append(handle._args)
            super()._add_callback_signalsafe(handle)

    seen, came = [], []
    loop = Loop()
    with contextlib.closing(loop):

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, came.append, 1)
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda: came)
            loop.remove_signal_handler(signal.SIGUSR1)

        loop.run_until_complete(main())
    assert seen == [(1,)]


def test_pipe_of_the_loop(impl):
    class Loop(impl.Loop):
        def _make_self_pipe(self):
            seen.append("made")
            super()._make_self_pipe()

        def _read_from_self(self):
            seen.append("read")
            super()._read_from_self()

    seen = []
    loop = Loop()
    with contextlib.closing(loop):
        assert seen == ["made"]

        async def main():
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(int,))
            thread.start()
            await until(lambda: "read" in seen)
            thread.join()

        loop.run_until_complete(main())


def test_child_ends_by_the_method(impl):
    class Loop(impl.Loop):
        def _child_watcher_callback(self, pid, returncode, transport):
            seen.append(returncode)
            super()._child_watcher_callback(pid, returncode, transport)

    seen = []
    loop = Loop()
    asyncio.set_event_loop(loop)
    with contextlib.closing(loop):

        async def main():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "raise SystemExit(3)"
            )
            assert await process.wait() == 3

        loop.run_until_complete(main())
    assert seen == [3]


# -- timers of the loop's own --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["call_later", "call_at"])
def test_pause_of_a_server_without_descriptors(impl, name, asyncio_log):
    class Listening(socket.socket):
        failing = False

        def accept(self):
            if self.failing:
                self.failing = False
                raise OSError(24, "Too many open files")
            return super().accept()

    class Loop(impl.Loop):
        pass

    def noting(self, *args, **kwargs):
        handle = getattr(super(Loop, self), name)(*args, **kwargs)
        seen.append(handle)
        return handle

    setattr(Loop, name, noting)
    seen = []
    loop = Loop()
    with contextlib.closing(loop):

        async def main():
            loop.set_exception_handler(lambda loop, context: None)
            sock = Listening()
            sock.bind(("127.0.0.1", 0))
            server = await asyncio.start_server(lambda reader, writer: writer.close(), sock=sock)
            address = sock.getsockname()
            seen.clear()
            sock.failing = True
            reader, writer = await asyncio.open_connection(*address)
            while not seen:
                await asyncio.sleep(0)
            paused = seen[0]
            paused.cancel()  # it pauses for good: what the program was given counts
            server.close()
            writer.close()

        loop.run_until_complete(main())
    assert isinstance(seen[0], asyncio.TimerHandle)


@pytest.mark.parametrize("name", ["call_later", "call_at"])
@pytest.mark.parametrize("ends", ["cancelled", "times out"])
def test_timeout_of_a_tls_handshake(impl, name, ends):
    class Loop(impl.Loop):
        pass

    def noting(self, when, callback, *args, **kwargs):
        handle = getattr(super(Loop, self), name)(when, callback, *args, **kwargs)
        seen.append(handle)
        return handle

    seen = []
    setattr(Loop, name, noting)
    loop = Loop()
    with contextlib.closing(loop):

        async def main():
            left, right = socket.socketpair()
            with right:
                left.setblocking(False)
                waiting = asyncio.ensure_future(
                    loop.create_connection(
                        asyncio.Protocol,
                        sock=left,
                        ssl=ssl.create_default_context(),
                        server_hostname="localhost",
                        ssl_handshake_timeout=0.05 if ends == "times out" else 100,
                    )
                )
                while not seen:
                    await asyncio.sleep(0)
                if ends == "cancelled":
                    right.close()
                with pytest.raises(OSError):
                    await waiting
                await turns(3)

        loop.run_until_complete(main())
    assert len(seen) == 1
    assert seen[0].cancelled()


# -- the default executor ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["its name", "its class", "submit of the instance", "submit of the class"]
)
def test_names_are_asked_of_the_programs_executor(run, loop, kind, monkeypatch):
    submitted = []
    own = concurrent.futures.ThreadPoolExecutor

    def submit(self, function, *args, **kwargs):
        submitted.append(function)
        return own_submit(self, function, *args, **kwargs)

    own_submit = own.submit

    async def main():
        if kind == "its name":
            executor = type("ThreadPoolExecutor", (own,), {"submit": submit})(
                thread_name_prefix="asyncio"
            )
            loop.set_default_executor(executor)
        elif kind == "its class":
            executor = own(1, "asyncio", initializer=submitted.append, initargs=(1,))
            loop.set_default_executor(executor)
        elif kind == "submit of the instance":
            await loop.run_in_executor(None, int)
            executor = loop._default_executor
            executor.submit = submit.__get__(executor)
        else:
            monkeypatch.setattr(own, "submit", submit)
        await loop.getaddrinfo("localhost", 80)
        monkeypatch.undo()
        assert submitted

    run(main())
