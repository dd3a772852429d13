"""ThreadQueue: what asyncio.Queue does, and between loops."""

import asyncio
import gc
import signal
import threading
import weakref

import pytest

import asyncloop
from asyncloop import QueueShutDown, ThreadQueue, run_threads

LIMIT = 30


@pytest.fixture(params=[asyncio.Queue, ThreadQueue], ids=["asyncio.Queue", "ThreadQueue"])
def Queue(request):
    return request.param


def test_as_asyncio_queue(Queue, run):
    async def main():
        queue = Queue(2)
        assert queue.maxsize == 2 and queue.empty() and not queue.full() and queue.qsize() == 0
        queue.put_nowait(1)
        await queue.put(2)
        assert queue.full() and queue.qsize() == 2
        with pytest.raises(asyncio.QueueFull):
            queue.put_nowait(3)
        putter = asyncio.ensure_future(queue.put(3))
        await asyncio.sleep(0)
        assert not putter.done()
        assert await queue.get() == 1
        await putter
        assert [queue.get_nowait(), await queue.get()] == [2, 3]
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_nowait()
        getters = [asyncio.ensure_future(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for item in "abc":
            await queue.put(item)
        assert await asyncio.gather(*getters) == ["a", "b", "c"]

    run(main())


def test_cancelled_waiters_pass_on(Queue, run):
    async def main():
        queue = Queue()
        first, second = (asyncio.ensure_future(queue.get()) for _ in range(2))
        await asyncio.sleep(0)
        queue.put_nowait("item")  # wakes the first
        first.cancel()
        assert await asyncio.wait_for(second, LIMIT) == "item"
        full = Queue(1)
        full.put_nowait(0)
        first, second = (asyncio.ensure_future(full.put(n)) for n in (1, 2))
        await asyncio.sleep(0)
        full.get_nowait()
        first.cancel()
        await asyncio.wait_for(second, LIMIT)
        assert full.get_nowait() == 2
        for _ in range(50):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(queue.get(), 0.0001)
        assert "getters=" not in repr(queue) or "getters=0" in repr(queue)

    run(main())


def test_who_waits_behind_a_cancelled_one_keeps_its_turn(Queue, run):
    async def main():
        queue, order = Queue(), []

        async def get(name):
            order.append((name, await queue.get()))

        getters = [asyncio.ensure_future(get(name)) for name in "abcde"]
        await asyncio.sleep(0)
        for cancelled in (getters[0], getters[2]):
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        for item in range(3):
            queue.put_nowait(item)
        await asyncio.gather(getters[1], getters[3], getters[4])
        assert order == [("b", 0), ("d", 1), ("e", 2)]

    run(main())


def test_shutdown(run):
    async def main():
        queue = ThreadQueue(1)
        queue.put_nowait(1)
        putter = asyncio.ensure_future(queue.put(2))
        await asyncio.sleep(0)
        queue.shutdown()
        with pytest.raises(QueueShutDown):
            await putter
        with pytest.raises(QueueShutDown):
            queue.put_nowait(3)
        assert await queue.get() == 1
        for _ in range(2):
            with pytest.raises(QueueShutDown):
                await queue.get()
        empty = ThreadQueue()
        getters = [asyncio.ensure_future(empty.get()) for _ in range(3)]
        await asyncio.sleep(0)
        empty.shutdown()
        for getter in getters:
            with pytest.raises(QueueShutDown):
                await getter
        assert [item async for item in empty] == []
        dropped = ThreadQueue()
        dropped.put_nowait(1)
        dropped.shutdown(immediate=True)
        assert dropped.empty() and "shutdown" in repr(dropped)
        with pytest.raises(QueueShutDown):
            dropped.get_nowait()
        dropped.shutdown()

    run(main())


@pytest.mark.parametrize("maxsize", [0, 1, 7])
def test_between_loops(maxsize):
    """Each item once, and those of one producer in their order."""
    queue = ThreadQueue(maxsize)
    got = [[], [], [], []]
    producing = threading.Barrier(2)

    async def main(worker):
        if worker.index < 2:
            for n in range(1500):
                await queue.put((worker.index, n))
            if await asyncio.to_thread(producing.wait, LIMIT) == 0:
                queue.shutdown()
        else:
            async for item in queue:
                got[worker.index].append(item)

    run_threads(main, 4)
    for items in got:
        for producer in range(2):
            of_one = [n for p, n in items if p == producer]
            assert of_one == sorted(of_one)
    assert sorted(got[2] + got[3]) == [(p, n) for p in range(2) for n in range(1500)]


def test_from_a_plain_thread(run):
    async def main():
        queue = ThreadQueue()
        thread = threading.Thread(target=lambda: [queue.put_nowait(n) for n in range(100)])
        thread.start()
        items = [await asyncio.wait_for(queue.get(), LIMIT) for _ in range(100)]
        assert items == list(range(100))
        thread.join()

    run(main())


def test_waiter_of_a_closed_loop():
    queue = ThreadQueue()
    loop = asyncloop.new_event_loop()
    task = loop.create_task(queue.get())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def main():
        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait("item")
        return await asyncio.wait_for(getter, LIMIT)

    assert asyncloop.run(main()) == "item"
    task._log_destroy_pending = False


@pytest.mark.parametrize("new_loop", [asyncloop.new_event_loop, asyncio.SelectorEventLoop])
def test_waiter_of_a_loop_that_closes_as_it_is_woken(new_loop):
    """The next one goes in its place, though somebody keeps its task."""
    for waits in ("item", "room"):
        queue = ThreadQueue(1)
        if waits == "room":
            queue.put_nowait("first")
        loop = new_loop()
        task = loop.create_task(queue.get() if waits == "item" else queue.put("never"))
        loop.run_until_complete(asyncio.sleep(0))

        async def main(loop=loop, queue=queue, waits=waits):
            other = asyncio.ensure_future(queue.get() if waits == "item" else queue.put("second"))
            await asyncio.sleep(0)
            got = queue.put_nowait("item") if waits == "item" else queue.get_nowait()
            loop.close()
            await asyncio.wait_for(other, LIMIT)
            return got if waits == "room" else other.result()

        assert asyncloop.run(main()) == ("item" if waits == "item" else "first")
        task._log_destroy_pending = False


def test_finalizers_and_signals_may_use_it():
    """While its own thread is using it: a lock in Python would lock itself out here."""
    queue = ThreadQueue()
    alarms = 0

    class Node:
        def __del__(self):
            queue.put_nowait("dead")

    def on_alarm(*args):
        nonlocal alarms
        alarms += 1
        queue.put_nowait("alarm")

    old = signal.signal(signal.SIGALRM, on_alarm)
    threshold = gc.get_threshold()
    gc.set_threshold(5)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for n in range(20_000):
            node = Node()
            node.self = node
            del node
            queue.put_nowait(n)
            queue.get_nowait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        gc.set_threshold(*threshold)
    gc.collect()
    items = [queue.get_nowait() for _ in range(queue.qsize())]
    assert len(items) == 20_000 + alarms


def test_nothing_is_kept():
    class Item:
        pass

    queue = ThreadQueue()
    item = Item()
    seen = weakref.ref(item)
    queue.put_nowait(item)
    item.queue = queue  # a circle
    del item, queue
    gc.collect()
    assert seen() is None


def test_bad_arguments():
    for maxsize in ("1", None, 1.5):
        with pytest.raises(TypeError):
            ThreadQueue(maxsize)
    with pytest.raises(OverflowError):
        ThreadQueue(1 << 80)
    assert ThreadQueue(-1).maxsize == -1
    assert isinstance(ThreadQueue[int]().qsize(), int)
