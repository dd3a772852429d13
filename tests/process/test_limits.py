"""No descriptors left: RLIMIT_NOFILE reached at each place that opens one.

In processes of their own. Each scenario runs with 0, 1, 2, ... descriptors left, on both loops:
it works, or it raises OSError; then the limit goes up again, nothing is lost, and it works.
"""

from tests.support import DESCRIPTORS, SIGNAL_CASE, check_script, script

COMMON = DESCRIPTORS + script("limits")


def check(impl, source):
    check_script(impl, COMMON + source + '\nprint("ok")\n', "ok", flags=("-W", "ignore"))


def test_loop(impl):
    check(
        impl,
        """
def begin():
    return []
def act(made):
    made.append(new_event_loop())
    made[0].call_soon(made[0].stop)
    made[0].run_forever()
def end(made):
    for loop in made:
        loop.close()
for _ in range(2):
    cases(begin, act, end)
    check_nothing_left()
""",
    )


def test_signal_handler(impl):
    check(
        impl,
        SIGNAL_CASE
        + """
for count in range(4):
    loop = begin()
    with left(count):
        try:
            act(loop)
        except (OSError, RuntimeError):
            pass
    end(loop)
    check_nothing_left()
loop = begin()
act(loop)
end(loop)
""",
    )


def test_connect_and_accept(impl):
    check(
        impl,
        """
made = []
class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        made.append(transport)

def begin():
    made.clear()
    loop = new_event_loop()
    loop.server = loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))
    return loop
def act(loop):
    port = loop.server.sockets[0].getsockname()[1]
    async def main():
        await loop.create_connection(Protocol, "127.0.0.1", port)
        await asyncio.sleep(0.002)
    loop.run_until_complete(main())
def end(loop):
    async def main():
        loop.server.close()
        for transport in made:
            transport.abort()
        await asyncio.sleep(0.002)
    loop.run_until_complete(main())
    loop.close()
for _ in range(2):
    cases(begin, act, end)
    check_nothing_left()
""",
    )


def test_server_goes_on_accepting(impl):
    """What could not be accepted is when there are descriptors again."""
    check(
        impl,
        """
made = []
class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        made.append(transport)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    clients = [socket.socket() for _ in range(3)]
    with left(1):
        for client in clients:
            client.connect(server.sockets[0].getsockname())
        await asyncio.sleep(0.05)
        assert len(made) <= 1
    assert reports
    while len(made) < 3:
        await asyncio.sleep(0.01)
    for client in clients:
        client.close()
    server.close()
    while not all(transport.is_closing() for transport in made):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
reports = []
check_nothing_left()
loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
del loop
made.clear(), reports.clear()
check_nothing_left()
""",
    )


def test_datagrams(impl):
    check(
        impl,
        """
made = []
def begin():
    made.clear()
    return new_event_loop()
def act(loop):
    made.append(loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))))
def end(loop):
    for transport, _ in made:
        transport.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
for _ in range(2):
    cases(begin, act, end)
    check_nothing_left()
""",
    )


def test_subprocess(impl):
    check(
        impl,
        """
def begin():
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    if sys.version_info < (3, 12):
        asyncio.get_child_watcher()
    return loop
def act(loop):
    async def main():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "print(1)", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = await child.communicate(b"x")
        assert out == b"1\\n", out
    loop.run_until_complete(main())
def end(loop):
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0.005))
    loop.close()
import asyncio.subprocess
warm = begin(); act(warm); end(warm)
check_nothing_left()
for count in range(0, 14):
    loop = begin()
    with left(count):
        try:
            act(loop)
        except OSError as exc:
            assert exc.errno == errno.EMFILE, exc
    end(loop)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    check_nothing_left()
""",
    )
