"""The watchdog and what the environment switches on, in interpreters beside the main one.

asyncio has nothing like it, so all of this is about asyncloop alone.
"""

import pytest

from tests.support import PY, check_script, script

pytestmark = [
    pytest.mark.skipif(PY < (3, 12), reason="an interpreter has a GIL of its own from 3.12 on"),
    pytest.mark.our_loop("the standard loop has no watchdog"),
]

# CPython 3.12 frees memory that is not its own when it ends after interpreters that have imported
# asyncio, with no other extension in sight.
ENDS = """
sys.stdout.flush()
os._exit(0)
"""

WATCHED = """
WORK = '''
import asyncio, time, asyncloop
told = []
def names():
    return [stall.stack[-1].name for stall in told if stall.stack]
def blocks():
    limit = time.monotonic() + 20
    while "blocks" not in names() and time.monotonic() < limit:
        time.sleep(0.1)
async def main():
    await asyncio.sleep(0.01)
    blocks()
    await asyncio.sleep(0.01)
dog = asyncloop.watchdog(0.05, on_stall=told.append)
dog.start()
asyncloop.run(main())
assert "blocks" in names(), told
'''
"""


def check(impl, body):
    check_script(impl, script("interpreters") + WATCHED + body + ENDS, "ok", flags=())


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_block_in_another_interpreter(impl, kind):
    """Its own line is named, not where the main interpreter has called it."""
    body = f"""
for _ in range(2):
    interpreter = create({kind!r})
    execute(interpreter, WORK + "dog.stop()")
    destroy(interpreter)
exec(WORK + "dog.stop()", {{}})
print("ok")
"""
    check(impl, body)


@pytest.mark.skipif(PY < (3, 13), reason="only without threads of its own may it be ended")
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_an_interpreter_ends_under_a_watchdog(impl, kind):
    body = f"""
for _ in range(3):
    interpreter = create({kind!r})
    execute(interpreter, WORK)
    destroy(interpreter)
print("ok")
"""
    check(impl, body)


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_what_the_environment_asks_for_is_the_main_interpreters(impl, kind, monkeypatch):
    """It gives no other one a thread, which would be in the way of its end."""
    monkeypatch.setenv("ASYNCLOOP_WATCHDOG", "20")
    monkeypatch.setenv("ASYNCLOOP_PAGE", "1")
    monkeypatch.setenv("ASYNCLOOP_DUMP_SIGNAL", "USR1")
    monkeypatch.setenv("ASYNCLOOP_SHUTDOWN", "20")
    monkeypatch.setenv("ASYNCLOOP_STRONG_TASKS", "1")
    body = f"""
import asyncloop
count = threading.active_count()
code = '''
import asyncio, threading, asyncloop
asyncloop.run(asyncio.sleep(0.01))
assert threading.active_count() == 1, threading.enumerate()
'''
for _ in range(3):
    interpreter = create({kind!r})
    execute(interpreter, code)
    destroy(interpreter)
assert threading.active_count() == count == 2
print("ok")
"""
    check(impl, body)
