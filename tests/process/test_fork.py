"""A live loop and fork: the child must not disturb the parent.

Each test runs in a child interpreter of its own, which then forks, so that
nothing of pytest is in the forked process.
"""

import pytest

from tests.support import check_script, script


def check(impl, body, expect="ok"):
    check_script(impl, script("forked") + body, expect)


def test_new_loop_in_the_child(impl):
    check(
        impl,
        """
loop = new_event_loop()
loop.run_until_complete(asyncio.sleep(0.001))

def child():
    other = new_event_loop()
    async def main():
        await asyncio.sleep(0.001)
        return await asyncio.to_thread(lambda: 5)
    assert other.run_until_complete(main()) == 5
    other.close()

assert forked(child) == 0
loop.run_until_complete(asyncio.sleep(0.001))
loop.close()
print("ok")
""",
    )


@pytest.mark.parametrize("how", ["exits", "closes", "collects", "runs"])
def test_parent_keeps_its_events(impl, how):
    """Whatever the child does with the inherited loop, the parent still reads."""
    if how == "runs" and not impl.ours:
        pytest.skip("the standard loop in the child shares the parent's epoll set")
    if how in ("closes", "collects") and not impl.ours:
        pytest.skip("the standard loop's child takes the wakeup reader out of the shared set")
    check(
        impl,
        f"""
how = {how!r}
loop = new_event_loop()
one, other = socket.socketpair()
seen = []
loop.add_reader(one, lambda: (seen.append(one.recv(10)), loop.stop()))
loop.call_soon(loop.stop)
loop.run_forever()

def child():
    global loop
    if how == "closes":
        loop.close()
    elif how == "collects":
        loop.remove_reader(one)
        loop.close()
        loop = None
        gc.collect()
    elif how == "runs":
        loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        except RuntimeError:
            pass

assert forked(child) == 0
other.send(b"x")
loop.run_forever()
assert seen == [b"x"]
threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,)).start()
loop.run_forever()
loop.remove_reader(one)
loop.close()
one.close()
other.close()
print("ok")
""",
    )


@pytest.mark.our_loop("the standard loop shares its epoll set with the child")
def test_inherited_loop_in_the_child_works_or_raises(impl):
    check(
        impl,
        """
loop = new_event_loop()
loop.run_until_complete(asyncio.sleep(0.001))
one, other = socket.socketpair()
loop.add_reader(one, loop.stop)

def child():
    try:
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0.001))
    except RuntimeError as exc:
        assert "fork" in str(exc), exc

assert forked(child) == 0
other.send(b"x")
loop.run_forever()
loop.remove_reader(one)
loop.close()
one.close()
other.close()
print("ok")
""",
    )


def test_fork_inside_the_running_loop(impl):
    """The child is born in a callback: no loop counts as running for it."""
    check(
        impl,
        """
loop = new_event_loop()

async def main():
    def child():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        other = new_event_loop()
        assert other.run_until_complete(asyncio.sleep(0.001, 3)) == 3
        other.close()
    status = forked(child)
    await asyncio.sleep(0.01)
    return status

assert loop.run_until_complete(main()) == 0
loop.close()
print("ok")
""",
    )


@pytest.mark.our_loop("from 3.14 on a task can't run on in the child")
def test_child_leaves_by_system_exit(impl):
    check(
        impl,
        """
loop = new_event_loop()

async def main():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        raise SystemExit(9)
    await asyncio.sleep(0.01)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert loop.run_until_complete(main()) == 9
loop.close()
print("ok")
""",
    )


def test_parents_transports_in_the_child(impl):
    """The child drops the parent's connections: the parent's stay open."""
    check(
        impl,
        """
loop = new_event_loop()
loop.set_debug(False)

async def main():
    async def handle(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"1")
    assert await reader.readexactly(1) == b"1"
    assert forked(gc.collect) == 0
    writer.write(b"2")
    assert await reader.readexactly(1) == b"2"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()

loop.run_until_complete(main())
loop.close()
print("ok")
""",
    )


def test_multiprocessing_fork(impl):
    check(
        impl,
        """
import multiprocessing
warnings.simplefilter("ignore")

def work(queue):
    loop = new_event_loop()
    queue.put(loop.run_until_complete(asyncio.sleep(0.001, os.getpid())))
    loop.close()

loop = new_event_loop()

async def main():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    pid = await asyncio.to_thread(queue.get)
    await asyncio.to_thread(process.join)
    assert pid == process.pid and process.exitcode == 0

loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
print("ok")
""",
    )


def test_descriptors_are_close_on_exec(impl):
    """What an executed child inherits from a process with a busy loop: nothing."""
    check(
        impl,
        """
import subprocess
loop = new_event_loop()

async def main():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    loop.call_later(0.0003, int)
    await asyncio.sleep(0.001)
    await asyncio.to_thread(int)
    loop.add_signal_handler(signal.SIGUSR1, int)
    datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    read_end, write_end = os.pipe()
    reading, _ = await loop.connect_read_pipe(asyncio.Protocol, open(read_end, "rb", 0))
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(write_end, "wb", 0))
    child = await asyncio.create_subprocess_exec(
        "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    with socket.create_connection(listener.getsockname()) as one:
        other, _ = await loop.sock_accept(listener)
    code = "import os; print(*sorted(os.listdir('/proc/self/fd')))"
    out = subprocess.run([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE,
                         text=True, check=True).stdout
    fds = [int(n) for n in out.split()]
    assert len([n for n in fds if n > 2]) <= 1, out  # the listing itself
    for open_one in datagrams, reading, writing, listener, other, server:
        open_one.close()
    loop.remove_signal_handler(signal.SIGUSR1)
    child.stdin.close()
    await child.wait()
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.01)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
print("ok")
""",
    )


def test_libev_flags_are_ignored(impl):
    """The environment can't change the backend."""
    check_script(
        impl,
        """
loop = new_event_loop()
one, other = socket.socketpair()
loop.add_reader(one, loop.stop)
other.send(b"x")
loop.run_forever()
kinds = {os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
         if os.path.exists(f"/proc/self/fd/{n}") or os.path.islink(f"/proc/self/fd/{n}")}
assert "anon_inode:[eventpoll]" in kinds, kinds
loop.remove_reader(one)
loop.close()
one.close()
other.close()
print("ok")
""",
        "ok",
        env={"LIBEV_FLAGS": "1"},
    )
