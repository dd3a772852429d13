"""Programs over what schedules: handles, futures, tasks, contexts, and asyncio's own tools.

Time is virtual: a callback that is always ready counts iterations, and loop.time() tells the
count. So timers are due in a known iteration, and the whole log has to be the same.
"""

import asyncio
import contextlib
import contextvars
import gc
import re
import sys
import traceback
import types

from tests.support import PY

TICKS = 30  # iterations of each phase of a program
BUDGET = 250  # operations, so that callbacks which add themselves come to an end
MAX_DEPTH = 4

variable = contextvars.ContextVar("variable", default="unset")


class Boom(Exception):
    pass


class Worse(BaseException):
    pass


# Exceptions by number; the first ones are what a shrunk program ends with.
ERRORS = [
    lambda: ValueError("v"),
    lambda: Boom("b"),
    lambda: asyncio.CancelledError("c"),
    lambda: Boom,
    lambda: StopIteration(1),
    lambda: Worse("w"),
    lambda: StopAsyncIteration(),
    lambda: TimeoutError("t"),
    lambda: ExceptionGroup("g", [Boom("in")]),
    lambda: 42,
    lambda: GeneratorExit(),
]
EXITS = [KeyboardInterrupt, SystemExit]
MESSAGES = [None, "m", 7]

# -- making a program ----------------------------------------------------------------------------

SYNC = [
    "future", "soon", "result", "task", "look", "cancel", "add", "later", "error", "cancel_handle",
    "remove", "again", "at", "threadsafe", "set", "uncancel", "tasks", "raise", "gather", "shield",
    "repr", "repr_handle", "context", "get", "exception", "callbacks", "waiter", "event", "put",
    "release", "stack", "rename", "drop", "ensure", "stop", "exit", "handler", "quiet", "nested",
    "cancelling", "callback_object", "when", "message", "uninitialised",
]  # fmt: skip
ASYNC = [
    "sleep", "await", "try", "call", "spawn", "group", "timeout", "wait_for", "wait", "shielded",
    "gathered", "bare", "return", "lock", "event_wait", "queue_get", "generator", "rubbish",
    "unblocked", "self_cancel", "as_completed", "swallow", "condition", "manual", "nested_timeout",
]  # fmt: skip


def make_program(choices):
    return {
        "debug": choices.chance(6),
        "until_complete": choices.chance(30),
        "eager": choices.chance(8),
        "main": _body(choices, 0, True, minimum=3),
        "callbacks": [_body(choices, 1, False, minimum=1) for _ in range(choices.below(3))],
    }


def _body(choices, depth, is_async, minimum=0):
    if depth > MAX_DEPTH or choices.exhausted():
        return ()
    count = minimum + choices.below(6 if depth < 2 else 4)
    return tuple(_operation(choices, depth, is_async) for _ in range(count))


def _operation(c, depth, is_async):
    name = c.one_of(ASYNC) if is_async and c.below(5) > 1 else c.one_of(SYNC)
    n = c.below
    sync = lambda: _body(c, depth + 1, False)
    coro = lambda: _body(c, depth + 1, True)
    match name:
        case "soon" | "threadsafe":
            return name, n(4), sync()
        case "later" | "at":
            return name, n(6) - 1, n(4), sync()
        case "task" | "spawn":
            return name, n(3), n(4), n(5) == 4, n(6) == 5, coro()
        case "future":
            return name, n(6) == 5
        case "add":
            return name, n(16), n(4), sync()
        case "again" | "remove":
            return name, n(16), n(8)
        case "result" | "rename" | "error":
            return name, n(16), n(len(ERRORS))
        case "cancel" | "self_cancel":
            return name, n(16), n(len(MESSAGES))
        case "gather" | "gathered":
            return name, tuple(n(16) for _ in range(n(4))), n(2)
        case "wait":
            return name, tuple(n(16) for _ in range(1 + n(3))), n(3), n(6)
        case "as_completed":
            return name, tuple(n(16) for _ in range(1 + n(3))), n(6)
        case "wait_for":
            return name, n(16), n(6) - 1
        case "sleep":
            return name, n(5) - 1
        case "try":
            return name, coro(), n(4), coro(), coro() if n(2) else ()
        case "call" | "group" | "lock" | "generator" | "swallow" | "condition":
            return name, n(4), coro()
        case "timeout" | "nested_timeout":
            return name, n(6) - 1, coro()
        case _:
            return name, n(16)


# -- running it -----------------------------------------------------------------------------------

_ADDRESS = re.compile(r"0x[0-9a-f]+")
_NUMBER = re.compile(r"Task-\d+")
_LINE = re.compile(r"created at .*?:\d+|:\d+>|:\d+(?=[\]()])")
_SHORT = re.compile(r"\(<(Future|Task) [^()]*?\.\.\.[^()]*\)")  # cut in the middle, by asyncio
_OURS = re.compile(r"asyncloop\.|_core\.|asyncio\.|_asyncio\.")
_LOOP = re.compile(r"<[\w.]*Loop [^<>]*>")


def scrub(text):
    """Without what differs between two runs of one implementation, or releases of one version."""
    text = _ADDRESS.sub("0x", text)
    text = _NUMBER.sub("Task-N", text)
    text = _LOOP.sub("<loop>", text)
    text = _SHORT.sub("(...)", text)
    text = _OURS.sub("", text)
    text = text.replace("a bytes, bytearray, or memoryview object", "a bytes-like object")
    return _LINE.sub("", text)


def _is_loop(filename):
    """Whether a frame is of a loop itself, and not of asyncio's tools or the program."""
    folder, _, name = filename.rpartition("/")
    return folder.endswith("/asyncloop") or name in (
        "base_events.py",
        "events.py",
        "selector_events.py",
        "unix_events.py",
        "sslproto.py",
    )


def frames_of(exc):
    stack = traceback.extract_tb(exc.__traceback__)
    return [frame.name for frame in stack if not _is_loop(frame.filename)][:12]


def describe(exc, depth=3):
    """An exception with its arguments, frames, cause and context."""
    if not isinstance(exc, BaseException):
        return exc if exc is None or isinstance(exc, int | str) else type(exc).__name__
    parts = [type(exc).__name__, scrub(str(exc.args))]
    parts.append(frames_of(exc))
    if depth:
        parts.append(describe(exc.__cause__, depth - 1))
        parts.append(None if exc.__suppress_context__ else describe(exc.__context__, depth - 1))
        if isinstance(exc, BaseExceptionGroup):
            parts.append([describe(inner, depth - 1) for inner in exc.exceptions])
    return parts


class Yields:
    """An awaitable that gives `value` to whoever drives the coroutine."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield self.value


class OrderedSet(dict):
    """Of a TaskGroup's tasks: a set would cancel them in the order of their addresses."""

    def add(self, item):
        self[item] = None

    def discard(self, item):
        self.pop(item, None)


class Callback:
    """Runs operations when it is called. Compares by its number, as bound methods do."""

    def __init__(self, machine, number, body):
        self.machine, self.number, self.body = machine, number, body

    def __call__(self, *args):
        machine = self.machine
        machine.note("callback", self.number, [machine.number_of(arg) for arg in args])
        machine.run_body(self.body)

    def __eq__(self, other):
        return isinstance(other, Callback) and self.number % 4 == other.number % 4

    def __hash__(self):
        return self.number % 4

    def __repr__(self):
        return f"<Callback {self.number}>"


class Machine:
    """Executes one program on one implementation."""

    def __init__(self, impl, program):
        self.program = program
        self.log = []
        self.over = False
        self.late = []  # reports that come when the last reference goes, in any order
        self.budget = BUDGET
        self.ticks = 1000
        self.until = self.ticks + TICKS
        self.fraction = 0
        self.slots = []
        self.edges = {}
        self.handles = []
        self.callbacks = []
        self.contexts = [contextvars.copy_context()]
        self.raise_in_handler = 0
        machine = self

        class VirtualLoop(impl.Loop):
            def time(self):
                return float(machine.ticks)

        self.impl = impl
        self.loop = loop = VirtualLoop()
        loop.slow_callback_duration = 1e9
        loop.set_debug(program["debug"])
        loop.set_exception_handler(self.report)
        if program["eager"] and PY >= (3, 12):
            factory = asyncio.create_eager_task_factory(impl.Task)
            loop.set_task_factory(factory)
        elif impl.types != impl.loops:
            loop.set_task_factory(lambda loop, coro, **kw: impl.Task(coro, loop=loop, **kw))
        self.lock = asyncio.Lock()
        self.event = asyncio.Event()
        self.queue = asyncio.Queue(2)
        self.condition = asyncio.Condition()
        for body in program["callbacks"]:
            self.new_callback(body)

    # what is compared

    def note(self, *what):
        if self.over:
            return  # the collector takes what is left, in an order of its own
        self.log.append((self.ticks, variable.get(), *what))

    def report(self, loop, context):
        """The exception handler."""
        if "handle" in context and context["handle"].cancelled():
            # By its own callback: the standard loop has forgotten the callback's name by now.
            context["message"] = "Exception in a cancelled callback"
        if self.program["debug"]:
            # The rest names where a future was made, by the innermost Python frame.
            context["message"] = context["message"].partition("(")[0]
        text = [scrub(context["message"]), sorted(set(context) - {"message"})]
        exc = context.get("exception")
        if "never retrieved" in text[0] or "destroyed" in text[0]:
            # Its frames depend on how far it has come when the last reference goes.
            self.late.append(repr([*text, type(exc).__name__, scrub(str(exc))]))
            return
        text.append(describe(exc))
        self.note("report", text)
        if self.raise_in_handler:
            self.raise_in_handler -= 1
            raise Boom("in the exception handler")

    def number_of(self, value):
        for i, slot in enumerate(self.slots):
            if slot is value:
                return ["slot", i]
        return describe(value)

    def state_of(self, i):
        future = self.slots[i]
        if future is None:
            return None
        if not future.done():
            state = ["pending"]
        elif future.cancelled():
            state = ["cancelled"]
        else:
            exc = future.exception()
            if exc is None:
                state = ["result", self.number_of(future.result())]
            else:
                state = ["raised", describe(exc)]
        if isinstance(future, asyncio.Task):
            state.append(future.cancelling())
            if PY >= (3, 12):
                state.append(future.get_context().get(variable))
        return [*state, future._cancel_message]

    # what operations need

    def pick(self, i):
        """A future or task by number, or None where there is none."""
        return self.slots[i % len(self.slots)] if self.slots else None

    def add_slot(self, future):
        self.slots.append(future)
        return len(self.slots) - 1

    def new_callback(self, body):
        callback = Callback(self, len(self.callbacks), body)
        self.callbacks.append(callback)
        return callback

    def context(self, i):
        """None, or a context; one that is entered already is an error of the caller's."""
        return None if i < 2 else self.contexts[i % len(self.contexts)]

    def delay(self, ticks):
        """Never the same twice: the order of equal deadlines is nobody's promise."""
        self.fraction += 1
        return ticks + self.fraction * 1e-4

    def may_await(self, me, i):
        """No circles: each loop's cancel() would recurse, to a depth of its own."""
        if not self.slots:
            return False
        target = i % len(self.slots)
        todo, seen = [target], set()
        while todo:
            at = todo.pop()
            if at == me:
                return False
            if at not in seen:
                seen.add(at)
                todo += self.edges.get(at, ())
        self.edges.setdefault(me, set()).add(target)
        return self.slots[target] is not None

    def attempt(self, name, function, *args, **kwargs):
        """Calls, and notes what came; an exception is noted, too."""
        try:
            result = function(*args, **kwargs)
        except Exception as exc:
            self.note(name, "raised", describe(exc))
            return None
        self.note(name, self.number_of(result))
        return result

    def run_body(self, body):
        for operation in body:
            self.run_sync(operation)

    def run_sync(self, operation):
        self.budget -= 1
        if self.budget >= 0:
            getattr(self, "do_" + operation[0])(*operation[1:])

    # operations that do not await; `i` is always a number of a future or task

    def do_future(self, stock):
        future = asyncio.Future(loop=self.loop) if stock else self.impl.Future(loop=self.loop)
        self.add_slot(future)

    def do_soon(self, context, body):
        callback = self.new_callback(body)
        args = tuple(range(context))
        self.handles.append(self.loop.call_soon(callback, *args, context=self.context(context)))

    def do_threadsafe(self, context, body):
        callback = self.new_callback(body)
        context = self.context(context)
        self.handles.append(self.loop.call_soon_threadsafe(callback, 1, context=context))

    def do_later(self, ticks, context, body):
        callback, context = self.new_callback(body), self.context(context)
        delay = self.delay(ticks)
        self.handles.append(self.loop.call_later(delay, callback, context=context))

    def do_at(self, ticks, context, body):
        callback, context = self.new_callback(body), self.context(context)
        when = self.loop.time() + self.delay(ticks)
        self.handles.append(self.loop.call_at(when, callback, 1, 2, 3, 4, context=context))

    def do_cancel_handle(self, i):
        if self.handles:
            handle = self.handles[i % len(self.handles)]
            handle.cancel()
            self.note("handle", handle.cancelled())

    def do_when(self, i):
        timers = [h for h in self.handles if isinstance(h, asyncio.TimerHandle)]
        if timers:
            self.note("when", timers[i % len(timers)].when())
            self.note("order", sorted(timers) == sorted(timers, key=lambda t: t.when()))

    def do_repr_handle(self, i):
        if self.handles:
            handle = self.handles[i % len(self.handles)]
            # What has run tells its callback on the standard loop; ours has let it go, and
            # knows its name in debug mode only.
            if handle.cancelled() or self.program["debug"]:
                self.note("repr", scrub(repr(handle)))

    def do_task(self, name, context, eager, stock, body):
        # Named: an unnamed one's number depends on all that ran before.
        number = len(self.slots)
        self.add_slot(None)
        options = {"name": f"{number}" if name else f"x{number}"}
        # An eager start in a context that is entered already fails; the standard Task then
        # stays in all_tasks() for good, ours does not.
        if context and not ((eager or self.program["eager"]) and PY >= (3, 12)):
            options["context"] = self.context(context)
        if eager and PY >= (3, 12):
            options["eager_start"] = True
        coro = self.run_coroutine(number, body)
        try:
            if stock or eager:
                kind = asyncio.Task if stock else self.impl.Task
                task = kind(coro, loop=self.loop, **options)
            else:
                task = self.loop.create_task(coro, **options)
        except Exception as exc:
            coro.close()
            self.note("task", describe(exc))
            return None
        self.slots[number] = task
        return task

    def do_result(self, i, value):
        future = self.pick(i)
        if future is not None:
            self.attempt("set_result", future.set_result, value)

    def do_error(self, i, number):
        future = self.pick(i)
        if future is not None:
            self.attempt("set_exception", future.set_exception, ERRORS[number]())

    def do_cancel(self, i, message):
        future = self.pick(i)
        if future is not None:
            if MESSAGES[message] is None:
                self.attempt("cancel", future.cancel)
            else:
                self.attempt("cancel", future.cancel, MESSAGES[message])

    def do_uncancel(self, i):
        task = self.pick(i)
        if isinstance(task, asyncio.Task):
            self.attempt("uncancel", task.uncancel)

    def do_cancelling(self, i):
        task = self.pick(i)
        if isinstance(task, asyncio.Task):
            self.note("cancelling", task.cancelling(), task._must_cancel)

    def do_add(self, i, context, body):
        future = self.pick(i)
        callback = self.new_callback(body)
        if future is not None:
            # Never context=None: asyncio's C Future then takes the context of whoever settles
            # it, while its Python one and ours take the current one, as if it was not given.
            context = self.context(context)
            options = {} if context is None else {"context": context}
            self.attempt("add", future.add_done_callback, callback, **options)

    def do_again(self, i, j):
        future = self.pick(i)
        if future is not None and self.callbacks:
            future.add_done_callback(self.callbacks[j % len(self.callbacks)])

    def do_remove(self, i, j):
        future = self.pick(i)
        if future is not None and self.callbacks:
            callback = self.callbacks[j % len(self.callbacks)]
            self.attempt("remove", future.remove_done_callback, callback)

    def do_look(self, i):
        if self.slots:
            self.note("look", self.state_of(i % len(self.slots)))

    def do_get(self, i):
        future = self.pick(i)
        if future is not None:
            try:
                self.note("get", self.number_of(future.result()))
            except BaseException as exc:
                self.note("get", describe(exc))

    def do_exception(self, i):
        future = self.pick(i)
        if future is not None:
            try:
                self.note("exception", describe(future.exception()))
            except BaseException as exc:
                self.note("exception", describe(exc))

    def do_callbacks(self, i):
        future = self.pick(i)
        # A gathering future of the standard library has the same on both.
        if future is not None:
            found = future._callbacks
            self.note("callbacks", found if found is None else len(found))

    def do_callback_object(self, i):
        future = self.pick(i)
        if future is not None and future._callbacks:
            callback, context = future._callbacks[0]
            self.note("callback", type(context).__name__, context.get(variable))

    def do_waiter(self, i):
        task = self.pick(i)
        if isinstance(task, asyncio.Task):
            self.note("waiter", self.number_of(task._fut_waiter))

    def do_stack(self, i):
        task = self.pick(i)
        if isinstance(task, asyncio.Task):
            codes = [frame.f_code for frame in task.get_stack()]
            names = [code.co_name for code in codes if not _is_loop(code.co_filename)]
            self.note("stack", names)

    def do_repr(self, i):
        future = self.pick(i)
        if future is not None:
            self.note("repr", scrub(repr(future)))

    def do_rename(self, i, value):
        task = self.pick(i)
        if isinstance(task, asyncio.Task):
            task.set_name(f"renamed-{value}")
            self.note("name", task.get_name())

    def do_quiet(self, i):
        future = self.pick(i)
        if future is not None:
            future._log_traceback = False

    def do_message(self, i):
        future = self.pick(i)
        if future is not None:
            future._cancel_message = f"message {i}"

    def do_drop(self, i):
        if self.slots:
            self.slots[i % len(self.slots)] = None

    def do_context(self, i):
        self.contexts.append(contextvars.copy_context())

    def do_set(self, i):
        variable.set(i)

    def do_tasks(self, i):
        current = asyncio.current_task(self.loop)
        names = [scrub(task.get_name()) for task in asyncio.all_tasks(self.loop)]
        self.note("tasks", sorted(names))
        self.note("current", None if current is None else scrub(current.get_name()))

    def do_raise(self, i):
        raise Boom(f"raised {i}")

    def do_exit(self, i):
        raise EXITS[i % 2](f"exit {i}")

    def do_stop(self, i):
        self.loop.stop()

    def do_handler(self, i):
        self.raise_in_handler = i % 3

    def do_event(self, i):
        if i % 2:
            self.event.set()
        else:
            self.event.clear()

    def do_put(self, i):
        self.attempt("put", self.queue.put_nowait, i)

    def do_release(self, i):
        self.attempt("release", self.lock.release)

    def do_nested(self, i):
        # Not run_forever(): the standard one of 3.13 forgets then that the loop is running.
        self.attempt("nested", self.loop.run_until_complete, None)

    def do_uninitialised(self, i):
        # Never settled by anybody: what asks it gets an error, on both.
        kind = self.impl.Future if i % 2 else self.impl.Task
        future = kind.__new__(kind)
        for method in (future.result, future.exception, future.get_loop):
            try:
                self.note("uninitialised", method())
            except Exception as exc:
                self.note("uninitialised", type(exc).__name__)

    def do_gather(self, numbers, return_exceptions):
        me = len(self.slots)
        futures = [self.pick(i) for i in numbers if self.may_await(me, i)]
        self.gathering(me, futures, return_exceptions)

    def gathering(self, me, futures, return_exceptions):
        self.slots.append(None)
        try:
            self.slots[me] = asyncio.gather(*futures, return_exceptions=bool(return_exceptions))
        except Exception as exc:
            self.note("gather", describe(exc))
        return self.slots[me]

    def do_shield(self, i):
        me = len(self.slots)
        if self.may_await(me, i):
            self.add_slot(asyncio.shield(self.pick(i)))

    def do_ensure(self, i):
        future = self.pick(i)
        if future is not None:
            self.note("ensure", asyncio.ensure_future(future) is future)

    # coroutines

    async def run_coroutine(self, me, body):
        try:
            self.note("begin", me)
            return await self.run_async(me, body)
        finally:
            self.note("end", me, describe(sys.exception()) if PY >= (3, 12) else None)

    async def run_async(self, me, body, group=None):
        for operation in body:
            name = operation[0]
            self.budget -= 1
            if self.budget < 0:
                return "no budget"
            if name in _AWAITS:
                result = await getattr(self, "do_" + name)(me, group, *operation[1:])
                if result is not None:
                    return result
            else:
                getattr(self, "do_" + name)(*operation[1:])
        return None

    async def do_sleep(self, me, group, ticks):
        await asyncio.sleep(ticks if ticks <= 0 else self.delay(ticks))

    async def do_await(self, me, group, i):
        if self.may_await(me, i):
            self.note("awaited", self.number_of(await self.pick(i)))

    async def do_try(self, me, group, body, kind, handler, final):
        caught = [Exception, asyncio.CancelledError, BaseException, Boom][kind]
        try:
            return await self.run_async(me, body, group)
        except caught as exc:
            self.note("caught", describe(exc))
            await self.run_async(me, handler, group)
            if kind == 2:
                raise
        finally:
            await self.run_async(me, final, group)

    async def do_swallow(self, me, group, kind, body):
        try:
            return await self.run_async(me, body, group)
        except BaseException as exc:
            self.note("swallowed", describe(exc))

    async def do_call(self, me, group, kind, body):
        inner = self.run_async(me, body, group)
        if kind == 3:
            inner = types.coroutine(_delegate)(inner)
        return await inner

    async def do_spawn(self, me, group, name, context, eager, stock, body):
        if group is None:
            self.do_task(name, context, eager, stock, body)
            return
        number = self.add_slot(None)
        coro = self.run_coroutine(number, body)
        try:
            self.slots[number] = group.create_task(coro, name=f"g{number}")
        except RuntimeError as exc:
            coro.close()
            self.note("spawn", describe(exc))

    async def do_group(self, me, group, kind, body):
        group = asyncio.TaskGroup()
        group._tasks = OrderedSet()
        async with group:
            await self.run_async(me, body, group)

    async def do_timeout(self, me, group, ticks, body):
        async with asyncio.timeout(None if ticks < 0 else self.delay(ticks)) as scope:
            result = await self.run_async(me, body, group)
        self.note("timeout", scope.expired())
        return result

    async def do_nested_timeout(self, me, group, ticks, body):
        async with asyncio.timeout(self.delay(ticks)) as outer:
            try:
                async with asyncio.timeout(self.delay(ticks)) as inner:
                    await self.run_async(me, body, group)
                    inner.reschedule(self.loop.time() + self.delay(1))
                    await asyncio.sleep(0)
            finally:
                self.note("nested_timeout", outer.expired(), inner.expired())

    async def do_wait_for(self, me, group, i, ticks):
        if self.may_await(me, i):
            timeout = None if ticks < 0 else self.delay(ticks) if ticks else 0
            self.note("wait_for", self.number_of(await asyncio.wait_for(self.pick(i), timeout)))

    async def do_wait(self, me, group, numbers, when, ticks):
        futures = [self.pick(i) for i in numbers if self.may_await(me, i)]
        when = [asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED][when]
        if futures:
            timeout = None if ticks == 5 else self.delay(ticks)
            sets = await asyncio.wait(futures, return_when=when, timeout=timeout)
            self.note("wait", [sorted(map(str, map(self.number_of, one))) for one in sets])

    async def do_as_completed(self, me, group, numbers, ticks):
        futures = {i % len(self.slots) for i in numbers if self.may_await(me, i)}
        # Of one future at a time: the order in which a set of several is asked is chance.
        for i in sorted(futures):
            for one in asyncio.as_completed([self.slots[i]], timeout=self.delay(ticks)):
                self.note("as_completed", self.number_of(await one))

    async def do_shielded(self, me, group, i):
        if self.may_await(me, i):
            self.note("shielded", self.number_of(await asyncio.shield(self.pick(i))))

    async def do_gathered(self, me, group, numbers, return_exceptions):
        futures = [self.pick(i) for i in numbers if self.may_await(me, i)]
        number = len(self.slots)
        self.edges[me].add(number) if futures else None
        self.edges[number] = set(self.edges.get(me, ())) - {number}
        outer = self.gathering(number, futures, return_exceptions)
        if outer is not None:
            self.note("gathered", [self.number_of(one) for one in await outer])

    async def do_bare(self, me, group, i):
        await Yields(None)

    async def do_rubbish(self, me, group, i):
        self.note("sent", await Yields([42, "x", 1.5, ()][i % 4]))

    async def do_unblocked(self, me, group, i):
        if self.may_await(me, i):
            self.note("sent", await Yields(self.pick(i)))

    async def do_manual(self, me, group, i):
        if self.may_await(me, i):
            future = self.pick(i)
            future._asyncio_future_blocking = True
            self.note("sent", await Yields(future))

    async def do_return(self, me, group, i):
        return f"returned {i}"

    async def do_self_cancel(self, me, group, i, message):
        asyncio.current_task().cancel(MESSAGES[message])

    async def do_lock(self, me, group, kind, body):
        async with self.lock:
            self.note("locked")
            return await self.run_async(me, body, group)

    async def do_condition(self, me, group, kind, body):
        async with self.condition:
            if kind < 2:
                self.condition.notify(kind + 1)
            else:
                await self.condition.wait()
                self.note("notified")
            return await self.run_async(me, body, group)

    async def do_event_wait(self, me, group, i):
        self.note("event", await self.event.wait())

    async def do_queue_get(self, me, group, i):
        if i < 12:
            self.note("queue", await self.queue.get())
        else:
            await self.queue.put(i)

    async def do_generator(self, me, group, kind, body):
        async def produce():
            try:
                for i in range(3):
                    yield i
                    await self.run_async(me, body, group)
            finally:
                self.note("generator ends")
                if kind == 3:
                    await asyncio.sleep(0)

        async with contextlib.aclosing(produce()) as items:
            async for item in items:
                self.note("item", item)
                if item == kind:
                    break

    # phases

    def pump(self):
        self.ticks += 1
        if self.ticks >= self.until:
            self.loop.stop()
        else:
            self.loop.call_soon(self.pump)

    def drive(self, run):
        """Runs until the ticks of this phase are over, whatever leaves the loop before."""
        self.loop.call_soon(self.pump)
        for _ in range(12):
            try:
                self.note("run ended", self.number_of(run()))
            except BaseException as exc:
                self.note("run raised", describe(exc))
            run = self.loop.run_forever
            if self.ticks >= self.until:
                break
        self.until = self.ticks + TICKS

    def cancel_all(self):
        # By length first: each loop's numbers grow a digit at a moment of their own.
        names = {task: task.get_name() for task in asyncio.all_tasks(self.loop)}
        for task in sorted(names, key=lambda task: (len(names[task]), names[task])):
            task.cancel("end")

    def run(self):
        """The log and the late reports of the whole program."""
        main = self.do_task(1, 0, False, False, self.program["main"])
        with contextlib.ExitStack() as stack:
            stack.callback(self.loop.close)
            if main is not None and self.program["until_complete"]:
                self.drive(lambda: self.loop.run_until_complete(main))
            else:
                self.drive(self.loop.run_forever)
            del main
            for _ in range(4):
                self.note("states", [self.state_of(i) for i in range(len(self.slots))])
                if not asyncio.all_tasks(self.loop):
                    break
                self.budget = 50
                self.cancel_all()
                self.drive(self.loop.run_forever)
            self.note("left", sorted(task.get_name() for task in asyncio.all_tasks(self.loop)))
            self.over = True
        return self.log, self.late


_AWAITS = frozenset(ASYNC)


def _delegate(coroutine):
    return (yield from coroutine.__await__())


def execute(impl, program):
    """Everything that can be seen of the program, for a comparison."""

    def body():
        machine = Machine(impl, program)
        log, late = machine.run()
        # What is left of it goes now, and may still report.
        for part in (machine.slots, machine.handles, machine.callbacks, machine.contexts):
            part.clear()
        return log, late

    # What is collected says so in the log: never in the middle.
    gc.disable()
    try:
        result = contextvars.Context().run(body)
        gc.collect()
    finally:
        gc.enable()
    log, late = result
    return [*log, ("late", sorted(late))]
