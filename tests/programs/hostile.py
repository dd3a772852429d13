"""Slow and hostile peers: what they do to everybody else, measured.

    python -m tests.programs.hostile [--seconds 5] [--loop asyncloop] [--loop asyncio] [--only NAME]

Three processes for each loop: a server, an attacker, and an honest client. While the attack
goes on the server notes how late a timer of its own is that is due every 5 ms, and the honest
client how long each of its exchanges of 100 bytes takes. One row per attack is printed:

- late: lateness of the timer in milliseconds, 50th and 99th percentile and the worst;
- honest: how long the exchanges took in milliseconds, 99th percentile and the worst;
- memory: what the server's resident memory grew by at most, in MiB;
- work: what the attacker has done, per second.

The attacker is as fast as Python allows and takes a core of its own, the server another one.
"""

import argparse
import asyncio
import json
import os
import pathlib
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from tests.certificates import make_contexts
from tests.support import rss_kib

TICK = 0.005
HANDSHAKE_TIMEOUT = 2.0
HEADER_LIMIT = 65536


# -- the server -----------------------------------------------------------------------------------


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def headers(reader, writer):
    """Answers each header, as a web server does, and closes on one that is too long."""
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def pour(reader, writer):
    """Answers each line with 100 MB; drain() is what bounds its memory."""
    chunk = bytes(65536)
    try:
        while await reader.readline():
            for _ in range(1600):
                writer.write(chunk)
                await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if data:
            self.transport.sendto(data, address)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def serve(folder):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)
    context, _ = make_contexts(pathlib.Path(folder))
    servers = {
        "echo": await asyncio.start_server(echo, "127.0.0.1", 0, backlog=1000),
        "headers": await asyncio.start_server(headers, "127.0.0.1", 0, limit=HEADER_LIMIT),
        "pour": await asyncio.start_server(pour, "127.0.0.1", 0),
        "tls": await asyncio.start_server(
            echo,
            "127.0.0.1",
            0,
            ssl=context,
            backlog=1000,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
        ),
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    transport, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
    ports["datagrams"] = transport.get_extra_info("sockname")[1]

    late = []
    memory = [rss_kib()]
    stop = loop.create_future()

    def tick(due):
        now = loop.time()
        late.append(now - due)
        if len(late) % 20 == 0:
            memory.append(rss_kib())
        loop.call_at(now + TICK, tick, now + TICK)

    def command():
        if not sys.stdin.readline():
            stop.set_result(None)
            return
        result = {
            "late": [percentile(late, share) * 1e3 for share in (0.5, 0.99, 1)],
            "memory": (max(memory) - memory[0]) / 1024,
        }
        late.clear()
        memory[:] = [rss_kib()]
        print(json.dumps(result), flush=True)

    print(json.dumps(ports), flush=True)
    loop.add_reader(0, command)
    tick(loop.time())
    await stop
    loop.remove_reader(0)


# -- attacks: each works until `end` of the monotonic clock, and returns what it has done ---------


def connect(port, blocking=False):
    sock = socket.socket()
    sock.setblocking(blocking)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.connect(("127.0.0.1", port))
    except BlockingIOError:
        pass
    return sock


def client_hello():
    """The first message of a TLS connection; any number of connections may begin with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    sslobject = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    try:
        sslobject.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def nothing(ports, end):
    while time.monotonic() < end:
        time.sleep(0.05)
    return 0


class Crowd:
    """Many non-blocking connections; what comes in is thrown away."""

    def __init__(self, port, count):
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.socks = {}
        self.made = 0
        for _ in range(count):
            self.add()

    def add(self):
        sock = connect(self.port)
        self.selector.register(sock, selectors.EVENT_READ)
        self.socks[sock] = 0
        self.made += 1

    def drop(self, sock):
        self.selector.unregister(sock)
        del self.socks[sock]
        sock.close()

    def look(self, timeout=0):
        """Reads; a connection that has ended is replaced by a new one."""
        for key, _ in self.selector.select(timeout):
            try:
                if key.fileobj.recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            self.drop(key.fileobj)
            self.add()

    def close(self):
        for sock in list(self.socks):
            self.drop(sock)
        self.selector.close()


def slow_handshakes(ports, end):
    """500 connections whose handshake comes byte by byte."""
    hello = client_hello()
    crowd = Crowd(ports["tls"], 500)
    sent = 0
    while time.monotonic() < end:
        for sock, offset in list(crowd.socks.items()):
            try:
                sock.send(hello[offset : offset + 1])
                crowd.socks[sock] = min(offset + 1, len(hello) - 2)
                sent += 1
            except OSError:
                pass
        crowd.look(0.02)
    crowd.close()
    return sent


def half_open_handshakes(ports, end):
    """1,000 connections that say half a hello and then nothing, until they are closed."""
    hello = client_hello()
    crowd = Crowd(ports["tls"], 1000)
    while time.monotonic() < end:
        for sock, offset in list(crowd.socks.items()):
            if not offset:
                try:
                    sock.send(hello[: len(hello) // 2])
                    crowd.socks[sock] = 1
                except OSError:
                    pass
        crowd.look(0.05)
    made = crowd.made
    crowd.close()
    return made


def replayed_handshakes(ports, end):
    """The same hello on 500 connections at a time: all the work is the server's."""
    hello = client_hello()
    made = 0
    while time.monotonic() < end:
        crowd = [connect(ports["tls"]) for _ in range(500)]
        time.sleep(0.05)
        for sock in crowd:
            try:
                sock.send(hello)
            except OSError:
                pass
        for sock in crowd:
            sock.settimeout(max(0.001, end - time.monotonic()))
            try:
                sock.recv(1)
                made += 1
            except OSError:
                pass
        for sock in crowd:
            sock.close()
    return made


def connections(ports, end):
    """Connect and leave, as fast as it goes."""
    made = 0
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", ports["echo"])) as sock:
                linger = b"\1\0\0\0\0\0\0\0"  # no TIME_WAIT: the ports would run out
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            made += 1
        except OSError:
            pass
    return made


def single_bytes(ports, end):
    """One connection that sends segments of one byte, and reads what comes back."""
    sent = 0
    sock = connect(ports["echo"], blocking=True)
    with sock:
        sock.settimeout(5)
        while time.monotonic() < end:
            for _ in range(1000):
                sock.send(b"x")
            sent += 1000
            received = 0
            while received < 1000:
                received += len(sock.recv(65536))
    return sent


def never_reads(ports, end):
    """10 connections that ask for 100 MB each and read nothing of it."""
    # not more: the kernel takes megabytes of each before the server has to wait
    crowd = [connect(ports["pour"], blocking=True) for _ in range(10)]
    for sock in crowd:
        sock.send(b"pour\n" * 10)
    nothing(ports, end)
    for sock in crowd:
        sock.close()
    return len(crowd)


def endless_header(ports, end):
    """A header that has no end, on a new connection whenever the server has had enough."""
    made = 0
    block = b"X-Header: " + b"x" * 10_000
    while time.monotonic() < end:
        with connect(ports["headers"], blocking=True) as sock:
            sock.settimeout(5)
            try:
                while time.monotonic() < end:
                    sock.send(block)
            except OSError:
                pass
        made += 1
    return made


def empty_datagrams(ports, end):
    """Datagrams without a byte."""
    sent = 0
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", ports["datagrams"]))
        while time.monotonic() < end:
            for _ in range(100):
                sock.send(b"")
            sent += 100
    return sent


ATTACKS = {
    function.__name__: function
    for function in (
        nothing,
        slow_handshakes,
        half_open_handshakes,
        replayed_handshakes,
        connections,
        single_bytes,
        never_reads,
        endless_header,
        empty_datagrams,
    )
}


# -- the honest client, and the measuring ---------------------------------------------------------


def exchange(sock, end):
    """Honest exchanges on one connection, in seconds each."""
    taken = []
    message = bytes(range(100))
    while time.monotonic() < end:
        begun = time.monotonic()
        sock.sendall(message)
        received = b""
        while len(received) < len(message):
            received += sock.recv(1000)
        taken.append(time.monotonic() - begun)
        if received != message:
            raise SystemExit("the honest client has got something else than it sent")
        time.sleep(0.002)
    return taken


def child(*args, **kwargs):
    command = [sys.executable, "-m", "tests.programs.hostile", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **kwargs)


def measure(loop, names, seconds, show):
    """{name of the attack: its row} for one kind of loop."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        server = child("--serve", loop, folder, stdin=subprocess.PIPE)
        try:
            ports = json.loads(server.stdout.readline())

            def ask():
                server.stdin.write("\n")
                server.stdin.flush()
                return json.loads(server.stdout.readline())

            for name in names:
                with socket.create_connection(("127.0.0.1", ports["echo"])) as sock:
                    sock.settimeout(60)
                    ask()
                    attacker = child("--attack", name, json.dumps(ports), str(seconds))
                    taken = exchange(sock, time.monotonic() + seconds)
                    work = int(attacker.communicate(timeout=60)[0])
                    rows[name] = row = ask()
                row["work"] = work / seconds
                row["honest"] = [percentile(taken, share) * 1e3 for share in (0.99, 1)]
                show(loop, name, row)
                time.sleep(0.5)
            server.stdin.close()
            if server.wait(timeout=60) != 0:
                raise SystemExit("the server has failed")
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
    return rows


HEAD = """\
| attack | loop | late 50 % | 99 % | worst | honest 99 % | worst | memory | work |
|---|---|---|---|---|---|---|---|---|"""


def line(loop, name, row):
    times = [*row["late"], *row["honest"]]
    numbers = " | ".join(f"{value:.2f}" for value in times)
    name = name.replace("_", " ")
    return f"| {name} | {loop} | {numbers} | {row['memory']:+.1f} | {row['work']:,.0f} |"


def main():
    parser = argparse.ArgumentParser(
        "python -m tests.programs.hostile", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=5, help="of each attack (default: 5)")
    parser.add_argument("--loop", action="append", choices=["asyncloop", "asyncio"])
    parser.add_argument("--only", action="append", choices=list(ATTACKS))
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--attack", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        loop, folder = options.serve
        if loop == "asyncloop":
            from asyncloop import new_event_loop
        else:
            new_event_loop = asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(folder))
            # what is still connected is of no interest
            os._exit(0)
    if options.attack:
        name, ports, seconds = options.attack
        print(ATTACKS[name](json.loads(ports), time.monotonic() + float(seconds)))
        return
    print(f"Python {sys.version.split()[0]}, {options.seconds:g} s each\n\n{HEAD}")
    for name in options.only or ATTACKS:
        for loop in options.loop or ["asyncloop", "asyncio"]:
            measure(
                loop, [name], options.seconds, lambda *args: print(line(*args), flush=True)
            )


if __name__ == "__main__":
    main()
