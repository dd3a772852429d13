"""What every loop of the process is about: its tasks as a tree, with all that they wait for.

`asyncio.format_call_graph` and `python -m asyncio pstree` show such trees from Python 3.14 on; this
works on all of them, and shows the loop's timers and transports as well.
"""

import asyncio
import concurrent.futures
import concurrent.futures.thread
import contextlib
import functools
import gc
import heapq
import io
import os
import queue
import signal
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
)
from typing import Any, TextIO, TypeAlias, TypeVar

from . import _core
from ._say import descriptor_of_stderr, one_line, printable, say, write_with_patience
from ._stacks import OWN_FILES

__all__ = ["dump"]

_T = TypeVar("_T")
_Places: TypeAlias = "Callable[[Any], list[str]]"

_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
_PATIENCE = 0.5  # seconds that a loop of another thread has for an answer
_NO_ANSWER = "the loop's thread is busy, and nobody else can look at them"
_MOST_TASKS = 20_000
_PART = 500  # tasks after which who waits is told that it goes on
_MOST_OTHERS = 50  # timers, transports: so many of each are written out
_MOST_FRAMES = 100  # of a chain of coroutines: half from its outer end, half from its inner one
_DEEPEST = 100_000
_MOST_INDENTED = 30  # levels of the tree; the next ones have their number instead
_WRAPPERS = {
    *("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
}


def dump(file: TextIO | None = None) -> None:
    """Write what the running loops of this process are doing to `file` (sys.stderr if None).

    For each loop: what is ready and scheduled, its transports with the bytes that they have
    buffered, the calls in its default executor, its async generators, and its tasks as a tree:
    below each task those that it waits for, with the whole chain of coroutines of each, down to the
    line that waits. For this thread's own stack and those of
    others see `faulthandler`. Works from any thread, and from a signal handler; the loops need not
    come to a turn. What raises while it is looked at is written as such.

    Raises what `file` raises when it is written to, and RuntimeError inside of itself, as in the
    repr() of something that it describes.
    """
    text = _as_text()
    target = sys.stderr if file is None else file
    if target is not None:  # as print() has it, in a program without standard error
        target.write(text)
        target.flush()


def _as_text() -> str:
    text = io.StringIO()
    write_to(text)
    return printable(text.getvalue())


def write_to(text: TextIO, goes_on: Callable[[], object] = int) -> None:
    """Write it to a file that takes whatever a name may have in it.

    goes_on: called again and again where it takes long until something is written
    """
    me = threading.get_ident()
    if me in _dumping_threads:
        raise RuntimeError("a dump is being made in this thread already")
    _dumping_threads.add(me)
    try:
        loops = _core._running_loops()
        text.write(f"asyncloop: process {os.getpid()}, {len(loops)} running loop(s)\n")
        text.flush()
        for number, thread, loop in loops:
            _dump_loop(text, number, thread, loop, goes_on)
    finally:
        _dumping_threads.discard(me)


_dumping_threads: set[int] = set()


def _safely(function: Any, *args: Any) -> str:
    try:
        return str(function(*args))
    except (Exception, SystemExit) as error:
        return f"<{getattr(function, '__name__', 'it')} raised {type(error).__name__}>"


def safely_str(thing: Any) -> str:
    """str(), whatever that raises."""
    return _safely(str, thing)


def text_of_task(task: Any) -> str:
    """safely_repr() of a task of another thread's loop, which may run meanwhile.

    Without a GIL that would look at a frame that runs: then it is the names of task and coroutine.
    """
    if _HAS_GIL:
        return safely_repr(task)
    try:
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
        return f"<{type(task).__name__} name={task.get_name()!r} coro=<{name}()>>"
    except BaseException as error:
        return f"<a task that raised {type(error).__name__}>"


def safely_repr(thing: Any) -> str:
    """repr(), whatever that raises, as one line."""
    return one_line(_safely(repr, thing))


def coro_of(task: Any) -> Any:
    """The coroutine of a task, or None where get_coro() raises."""
    with contextlib.suppress(Exception, SystemExit):
        return task.get_coro()
    return None


def name_of(task: Any) -> str:
    """The name of a task, whatever get_name() raises."""
    return _safely(task.get_name)


def _dump_loop(
    text: TextIO, number: int, thread: int, loop: Any, goes_on: Callable[[], object]
) -> None:
    names = {each.ident: each.name for each in threading.enumerate()}
    timers = timers_of(loop)
    count = loop.stats().timers if timers is None else timers[1]
    text.write(
        f"\nloop {number} in thread {one_line(names.get(thread, '?'))} ({thread}): "
        f"{_ready_of(loop)} ready, {count} timers\n"
    )
    _dump_stack(text, thread)
    if timers is None:
        text.write(f"  timers, {loop.stats().transports} transports: {_NO_ANSWER}\n")
    else:
        _dump_some(text, "timers", *timers)
        _dump_some(text, "transports", *transports_of(loop))
    _dump_some(text, "calls in the default executor", calls_of(loop))
    _dump_some(text, "async generators", generators_of(loop))
    text.flush()
    tasks, count = tasks_of(loop, _MOST_TASKS, goes_on)
    text.write(f"  {count} task(s)\n")
    text.flush()
    _dump_tree(text, tasks, places_of_tasks(loop, tasks, goes_on))
    if count > len(tasks):
        text.write(f"  ... and {count - len(tasks)} more tasks\n")


def frame_of(thread: int) -> FrameType | None:
    """What a thread runs in this interpreter, if it may be looked at."""
    if thread in _interrupted:
        return _interrupted[thread]
    if not _HAS_GIL:
        # The frames of another thread change while they are read.
        return sys._getframe() if thread == threading.get_ident() else None
    if _core._is_main_interpreter:
        return sys._current_frames().get(thread)
    return _core._frame_of(thread)


def _dump_stack(text: TextIO, thread: int) -> None:
    """Where the loop's thread is, unless it only waits for events."""
    frames = list(_frames_above_the_loop(frame_of(thread)))
    if not _HAS_GIL and not frames:
        # Of what another thread runs only the innermost frame is looked at.
        frame = sys._current_frames().get(thread)
        if frame is not None and frame.f_code.co_filename not in OWN_FILES:
            frames = [(frame, frame.f_lineno)]
    if frames:
        text.write("  running now, outermost first:\n")
        for each, line in frames:
            text.write(f"    {_place(each, line)}\n")


def _frames_above_the_loop(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    found: list[tuple[FrameType, int]] = []
    while frame is not None and len(found) < _MOST_FRAMES:
        name = frame.f_code.co_filename
        if name in OWN_FILES:
            break
        if name != __file__:
            found.append((frame, frame.f_lineno))
        frame = frame.f_back
    if frame is None:
        return  # no loop below: what runs there is not the loop's
    yield from reversed(found)


def _dump_some(text: TextIO, kind: str, found: list[str], count: int | None = None) -> None:
    """count: how many there are, where not all are written out."""
    count = len(found) if count is None else count
    if not count:
        return
    text.write(f"  {count} {kind}\n")
    for each in found[:_MOST_OTHERS]:
        text.write(f"    {one_line(each)}\n")
    if count > _MOST_OTHERS:
        text.write(f"    ... and {count - _MOST_OTHERS} more\n")


def tasks_of(loop: Any, most: int, goes_on: Callable[[], object] = int) -> tuple[list[Any], int]:
    """The first tasks of a loop that are not done, by their names, and how many there are."""
    found: list[Any] = []
    with contextlib.suppress(Exception):
        found = list(asyncio.all_tasks(loop))

    def keys() -> Iterator[tuple[int, str, int]]:
        for position, task in enumerate(found):
            if position % _PART == 0:
                goes_on()
            yield (*_number_of(task), position)

    first = heapq.nsmallest(most, keys())
    return [found[position] for _, _, position in first], len(found)


def _ready_of(loop: Any) -> str:
    try:
        return str(loop._ready_length())
    except RuntimeError:  # the loop is another thread's, and there is no GIL
        return str(loop.stats().ready)


def _is_mine(loop: Any) -> bool:
    """May this thread look at all that the loop has? Without a GIL that is the one that runs it."""
    return _HAS_GIL or loop._thread_id in (None, threading.get_ident())


def _in_its_thread(loop: Any, function: Callable[[], _T]) -> _T | None:
    """What `function` returns; None if the loop did not come to a turn in time."""
    if _is_mine(loop):
        return function()
    key = id(loop)
    waits = _silent.get(key)
    if waits is not None and waits() is loop:
        return None  # it has not come to a turn since it was asked before
    answer: queue.SimpleQueue[_T] = queue.SimpleQueue()

    def tell() -> None:
        answer.put(function())
        _silent.pop(key, None)

    try:
        _core.Loop.call_soon_threadsafe(loop, tell)
        return answer.get(timeout=_PATIENCE)
    except RuntimeError:  # closed meanwhile
        pass
    except queue.Empty:
        _silent[key] = weakref.ref(loop)
        if not answer.empty():
            _silent.pop(key, None)
    return None


_silent: dict[int, "weakref.ref[Any]"] = {}


def timers_of(loop: Any) -> tuple[list[str], int] | None:
    """What is to be said of what is scheduled, the next one first, and how many there are.

    None: as for transports.
    """

    def describe(timer: Any) -> str:
        return f"in {timer.when() - loop.time():.3f} s: {timer!r}"

    def find() -> tuple[list[str], int]:
        found: list[Any] = []
        with contextlib.suppress(Exception):
            found = list(loop._timer_list())
            found.sort(key=lambda timer: float(timer.when()))
        return [_safely(describe, each) for each in found[:_MOST_OTHERS]], len(found)

    return _in_its_thread(loop, find)


def all_transports(loop: Any) -> "list[tuple[int, Any]] | None":
    """The transports of a loop, each after the bytes that it has buffered, the most first.

    None where the loop's thread had to be asked, and did not answer.
    """

    def find() -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        with contextlib.suppress(Exception):
            found = [(_buffered(each), each) for each in loop._transports.values()]
        return sorted(found, key=lambda pair: -pair[0])

    return _in_its_thread(loop, find)


def calls_of(loop: Any) -> list[str]:
    """The calls of run_in_executor() in the loop's default executor, those that run first."""
    executor = getattr(loop, "_default_executor", None)
    if not isinstance(executor, concurrent.futures.ThreadPoolExecutor):
        return []
    found = []
    frames = sys._current_frames()
    with contextlib.suppress(Exception):
        for thread in list(executor._threads):
            places = _above_a_work_item(frames.get(thread.ident or 0))
            if places:
                call = f"{places[0]}, now at {places[-1]}" if len(places) > 1 else places[0]
                found.append(f"runs in {thread.name}: {call}")
        for item in _items_of(executor._work_queue):
            if isinstance(item, concurrent.futures.thread._WorkItem):
                found.append(f"waits for a thread: {_function_of(item)}")
    return found


def _function_of(item: Any) -> str:
    """What a work item of an executor calls."""
    function = getattr(item, "fn", None) or getattr(item, "task", ("an unknown function",))[0]
    return safely_repr(function)


def _items_of(queue: Any) -> Iterator[Any]:
    """What is in a queue.SimpleQueue, which tells it to the collector alone."""
    for found in gc.get_referents(queue):
        yield from found if isinstance(found, list) else [found]


def _above_a_work_item(frame: FrameType | None) -> list[str]:
    """Where a thread of an executor is in what it was given, outermost first."""
    places: list[str] = []
    while frame is not None and len(places) < _MOST_FRAMES:
        if frame.f_code.co_filename == concurrent.futures.thread.__file__:
            places.reverse()
            # Its own function waits for work, which is no call.
            if frame.f_code.co_name != "run":
                return []
            return places or [_function_of(frame.f_locals.get("self"))]
        places.append(_place(frame, frame.f_lineno))
        if not _HAS_GIL:
            return places  # what is below changes while it is read
        frame = frame.f_back
    return []


def generators_of(loop: Any) -> list[str]:
    """The async generators that have begun and are not at their end, and where they are."""

    def find() -> list[str]:
        found = []
        with contextlib.suppress(Exception):
            for generator in list(getattr(loop, "_asyncgens", None) or ()):
                frame = getattr(generator, "ag_frame", None)
                if frame is not None:
                    found.append(_place(frame, frame.f_lineno))
        return found

    found = _in_its_thread(loop, find)
    if found is None:
        generators = list(getattr(loop, "_asyncgens", None) or ())
        found = [_place_of_code(each.ag_code) for each in generators]
    return found


def _buffered(transport: Any) -> int:
    """The bytes that a transport has still to send; 0 for one that does not tell."""
    try:
        return int(transport.get_write_buffer_size())
    except Exception:
        return 0


def _describe_transport(sized: tuple[int, Any]) -> str:
    buffered, transport = sized
    peer = transport.get_extra_info("peername")
    return f"{buffered} bytes buffered, peer {peer!r}: {transport!r}"


def transports_of(loop: Any) -> tuple[list[str], int]:
    """What is to be said of a loop's transports, and how many there are."""
    transports = all_transports(loop)
    if transports is None:
        return [_NO_ANSWER], loop.stats().transports
    first = transports[:_MOST_OTHERS]
    return [_safely(_describe_transport, each) for each in first], len(transports)


# -- the tree of tasks -------------------------------------------------------------------


def _dump_tree(text: TextIO, tasks: list[Any], places: "_Places") -> None:
    awaited: dict[Any, list[Any]] = {}
    roots = []
    rest = set(tasks)
    for task in tasks:
        by = [each for each in _awaited_by(task) if each in rest and each is not task]
        for each in by:
            awaited.setdefault(each, []).append(task)
        if not by:
            roots.append(task)
    # Tasks that wait for each other in a circle have no root: they come after the others.
    for start in [*roots, *tasks]:
        stack = [(start, 1)]
        while stack:
            task, depth = stack.pop()
            if task in rest:
                rest.remove(task)
                _dump_task(text, task, depth, places(task))
                stack.extend((each, depth + 1) for each in reversed(awaited.get(task, [])))


def _number_of(task: Any) -> tuple[int, str]:
    name = _safely(task.get_name)
    _, _, digits = name.rpartition("-")
    return (int(digits) if digits.isdigit() and len(digits) < 19 else 0), name


def _dump_task(text: TextIO, task: Any, depth: int, places: list[str]) -> None:
    indent = "  " * min(depth, _MOST_INDENTED)
    level = f"[{depth}] " if depth > _MOST_INDENTED else ""
    cancelling = times_cancelled(task)
    note = f", cancelled {cancelling} time(s)" if cancelling else ""
    text.write(f"{indent}{level}task {one_line(name_of(task))}{note}\n")
    for place in places:
        text.write(f"{indent}    {place}\n")
    if not places:
        text.write(f"{indent}    not started, or a coroutine that cannot be looked into\n")


def _place(frame: FrameType, line: int) -> str:
    return _place_of_code(frame.f_code, line)


def _place_of_code(code: CodeType, line: int | None = None) -> str:
    """line: where it begins, if not given."""
    line = code.co_firstlineno if line is None else line
    return one_line(f"{code.co_filename}:{line} in {getattr(code, 'co_qualname', code.co_name)}()")


def chain_of(task: Any, known: dict[int, tuple[Any, str]] | None = None) -> Iterator[str]:
    """The coroutines of a task, outermost first, and what the last one waits for."""
    awaited = task.get_coro()
    count = 0
    inner: deque[tuple[FrameType, int]] = deque(maxlen=_MOST_FRAMES // 2)
    for _ in range(_DEEPEST):
        if isinstance(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        elif isinstance(awaited, AsyncGeneratorType):
            frame, awaited = awaited.ag_frame, awaited.ag_await
        else:
            inside = _inside(awaited)
            if inside is None and _is_of_an_extension(awaited):
                yield one_line(_safely(_describe_coroutine, awaited))
                inside = getattr(awaited, "cr_await", None)
            if inside is None:
                break
            awaited = inside
            continue
        if frame is not None:
            count += 1
            if count <= _MOST_FRAMES // 2:
                yield _place(frame, frame.f_lineno)
            else:
                inner.append((frame, frame.f_lineno))
    if count > _MOST_FRAMES:
        yield f"... and {count - _MOST_FRAMES} more"
    for frame, line in inner:
        yield _place(frame, line)
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is not None and not asyncio.isfuture(awaited):
        awaited = waiter
    if awaited is not None:
        # Many may wait for the same, whose repr() is about all of them.
        known = {} if known is None else known
        if id(awaited) not in known:
            known[id(awaited)] = awaited, one_line(_safely(_describe_awaited, awaited))
        yield f"waits for {known[id(awaited)][1]}"


def places_of(task: Any, known: dict[int, tuple[Any, str]] | None = None) -> list[str]:
    """chain_of(), whatever the task or its coroutine raises."""
    found: list[str] = []
    try:
        for place in chain_of(task, known):
            found.append(place)
    except (Exception, SystemExit) as error:
        found.append(f"<{type(error).__name__} while it was looked at>")
    return found


def places_of_tasks(loop: Any, tasks: list[Any], goes_on: Callable[[], object] = int) -> "_Places":
    """What tells places_of() of each of these tasks of the loop.

    Without a GIL the loop's thread looks at its coroutines, some at a time: one that goes on while
    its frame is looked at ends the process. Where that thread does not answer, little is told.
    """
    known: dict[int, tuple[Any, str]] = {}  # the object, so that its id stays its own
    if _is_mine(loop):
        return lambda task: places_of(task, known)
    found: dict[Any, list[str]] = {}
    for first in range(0, len(tasks), _PART):
        goes_on()
        part = tasks[first : first + _PART]
        look = functools.partial(_places_by_task, part, known)
        places = _in_its_thread(loop, look)
        if places is None:
            break
        found.update(places)
    return lambda task: found[task] if task in found else _outline_of(task)


def _places_by_task(tasks: list[Any], known: dict[int, tuple[Any, str]]) -> dict[Any, list[str]]:
    return {task: places_of(task, known) for task in tasks}


def _outline_of(task: Any) -> list[str]:
    coro = coro_of(task)
    for name in ("cr_code", "gi_code", "ag_code"):
        code = getattr(coro, name, None)
        if isinstance(code, CodeType):
            return [_place_of_code(code), _NO_ANSWER]
    return []


def times_cancelled(task: Any) -> int:
    """cancelling(), whatever that raises."""
    try:
        return int(task.cancelling())
    except (Exception, SystemExit):
        return 0


def _is_of_an_extension(awaited: Any) -> bool:
    """Is it a coroutine, but not of Python's own, as those of Cython?"""
    return issubclass(type(awaited), Coroutine) and not asyncio.isfuture(awaited)


def _describe_coroutine(coro: Any) -> str:
    name = getattr(coro, "__qualname__", None)
    name = name if isinstance(name, str) else type(coro).__qualname__
    return f"{name}(), which does not tell its line"


def _inside(awaited: Any) -> Any:
    """The generator or coroutine that one of the interpreter's own awaitables stands for."""
    if type(awaited).__name__ not in _WRAPPERS:
        return None
    for found in gc.get_referents(awaited):
        if isinstance(found, (CoroutineType, GeneratorType, AsyncGeneratorType)):
            return found
        if type(found).__name__ in _WRAPPERS:
            return found
    return None


def _describe_awaited(awaited: Any) -> str:
    if isinstance(awaited, asyncio.Task):
        return f"task {awaited.get_name()}"
    return repr(awaited)


def _awaited_by(future: Any, depth: int = 0) -> Iterator[Any]:
    """The tasks that wait for this task or future, through gather(), TaskGroup and the like."""
    known = getattr(future, "_asyncio_awaited_by", None)
    if known:
        for each in list(known):
            if isinstance(each, asyncio.Task):
                yield each
            elif depth < 10:
                yield from _awaited_by(each, depth + 1)
        return
    for entry in list(getattr(future, "_callbacks", None) or ()):
        callback = entry[0] if isinstance(entry, tuple) else entry
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            yield owner
        elif isinstance(owner, asyncio.TaskGroup):
            parent = getattr(owner, "_parent_task", None)
            if parent is not None:
                yield parent
        elif isinstance(callback, FunctionType) and depth < 10:
            for other in _futures_of(callback):
                if other is not future:
                    yield from _awaited_by(other, depth + 1)


def _futures_of(function: FunctionType) -> Iterator[Any]:
    """The futures that a function refers to from where it was made: gather() has such callbacks."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            if asyncio.isfuture(cell.cell_contents):
                yield cell.cell_contents


# -- by a signal ----------------------------------------------------------------------------


_HELD = 5.0  # seconds, for a dump by a signal to be made before the program goes on

_dumping = threading.Lock()
_interrupted: dict[int, FrameType | None] = {}  # what a thread runs below the handler of the signal


def _on_signal(number: int, frame: Any) -> None:
    """In a thread: a repr() may want a lock that the code which this has interrupted holds."""
    if not _dumping.acquire(blocking=False):
        return  # one is being written
    if not _HAS_GIL:  # another thread would see less
        return _dump_by_signal()
    _interrupted[threading.get_ident()] = frame
    try:
        thread = threading.Thread(target=_dump_by_signal, name="asyncloop-dump", daemon=True)
        thread.start()
        thread.join(_HELD)
    except RuntimeError:  # there are no threads left
        return _dump_by_signal()
    finally:
        _interrupted.clear()
    if thread.is_alive():
        say("the dump waits for something; it comes when that is over")


def _dump_by_signal() -> None:
    try:
        if sys.stderr is sys.__stderr__ and (descriptor := descriptor_of_stderr()) >= 0:
            # The program may be in the middle of a write of its own, or nobody reads any more.
            write_with_patience(descriptor, _as_text())
        else:
            dump()
    except Exception:
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        _dumping.release()


def _after_fork() -> None:
    global _dumping
    _dumping = threading.Lock()


def start_from_environment(environ: Mapping[str, str]) -> None:
    """What ASYNCLOOP_DUMP_SIGNAL asks for; one line where that cannot be had.

    The stacks of all threads are written first, by faulthandler, whatever the threads do; the
    loops and their tasks as soon as the main thread comes to its next instruction of Python.
    """
    if not _core._is_main_interpreter:
        return  # signals are that one's
    value = environ["ASYNCLOOP_DUMP_SIGNAL"]
    number = _signal_number(value)
    if number is None:
        say(f"ASYNCLOOP_DUMP_SIGNAL={value!r} is no signal to be caught")
        return
    try:
        import faulthandler

        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            raise ValueError("the program handles it already")
        signal.signal(number, _on_signal)
        os.register_at_fork(after_in_child=_after_fork)
        if (descriptor := descriptor_of_stderr()) >= 0:
            faulthandler.register(number, descriptor, all_threads=True, chain=True)
    except (ValueError, OSError, RuntimeError, AttributeError) as error:
        say(f"ASYNCLOOP_DUMP_SIGNAL={value}: {error}")


# With a handler of Python's what raises one of the last five would be executed again, without end.
_NOT_TO_BE_CAUGHT = {
    *(signal.SIGKILL, signal.SIGSTOP),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT),
}


def _signal_number(value: str) -> int | None:
    name = value.strip().upper()
    if name.isdigit():
        number = int(name) if len(name) < 4 else 0
    else:
        found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
        number = int(found) if isinstance(found, signal.Signals) else 0
    if number not in signal.valid_signals() or number in _NOT_TO_BE_CAUGHT:
        return None
    return number
