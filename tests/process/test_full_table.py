"""The system's table of open files is full: ENFILE at each place that opens a descriptor.

No limit of a process brings that about, so full_table_hook.c, which is compiled here, makes the
calls fail. In processes of their own, on both loops: something works, or raises OSError; then the
table has room again, nothing is lost, and it works.
"""

import os
import shutil
import sys
import sysconfig

import pytest

from tests.support import DESCRIPTORS, RECORDS, SIGNAL_CASE, check_script, compile_hook, script

pytestmark = [
    pytest.mark.skipif(
        not shutil.which(os.environ.get("CC", "cc")), reason="no C compiler for the full table"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="the hook rewrites ELF tables"),
]

COMMON = RECORDS + DESCRIPTORS + script("full_table")


@pytest.fixture(scope="module")
def hook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full_table")
    compile_hook("full_table_hook", folder, "-I", sysconfig.get_path("include"))
    return str(folder)


@pytest.fixture
def check(impl, hook):
    def check(source):
        script = COMMON + source + '\nprint("ok")\n'
        check_script(impl, script, "ok", args=(hook,), flags=("-W", "ignore"))

    return check


def test_loop(check):
    check(
        """
def begin():
    return []
def act(made):
    made.append(new_event_loop())
    made[0].call_later(0.0003, made[0].stop)    # a timerfd
    made[0].run_forever()
def end(made):
    for loop in made:
        loop.close()
warm(begin, act, end)
cases(begin, act, end)
"""
    )


def test_signal_handler(check):
    check(
        SIGNAL_CASE
        + """
warm(begin, act, end)
for passes in range(4):
    loop = begin()
    with full(passes):
        try:
            act(loop)
        except RuntimeError as exc:     # asyncio's, when it cannot be woken
            assert os.strerror(errno.ENFILE) in str(exc), exc
    end(loop)
    check_nothing_left()
loop = begin()
act(loop)
end(loop)
"""
    )


def test_runner_and_signals(check):
    """run() wants to be woken by Ctrl-C; without a descriptor for that it works, too."""
    check(
        """
async def main():
    await asyncio.sleep(0.0003)
    return 1
def begin():
    return []
def act(_):
    if LOOP == "asyncloop":
        assert asyncloop.run(main()) == 1
    else:
        assert asyncio.run(main()) == 1
def end(_):
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
warm(begin, act, end)
cases(begin, act, end)
"""
    )


CONNECT = """
def begin():
    loop = new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.server = loop.run_until_complete(loop.create_server(Counted, "127.0.0.1", 0))
    return loop
def act(loop):
    address = loop.server.sockets[0].getsockname()
    async def main():
        await loop.create_connection(Counted, *address)
        await asyncio.sleep(0.002)
    loop.run_until_complete(main())
def end(loop):
    async def main():
        loop.server.close()
        for protocol in Counted.all:
            protocol.transport.abort()
        await asyncio.sleep(0.002)
    loop.run_until_complete(main())
    check_counted()
    loop.close()
"""


def test_connect(check):
    check(CONNECT + "warm(begin, act, end)\ncases(begin, act, end)")


@pytest.mark.parametrize("call", ["create_server", "start_server", "create_connection", "by_name",
                                  "open_connection", "create_unix_server", "datagrams"])
def test_error_of_each_call(check, call):
    """With the table full for good: OSError, as on the standard loop."""
    check(
        f"CALL = {call!r}\n"
        """
import tempfile
with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
    port = listener.getsockname()[1]
    def ignore(*args):
        pass
    async def main():
        loop = asyncio.get_running_loop()
        await loop.getaddrinfo("localhost", port)   # a thread of the executor
        table.install()
        calls = {
            "create_server": lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
            "start_server": lambda: asyncio.start_server(ignore, "127.0.0.1", 0),
            "create_connection": lambda: loop.create_connection(
                asyncio.Protocol, "127.0.0.1", port),
            "by_name": lambda: loop.create_connection(asyncio.Protocol, "localhost", port),
            "open_connection": lambda: asyncio.open_connection("127.0.0.1", port),
            "create_unix_server": lambda: loop.create_unix_server(
                asyncio.Protocol, folder + "/socket"),
            "datagrams": lambda: loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
        }
        before = descriptors()
        with full(0, -1, "socket"):
            try:
                made = await calls[CALL]()
            except OSError as exc:
                found = numbers(exc)
                # Of several addresses some versions keep none of the errors.
                assert found == {errno.ENFILE} or "could not bind" in str(exc), repr(exc)
            else:
                # So does asyncio's create_server() before 3.13.
                assert made.sockets == () and sys.version_info < (3, 13), made
                made.close()
        assert full.hits
        gc.collect()
        assert descriptors() == before
        made = await calls[CALL]()
        made = made if hasattr(made, "close") else made[CALL == "open_connection"]
        made.close()
        await asyncio.sleep(0.01)
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
"""
    )


ACCEPT = """
contexts = []
class Greeter(Counted):
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write(b"hi")
        transport.close()

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    server = await loop.create_server(Greeter, "127.0.0.1", 0, backlog=8)
    clients = [socket.socket() for _ in range(5)]
    table.install()
    table.fill(0, TIMES, "accept4")
    for client in clients:
        client.connect(server.sockets[0].getsockname())
    if TIMES < 0:
        await asyncio.sleep(1.3)
        assert not Counted.all
        assert table.drain() > 0
    while len(Counted.all) < 5 or not all(p.lost for p in Counted.all):
        await asyncio.sleep(0.01)
    assert TIMES < 0 or table.drain() == TIMES
    for client in clients:
        assert client.recv(2) == b"hi"
        client.close()
    check_counted()
    assert contexts
    for context in contexts:
        assert context["exception"].errno == errno.ENFILE, context
        assert context["message"] == "socket.accept() out of system resource", context
        assert isinstance(context["socket"], asyncio.trsock.TransportSocket), context
    # as many reports as pauses, on every loop from 3.14.1 on
    assert LOOP != "asyncloop" or len(contexts) == (abs(TIMES) if TIMES > 0 else 2), contexts
    server.close()
    await asyncio.sleep(0)

for _ in range(2):
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del loop
    contexts.clear()
    check_nothing_left()
"""


@pytest.mark.parametrize("times", [1, 2, -1])
def test_server_goes_on_accepting(check, times):
    """After a pause of a second, as often as it takes; who has waited is served."""
    check(f"TIMES = {times}\n" + ACCEPT)


def test_sock_accept(check):
    """The error is the caller's; the connection is still there for the next call."""
    check(
        """
async def main():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.connect(listener.getsockname())
        table.install()
        with full(0, 1):
            try:
                await loop.sock_accept(listener)
            except OSError as exc:
                assert exc.errno == errno.ENFILE, exc
            else:
                raise AssertionError
        assert full.hits == 1
        conn, _ = await loop.sock_accept(listener)
        conn.close()
for _ in range(2):
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    check_nothing_left()
"""
    )


def test_subprocess(check):
    check(
        """
import asyncio.subprocess
def begin():
    loop = new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    asyncio.set_event_loop(loop)
    if sys.version_info < (3, 12):
        asyncio.get_child_watcher()
    loop.run_until_complete(asyncio.sleep(0))   # opens what a run needs
    return loop
def act(loop):
    async def main():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "print(1)", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = await child.communicate(b"x")
        assert out == b"1\\n", out
        assert child.returncode == 0
    loop.run_until_complete(main())
def end(loop):
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0.005))
    loop.close()
    try:    # one that could not be watched
        while True:
            os.waitpid(-1, 0)
            orphans.append(1)
    except ChildProcessError:
        pass
orphans = []
warm(begin, act, end)
cases(begin, act, end)
assert LOOP != "asyncloop" or not orphans
"""
    )


@pytest.mark.our_loop("the standard loop goes on using what it shares with the parent")
def test_forked_child(check):
    """A child's loop makes a kernel side of its own: not while the table is full, but then."""
    check(
        """
loop = new_event_loop()
loop.add_signal_handler(signal.SIGUSR1, print)
loop.run_until_complete(asyncio.sleep(0.0003))
table.install()
for call in ["eventfd", "pipe2", "epoll_create1", "none"]:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)
            with full(0, -1, call):
                try:
                    loop.run_until_complete(asyncio.sleep(0.0003))
                except OSError as exc:
                    assert exc.errno == errno.ENFILE, exc
                else:
                    assert call == "none"
            loop.run_until_complete(asyncio.sleep(0.0003))
            thread = threading.Timer(0.01, loop.call_soon_threadsafe, [loop.stop])
            thread.start()
            loop.run_forever()
            thread.join()
            hit = loop.create_future()
            loop.add_signal_handler(signal.SIGUSR2, hit.set_result, 1)
            loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
            loop.run_until_complete(hit)
            loop.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, call
loop.run_until_complete(asyncio.sleep(0.0003))
loop.close()
"""
    )
