"""A local cluster of Dask's that works: scheduler and client in this process, workers in others.

    python dask_cluster.py TASKS [--kill] [--install]

With --install the program switches itself to asyncloop, and the workers are the configuration's
concern. With --kill a worker is killed in the middle, and nothing may be lost. Prints which loops
ran, and what a task took of time and of the processor, workers and scheduler together.
"""

import argparse
import asyncio
import os
import resource
import signal
import time

import distributed

WORKERS = 2


def square(number):
    return number * number


def loop_class(loop):
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


def of_worker(dask_worker):
    return loop_class(dask_worker.loop.asyncio_loop), os.getpid()


def of_scheduler(dask_scheduler):
    return loop_class(dask_scheduler.loop.asyncio_loop)


def processor_seconds():
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def kill_one(client):
    loop, pid = next(iter(client.run(of_worker).values()))
    os.kill(pid, signal.SIGKILL)
    return pid


async def until_done(futures, count):
    while sum(future.done() for future in futures) < count:
        await asyncio.sleep(0.05)


def run(client, tasks, kill):
    futures = client.map(square, range(tasks), pure=False)
    killed = None
    if kill:
        asyncio.run(until_done(futures, tasks // 10))
        killed = kill_one(client)
        left = sum(not future.done() for future in futures)
        print(f"killed with {left} tasks to go")
        assert left > 0
    results = client.gather(futures)
    assert results == [number * number for number in range(tasks)], "results were lost"
    if kill:  # there is another one in its place
        client.wait_for_workers(WORKERS, timeout=60)
        assert killed not in {pid for _, pid in client.run(of_worker).values()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", type=int)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--install", action="store_true")
    options = parser.parse_args()
    if options.install:
        import asyncloop

        asyncloop.install()
    cluster = distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        print("loop:", loop_class(client.loop.asyncio_loop))
        print("loop:", client.run_on_scheduler(of_scheduler))
        for loop, _ in client.run(of_worker).values():
            print("loop:", loop)
        begin = time.monotonic()
        run(client, options.tasks, options.kill)
        seconds = time.monotonic() - begin
    used = processor_seconds() / options.tasks
    print(f"{options.tasks / seconds:.0f} tasks a second, {used * 1e6:.0f} us of processor each")


if __name__ == "__main__":
    main()
