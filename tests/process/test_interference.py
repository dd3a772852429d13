"""What reaches a loop from outside: floods of signals, a stopped process, clocks that jump."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from tests.support import check_script, spin, until


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def talk(port, stop):
    """Exchanges until `stop()`, each answer looked at; how many there were."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while not stop():
        message = b"%d\n" % count * 100
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


# -- signals --------------------------------------------------------------------------------------


@pytest.mark.our_loop("the standard loop loses signals after the 278th of one iteration")
def test_hundred_thousand_signals_during_load(run, loop, thread, unraisable):
    """Signals of one number may merge; nothing else is disturbed, and the last of each is seen."""
    total = 100_000
    seen = {signal.SIGUSR1: 0, signal.SIGUSR2: 0}
    sent = threading.Event()

    def count(number):
        seen[number] += 1

    def send():
        for _ in range(total):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        sent.set()

    async def main():
        for number in seen:
            loop.add_signal_handler(number, count, number)
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        thread(send)
        talks = await asyncio.gather(*[talk(port, sent.is_set) for _ in range(4)])
        assert all(talks)
        await until(lambda: seen[signal.SIGUSR2])
        for number in seen:
            loop.remove_signal_handler(number)
        server.close()
        await server.wait_closed()

    run(main())
    assert 0 < seen[signal.SIGUSR1] <= total
    assert seen[signal.SIGUSR2] == 1
    assert not unraisable


@pytest.mark.our_loop("the standard loop loses signals after the 278th of one iteration")
def test_flood_in_a_blocked_loop_hides_no_other_signal(run, loop):
    """More signals than fit into the pipe while a callback runs, and then another one."""
    seen = []

    def block():
        for _ in range(70_000):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "flood")
        loop.add_signal_handler(signal.SIGTERM, seen.append, "term")
        loop.call_soon(block)
        await until(lambda: "term" in seen)
        while seen:  # the rest of the flood
            seen.clear()
            await asyncio.sleep(0.01)
        # and afterwards each signal is one call again
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: seen)
        await asyncio.sleep(0.01)
        assert seen == ["term"]
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.remove_signal_handler(signal.SIGTERM)

    run(main())


STOPPED = """
import random
STOPS = "for i in $(seq 10); do kill -STOP $0; sleep 0.03; kill -CONT $0; sleep 0.02; done"

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def talk(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while stopper.returncode is None:
        message = random.randbytes(random.choice([1, 1000, 100_000]))
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
        await asyncio.sleep(0)
    writer.close()
    await writer.wait_closed()

async def tick():
    while stopper.returncode is None:
        delay = random.uniform(0, 0.03)
        due = time.monotonic() + delay
        await asyncio.sleep(delay)
        assert time.monotonic() >= due

async def within_limits():
    # What is ready when the process goes on comes before the time limit of a later moment.
    while stopper.returncode is None:
        async with asyncio.timeout(30):
            await asyncio.sleep(0.001)

async def main():
    global stopper
    stopper = await asyncio.create_subprocess_exec("sh", "-c", STOPS, str(os.getpid()))
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    talks, ticks = [talk(port) for _ in range(3)], [tick() for _ in range(10)]
    await asyncio.gather(*talks, *ticks, within_limits())
    assert await stopper.wait() == 0
    server.close()
    await server.wait_closed()

loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
print("well")
"""


def test_stopped_and_continued_process(impl):
    check_script(impl, STOPPED, "well")


# -- clocks ---------------------------------------------------------------------------------------

# Everybody's clock of the time of day jumps by up to ten years either way, at each look at it.
JUMPING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

static long jump(void)
{
    static unsigned long state = 88172645463325252ul;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (long)(state % 630720000) - 315360000;
}
static int is_of_the_day(long id) { return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, ts);
    if (result == 0 && is_of_the_day(id)) ts->tv_sec += jump();
    return result;
}
int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(tv, zone);
    tv->tv_sec += jump();
    return result;
}
time_t time(time_t *out)
{
    time_t (*real)(time_t *) = dlsym(RTLD_NEXT, "time");
    time_t now = real(0) + jump();
    if (out) *out = now;
    return now;
}
/* libev asks the kernel by itself */
long syscall(long number, ...)
{
    long (*real)(long, ...) = dlsym(RTLD_NEXT, "syscall");
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_clock_gettime && result == 0 && is_of_the_day(a[0]))
        ((struct timespec *)a[1])->tv_sec += jump();
    return result;
}
"""

JUMPED = """
import random
if len({time.time() // 1_000_000 for _ in range(10)}) < 2:
    print("the clock does not jump")
    sys.exit()
early = []

async def sleeper(delay):
    due = time.monotonic() + delay
    await asyncio.sleep(delay)
    if time.monotonic() < due:
        early.append(delay)

async def limited(delay):
    due = time.monotonic() + delay
    try:
        async with asyncio.timeout(delay):
            await asyncio.sleep(3600)
    except TimeoutError:
        if time.monotonic() < due:
            early.append(delay)

async def main():
    delays = [random.choice([0.0005, 0.005, 0.05, 0.2]) * random.random() for _ in range(500)]
    async with asyncio.timeout(40):
        await asyncio.gather(*map(sleeper, delays), *map(limited, delays))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        assert await (await asyncio.create_subprocess_exec("true")).wait() == 0

async def echo(reader, writer):
    writer.write(await reader.read(100))
    writer.close()

loop = new_event_loop()
server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
port = server.sockets[0].getsockname()[1]
before = loop.time()
loop.run_until_complete(main())
assert 0.1 < loop.time() - before < 40
server.close()
loop.run_until_complete(server.wait_closed())
loop.close()
assert not early, early
print("well")
"""


@pytest.fixture(scope="module")
def jumping_clock(tmp_path_factory):
    """A library that makes the time of day jump, for LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not os.path.exists("/proc/self/exe"):
        pytest.skip("needs Linux and a C compiler")
    if "san.so" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("sanitizers replace these functions themselves")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(JUMPING)
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "clock.c", "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return str(library)


def test_time_of_day_does_not_matter(impl, jumping_clock):
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), jumping_clock]))
    done = check_script(impl, JUMPED, env={"LD_PRELOAD": preload})
    if "does not jump" in done.stdout:
        pytest.skip("this system does not let its clock be replaced")
    assert done.stdout.strip() == "well"


def test_own_clock_that_jumps(impl):
    """Forwards and back: what runs is what is due by the loop's own time(), and all of that."""

    class Clock(impl.Loop):
        now = 1_000_000.0

        def time(self):
            return self.now

    rng = random.Random(11)
    loop = Clock()
    try:
        fired = set()
        waiting = {}
        for number in range(2000):
            when = loop.now + rng.choice([-5, 1, 10, 100, 100_000]) * rng.randrange(100)
            waiting[number] = (when, loop.call_at(when, fired.add, number))
            if number % 10 == 0:
                loop.now += rng.choice([-1000, -50, 0, 1, 7, 60])
                spin(loop, 2)
                due = {n for n, (when, _) in waiting.items() if when <= loop.now}
                assert fired == due
                for n in due:
                    del waiting[n]
                fired.clear()
        for _, handle in waiting.values():
            handle.cancel()
        spin(loop)
        assert not fired
    finally:
        loop.close()


def test_own_clock_that_runs_at_another_speed(impl):
    """A clock of slow motion: waits are asked for again until they are over by it."""

    class Slow(impl.Loop):
        def time(self):
            return time.monotonic() / 4

    loop = Slow()
    try:
        early = []

        async def sleeper(delay):
            due = loop.time() + delay
            await asyncio.sleep(delay)
            if loop.time() < due - 1e-9:
                early.append(delay)

        async def main():
            await asyncio.gather(*[sleeper(number * 0.0001) for number in range(100)])

        before = time.monotonic()
        loop.run_until_complete(main())
        assert not early
        assert time.monotonic() - before >= 0.0099 * 4
    finally:
        loop.close()


def test_thousands_of_timers_none_early(loop):
    """From microseconds to 50 ms, made all the time while the loop is busy and idle."""
    rng = random.Random(3)
    early = []
    fired = 0

    def check(due):
        nonlocal fired
        fired += 1
        if time.monotonic() < due:
            early.append(due)

    def make(rounds):
        for _ in range(50):
            delay = 0.05 * rng.random() ** 4
            if rng.random() < 0.5:
                due = time.monotonic() + delay
                loop.call_later(delay, check, due)
            else:
                when = loop.time() + delay
                loop.call_at(when, check, when)
        if rng.random() < 0.3:
            end = time.monotonic() + 0.001
            while time.monotonic() < end:
                pass
        if rounds:
            loop.call_later(0.004 * rng.random(), make, rounds - 1)
        else:
            loop.call_later(0.051, loop.stop)

    make(99)
    loop.run_forever()
    assert fired == 5000

    assert not early
