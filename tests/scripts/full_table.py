import collections
import contextlib
import errno
import subprocess

sys.path.insert(0, sys.argv[1])
import full_table_hook as table


@contextlib.contextmanager
def full(*args):
    table.fill(*args)
    try:
        yield
    finally:
        full.hits = table.drain()

class Counted(asyncio.Protocol):
    all = []
    made = lost = 0
    def __init__(self):
        self.all.append(self)
    def connection_made(self, transport):
        self.made += 1
        self.transport = transport
    def connection_lost(self, exc):
        self.lost += 1

def check_counted():
    assert all(p.made == p.lost == 1 for p in Counted.all), [vars(p) for p in Counted.all]
    Counted.all.clear()

def cases(begin, act, end, most=20):
    "The n-th call fails, and all from the n-th on, until there are no more."
    for failures in (1, -1):
        for passes in range(most):
            thing = begin()
            before = descriptors()
            error = None
            with full(passes, failures):
                try:
                    act(thing)
                except OSError as exc:
                    error = exc
            assert error is None or errno.ENFILE in numbers(error), repr(error)
            end(thing)
            error = thing = None
            gc.collect()
            hits = full.hits
            thing = begin()     # and it works again
            act(thing)
            end(thing)
            thing = None
            check_nothing_left()
            if not hits:
                break
        else:
            raise AssertionError("no end")
        assert passes > 0

def numbers(error):
    "Of the error, or of all that one stands for."
    errors = getattr(error, "exceptions", None) or [error]
    return {e.errno for e in errors if e.errno is not None} or {
        n for n in (errno.ENFILE,) if os.strerror(n) in str(error)}

first = None
def check_nothing_left():
    global first
    gc.collect()
    now = descriptors()
    if first is None:
        first = now
    assert now == first, (now, first)

def warm(*parts):
    begin, act, end = parts
    thing = begin(); act(thing); end(thing)
    thing = None
    check_nothing_left()
    table.install()
