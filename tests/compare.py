"""The same little program on the standard loop and on asyncloop: what it is told.

A program is `async def program(log, loop)`. `log` notes results and exceptions of calls; what
reaches the loop's exception handler and the warnings module is noted as well. Two runs are
compared line by line, without addresses and descriptor numbers.
"""

import asyncio
import contextlib
import difflib
import gc
import inspect
import re
import warnings

from .support import Impl

LOOPS = ("asyncio", "asyncloop")

# Names that differ by design, and numbers that differ from run to run.
_PLAIN = [
    (r" at 0x[0-9a-f]+", ""),
    (r"0x[0-9a-f]{6,}", "0x"),
    (r"\bfd=-?\d+", "fd=N"),
    (r"(File descriptor|Bad file descriptor:) \d+", r"\1 N"),
    (r"('|\b)127\.0\.0\.1('|\b), \d+", "127.0.0.1, N"),
    (r"\b_?(asyncio|asyncloop)(\.\w+)*\.", ""),
    (r"'Task-\d+'", "'Task-N'"),
    (r"\b(StreamTransport|_SelectorSocketTransport)\b", "Stream"),
    (r"\b(DatagramTransport|_SelectorDatagramTransport)\b", "Datagram"),
    (r"\b(_UnixReadPipeTransport|ReadPipeTransport)\b", "ReadPipe"),
    (r"\b(_UnixWritePipeTransport|WritePipeTransport)\b", "WritePipe"),
]


def plain(text):
    for pattern, replacement in _PLAIN:
        text = re.sub(pattern, replacement, text)
    return text


def shown(value):
    if value is None or isinstance(value, (bool, int, str, bytes, tuple, list)):
        return plain(repr(value))
    return f"<{plain(type(value).__name__)}>"


def shown_error(exc):
    return f"{type(exc).__name__}: {plain(str(exc))}"


class Log:
    def __init__(self, loop):
        self.lines = []
        loop.set_exception_handler(self.report)

    def report(self, loop, context):
        exc = context.get("exception")
        error = "" if exc is None else " " + shown_error(exc)
        # The first words: what follows names the callback, the transport, the future.
        words = plain(context["message"]).partition(" <")[0].partition("(")[0]
        if words.startswith("Exception in callback"):
            words = "Exception in callback"
        self(f"reported: {words}{error}")

    def __call__(self, *items):
        self.lines.append(" ".join(str(item) for item in items))

    def call(self, name, function, *args, **kwargs):
        """Notes what function(*args) gives or raises; returns it, or None."""
        try:
            result = function(*args, **kwargs)
        except Exception as exc:
            self(f"{name} raised {shown_error(exc)}")
            return None
        if not inspect.isawaitable(result) or isinstance(result, asyncio.Future):
            self(f"{name} -> {shown(result)}")
        return result

    async def wait(self, name, function, *args, seconds=5, **kwargs):
        """The same for what is to be awaited, for as long."""
        try:
            awaitable = function(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                self(f"{name} -> {shown(awaitable)}")
                return awaitable
            result = await asyncio.wait_for(awaitable, seconds)
        except TimeoutError as exc:
            waits = type(exc) is TimeoutError and not str(exc)
            self(f"{name} waits" if waits else f"{name} {exc!r}")
        except asyncio.CancelledError:
            self(f"{name} was cancelled")
        except Exception as exc:
            self(f"{name} raised {shown_error(exc)}")
        else:
            self(f"{name} -> {shown(result)}")
            return result


def _told(program, loops, *args):
    loop = Impl.named(loops).new_event_loop()
    log = Log(loop)
    try:
        loop.run_until_complete(program(log, loop, *args))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        with contextlib.suppress(Exception):
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0))
        if loop._default_executor is not None:
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    return log


def told(program, loops, *args, caught_by_collector=True):
    """The lines that `program` notes on one kind of loop."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log = _told(program, loops, *args)
        if caught_by_collector:
            gc.collect()
        while caught:  # one holds what it is about, which may cause the next
            warning = caught.pop(0)
            words = plain(str(warning.message)).partition(" <")[0]
            log(f"warned: {warning.category.__name__}: {words}")
            del warning
    return log.lines


def same(program, *args, only=None, **options):
    """Both runs are told the same, of the lines that are asked for."""
    standard, ours = (
        list(filter(only, told(program, loops, *args, **options))) for loops in LOOPS
    )
    if ours != standard:
        raise AssertionError("\n".join(difflib.unified_diff(standard, ours, *LOOPS, lineterm="")))
