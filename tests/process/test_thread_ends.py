"""Threads that end, and threads that fork, with loops in them.

Each test runs in a child interpreter of its own.
"""

from tests.support import check_script

COMMON = """
import gc, logging

faulthandler.cancel_dump_traceback_later()    # its thread is missing in a forked child
signal.alarm(50)
warnings.simplefilter("ignore")

def in_threads(function, count=4):
    failures = []
    def guarded():
        try:
            function()
        except BaseException as exc:
            failures.append(exc)
    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [], failures
"""


def test_threads_end_with_their_loops_open(impl):
    """With connections, timers and tasks in them; the descriptors go with the loop."""
    check_script(
        impl,
        COMMON
        + """
async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    one, other = socket.socketpair()
    kept.append(other)
    await loop.connect_accepted_socket(asyncio.Protocol, one)
    loop.call_later(1000, print)
    loop.create_task(asyncio.sleep(1000))
    await asyncio.sleep(0.001)

def work():
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())

# Their reports of what is lost are as asyncio's, and not looked at here.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)
kept = []
before = len(os.listdir("/dev/fd"))
for _ in range(3):
    in_threads(work)
    while kept:
        kept.pop().close()
    for _ in range(4):
        gc.collect()
assert len(os.listdir("/dev/fd")) <= before, os.listdir("/dev/fd")
print("ok")
""",
        "ok",
    )


def test_fork_in_a_thread(impl):
    """While other threads run loops: the child has one of its own, and the parent goes on."""
    check_script(
        impl,
        COMMON
        + """
def child():
    loop = new_event_loop()
    async def main():
        one, other = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one)
        other.send(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        other.close()
        await asyncio.sleep(0.001)
    loop.run_until_complete(main())
    loop.close()

def forked():
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(40)
            asyncio._set_running_loop(None)
            child()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

stop = threading.Event()
turns = [0, 0]

def run_meanwhile(number):
    async def main():
        while not stop.is_set():
            await asyncio.sleep(0)
            turns[number] += 1
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()

async def forking():
    await asyncio.sleep(0.001)
    assert forked() == 0                # inside of the running loop
    await asyncio.sleep(0.001)

def work():
    loop = new_event_loop()
    loop.run_until_complete(asyncio.sleep(0.001))
    assert forked() == 0                # beside it
    loop.run_until_complete(forking())
    loop.close()

others = [threading.Thread(target=run_meanwhile, args=(number,)) for number in range(2)]
for other in others:
    other.start()
try:
    for _ in range(3):
        in_threads(work, 1)
        seen = list(turns)
        while turns[0] == seen[0] or turns[1] == seen[1]:
            time.sleep(0.001)
finally:
    stop.set()
    for other in others:
        other.join()
print("ok")
""",
        "ok",
    )
