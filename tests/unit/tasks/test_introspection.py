"""Tools that look at tasks: asyncio's call graphs, and `python -m asyncio ps` and `pstree`.

What they shall show is written down once and holds for both loops. The tools that look from
outside read the struct of asyncio's own Task. So do the tests, in their own memory.
"""

import asyncio
import contextlib
import ctypes
import functools
import io
import os
import re
import subprocess
import sys
import threading
import weakref

import pytest

from tests.support import (
    FREE_THREADED,
    PREAMBLE,
    PY,
    ROOT,
    Impl,
    check_script,
    collect,
    import_root,
    script,
    spin,
    turns,
)

MIXED = True

DOCS = ROOT / "docs" / "introspection.md"

since_314 = pytest.mark.skipif(PY < (3, 14), reason="both came in 3.14")

# A leaf that is waited for in each of the usual ways, and the task that waits. They end when
# `gate` is set.
SCENE = script("waiting_tasks")

# {task: who awaits it}; gather() makes one more, without a name
AWAITED_BY = {
    "gather-2": ["by_gather"],
    "group-1": ["by_group"],
    "group-2": ["by_group"],
    "both-1": ["by_group_and_await"],
    "wait-1": ["by_wait"],
    "wait-2": ["by_wait"],
    "shield-1": ["by_shield"],
    "timeout-1": ["by_timeout"],
    "wait_for-1": ["by_wait_for"],
    "await-1": ["by_await", "by_await_too"],
    "middle": ["in_the_middle"],
    "middle-1": ["middle"],
    "special-1": ["by_subclass"],
    "eager-1": ["by_eager"],
    "new name": [],
    "main": [],
    **dict.fromkeys(
        "by_gather by_group by_group_and_await by_wait by_shield by_timeout by_wait_for "
        "by_await by_await_too in_the_middle by_subclass by_eager".split(),
        [],
    ),
}

# {task: functions in which it waits, from the inside out}
STACKS = {
    "by_gather": ["by_gather"],
    "by_wait": ["_wait", "wait", "by_wait"],
    "by_wait_for": ["wait_for", "by_wait_for"],
    "by_timeout": ["by_timeout"],
    "by_await": ["by_await"],
    "middle": ["by_middle_leaf"],
    "new name": ["wait", "leaf", "renamed"],
    **dict.fromkeys(
        "gather-2 group-1 group-2 both-1 wait-1 wait-2 shield-1 timeout-1 wait_for-1 await-1 "
        "middle-1 special-1 eager-1".split(),
        ["wait", "leaf"],
    ),
}


def check_scene(awaited_by, stacks):
    (automatic,) = set(awaited_by) - set(AWAITED_BY)
    assert re.fullmatch(r"Task-\d+", automatic)
    assert awaited_by == {automatic: ["by_gather"], **AWAITED_BY}
    expected = {automatic: ["wait", "leaf"], **STACKS}
    assert {name: stacks[name] for name in expected} == expected


def last_names(functions):
    return [name.rpartition(".")[2] for name in functions]


# From outside

CHILD = (
    SCENE
    + """
async def main():
    gate, tasks = await set_up()
    loop = asyncio.get_running_loop()
    closed = loop.create_future()
    loop.add_reader(0, lambda: closed.done() or closed.set_result(None))
    print("ready", flush=True)
    await closed
    loop.remove_reader(0)
    gate.set()
    await asyncio.gather(*tasks)

with asyncio.Runner(loop_factory=make_loop) as runner:
    runner.run(main())
print("end")
"""
)


@contextlib.contextmanager
def process(impl, source):
    """A child that runs `source`, which prints "ready" and then waits for its input to end."""
    env = dict(os.environ)
    root = import_root(impl)
    if root:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    types = impl.Task.__module__.partition(".")[0].lstrip("_")
    preamble = (
        PREAMBLE.format(limit=50, loops=impl.loops) + f"import {types}\nTask = {types}.Task\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", preamble + source],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        line = child.stdout.readline()
        if line != "ready\n":
            raise AssertionError(line + child.communicate()[0])
        try:
            yield child
        finally:
            rest, _ = child.communicate()
    assert (rest, child.returncode) == ("end\n", 0)


def forbidden(exc):
    while exc is not None:
        if isinstance(exc, PermissionError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def look(pid):
    """What asyncio.tools reads of a process; skips where that is forbidden."""
    from asyncio import tools

    try:
        return tools.get_all_awaited_by(pid)
    except (OSError, RuntimeError) as exc:
        if forbidden(exc):
            pytest.skip(f"this system does not let a process read its child: {exc}")
        raise


@since_314
def test_from_outside(impl):
    with process(impl, CHILD) as child:
        answer = look(child.pid)
    infos = [info for thread in answer for info in thread.awaited_by]
    names = {info.task_id: info.task_name for info in infos}
    assert len(set(names.values())) == len(infos)
    awaited_by, stacks = {}, {}
    for info in infos:
        (own,) = info.coroutine_stack
        stacks[info.task_name] = last_names(frame.funcname for frame in own.call_stack)
        # An awaiter comes with its address for a name.
        awaited_by[info.task_name] = sorted(names[one.task_name] for one in info.awaited_by)
    check_scene(awaited_by, stacks)
    assert stacks["main"] == ["main"]


@since_314
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_command(impl, command):
    with process(impl, CHILD) as child:
        look(child.pid)
        done = subprocess.run(
            [sys.executable, "-m", "asyncio", command, str(child.pid)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    if done.returncode and re.search("(?i)permission|not permitted", done.stdout + done.stderr):
        pytest.skip("this system does not let a process read one that is not its child")
    assert (done.returncode, done.stderr) == (0, "")
    if command == "ps":
        rows = [re.split(r"  +", line.rstrip()) for line in done.stdout.splitlines()]
        assert ["middle-1", "middle"] in [[row[2], row[-2]] for row in rows if len(row) > 5]
        assert any(
            "leaf -> renamed" in row[3] and row[2] == "new name" for row in rows if len(row) > 3
        )
    else:
        tree = [re.sub(r"^[^\w(]*| \S+:\d+$", "", line) for line in done.stdout.splitlines()]
        at = tree.index("(T) in_the_middle")
        assert tree[at : at + 5] == [
            "(T) in_the_middle",
            "in_the_middle",
            "(T) middle",
            "by_middle_leaf",
            "(T) middle-1",
        ]


# From inside


@functools.cache
def base_offsets():
    """Where a Task of asyncio's has its coroutine and its name, in bytes: methods give ours."""
    loop = asyncio.SelectorEventLoop()
    coro, name = asyncio.sleep(0), "a name of its own"
    task = asyncio.Task(coro, loop=loop, name=name)
    words = (ctypes.c_void_p * (asyncio.Task.__basicsize__ // 8)).from_address(id(task))
    offsets = [list(words).index(id(one)) * 8 for one in (coro, name)]
    loop.run_until_complete(task)
    loop.close()
    return offsets


def base_field(task, offset):
    address = ctypes.c_void_p.from_address(id(task) + offset).value
    return None if address is None else ctypes.cast(address, ctypes.py_object).value


def base_name(task):
    name = base_field(task, base_offsets()[1])
    return f"Task-{name}" if isinstance(name, int) else name


def base_coro(task):
    return base_field(task, base_offsets()[0])


def base_awaited_by(future):
    return set(asyncio.Future._asyncio_awaited_by.__get__(future) or ())


@pytest.fixture
def scene(impl, loop):
    """The names of SCENE; its tasks wait, and end with the test."""
    names = {"asyncio": asyncio, "Task": impl.Task, "new_event_loop": lambda: loop}
    exec(compile(SCENE, "<scene>", "exec"), names)
    names["make_loop"]()
    gate, tasks = loop.run_until_complete(names["set_up"]())
    yield names
    gate.set()
    loop.run_until_complete(asyncio.wait(tasks))


@since_314
def test_call_graphs(scene, loop):
    found = {}
    for task in asyncio.all_tasks(loop):
        graph = asyncio.capture_call_graph(task)
        assert graph.future is task
        found[task.get_name()] = graph
    found["main"] = None
    awaited_by = {
        name: sorted(one.future.get_name() for one in graph.awaited_by) if graph else []
        for name, graph in found.items()
    }
    stacks = {
        name: last_names(entry.frame.f_code.co_qualname for entry in graph.call_stack)
        for name, graph in found.items()
        if graph
    }
    check_scene(awaited_by, stacks)
    # ... and who awaits those
    (middle,) = found["middle-1"].awaited_by
    assert [one.future.get_name() for one in middle.awaited_by] == ["in_the_middle"]


@since_314
def test_call_graph_text(scene, loop, impl):
    task = scene["shared"]["middle-1"]
    text = asyncio.format_call_graph(task)
    lines = [re.sub(r"0x[0-9a-f]+|'.*?/|line \d+", "", line).strip() for line in text.splitlines()]
    functions = [re.search(r"async (.*)\(\)", line)[1] for line in lines if "async " in line]
    assert last_names(functions) == ["wait", "leaf", "by_middle_leaf", "in_the_middle"]
    assert [
        re.search(r"name='(.*?)'", line)[1] for line in text.splitlines() if "name=" in line
    ] == ["middle-1", "middle", "in_the_middle"]
    assert lines[0].startswith("* Task(name=")
    out = io.StringIO()
    asyncio.print_call_graph(task, file=out)
    assert out.getvalue() == text + "\n"
    assert asyncio.format_call_graph(task, limit=0).count("async ") == 0


@since_314
def test_call_graph_of_the_current_task(loop, impl):
    async def inner():
        return asyncio.capture_call_graph(), asyncio.format_call_graph()

    async def outer():
        task = impl.Task(inner(), loop=loop, name="inner")
        return await task

    async def main():
        return await impl.Task(outer(), loop=loop, name="outer")

    graph, text = loop.run_until_complete(impl.Task(main(), loop=loop, name="main"))
    names = []
    while True:
        names.append(graph.future.get_name())
        if not graph.awaited_by:
            break
        (graph,) = graph.awaited_by
    assert names == ["inner", "outer", "main"]
    assert "test_call_graph_of_the_current_task.<locals>.inner()" in text


@since_314
def test_fields(scene, loop):
    tasks = asyncio.all_tasks(loop)
    assert len(tasks) == len(AWAITED_BY)
    for task in tasks:
        assert base_name(task) == task.get_name()
        assert base_coro(task) is task.get_coro()
        assert base_awaited_by(task) == set(task._asyncio_awaited_by or ())


@since_314
def test_names(impl, loop):
    async def nothing():
        pass

    tasks = [impl.Task(nothing(), loop=loop) for _ in range(3)]
    numbers = [int(base_name(task).removeprefix("Task-")) for task in tasks]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert [task.get_name() for task in tasks] == [base_name(task) for task in tasks]
    tasks[0].set_name("other")
    tasks[1].set_name(123)
    assert [base_name(task) for task in tasks[:2]] == ["other", "123"]
    spin(loop, 2)
    tasks[2].set_name("late")
    assert base_name(tasks[2]) == tasks[2].get_name() == "late"


@since_314
def test_after_the_end(impl, loop):
    """What was awaited is forgotten when the one that waited goes on, however it ended."""

    async def leaf(gate):
        await gate.wait()

    async def fail(gate):
        await gate.wait()
        raise ValueError

    async def wait_for(task):
        with contextlib.suppress(ValueError, asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return base_awaited_by(task)

    async def main():
        gate = asyncio.Event()
        tasks = [
            impl.Task(leaf(gate), loop=loop),
            impl.Task(fail(gate), loop=loop),
            impl.Task(leaf(gate), loop=loop),
        ]
        waiters = [impl.Task(wait_for(task), loop=loop) for task in tasks]
        await turns(2)
        assert [base_awaited_by(task) for task in tasks] == [{waiter} for waiter in waiters]
        tasks[2].cancel()
        gate.set()
        assert await asyncio.gather(*waiters) == [set(), set(), set()]
        for task in tasks:
            assert base_coro(task) is task.get_coro()
            assert base_name(task) == task.get_name()
            assert base_awaited_by(task) == set()

    loop.run_until_complete(main())


@since_314
def test_two_await_and_one_gives_up(impl, loop):
    async def wait_for(task):
        await task

    async def main():
        gate = asyncio.Event()
        task = impl.Task(gate.wait(), loop=loop)
        one, two, three = [
            impl.Task(wait_for(asyncio.shield(task)), loop=loop)
            if i == 1
            else impl.Task(wait_for(task), loop=loop)
            for i in range(3)
        ]
        await turns(2)
        assert {one, three} <= base_awaited_by(task)
        two.cancel()
        await turns(2)
        assert {one, three} <= base_awaited_by(task)
        gate.set()
        await asyncio.wait([one, two, three])
        assert not {one, three} & base_awaited_by(task)

    loop.run_until_complete(main())


@since_314
def test_references(impl, loop):
    async def nothing():
        pass

    async def wait_for(task):
        await task

    name = "a name of its own" + str(id(loop))
    before = sys.getrefcount(name)
    coro = nothing()
    gone = weakref.ref(coro)
    task = impl.Task(coro, loop=loop, name=name)
    waiter = impl.Task(wait_for(task), loop=loop, name=name)
    del coro
    spin(loop, 4)
    assert waiter.done()
    assert gone() is not None
    del task, waiter
    assert gone() is None
    assert sys.getrefcount(name) == before


@since_314
def test_collected_while_they_wait(impl, loop, reports):
    """Tasks that await each other are a cycle through the fields, too."""

    async def wait_for(future):
        await future

    one = impl.Task(wait_for(loop.create_future()), loop=loop)
    two = impl.Task(wait_for(one), loop=loop)
    spin(loop, 2)
    assert base_awaited_by(one) == {two}
    for task in (one, two):
        task._log_destroy_pending = False
    gone = [weakref.ref(one), weakref.ref(two)]
    del one, two, task
    collect()
    assert [ref() for ref in gone] == [None, None]
    assert reports == []


@since_314
def test_initialised_again(impl, loop):
    async def nothing():
        pass

    task = impl.Task(nothing(), loop=loop, name="first")
    spin(loop, 2)
    coro = nothing()
    try:
        task.__init__(coro, loop=loop, name="second")
    except RuntimeError:
        assert PY >= (3, 15)
        coro.close()
        coro = task.get_coro()
    spin(loop, 2)
    assert base_name(task) == task.get_name()
    assert base_coro(task) is task.get_coro() is coro


# How the fields are found


def check_import(source, expect):
    """Like check_script, but `source` is what imports asyncloop."""
    root = import_root(Impl.named("asyncloop"))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    check_script(
        Impl.named("asyncio"),
        source,
        expect,
        env={"PYTHONPATH": path},
        flags=("-X", "dev", "-W", "error"),
    )


@since_314
def test_import_leaves_nothing():
    check_import(
        """
import asyncloop
gc.collect()
print([o for o in gc.get_objects() if type(o) in (asyncio.Task, asyncio.Future)])
async def main():
    print(len(asyncio.all_tasks()), asyncio.Task.get_name(asyncio.current_task()))
asyncloop.run(main())
""",
        "[]\n1 Task-1",
    )


@since_314
def test_import_while_a_loop_runs():
    check_import(
        """
async def main():
    import asyncloop
    assert asyncio.all_tasks() == {asyncio.current_task()}
    print(asyncio.create_task(asyncio.sleep(0)).get_name())
    await asyncio.sleep(0)
asyncio.run(main())
""",
        "Task-2",
    )


@since_314
@pytest.mark.parametrize("replacement", ["lambda *args: None", "lambda: None"])
def test_fields_that_are_not_found(replacement):
    """The calibration needs a coroutine; without one all works but for the tools."""
    check_import(
        f"""
real, asyncio.tasks.sleep = asyncio.tasks.sleep, {replacement}
import asyncloop
asyncio.tasks.sleep = real
async def leaf():
    await real(0)
    return 1
async def main():
    task = asyncio.create_task(leaf())
    task.set_name("new")
    print(task.get_name())
    print(await task + sum(await asyncio.gather(task, leaf())))
asyncloop.run(main())
""",
        "new\n3",
    )


@since_314
def test_interrupted_import():
    check_import(
        """
def sleep(*args):
    raise KeyboardInterrupt
real, asyncio.tasks.sleep = asyncio.tasks.sleep, sleep
try:
    import asyncloop
except KeyboardInterrupt:
    print("interrupted")
""",
        "interrupted",
    )


@since_314
@pytest.mark.skipif(not FREE_THREADED, reason="one list of tasks for all threads")
def test_task_says_in_whose_list_it_is(impl, loop):
    """A Task that does not is taken out of its thread's list while all threads stand still."""

    def places(task):
        words = ctypes.string_at(id(task), asyncio.Task.__basicsize__)
        own = threading.get_ident().to_bytes(8, sys.byteorder)
        head = object.__basicsize__
        return [i for i in range(head, len(words), 8) if words[i : i + 8] == own]

    async def main():
        pass

    stock = asyncio.Task(main(), loop=loop)
    task = impl.Task(main(), loop=loop)
    try:
        assert len(places(stock)) == 1
        assert places(task) == places(stock)
    finally:
        loop.run_until_complete(asyncio.wait([stock, task]))


# The recipe for older versions


def test_documented_recipe(impl):
    """What docs/introspection.md says to do up to 3.13."""
    if not os.path.exists(DOCS):
        pytest.skip("a copy of the tree without docs/")
    with open(DOCS) as file:
        (recipe,) = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    source = """
async def leaf():
    await asyncio.sleep(60)

async def middle():
    await leaf()

shown = asyncio.Event()

def show_tasks(loop, show=show_tasks):
    show(loop)
    shown.set()

async def main():
    install()
    task = asyncio.create_task(middle(), name="one")
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGUSR1)
    await shown.wait()
    task.cancel()

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""
    done = check_script(impl, recipe + source)
    lines = [re.sub(r" \S+:\d+$", "", line) for line in done.stderr.splitlines()]
    at = lines.index("one")
    assert lines[at + 1 : at + 4] == ["  middle", "  leaf", "  sleep"]
    assert lines[lines.index("Task-1") + 1] == "  main"
