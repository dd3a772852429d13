"""getaddrinfo of names, by threads that Python knows nothing of.

In processes of their own, with a C library whose names answer when the test wants it: name_hook.c,
which is compiled here.
"""

import os
import shutil
import sys

import pytest

from tests.support import PY, check_script, compile_hook

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="by LD_PRELOAD"),
    pytest.mark.skipif(not shutil.which(os.environ.get("CC", "cc")), reason="no C compiler"),
    pytest.mark.skipif(
        "ASYNCLOOP_LONG_WAYS" in os.environ, reason="these threads are a short way"
    ),
]

COMMON = """
import contextlib, ctypes, errno, weakref
from pathlib import Path
names = ctypes.CDLL(None)

def look_up(name, loop=None):
    return (loop or asyncio.get_running_loop()).getaddrinfo(name, 80, type=socket.SOCK_STREAM)

ANSWER = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

def threads():
    "How many of our threads there are in this process."
    found = 0
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/self/task/{task}/comm").read_text().strip() == "asyncloop-names"
    return found

async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)

def wait_until(condition):
    while not condition():
        time.sleep(0.001)

def run(main):
    loop = new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
"""


@pytest.fixture(scope="module")
def hook(tmp_path_factory):
    return compile_hook("name_hook", tmp_path_factory.mktemp("names"))


@pytest.fixture
def check(impl, hook):
    def check(source, **kwargs):
        preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), hook]))
        script = COMMON + source + '\nprint("ok")\n'
        # What is freed must not pass for what it was.
        env = {"LD_PRELOAD": preload, "MALLOC_PERTURB_": "165"}
        check_script(impl, script, "ok", env=env, **kwargs)

    return check


def test_answers(check):
    check(
        """
async def main():
    assert await look_up("quick") == ANSWER
    assert await asyncio.gather(*(look_up(f"quick{i}") for i in range(100))) == [ANSWER] * 100
    found = await asyncio.get_running_loop().getaddrinfo("quick", "80", type=socket.SOCK_STREAM)
    assert found == ANSWER
run(main())
assert names.names_asked() == 102
"""
    )


def test_names_that_are_encoded(check):
    check(
        """
async def main():
    hosts = "quick.b\u00fccher", b"quick", "quick\u3002de", "QUICK\u00df.de".lower()
    for host in hosts:
        assert await look_up(host) == ANSWER
    for wrong in "quick.b\u00fccher..de", "quick." + "\u00fc" * 64:
        try:
            await look_up(wrong)
        except UnicodeError:
            continue
        raise AssertionError(wrong)
    assert LOOP == "asyncio" or (threads() and threading.active_count() <= 2), threading.enumerate()
if LOOP == "asyncloop":
    from asyncloop import _core
    _core._set_look_up_idle(60000)
run(main())
assert names.names_asked() == 4
"""
    )


def test_error_of_the_system(check):
    check(
        """
async def main():
    try:
        await look_up("system")
    except OSError as exc:
        assert type(exc) is OSError and exc.errno == errno.EMFILE, exc
    else:
        raise AssertionError
run(main())
"""
    )


def test_address_of_another_family(check):
    check(
        """
async def main():
    found = await look_up("odd")
    assert found == socket.getaddrinfo("odd", 80, type=socket.SOCK_STREAM), found
    assert found[0][0] == socket.AF_APPLETALK
run(main())
"""
    )


def test_connections_by_name(check):
    check(
        """
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "quick-server", 0)
    host, port = server.sockets[0].getsockname()
    assert host == "127.0.0.1"
    transport, _ = await loop.create_connection(asyncio.Protocol, "quick-client", port)
    assert transport.get_extra_info("peername") == (host, port)
    transport.close()
    server.close()
    await server.wait_closed()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("quick-datagram", port)
    )
    assert transport.get_extra_info("peername") == (host, port)
    transport.close()
    await asyncio.sleep(0)
    assert names.names_asked() == 3
run(main())
"""
    )


@pytest.mark.our_loop("the default executor has other threads")
def test_number_of_threads(check):
    check(
        """
async def main():
    asked = [asyncio.ensure_future(look_up(f"held{i}")) for i in range(40)]
    await until(lambda: names.names_running() == 16)
    await asyncio.sleep(0.02)
    assert names.names_running() == names.names_asked() == threads() == 16
    names.names_release(True)
    assert await asyncio.gather(*asked) == [ANSWER] * 40
    assert names.names_asked() == 40 and threads() <= 16
run(main())
wait_until(lambda: threads() == 0)
"""
    )


@pytest.mark.our_loop("asyncio uses a thread for each")
def test_numeric_needs_no_thread(check):
    check(
        """
async def main():
    for host in "127.0.0.1", "::1", None, "127.1", "0x7f.1", "fe80::1%1":
        await look_up(host)
        assert threads() == 0, host
run(main())
"""
    )


@pytest.mark.our_loop("threads of our own")
def test_one_after_the_other_needs_few_threads(check):
    check(
        """
async def main():
    for i in range(200):
        assert await look_up("quick") == ANSWER
    assert threads() <= 2
run(main())
"""
    )


@pytest.mark.our_loop("threads of our own")
def test_idle_threads_end(check):
    check(
        """
from asyncloop import _core
_core._set_look_up_idle(20)
for wrong in 0, -1, 2**40, "1":
    try:
        _core._set_look_up_idle(wrong)
    except ValueError:
        pass
    else:
        raise AssertionError(wrong)

async def main():
    for _ in range(3):
        assert await asyncio.gather(*(look_up("quick") for i in range(5))) == [ANSWER] * 5
        assert threads() > 0
        await until(lambda: threads() == 0)
run(main())
"""
    )


def test_threads_take_no_signals(check, impl):
    check(
        """
got = []
async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
    asked = asyncio.ensure_future(look_up("held"))
    await until(names.names_running)
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: got)
    names.names_release(True)
    assert await asked == ANSWER
run(main())
assert LOOP == "asyncio" or names.names_unmasked() == 0
"""
    )


@pytest.mark.our_loop("asyncio takes back what waits only if it is cancelled before its thread")
def test_cancelled_in_the_queue(check):
    check(
        """
async def main():
    asked = [asyncio.ensure_future(look_up(f"held{i}")) for i in range(16)]
    await until(lambda: names.names_running() == 16)
    more = [asyncio.ensure_future(look_up(f"quick{i}")) for i in range(50)]
    await asyncio.sleep(0)
    for task in more[:49] + asked[:8]:
        task.cancel()
    done = await asyncio.gather(*more[:49], *asked[:8], return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in done), done
    names.names_release(True)
    assert await more[49] == ANSWER
    assert await asyncio.gather(*asked[8:]) == [ANSWER] * 8
    assert names.names_asked() == 17
    assert await look_up("quick") == ANSWER
run(main())
"""
    )


def test_cancelled_while_asked(check):
    check(
        """
async def main():
    for i in range(20):
        names.names_release(False)
        task = asyncio.ensure_future(look_up("held"))
        await until(names.names_running)
        if i % 2:
            names.names_release(True)
            await until(lambda: not names.names_running())
        task.cancel()
        names.names_release(True)
        try:
            found = await task
        except asyncio.CancelledError:
            pass
        else:
            assert found == ANSWER
    assert await look_up("quick") == ANSWER
run(main())
"""
    )


def test_answer_while_the_loop_stands(check):
    check(
        """
loop = new_event_loop()
task = loop.create_task(look_up("held", loop))
loop.run_until_complete(asyncio.sleep(0.01))
wait_until(names.names_running)
names.names_release(True)
wait_until(lambda: not names.names_running())
assert loop.run_until_complete(task) == ANSWER
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
"""
    )


LEFT = """
warnings.simplefilter("ignore")
async def main():
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(look_up("stuck"), 0.01)
    for i in range(30):
        asyncio.ensure_future(look_up("stuck"))
    await asyncio.sleep(0.01)
"""


@pytest.mark.our_loop("asyncio waits for its executor at the end of the process")
def test_stuck_name_server(check):
    """It keeps neither close() nor another loop nor the process waiting."""
    check(
        LEFT
        + """
loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
del loop
gc.collect()

async def other():
    assert await look_up("quick") == ANSWER
run(other())
"""
    )


@pytest.mark.our_loop("asyncio waits for its executor at the end of the process")
@pytest.mark.parametrize("close", [False, True], ids=["collected", "closed"])
def test_answer_after_close(check, close):
    check(
        f"""
warnings.simplefilter("ignore")
asyncio.log.logger.disabled = True
async def main():
    global asked
    asked = [asyncio.ensure_future(look_up("held%d" % i)) for i in range(40)]
    await until(lambda: names.names_running() == 16)
loop = new_event_loop()
loop.run_until_complete(main())
known = weakref.ref(loop)
if {close}:
    loop.close()
    assert not any(task.done() for task in asked)
del loop, asked
gc.collect()
assert known() is None
assert names.names_asked() == 16
names.names_release(True)
wait_until(lambda: threads() == 0)
assert names.names_asked() == 16
"""
    )


@pytest.mark.our_loop("what asyncio returns is driven otherwise")
@pytest.mark.parametrize("close", [False, True], ids=["collected", "closed"])
def test_answers_while_the_loop_is_closed(check, close):
    """They come while close() drops who has waited for them."""
    check(
        f"""
from asyncloop import _core
_core._set_look_up_idle(20)
asyncio.log.logger.disabled = True
ended = []
class Callback:
    def __call__(self, future):
        pass
    def __del__(self):
        names.names_release(True)
        wait_until(lambda: threads() == 0)
        ended.append(self)

async def main():
    for i in range(5):
        coroutine = look_up(f"held{{i}}")
        coroutine.send(None).add_done_callback(Callback())
        del coroutine
    await until(lambda: names.names_running() == 5)

loop = new_event_loop()
loop.run_until_complete(main())
if {close}:
    loop.close()
del loop
gc.collect()
assert len(ended) == 5, ended
assert threads() == 0
"""
    )


@pytest.mark.our_loop("the threads of the default executor do not survive a fork")
def test_fork_while_asked(check):
    """The child asks again what is under way."""
    check(
        """
async def begin():
    asked = [asyncio.ensure_future(look_up(f"held{i}")) for i in range(20)]
    await until(lambda: names.names_running() == 16)
    asked.pop(3).cancel()
    asked.pop(18).cancel()
    await asyncio.sleep(0)
    return asked

async def end(asked):
    assert await asyncio.gather(*asked) == [ANSWER] * 18
    assert await look_up("quick") == ANSWER

warnings.simplefilter("ignore")    # that there are threads
loop = new_event_loop()
asked = loop.run_until_complete(begin())
pid = os.fork()
try:
    names.names_release(True)
    loop.run_until_complete(end(asked))
    loop.close()
    if pid == 0:
        wait_until(lambda: threads() == 0)
        os._exit(17)
finally:
    if pid == 0:
        os._exit(1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 17
"""
    )


def test_fork_while_threads_are_busy(check):
    check(
        """
warnings.simplefilter("ignore")
async def main():
    assert await asyncio.gather(*(look_up("quick") for i in range(5))) == [ANSWER] * 5

def child():
    try:
        run(main())
        os._exit(17)
    finally:
        os._exit(1)

async def parent():
    stop = False
    async def busy():
        while not stop:
            assert await look_up("quick") == ANSWER
    tasks = [asyncio.ensure_future(busy()) for _ in range(20)]
    for _ in range(20):
        await asyncio.sleep(0.003)
        pid = os.fork()
        if pid == 0:
            child()
        done = []
        def wait():
            done.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        thread = threading.Thread(target=wait)
        thread.start()
        await until(lambda: done)
        thread.join()
        assert done == [17], done
    stop = True
    await asyncio.gather(*tasks)
run(parent())
"""
    )


def test_no_thread_can_be_started(check):
    check(
        """
async def main():
    names.names_fail_threads(True)
    try:
        await look_up("quick")
    except RuntimeError as exc:
        assert str(exc) == "can't start new thread", exc
    else:
        raise AssertionError
    names.names_fail_threads(False)
    assert await look_up("quick") == ANSWER
run(main())
"""
    )


@pytest.mark.our_loop("asyncio has no thread for it then")
def test_no_further_thread_can_be_started(check):
    check(
        """
async def main():
    assert await look_up("quick") == ANSWER
    names.names_fail_threads(True)
    assert await asyncio.gather(*(look_up(f"quick{i}") for i in range(30))) == [ANSWER] * 30
    names.names_fail_threads(False)
run(main())
"""
    )


def test_audit(check):
    check(
        """
events = []
refuse = False
def audit(event, args):
    if event == "socket.getaddrinfo":
        events.append(args)
        if refuse:
            raise LookupError("not this one")
sys.addaudithook(audit)

async def main():
    global refuse
    await look_up("quick")
    assert events == [("quick", 80, 0, socket.SOCK_STREAM, 0)], events
    refuse = True
    try:
        await look_up("quick")
    except LookupError as exc:
        assert str(exc) == "not this one"
    else:
        raise AssertionError
    refuse = False
    await look_up("quick")
    assert names.names_asked() == 2
run(main())
"""
    )


def test_loops_in_threads(check):
    check(
        """
failures = []
def work(n):
    async def main():
        for i in range(40):
            found = await asyncio.gather(*(look_up(f"quick{n}") for _ in range(i % 7 + 1)))
            assert set(map(str, found)) == {str(ANSWER)}
    try:
        for _ in range(3):
            run(main())
    except BaseException as exc:
        failures.append(exc)
        raise
workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert not failures
"""
    )


@pytest.mark.our_loop("asyncio makes the answer in a thread")
def test_no_task_is_current_while_an_answer_is_made(check):
    """Python's enum is asked for kinds of sockets beside the usual ones."""
    check(
        """
import enum
current = []
plain = enum.EnumType.__call__
def call(cls, *args, **kwargs):
    if cls is socket.SocketKind:
        current.append(asyncio.current_task())
    return plain(cls, *args, **kwargs)

async def main():
    loop = asyncio.get_running_loop()
    async def busy():
        while True:
            await asyncio.sleep(0)
    task = asyncio.ensure_future(busy())
    enum.EnumType.__call__ = call
    for _ in range(50):
        kinds = {one[1] for one in await loop.getaddrinfo("quick", 80)}
        assert socket.SOCK_RAW in kinds, kinds
    enum.EnumType.__call__ = plain
    task.cancel()
run(main())
assert len(current) >= 50 and set(current) == {None}, current
"""
    )


@pytest.mark.our_loop("what asyncio returns is driven otherwise")
def test_driven_by_hand(check):
    """The future that it waits for is settled by somebody else: it asks once more."""
    check(
        """
async def main():
    loop = asyncio.get_running_loop()
    coroutine = look_up("held")
    future = coroutine.send(None)
    future._asyncio_future_blocking = False
    future.set_result(None)
    names.names_release(True)
    second = coroutine.send(None)
    second._asyncio_future_blocking = False
    await second
    try:
        coroutine.send(None)
    except StopIteration as stop:
        assert stop.value == ANSWER
    names.names_release(False)
    coroutine = look_up("held")
    coroutine.send(None)
    coroutine.close()
    coroutine = look_up("held")
    coroutine.send(None)
    del coroutine
    names.names_release(True)
    await asyncio.sleep(0.01)
run(main())
"""
    )


def test_closed_loop(check):
    check(
        """
loop = new_event_loop()
coroutine = look_up("quick", loop)
loop.close()
try:
    coroutine.send(None)
except RuntimeError as exc:
    assert str(exc) == "Event loop is closed"
assert names.names_asked() == 0
"""
    )


@pytest.mark.our_loop("threads of our own")
def test_memory_stays(check):
    """Answers, errors, cancelled ones and loops leave nothing behind."""
    check(
        """
async def main():
    for i in range(40):
        tasks = [asyncio.ensure_future(look_up(f"{word}{i}"))
                 for word in ("quick", "system", "quick") for i in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

def rss():
    return int(Path("/proc/self/statm").read_text().split()[1])

for _ in range(4):
    run(main())
wait_until(lambda: threads() == 0)
before = rss()
for _ in range(12):
    run(main())
wait_until(lambda: threads() == 0)
# A sanitizer keeps what was freed for a while.
limit = 1500 if "asan" in os.environ["LD_PRELOAD"] else 500
assert rss() - before < limit, (before, rss())
""",
        limit=100,
    )


@pytest.mark.our_loop("the standard loop's modules are CPython's to test")
@pytest.mark.skipif(PY < (3, 13), reason="_interpreters")
def test_interpreters_end_while_a_name_server_is_stuck(check):
    check(
        """
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    def work(code):
        interpreter = interpreters.create()
        interpreter.exec(code)
        interpreter.close()
else:
    import _interpreters
    def work(code):
        interpreter = _interpreters.create("isolated")
        failure = _interpreters.exec(interpreter, code)
        assert failure is None, failure.errdisplay
        _interpreters.destroy(interpreter)

CODE = '''
import asyncio, asyncloop, socket
async def main():
    loop = asyncio.get_running_loop()
    asked = [asyncio.ensure_future(loop.getaddrinfo(f"stuck{i}", 80)) for i in range(3)]
    found = await loop.getaddrinfo("quick", 80, type=socket.SOCK_STREAM)
    assert found == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    await asyncio.sleep(0.02)    # so that threads have the others
asyncloop.run(main())
'''
workers = [threading.Thread(target=work, args=(CODE,)) for _ in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
""",
        flags=(),
    )
