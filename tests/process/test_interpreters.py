"""Loops in several interpreters of one process, each with a GIL of its own."""

import sys

import pytest

from tests.support import PY, check_script, script

pytestmark = [
    pytest.mark.skipif(PY < (3, 12), reason="an interpreter has a GIL of its own from 3.12 on"),
    pytest.mark.our_loop("the standard loop's modules are CPython's to test"),
]

# CPython 3.12 frees memory that is not its own when it ends after interpreters that have imported
# asyncio, with no other extension in sight.
LEAVE = """
if sys.version_info < (3, 13):
    sys.stdout.flush()
    os._exit(0)
"""


def check(impl, body, **kwargs):
    source = script("interpreters") + script("in_threads") + body + LEAVE
    check_script(impl, source, "ok", flags=(), **kwargs)


def test_loops_in_interpreters_at_the_same_time(impl):
    """Servers, clients, datagrams and timers, in four threads with an interpreter each."""
    check(
        impl,
        """
def work(number):
    interpreter = create()
    for _ in range(2):
        execute(interpreter, WORK)
    destroy(interpreter)

in_threads(work, 4)
# and the main one is what it was
exec(WORK, {})
print("ok")
""",
    )


def test_a_hundred_interpreters_come_and_go(impl):
    """With a loop in each; neither descriptors nor, after the first ones, memory stay behind."""
    check(
        impl,
        """
def fds():
    return len(os.listdir("/proc/self/fd"))

def rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

CODE = '''
import asyncio, asyncloop
loop = NEW()
for i in range(1000):
    loop.call_soon(int)
    loop.call_later(1000, int)
    loop.create_task(asyncio.sleep(0))
loop.run_until_complete(asyncio.sleep(0.0001))
loop.close()
'''

def growth(code, count, seconds):
    # bytes that each of `count` interpreters leaves behind, or of as many as come in that time
    def once():
        interpreter = create()
        execute(interpreter, code)
        destroy(interpreter)

    for _ in range(5):
        once()
    before, memory = fds(), rss()
    until = time.monotonic() + seconds
    for n in range(1, count + 1):
        once()
        if n >= 5 and time.monotonic() > until:
            break
    assert fds() == before, (fds(), before)
    return (rss() - memory) / n

# CPython itself keeps megabytes of each that has imported as many modules.
theirs = growth(CODE.replace("NEW", "asyncio.SelectorEventLoop"), 25, 5)
ours = growth(CODE.replace("NEW", "asyncloop.new_event_loop"), 65, 13)
assert ours - theirs < 256 * 1024, (ours, theirs)
print("ok")
""",
        limit=150,
    )


def test_interpreter_ends_with_a_loop_that_is_open(impl):
    """Connections, timers and tasks as they are when the interpreter goes."""
    check(
        impl,
        """
CODE = '''
import asyncio, asyncloop, socket, warnings
warnings.simplefilter("ignore")
loop = asyncloop.new_event_loop()
one, other = socket.socketpair()
async def main():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    await loop.connect_accepted_socket(asyncio.Protocol, one)
    loop.call_later(1000, print)
    task = loop.create_task(asyncio.sleep(1000))
    await asyncio.sleep(0.001)
loop.run_until_complete(main())
'''
for _ in range(5):
    interpreter = create()
    execute(interpreter, CODE)
    destroy(interpreter)
print("ok")
""",
    )


def test_interpreter_ends_while_a_thread_of_it_runs_a_loop(impl):
    """It waits for the thread, which leaves its loop open, with what is in it."""
    check(
        impl,
        """
CODE = '''
import asyncio, asyncloop, socket, threading, warnings
warnings.simplefilter("ignore")
one, other = socket.socketpair()
async def main(loop):
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    await loop.connect_accepted_socket(asyncio.Protocol, one)
    loop.call_later(1000, print)
    task = loop.create_task(asyncio.sleep(1000))
    running.set()
    await asyncio.sleep(0.1)
def work():
    loop = asyncloop.new_event_loop()
    loop.run_until_complete(main(loop))
running = threading.Event()
threading.Thread(target=work).start()
running.wait()
'''
for _ in range(3):
    interpreter = create()
    execute(interpreter, CODE)
    destroy(interpreter)
print("ok")
""",
    )


def test_state_is_each_interpreters_own(impl):
    """Types, tasks and their numbers are not shared."""
    check(
        impl,
        """
import asyncloop

loop = asyncloop.new_event_loop()

async def number():
    return int(asyncio.current_task().get_name().removeprefix("Task-"))

assert loop.run_until_complete(number()) == 1
CODE = '''
import asyncio, asyncloop
async def main():
    assert asyncio.current_task().get_name() == "Task-1"
asyncloop.run(main())
assert id(asyncloop.Task) != TYPE
'''
interpreter = create()
execute(interpreter, CODE.replace("TYPE", str(id(asyncloop.Task))))
destroy(interpreter)
assert loop.run_until_complete(number()) == 2
loop.close()
print("ok")
""",
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason="_ssl and others come with 3.13")
def test_tls_in_interpreters(impl):
    """The engine is looked for in each, at the same time."""
    check(
        impl,
        """
CODE = '''
import asyncloop, ssl
assert asyncloop.build_info()["tls"] in ("direct", "portable")
'''
def work(number):
    interpreter = create()
    execute(interpreter, CODE)
    destroy(interpreter)

in_threads(work, 3)
print("ok")
""",
    )
