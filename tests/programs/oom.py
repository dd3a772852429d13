"""Each allocation of the core failing once: python -m tests.programs.oom SCENARIO

oom_hook.c, which is compiled for that, makes the n-th allocation of the core fail (--times: and
those that follow). The scenario
may then succeed or raise anything; afterwards each protocol that was connected has lost its
connection, once; the process has the descriptors that it had, no object of the core is left, and
the same scenario works. A wait without an end is ended by an alarm, and counted as a problem
unless the exception handler was told why.
"""

import argparse
import asyncio
import collections
import concurrent.futures
import contextlib
import ctypes
import faulthandler
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings

import asyncloop
from asyncloop import _core
from tests.support import ROOT, collect, live_objects, open_descriptors, spin


def load_hook(folder):
    """The compiled hook; OSError or CalledProcessError where that cannot be."""
    source = ROOT / "tests" / "hooks" / "oom_hook.c"
    library = os.path.join(folder, "oom_hook.so")
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE"]
    command += ["-I", sysconfig.get_path("include"), str(source), "-o", library, "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    hook = ctypes.PyDLL(library)
    if hook.oom_install(os.path.basename(_core.__file__).encode()) < 0:
        raise OSError("the core was not found in memory")
    return hook


class Hangs(BaseException):
    pass


class Reported(Exception):
    pass


current = None  # scenario


def unraisable(info):
    """Without memory to tell the exception handler more."""
    current.reported = True


def hangs(*args):
    hook.oom_arm(-1)
    raise Hangs


# -- scenarios -----------------------------------------------------------------------------------


class Counts:
    """A protocol that counts what may come once, in the order in which it may come."""

    made = lost = 0
    transport = None

    def connection_made(self, transport):
        self.made += 1
        self.transport = transport

    def connection_lost(self, exc):
        self.lost += 1

    def wrong(self):
        return (self.made, self.lost) not in ((0, 0), (1, 1))


class Scenario:
    may_leave = {}

    def __init__(self):
        self.loop = None
        self.socks = []
        self.protocols = []
        self.reported = False

    def counted(self, base=asyncio.Protocol):
        """A factory of protocols that are looked at in the end."""

        def make():
            protocol = type(base.__name__, (Counts, base), {})()
            self.protocols.append(protocol)
            return protocol

        return make

    def lives(self):
        """What became of the protocols, where that is wrong."""
        wrong = [(p.made, p.lost) for p in self.protocols if p.wrong()]
        for protocol in self.protocols:
            protocol.transport = None
        return wrong

    def report(self, loop, context):
        self.reported = True

    def pair(self):
        one, other = socket.socketpair()
        one.setblocking(False)
        other.setblocking(False)
        self.socks += [one, other]
        return one, other

    def begin(self):
        self.loop = asyncloop.new_event_loop()
        self.loop.set_exception_handler(self.report)

    def act(self):
        self.loop.run_until_complete(self.main())

    def end(self):
        loop, self.loop = self.loop, None
        if loop is not None and not loop.is_closed():
            for task in asyncio.all_tasks(loop):
                task.cancel()
            for protocol in self.protocols:
                if protocol.transport is not None:
                    transport = protocol.transport
                    # As on asyncio, a pipe that is read has no abort(), and that of one that
                    # has ended finds no loop.
                    with contextlib.suppress(AttributeError):
                        getattr(transport, "abort", transport.close)()
            for _ in range(4):
                loop.call_soon(loop.stop)
                try:
                    loop.run_forever()
                except (Exception, asyncio.CancelledError):
                    pass
            loop.close()
        for sock in self.socks:
            sock.close()


class Loop(Scenario):
    def begin(self):
        pass

    def act(self):
        self.loop = asyncloop.new_event_loop()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.loop.close()


class Tasks(Scenario):
    async def work(self, n):
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5):
                await self.future
        finally:
            await asyncio.sleep(0)
        return n

    async def main(self):
        self.future = self.loop.create_future()
        tasks = [asyncio.create_task(self.work(i)) for i in range(3)]
        self.loop.call_soon(self.loop.call_later, 0.0001, self.finish)
        await asyncio.gather(*tasks, return_exceptions=True)
        task = asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel("message")
        await asyncio.wait([task], timeout=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    def finish(self):
        if not self.future.done():
            self.future.set_result(1)


class Timers(Scenario):
    async def main(self):
        loop = self.loop
        waiter = loop.create_future()
        handles = [loop.call_later(10, print, i) for i in range(80)]
        loop.call_at(loop.time(), waiter.set_result, 1)
        for handle in handles:
            handle.cancel()
        loop.call_soon_threadsafe(print, 1, 2, 3, 4, 5).cancel()
        await waiter


class Transports(Scenario):
    async def main(self):
        one, other = self.pair()
        loop = self.loop
        received = loop.create_future()

        class Reads(asyncio.Protocol):
            def data_received(self, data):
                if not received.done():
                    received.set_result(data)

        a, _ = await loop.connect_accepted_socket(self.counted(), one)
        b, _ = await loop.connect_accepted_socket(self.counted(Reads), other)
        a.get_extra_info("sockname"), a.get_write_buffer_limits(), repr(a)
        a.write(b"hello")
        await received
        for _ in range(4):
            a.write(bytearray(100_000))
        a.writelines([b"x", bytearray(5), memoryview(b"abc")])
        a.write_eof()
        a.close()
        b.abort()
        await asyncio.sleep(0.001)


class Streams(Scenario):
    # CPython loses an object's dict where there is no memory to change the object's class. That
    # is asked for twice, and each can be met by two numbers: free lists move the others about.
    may_leave = {"StreamTransport": 4}

    async def main(self):
        one, other = self.pair()
        reader, writer = await asyncio.open_connection(sock=one)
        _, peer = await asyncio.open_connection(sock=other)
        peer.write(b"line\n" * 3)
        await reader.readline()
        await reader.readexactly(10)
        writer.close()
        peer.close()
        await writer.wait_closed()
        await peer.wait_closed()


class Datagrams(Scenario):
    async def main(self):
        loop = self.loop
        got = loop.create_future()

        class Gets(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                if not got.done():
                    got.set_result(address)

        plain = self.counted(asyncio.DatagramProtocol)
        a, _ = await loop.create_datagram_endpoint(
            self.counted(Gets), local_addr=("127.0.0.1", 0)
        )
        address = a.get_extra_info("sockname")
        b, _ = await loop.create_datagram_endpoint(plain, remote_addr=address)
        for i in range(3):
            b.sendto(b"x" * i)
            a.sendto(bytearray(b"y"), b.get_extra_info("sockname"))
        await asyncio.wait_for(got, 0.1)
        a.close()
        b.abort()
        await asyncio.sleep(0)


class Servers(Scenario):
    async def main(self):
        loop = self.loop
        server = await loop.create_server(self.counted(), "127.0.0.1", 0)
        try:
            address = server.sockets[0].getsockname()
            transport, _ = await asyncio.wait_for(
                loop.create_connection(self.counted(), *address), 0.2
            )
            transport.close()
            await asyncio.sleep(0.001)
        finally:
            server.close()


class Sockets(Scenario):
    async def main(self):
        one, other = self.pair()
        loop = self.loop
        task = asyncio.create_task(loop.sock_recv(one, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(other, b"x")
        await asyncio.wait_for(task, 0.1)
        await loop.getaddrinfo("127.0.0.1", 80)
        await loop.getaddrinfo("localhost", 80)
        loop.add_reader(one, print)
        loop.add_writer(one, print)
        loop.remove_reader(one)
        loop.remove_writer(one)


class Pipes(Scenario):
    async def main(self):
        reading, writing = os.pipe()
        r, w = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
        self.socks += [r, w]
        loop = self.loop
        a, _ = await loop.connect_read_pipe(self.counted(), r)
        b, _ = await loop.connect_write_pipe(self.counted(asyncio.BaseProtocol), w)
        b.write(b"x")
        await asyncio.sleep(0)
        b.close()
        a.close()
        await asyncio.sleep(0.001)


class Executors(Scenario):
    """What cannot be told in the executor's thread is logged there, as by asyncio."""

    def begin(self):
        super().begin()
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.pool.submit(int).result()

    async def main(self):
        given = [self.loop.run_in_executor(self.pool, int, text) for text in ("1", "x", "2")]
        repr(given)
        given[2].cancel()
        await asyncio.wait(given, timeout=0.1)

    def end(self):
        self.pool.shutdown()
        super().end()


CROWD = 400  # more than the queue of what runs next has room for in the beginning


class Crowd(Scenario):
    """Many tasks are woken at a time, and many timers are due."""

    woken = due = 0

    async def wait(self):
        await self.future
        self.woken += 1

    def fire(self):
        self.due += 1

    def begin(self):
        super().begin()
        self.future = self.loop.create_future()
        for _ in range(4):  # few at a time: nothing grows yet
            self.tasks = [self.loop.create_task(self.wait()) for _ in range(CROWD // 4)]
            spin(self.loop, 2)

    def act(self):
        task = self.loop.create_task(self.main())
        while not task.done():
            try:
                self.loop.run_until_complete(task)
            except MemoryError:
                pass

    def end(self):
        super().end()
        self.future = self.tasks = None

    async def main(self):
        try:
            self.future.set_result(None)
        except MemoryError:
            pass
        while self.woken < CROWD:
            await asyncio.sleep(0)


class Deadlines(Crowd):
    def begin(self):
        Scenario.begin(self)
        self.future = None
        self.tasks = [self.loop.call_later(0, self.fire) for _ in range(CROWD)]

    async def main(self):
        while self.due < CROWD:
            await asyncio.sleep(0)


class Tls(Scenario):
    contexts = None

    def begin(self):
        super().begin()
        if Tls.contexts is None:
            from tests.certificates import make_contexts

            with tempfile.TemporaryDirectory() as folder:
                Tls.contexts = make_contexts(pathlib.Path(folder))

    async def main(self):
        one, other = self.pair()
        loop = self.loop
        server, client = self.contexts
        both = asyncio.gather(
            loop.connect_accepted_socket(self.counted(), one, ssl=server),
            loop.create_connection(
                self.counted(), sock=other, ssl=client, server_hostname="localhost"
            ),
        )
        (a, _), (b, _) = await asyncio.wait_for(both, 0.3)
        b.write(b"hello" * 1000)
        a.write(b"there")
        await asyncio.sleep(0.001)
        b.close()
        a.abort()
        await asyncio.sleep(0)


SCENARIOS = {
    kind.__name__.lower(): kind for kind in [*Scenario.__subclasses__(), *Crowd.__subclasses__()]
}


def attempt(kind, n):
    """The type of the exception of one run, and whether an allocation has failed."""
    global current
    current = scenario = kind()
    scenario.begin()
    failed = None
    count = hook.oom_arm(-1)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        if n is not None:
            hook.oom_arm(n)
        scenario.act()
    except BaseException as exc:
        failed = exc
    finally:
        hook.oom_arm(-1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    outcome = type(failed)
    if outcome is SystemError and str(failed).startswith("<function "):
        # A function in Python without memory for its frame, of which the interpreter forgets to say
        # what it is (3.11); a function of ours in C would be named as a method.
        outcome = MemoryError
    if outcome is Hangs and scenario.reported:
        # What should have gone on was a callback, and its error went to the exception handler.
        outcome = Reported
    count = hook.oom_arm(-1) - count
    if failed is not None:
        failed.__traceback__ = failed.__context__ = failed.__cause__ = None
    failed = None
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        scenario.end()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome, count, scenario.lives()


def run(kind, first, last, seconds, times, verbose):
    faulthandler.enable()
    signal.signal(signal.SIGALRM, hangs)
    sys.unraisablehook = unraisable
    warnings.simplefilter("ignore")
    _core._drain_free_lists()
    logging.disable(logging.CRITICAL)
    for _ in range(3):
        outcome, _, lives = attempt(kind, None)
        assert outcome is type(None) and not lives, (outcome, lives)
    collect()
    before = open_descriptors()
    alive = live_objects()
    limit = time.monotonic() + seconds
    problems, outcomes, good, failures = [], {}, 0, 0
    # So many numbers meet the same place.
    allowed = collections.Counter({name: n * times for name, n in kind.may_leave.items()})
    n = first
    while good < 5 and n < last and time.monotonic() < limit:
        if verbose:
            os.write(2, f"allocation {n}\n".encode())
        faulthandler.dump_traceback_later(20, exit=True)
        outcome, count, lives = attempt(kind, n)
        failures += count
        good = good + 1 if count == 0 else 0
        if outcome is SystemError:
            problems.append(f"{n}: SystemError")
        outcomes[outcome.__name__] = outcomes.get(outcome.__name__, 0) + 1
        if lives:
            problems.append(f"{n}: connections made and lost {lives}")
        # With several, even the telling may fail.
        if outcome is Hangs and times == 1:
            problems.append(f"{n}: waits for ever")
        collect()
        after = open_descriptors()
        if after != before:
            problems.append(f"{n}: descriptors {set(after.items()) ^ set(before.items())}")
            before = after
        left = live_objects() - alive
        if left - allowed:
            problems.append(f"{n}: left {dict(left)}")
        if left:
            allowed -= left
            alive = live_objects()
        n += 1
    outcome, _, _ = attempt(kind, None)
    if outcome is not type(None):
        problems.append(f"afterwards: {outcome}")
    faulthandler.cancel_dump_traceback_later()
    if not failures:
        problems.append("no allocation was seen to be the core's")
    for problem in problems:
        print(problem)
    print(f"{n - first} allocations, {len(problems)} problems", outcomes)
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.programs.oom", description=__doc__)
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=10**6)
    parser.add_argument(
        "--times", type=int, default=1, help="fail so many in a row, not one"
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    kind = SCENARIOS[options.scenario]
    global hook
    with tempfile.TemporaryDirectory() as folder:
        hook = load_hook(folder)
        hook.oom_trace(options.verbose)
        hook.oom_times(options.times)
    seconds, times = options.seconds, options.times
    return run(kind, options.first, options.last, seconds, times, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
