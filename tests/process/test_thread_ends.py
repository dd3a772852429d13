"""Threads that end, and threads that fork, with loops in them.

Each test runs in a child interpreter of its own.
"""

from tests.support import check_script, script

COMMON = (
    script("forked")
    + script("in_threads")
    + """
import gc, logging
warnings.simplefilter("ignore")
"""
)


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

def work(number):
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
    asyncio._set_running_loop(None)
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
    assert forked(child) == 0                # inside of the running loop
    await asyncio.sleep(0.001)

def work(number):
    loop = new_event_loop()
    loop.run_until_complete(asyncio.sleep(0.001))
    assert forked(child) == 0                # beside it
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
