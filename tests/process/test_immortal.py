"""Without a GIL what asyncio's modules hold is immortal, so that threads do not count it by turns.

A program's own things are not, and a program sees no more of it than `sys.getrefcount()` tells.
"""

import subprocess
import sys

import pytest

from tests.support import FREE_THREADED, PY


def output_of(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(
    not FREE_THREADED or PY < (3, 14), reason="with a GIL all is counted; 3.13 cannot be asked"
)
def test_what_asyncio_holds():
    told = output_of("""
import asyncio, collections, sys
import asyncloop
class Mine:
    def method(self): ...
held = [asyncio.Lock.acquire, asyncio.timeouts._State.ENTERED, asyncio.tasks.current_task]
held += [collections.deque, vars(asyncloop._core.Loop)["sock_recv"]]
print(*map(sys._is_immortal, held), *map(sys._is_immortal, [Mine.method, Mine, Mine(), asyncio]))
""")
    assert told == ["True"] * 5 + ["False"] * 4


def test_what_a_program_puts_there_is_let_go():
    assert output_of("""
import asyncio, gc, weakref
import asyncloop
def acquire(self): ...
class Mine: ...
before, asyncio.Lock.acquire, asyncio.mine = asyncio.Lock.acquire, acquire, Mine()
seen = [weakref.ref(acquire), weakref.ref(asyncio.mine)]
asyncio.Lock.acquire = before
del acquire, asyncio.mine
gc.collect()
print([ref() for ref in seen])
""") == ["[None,", "None]"]


def test_imported_by_another_thread_than_asyncio():
    assert output_of("""
import asyncio, threading
thread = threading.Thread(target=lambda: __import__("asyncloop"))
thread.start()
thread.join()
import asyncloop
print(asyncloop.run(asyncio.sleep(0, "done")))
""") == ["done"]


def test_odd_things_in_asyncio():
    assert output_of("""
import asyncio, sys, types
asyncio.nameless = types.ModuleType("nameless")
del asyncio.nameless.__name__
asyncio.itself = asyncio
asyncio.tasks.of_none = types.ModuleType("of_none")
asyncio.tasks.of_none.__package__ = 5
class Holds(type):
    def __getattribute__(self, name):
        raise RuntimeError(name)
class Held(metaclass=Holds): ...
asyncio.held = Held
import asyncloop
print(asyncloop.run(asyncio.sleep(0, "done")))
""") == ["done"]
