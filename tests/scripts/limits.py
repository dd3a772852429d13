import contextlib
import errno
import logging
import resource
import subprocess
import tempfile

logging.disable(logging.CRITICAL)

@contextlib.contextmanager
def left(count):
    "Only `count` more descriptors can be opened."
    fillers = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = max(map(int, descriptors())) + 1
    low += count
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    # what is free below the highest one
    while True:
        try:
            fillers.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for fd in fillers[len(fillers) - count:] if count else []:
        os.close(fd)
        fillers.remove(fd)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)

def cases(begin, act, end, most=12):
    "Until it works with what is left, which has to come."
    outcomes = []
    for count in range(most):
        thing = begin()
        before = descriptors()
        failed = None
        with left(count):
            try:
                act(thing)
            except OSError as exc:
                assert exc.errno in (errno.EMFILE, errno.ENFILE), exc
                failed = exc.errno
        end(thing)
        gc.collect()
        outcomes.append(failed)
        thing = begin()     # and it works again
        act(thing)
        end(thing)
    assert outcomes[0] == errno.EMFILE and outcomes[-1] is None, outcomes
    return outcomes

first = None
def check_nothing_left():
    global first
    gc.collect()
    now = descriptors()
    if first is None:
        first = now
    assert now == first, (now, first)
