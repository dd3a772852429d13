"""What no program should do to the core's objects: it may fail, never crash or hang.

Each in a process of its own, with the memory allocator's own checks on. tests/fuzz/misuse.py
does all of this at random.
"""

import os

import pytest

from tests.support import Impl, check_program, check_script

OURS = Impl.named("asyncloop")
# (AddressSanitizer brings its own allocator)
CHECKED = {} if os.environ.get("PYTHONMALLOC") else {"PYTHONMALLOC": "debug"}


def check(source, expect="ok", **options):
    check_script(OURS, source, expect, env=CHECKED, **options)


@pytest.mark.parametrize("first", [0, 100_000])
def test_random_misuse(first):
    printed = check_program(
        "tests.fuzz.misuse", "--seconds", "4", "--first", str(first), limit=90, env=CHECKED
    )
    assert printed.endswith(" rounds\n")


def test_objects_without_init():
    """Every method and attribute of an object that only __new__ has seen."""
    check("""
from asyncloop import _core
made = 0
for kind in [*vars(_core).values(), asyncloop.Loop]:
    if not isinstance(kind, type):
        continue
    for kind in (kind, type("Sub", (kind,), {}) if kind.__flags__ & 1 << 10 else kind):
        for name in dir(kind):
            if name in ("run_forever", "run_until_complete", "_run_once", "__init__", "_run"):
                continue
            try:
                one = kind.__new__(kind)
            except Exception:
                break
            made += 1
            for args in ((), (None,), (1, 2), (b"x",), (one,)):
                try:
                    value = getattr(one, name)
                    if callable(value) and name != "__class__":
                        value = value(*args)
                        if asyncio.iscoroutine(value):
                            value.close()
                except Exception:
                    pass
            for value in (None, one, 1):
                try:
                    setattr(one, name, value)
                except Exception:
                    pass
            try:
                delattr(one, name)
            except Exception:
                pass
            gc.get_referents(one), gc.get_referrers(one)
            del one, value
gc.collect()
assert made > 100, made
print("ok")
""", flags=("-W", "ignore"))


@pytest.mark.parametrize("what", ["Future", "Task"])
def test_init_again(what):
    """While it is scheduled, parked, awaited; also with arguments that fail. (3.15 refuses)"""
    check(f"""
what = {what!r}
loop = new_event_loop()
loop.set_exception_handler(lambda *args: None)
log = []

async def wait(future):
    try:
        log.append(await future)
    except BaseException as exc:
        log.append(type(exc).__name__)

async def nothing():
    return 1

class Evil:
    def get_debug(self):
        loop.call_soon(loop.stop)
        loop.run_forever()
        return False
    def __getattr__(self, name):
        return getattr(loop, name)

for state in ("new", "scheduled", "parked", "done"):
    for arguments in ("good", "bad", "evil", "none"):
        inner = loop.create_future()
        one = loop.create_future() if what == "Future" else loop.create_task(wait(inner))
        waiting = [loop.create_task(wait(one)) for _ in range(2)]
        if state != "new":
            loop.call_soon(loop.stop)
            loop.run_forever()
        if state == "parked" and what == "Task":
            inner.set_result(1)
        if state == "done" and what == "Future":
            one.set_result(1)
        coro = nothing()
        args = {{"good": (coro,), "bad": (5,), "evil": (coro,), "none": ()}}[arguments]
        target = Evil() if arguments == "evil" else loop
        try:
            one.__init__(*(args if what == "Task" else args[1:]), loop=target)
        except Exception as exc:
            log.append(type(exc).__name__)
        coro.close()
        for _ in range(5):
            loop.call_soon(loop.stop)
            loop.run_forever()
        one.done(), one.cancelled()
        try:
            repr(one)
        except Exception:
            pass
        for task in waiting:
            task.cancel()
        inner.cancel()
        for _ in range(5):
            loop.call_soon(loop.stop)
            loop.run_forever()
loop.close()
print("ok")
""", flags=("-W", "ignore"))


def test_handles_that_hold_handles():
    """A long chain is let go without as deep a recursion."""
    check("""
loop = new_event_loop()
def nothing(*args): pass
for make in (lambda *args: loop.call_later(1000, nothing, *args),
             lambda *args: loop.call_soon(nothing, *args)):
    handle = None
    for _ in range(300_000):
        handle = make(handle)
    other = make(handle)
    del handle
    other.cancel()
    del other
loop.call_soon(loop.stop)
loop.run_forever()
handle = None
for _ in range(300_000):
    handle = loop.call_later(1000, nothing, handle)
del handle
loop.close()
print("ok")
""")


def test_loop_that_only_a_handle_holds():
    """The collector cannot see that reference: the loop is closed, what it would call is gone."""
    check("""
def hold(schedule):
    loop = new_event_loop()
    loop.cycle = loop
    return schedule(loop)
for schedule in (lambda loop: loop.call_later(5, print), lambda loop: loop.call_soon(print, 1)):
    handle = hold(schedule)
    gc.collect()
    repr(handle), handle._args, handle._callback, handle.get_context(), handle.cancelled()
    handle._run()
    handle.cancel()
    assert handle._loop.is_closed() and handle._callback is None
    del handle
    gc.collect()
print("ok")
""", flags=("-W", "ignore"), expect=None)


def test_tasks_that_await_each_other():
    """A circle: cancel() has no end to go to, and is an error, not a crash."""
    check("""
loop = new_event_loop()
async def wait(other):
    await asyncio.sleep(0)
    await tasks[other]
tasks = [loop.create_task(wait(1)), loop.create_task(wait(0))]
for _ in range(3):
    loop.call_soon(loop.stop)
    loop.run_forever()
try:
    tasks[0].cancel()
except RecursionError:
    print("ok")
for task in tasks:
    task._log_destroy_pending = False
loop.close()
""")


def test_core_closed_inside_a_callback():
    """By its private name, which does not look whether the loop runs."""
    check("""
import asyncloop._core
class Closer(asyncio.Protocol):
    def data_received(self, data):
        loop._close()
    connection_made = pause_writing = resume_writing = lambda self, *args: None

async def main(what):
    one, other = socket.socketpair()
    one.setblocking(False), other.setblocking(False)
    transport, _ = await loop.connect_accepted_socket(Closer, one)
    loop.call_later(5, print)
    loop.call_soon(print, "never")
    other.send(b"x" * 100_000)
    if what == "reader":
        loop.add_reader(other, loop._close)
        transport.write(b"x")
    elif what == "call":
        loop.call_soon(loop._close)
    elif what == "timer":
        loop.call_later(0, loop._close)
    elif what == "now":
        loop._close()
    elif what == "thread":
        loop.call_soon_threadsafe(loop._close)
    try:
        await asyncio.sleep(10)
    finally:
        other.close(), one.close()

for what in ("protocol", "reader", "call", "timer", "now", "thread"):
    loop = new_event_loop()
    loop.set_exception_handler(lambda *args: None)
    task = loop.create_task(main(what))
    task._log_destroy_pending = False
    try:
        loop.run_forever()
    except RuntimeError:
        pass
    del task
    loop.close()
    gc.collect()
print("ok")
""", flags=("-W", "ignore"), expect=None)


def test_fork_inside_callbacks():
    """The child closes the loop, or ends, from inside whatever the parent was doing."""
    check("""
class Forks(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        child("data")
    def eof_received(self):
        child("eof")
    def connection_lost(self, exc):
        child("lost")

def child(what):
    pid = os.fork()
    if pid == 0:
        if mode == "close":
            asyncio._set_running_loop(None)
            asyncloop._core.Loop._close(loop)
        os._exit(0)
    children.append(pid)

async def main():
    one, other = socket.socketpair()
    transport, _ = await loop.connect_accepted_socket(Forks, one)
    loop.call_soon(child, "soon")
    loop.call_later(0.001, child, "timer")
    other.send(b"x")
    await asyncio.sleep(0.01)
    other.shutdown(socket.SHUT_WR)
    while len(children) < 5:
        await asyncio.sleep(0.001)
    other.close()
    transport.abort()
    await asyncio.sleep(0.001)

import asyncloop._core
for mode in ("exit", "close"):
    children = []
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    for pid in children:
        _, status = os.waitpid(pid, 0)
        assert status == 0, (mode, status)
print("ok")
""", flags=("-W", "ignore"))
