async def leaf(gate):
    await gate.wait()

async def by_gather(gate):
    await asyncio.gather(leaf(gate), named("gather-2", gate))

async def by_group(gate):
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(gate), name="group-1")
        group.create_task(leaf(gate), name="group-2")

async def by_group_and_await(gate):
    async with asyncio.TaskGroup() as group:
        await group.create_task(leaf(gate), name="both-1")

async def by_wait(gate):
    await asyncio.wait([named("wait-1", gate), named("wait-2", gate)])

async def by_shield(gate):
    await asyncio.shield(named("shield-1", gate))

async def by_timeout(gate):
    async with asyncio.timeout(60):
        await named("timeout-1", gate)

async def by_wait_for(gate):
    await asyncio.wait_for(named("wait_for-1", gate), 60)

async def by_await(gate):
    await named("await-1", gate)

async def by_await_too(gate):
    await shared["await-1"]

async def in_the_middle(gate):
    await asyncio.create_task(by_middle_leaf(gate), name="middle")

async def by_middle_leaf(gate):
    await named("middle-1", gate)

async def renamed(gate):
    asyncio.current_task().set_name("new name")
    await leaf(gate)

class Special(Task):
    pass

async def by_subclass(gate):
    await Special(leaf(gate), name="special-1")

async def by_eager(gate):
    loop = asyncio.get_running_loop()
    await Task(leaf(gate), loop=loop, name="eager-1", eager_start=True)

shared = {}

def make_loop():
    loop = new_event_loop()
    loop.set_task_factory(lambda loop, coro, **kwargs: Task(coro, loop=loop, **kwargs))
    return loop

def named(name, gate):
    shared[name] = asyncio.create_task(leaf(gate), name=name)
    return shared[name]

ways = [by_gather, by_group, by_group_and_await, by_wait, by_shield, by_timeout, by_wait_for,
        by_await, by_await_too, in_the_middle, renamed, by_subclass, by_eager]

async def set_up():
    assert type(asyncio.current_task()) is Task
    asyncio.current_task().set_name("main")
    gate = asyncio.Event()
    # Dead ones first, so that what is looked at has used memory.
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(50)))
    tasks = []
    for way in ways:
        tasks.append(asyncio.create_task(way(gate), name=way.__name__))
        for _ in range(4):
            await asyncio.sleep(0)
    return gate, tasks
