"""Memory after very many connections, in a server and in its client.

    python -m tests.programs.connections [--count 1000000] [--base 10000] [--tls] [--loop asyncio]

Two processes: the client connects over TCP, 20 connections at a time, sends a line, waits until
it comes back and leaves; every other time by a reset. The resident memory of both is noted after
`--base` connections and then at ten points until `--count`, after a collection and without
giving anything back to the system by hand. The exit status is 0 if neither has grown by more
than 2 % in between.
"""

import argparse
import asyncio
import gc
import json
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import time

from tests.certificates import make_contexts
from tests.protocols import Echo
from tests.support import collect, open_descriptors, rss_kib

LINE = b"a line that comes back\n"
ALLOWED = 1.02


class Client(asyncio.Protocol):
    def __init__(self, loop):
        self.answered = loop.create_future()
        self.lost = loop.create_future()
        self.received = b""

    def data_received(self, data):
        self.received += data
        if len(self.received) >= len(LINE) and not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc):
        if not self.answered.done():
            self.answered.set_exception(exc or EOFError("the server has closed"))
        self.lost.set_result(None)


def state():
    """(resident memory in KiB, open descriptors) after a collection."""
    collect()
    return rss_kib(), len(open_descriptors())


async def serve(folder, secure):
    """Serves until standard input ends; answers each line of it with its state."""
    loop = asyncio.get_running_loop()
    context = make_contexts(pathlib.Path(folder))[0] if secure else None
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1000, ssl=context)
    ended = loop.create_future()

    def command():
        if sys.stdin.readline():
            print(json.dumps(state()), flush=True)
        else:
            ended.set_result(None)

    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_reader(0, command)
    await ended
    loop.remove_reader(0)
    server.close()


async def visit(loop, port, context, number):
    """One connection."""
    extra = {"ssl": context, "server_hostname": "localhost"} if context else {}
    while True:
        try:
            transport, protocol = await loop.create_connection(
                lambda: Client(loop), "127.0.0.1", port, **extra
            )
            break
        except OSError as exc:
            if exc.errno is None:
                raise
            await asyncio.sleep(0.1)  # all ports are in TIME_WAIT
    transport.write(LINE)
    await protocol.answered
    if protocol.received != LINE:
        raise SystemExit(f"{protocol.received!r} has come back")
    if number % 2:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    await protocol.lost


async def visits(port, context, count):
    loop = asyncio.get_running_loop()
    numbers = iter(range(count))

    async def worker():
        for number in numbers:
            await visit(loop, port, context, number)

    await asyncio.gather(*[worker() for _ in range(20)])


def measure(new_event_loop, loop_name, count, base, secure, show):
    """Goes through all of it. True if memory and descriptors are as they were."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(
        loop_factory=new_event_loop
    ) as runner:
        context = None
        if secure:
            context = make_contexts(pathlib.Path(folder))[1]
            context.check_hostname = False
            context.verify_mode = 0
        command = [sys.executable, "-m", "tests.programs.connections", "--loop", loop_name]
        command += ["--serve", folder] + (["--tls"] if secure else [])
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            port = int(server.stdout.readline())

            def both():
                time.sleep(0.2)  # the server's ends come to theirs
                server.stdin.write("\n")
                server.stdin.flush()
                return json.loads(server.stdout.readline()), list(state())

            begun = time.monotonic()
            done = 0
            first = None
            for goal in [base + (count - base) * step // 10 for step in range(11)]:
                runner.run(visits(port, context, goal - done))
                done = goal
                last = both()
                first = first or last
                show(
                    f"{done:>9,} connections, {time.monotonic() - begun:4.0f} s: "
                    f"server {last[0][0]:,} KiB, client {last[1][0]:,} KiB"
                )
            server.stdin.close()
            server.wait(timeout=60)
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
    good = True
    for name, before, after in zip(("server", "client"), first, last, strict=True):
        show(f"{name}: {(after[0] / before[0] - 1) * 100:+.2f} %, {after[1]} descriptors")
        good = good and after[0] <= before[0] * ALLOWED and after[1] == before[1]
    return good


def main():
    parser = argparse.ArgumentParser(
        "python -m tests.programs.connections", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--base", type=int, default=10_000)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--loop", choices=["asyncloop", "asyncio"], default="asyncloop")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop == "asyncloop":
        from asyncloop import new_event_loop
    else:
        new_event_loop = asyncio.SelectorEventLoop
    if options.serve:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(options.serve, options.tls))
        return 0
    gc.collect()
    print(f"{options.loop}, Python {sys.version.split()[0]}, {'TLS' if options.tls else 'plain'}")
    good = measure(
        new_event_loop,
        options.loop,
        options.count,
        options.base,
        options.tls,
        lambda text: print(text, flush=True),
    )
    print("ok" if good else "FAILED: something has grown")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
