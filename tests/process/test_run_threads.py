"""run_threads() and the sockets of its workers."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

import asyncloop
from asyncloop import listen_sockets, run_threads
from tests.support import Impl, import_root, open_descriptors


def test_a_loop_in_each_thread():
    seen = []

    async def main(worker):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        seen.append((worker.index, loop, threading.current_thread().name))
        assert worker.loop is loop and type(loop) is asyncloop.Loop
        assert worker.count == 3 and worker.name == threading.current_thread().name
        return worker.index * 10

    before = open_descriptors()
    assert run_threads(main, 3, name="serve") == [0, 10, 20]
    assert len({id(loop) for _, loop, _ in seen}) == 3
    assert sorted(name for *_, name in seen) == ["serve-0", "serve-1", "serve-2"]
    assert all(loop.is_closed() for _, loop, _ in seen)
    assert open_descriptors() == before


def test_default_is_a_worker_for_each_core():
    async def main(worker):
        return worker.count

    counts = run_threads(main)
    assert counts == [len(counts)] * len(counts)
    assert len(counts) <= os.cpu_count()


def test_first_error_ends_all():
    ended = []

    async def main(worker):
        if worker.index == 1:
            raise LookupError("first")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(worker.index)

    with pytest.raises(ExceptionGroup, match="1 of 3 workers failed") as info:
        run_threads(main, 3)
    assert [str(exc) for exc in info.value.exceptions] == ["first"]
    assert sorted(ended) == [0, 2]


def test_first_end_ends_all():
    async def main(worker):
        if worker.index != 2:
            await asyncio.sleep(60)
        return "done"

    assert run_threads(main, 3, stop_on="first") == [None, None, "done"]


def test_all_go_on():
    died = threading.Event()

    async def main(worker):
        if worker.index == 0:
            died.set()
            raise ValueError("one")
        while not died.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        reached.append(worker.index)
        if worker.index == 1:
            raise OSError("two")

    reached = []
    with pytest.raises(ExceptionGroup) as info:
        run_threads(main, 3, stop_on="never")
    assert [type(exc) for exc in info.value.exceptions] == [ValueError, OSError]
    assert sorted(reached) == [1, 2]


@pytest.mark.parametrize("stop_on", ["first", "error"])
def test_who_is_ended_ends_in_peace(stop_on):
    """One that ends, or fails, while others clean up does not cancel these once more."""
    clean = []

    async def main(worker):
        try:
            if worker.index:
                await asyncio.sleep(60)
        finally:
            for _ in range(worker.index):
                await asyncio.sleep(0.05)
            clean.append(worker.index)
            if stop_on == "error":
                raise OSError(worker.index)

    if stop_on == "first":
        assert run_threads(main, 4, stop_on=stop_on) == [None] * 4
    else:
        with pytest.raises(ExceptionGroup, match="4 of 4"):
            run_threads(main, 4, stop_on=stop_on)
    assert sorted(clean) == [0, 1, 2, 3]


def test_who_asks_again_cancels_again():
    asked = threading.Event()

    async def main(worker):
        if worker.index == 0:
            worker.stop_all()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.to_thread(asked.wait)
            return None
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            worker.stop_all()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "twice"
            finally:
                asked.set()

    assert run_threads(main, 2) == [None, "twice"]


def test_a_signal_handler_stops_all():
    """In the middle of just that, too."""

    def on_alarm(*args):
        if workers:
            workers[0].stop_all()

    async def main(worker):
        workers.append(worker)
        for _ in range(20):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
            worker.stop_all()
        return "ended"

    workers = []
    old = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        assert run_threads(main, 2) == ["ended"] * 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_stop_all_from_a_worker():
    async def main(worker):
        if worker.index == 0:
            worker.stop_all()
        await asyncio.sleep(60)

    assert run_threads(main, 3) == [None, None, None]


def test_a_worker_that_ignores_one_cancellation():
    async def main(worker):
        if worker.index == 0:
            return "ended"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "kept"

    assert run_threads(main, 2, stop_on="first") == ["ended", "kept"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exits_come_alone(kind):
    async def main(worker):
        if worker.index == 0:
            raise kind
        await asyncio.sleep(60)

    with pytest.raises(kind):
        run_threads(main, 2, stop_on="never")


def test_loops_of_others():
    async def main(worker):
        return type(asyncio.get_running_loop())

    factory = asyncio.SelectorEventLoop
    assert run_threads(main, 2, loop_factory=factory) == [factory, factory]


def test_bad_arguments():
    async def main(worker):
        pass

    for n in (0, -1):
        with pytest.raises(ValueError):
            run_threads(main, n)
    for n in (True, 1.0, "2"):
        with pytest.raises(TypeError):
            run_threads(main, n)
    with pytest.raises(ValueError):
        run_threads(main, 1, stop_on="sometimes")
    coroutine = main(None)
    with pytest.raises(TypeError):
        run_threads(coroutine, 1)
    coroutine.close()
    with pytest.raises(ExceptionGroup) as info:
        run_threads(lambda worker: None, 2)
    assert all(isinstance(exc, TypeError) for exc in info.value.exceptions)

    def broken():
        raise OSError("no loop")

    with pytest.raises(ExceptionGroup) as info:
        run_threads(main, 2, loop_factory=broken)
    assert [str(exc) for exc in info.value.exceptions] == ["no loop"] * 2

    async def inside():
        with pytest.raises(RuntimeError):
            run_threads(main, 1)

    asyncloop.run(inside())


PROGRAM = r"""
import asyncio, asyncloop, faulthandler, os, time
faulthandler.dump_traceback_later(50, exit=True)
def say(line):
    os.write(1, line.encode() + b"\n")    # at once: two threads write
async def main(worker):
    say("up")
    try:
        await asyncio.sleep(50)
    except asyncio.CancelledError:
        if STUBBORN:
            say("stubborn")
            time.sleep(50)
        say("cancelled")
        raise
try:
    asyncloop.run_threads(main, 2)
except BaseException as exc:
    say(f"{type(exc).__name__} {getattr(exc, 'code', None)}")
    raise
"""


def start(stubborn=False):
    child = subprocess.Popen(
        [sys.executable, "-c", f"STUBBORN = {stubborn}\n{PROGRAM}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": import_root(Impl.named("asyncloop"))},
    )
    assert [child.stdout.readline(), child.stdout.readline()] == ["up\n", "up\n"]
    return child


def test_sigterm_to_all():
    child = start()
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=50)
    assert out.split("\n") == ["cancelled", "cancelled", "SystemExit 143", ""], err
    assert child.returncode == 143


def test_interrupt_to_all():
    child = start()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=50)
    assert out.split("\n") == ["cancelled", "cancelled", "KeyboardInterrupt None", ""], err
    assert child.returncode == -signal.SIGINT


def test_second_interrupt_does_not_wait():
    child = start(stubborn=True)
    child.send_signal(signal.SIGINT)
    assert [child.stdout.readline(), child.stdout.readline()] == ["stubborn\n"] * 2
    child.send_signal(signal.SIGINT)
    try:
        child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == -signal.SIGINT


# -- listening sockets ----------------------------------------------------------------------------


def closed(sockets):
    for sock in sockets:
        sock.close()


def test_listen_sockets_share_a_port():
    first = listen_sockets("127.0.0.1", reuse_port=True)
    port = first[0].getsockname()[1]
    second = listen_sockets("127.0.0.1", port, reuse_port=True)
    assert not first[0].getblocking() and not second[0].getblocking()
    assert not first[0].get_inheritable()
    with pytest.raises(OSError, match="error while attempting to bind on address") as info:
        listen_sockets("127.0.0.1", port)
    assert info.value.errno == errno.EADDRINUSE
    closed(first + second)


def test_listen_sockets_of_several_addresses_have_one_port():
    sockets = listen_sockets(["127.0.0.1", "127.0.0.2"])
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1", "127.0.0.2"]
    closed(sockets)
    everywhere = listen_sockets()
    assert len({sock.getsockname()[1] for sock in everywhere}) == 1
    closed(everywhere)


def test_listen_sockets_bad_arguments():
    before = open_descriptors()
    for port in (-1, 65536):
        with pytest.raises(ValueError):
            listen_sockets("127.0.0.1", port)
    for port in ("http", True, 80.0):
        with pytest.raises(TypeError):
            listen_sockets("127.0.0.1", port)
    with pytest.raises(ValueError):
        listen_sockets([])
    with pytest.raises(socket.gaierror):
        listen_sockets("256.0.0.0.0.1", 1)
    with pytest.raises(OSError):  # the second address is nobody's here; the first is closed again
        listen_sockets(["127.0.0.1", "192.0.2.1"])
    assert open_descriptors() == before


def test_a_worker_dies_under_load():
    """The others serve on, and no connection that one of them has accepted is lost."""
    port = listen_sockets("127.0.0.1", reuse_port=True)
    address = port[0].getsockname()
    closed(port)
    served = [0, 0, 0]
    ready = threading.Barrier(3)
    clients_done = threading.Event()

    async def client():
        for _ in range(200):
            try:
                reader, writer = await asyncio.open_connection(*address)
            except ConnectionError:
                continue
            try:
                writer.write(b"ping\n")
                if await reader.readline() == b"ping\n":
                    answered.append(1)
            except ConnectionError:
                pass
            finally:
                writer.close()

    answered = []

    async def main(worker):
        async def serve(reader, writer):
            try:
                writer.write(await reader.readline())
                served[worker.index] += 1
                await writer.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass  # Python 3.11's streams complain of a cancelled handler
            finally:
                writer.close()
            if worker.index == 1 and served[1] == 20:
                die.set()

        die = asyncio.Event()
        sock = listen_sockets(*address, reuse_port=True)[0]
        async with await asyncio.start_server(serve, sock=sock):
            await asyncio.to_thread(ready.wait)
            if worker.index == 0:
                await asyncio.gather(*(client() for _ in range(5)))
                clients_done.set()
            elif worker.index == 1:
                waiter = asyncio.create_task(die.wait())
                while not (waiter.done() or clients_done.is_set()):
                    await asyncio.sleep(0.001)
                waiter.cancel()
                raise RuntimeError("dies")
            else:
                while not clients_done.is_set():
                    await asyncio.sleep(0.001)

    with pytest.raises(ExceptionGroup, match="1 of 3") as info:
        run_threads(main, 3, stop_on="never")
    assert [str(exc) for exc in info.value.exceptions] == ["dies"]
    assert served[0] and served[2]
    # Those that waited in the dead worker's own socket are refused, no others.
    assert len(answered) >= 900 and len(answered) <= sum(served)


INHERITED = """
import asyncio, os, asyncloop
os.environ["LISTEN_PID"] = str(os.getpid())
sockets = asyncloop.inherited_sockets()
assert [s.fileno() for s in sockets] == [3, 5], sockets
assert not any(s.getblocking() or s.get_inheritable() for s in sockets)
named = asyncloop.inherited_sockets("admin")
assert [s.fileno() for s in named] == [5]
named[0].detach()
async def main():
    async def serve(reader, writer):
        writer.write(b"hello\\n")
        writer.close()
    async with await asyncio.start_server(serve, sock=sockets[0]):
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        assert await reader.read() == b"hello\\n"
        writer.close()
asyncloop.run(main())
os.environ["LISTEN_PID"] = str(os.getpid() + 1)
assert asyncloop.inherited_sockets() == []
os.environ["LISTEN_PID"] = str(os.getpid())
for wrong in "x", "-1", "", "1e3", "99999999999999999999":
    os.environ["LISTEN_FDS"] = wrong
    try:
        asyncloop.inherited_sockets()
    except ValueError:
        continue
    raise AssertionError(wrong)
os.environ["LISTEN_FDS"] = "300"
try:
    asyncloop.inherited_sockets()
except OSError:
    print("ok")
"""


def test_inherited_sockets():
    http = socket.create_server(("127.0.0.1", 0))
    admin = socket.create_server(("127.0.0.1", 0))
    read, write = os.pipe()
    try:
        fds = [http.fileno(), read, admin.fileno()]
        # The numbers 3, 4 and 5, whatever they are here.
        mover = (
            "import os, sys\n"
            f"new = [os.dup2(fd, 200 + i) for i, fd in enumerate({fds})]\n"
            "for i, fd in enumerate(new):\n    os.dup2(fd, 3 + i)\n"
            "os.closerange(6, 300)\n"
            f"exec({INHERITED!r})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", mover],
            env={
                **os.environ,
                "PYTHONPATH": import_root(Impl.named("asyncloop")),
                "LISTEN_FDS": "3",
                "LISTEN_FDNAMES": "http:pipe:admin",
            },
            pass_fds=fds,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.stdout.strip() == "ok", done.stderr
    finally:
        http.close()
        admin.close()
        os.close(read)
        os.close(write)
    assert asyncloop.inherited_sockets() == []
