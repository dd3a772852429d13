"""Whether the loops turn, told to others: probe port, systemd, health file.

asyncio has nothing like it. Each program runs in a process of its own; nothing is timed, but for
bounds that are far off.
"""

import contextlib
import http.client
import math
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import asyncloop
from tests.support import Impl, import_root

ROOT = import_root(Impl.named("asyncloop"))
LIMIT = 30  # seconds; nothing takes nearly as long

BLOCKS = """
import asyncio, asyncloop, re, sys, time

def spin():
    until = time.monotonic() + 100
    while time.monotonic() < until:
        pass

def sleep():
    time.sleep(100)

def hold():
    re.match("(a?){40}a{40}$", "a" * 40)

async def main():
    print("turns", flush=True)
    if await asyncio.to_thread(sys.stdin.readline) == "block\\n":
        globals()[KIND]()
    await asyncio.sleep(0)

asyncloop.run(main())
"""


@contextlib.contextmanager
def program(source, *args, **env):
    """A process that says "turns" when its loop does."""
    child = subprocess.Popen(
        [sys.executable, "-c", source, *args],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "turns\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def block(child):
    child.stdin.write("block\n")
    child.stdin.flush()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def ask(port, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    connection.request(method, "/healthz")
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def ask_until(port, status, places=("",)):
    """On a busy machine a thread does not come to say where it is, or is somewhere else before."""
    until = time.monotonic() + LIMIT
    while True:
        found, body = ask(port)
        known = found == status and any(place in body for place in places)
        if known or time.monotonic() > until:
            return found, body
        time.sleep(0.02)


# -- the probe ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spin", "sleep", "hold"])
def test_probe(kind):
    """A Python loop, a call that releases the GIL, and one that holds it."""
    port = free_port()
    source = BLOCKS.replace("KIND", repr(kind))
    with program(source, ASYNCLOOP_PROBE=f"127.0.0.1:{port}") as child:
        status, body = ask_until(port, 200)
        assert status == 200
        assert body.startswith("1 event loop(s) running, ")
        block(child)
        lines = source.splitlines()
        start = lines.index(f"def {kind}():") + 1
        places = {f"<string>:{number} in {kind}()" for number in range(start, start + 5)}
        if kind == "hold":  # the frames of the module that calls into C are on top
            places = {"/re/", "re.py"}
        status, body = ask_until(port, 503, places)
        assert status == 503
        assert body.startswith("event loop 1 is blocked, for ")
        assert any(place in body for place in places), body


def test_methods():
    port = free_port()
    with program(BLOCKS.replace("KIND", "'spin'"), ASYNCLOOP_PROBE=str(port)):
        assert ask_until(port, 200)[0] == 200
        assert ask(port, "HEAD") == (200, "")
        assert ask(port, "POST") == (405, "GET or HEAD\n")


def test_no_loop():
    with asyncloop.liveness(probe="127.0.0.1:0") as alive:
        assert ask(alive.address[1]) == (503, "no event loop runs\n")
        port = alive.address[1]
    assert alive.address is None
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_the_port_is_free_after_the_end():
    with asyncloop.liveness(probe="127.0.0.1:0") as alive:
        port = alive.address[1]
    for _ in range(10):
        with asyncloop.liveness(probe=f"127.0.0.1:{port}", threshold=0.01):
            pass


def test_peers_that_say_nothing():
    """They do not keep others from their answer."""
    with asyncloop.liveness(probe="127.0.0.1:0") as alive:
        with contextlib.ExitStack() as stack:
            for words in (b"", b"GET", b"\x00" * 5000, b"GET / HTTP/1.0\r\n"):
                sock = stack.enter_context(socket.create_connection(alive.address))
                sock.sendall(words)
            assert ask(alive.address[1])[0] == 503


def test_many_peers_that_say_nothing():
    """Some come to the end of their time, some are more than there is room for."""
    with asyncloop.liveness(probe="127.0.0.1:0") as alive:
        with contextlib.ExitStack() as stack:
            silent = []
            for at in range(100):
                silent.append(stack.enter_context(socket.create_connection(alive.address)))
                silent[-1].settimeout(LIMIT)
                if at % 10 == 0:
                    assert ask(alive.address[1])[0] == 503
            slow = stack.enter_context(socket.create_connection(alive.address, timeout=LIMIT))
            for part in (b"G", b"ET / HT", b"TP/1.0\r", b"\n\r", b"\n"):
                slow.sendall(part)
            assert slow.recv(100).startswith(b"HTTP/1.1 503 ")
            assert {sock.recv(1) for sock in silent} == {b""}  # each is closed in the end


def test_requests_of_all_kinds():
    with asyncloop.liveness(probe="127.0.0.1:0") as alive:
        for words, status in (
            (b"GET / HTTP/1.0\r\n\r\n", b"503"),
            (b"GET / HTTP/1.0\r\n\r\r\n\r\n", b"503"),
            (b"GET /" + b"x" * 100_000, b"503"),
            (b"HEAD / HTTP/1.1\r\nA: b\r\n\r\n", b"503"),
            (b"GET", b"405"),
            (b"get / HTTP/1.1\r\n\r\n", b"405"),
            (b"\0\xff" * 3000, b"405"),
            (b"\r\n\r\n", b"405"),
        ):
            with socket.create_connection(alive.address, timeout=LIMIT) as sock:
                with contextlib.suppress(OSError):  # it need not take all of it
                    sock.sendall(words)
                    sock.shutdown(socket.SHUT_WR)
                answer = b""
                with contextlib.suppress(ConnectionResetError):
                    while part := sock.recv(4096):
                        answer += part
                if len(words) < 10_000:
                    assert answer.split()[1] == status, words
            assert ask(alive.address[1])[0] == 503


def test_no_descriptor_for_a_while():
    source = """
import asyncio, asyncloop, os, resource, sys

async def main():
    print("turns", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        print("none", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for descriptor in taken:
        os.close(descriptor)
    print("some", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncloop.run(main())
"""
    port = free_port()
    with program(source, ASYNCLOOP_PROBE=str(port)) as child:
        block(child)
        assert child.stdout.readline() == "none\n"
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            block(child)
            assert child.stdout.readline() == "some\n"
            assert sock.recv(100).startswith(b"HTTP/1.1 ")


def test_several_loops():
    """One that is blocked is enough."""
    source = """
import asyncio, asyncloop, threading, time

async def turn():
    while True:
        await asyncio.sleep(0.01)

async def block():
    await asyncio.sleep(0.05)
    print("turns", flush=True)
    time.sleep(100)

threading.Thread(target=asyncloop.run, args=(turn(),), daemon=True).start()
asyncloop.run(block())
"""
    port = free_port()
    with program(source, ASYNCLOOP_PROBE=f"localhost:{port}"):
        status, body = ask_until(port, 503, [" in block()"])
        assert status == 503
        assert " in block()" in body


def test_child_of_fork_says_nothing():
    source = """
import asyncio, asyncloop, os, sys, time
if os.fork() == 0:
    asyncloop.run(asyncio.sleep(0))
    print("turns", flush=True)
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(100)
else:
    os.wait()
"""
    port = free_port()
    with program(source, ASYNCLOOP_PROBE=f"127.0.0.1:{port}") as parent:
        assert ask(port) == (503, "no event loop runs\n")
        os.kill(int(parent.stdout.readline()), signal.SIGKILL)
        parent.wait(LIMIT)
        with pytest.raises(ConnectionRefusedError):
            ask(port)


# -- systemd -----------------------------------------------------------------------------


@contextlib.contextmanager
def notify_socket(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(LIMIT)
        yield sock


def received(sock, count):
    lines = []
    while len(lines) < count:
        lines += sock.recv(4096).decode().splitlines()
    return lines


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd(tmp_path, abstract):
    if abstract and sys.platform != "linux":
        pytest.skip("only Linux has abstract names")
    name = f"asyncloop-test-{os.getpid()}"
    path = "\0" + name if abstract else str(tmp_path / "notify")
    with notify_socket(path) as sock:
        env = {"NOTIFY_SOCKET": "@" + name if abstract else path, "WATCHDOG_USEC": "300000"}
        with program(BLOCKS.replace("KIND", "'sleep'"), **env) as child:
            lines = received(sock, 4)
            assert lines[:2] == ["READY=1", "WATCHDOG=1"]
            assert lines[2].startswith("STATUS=1 event loop(s) running, ")
            assert set(lines[3:]) == {"WATCHDOG=1"}
            block(child)
            # A thread that waits for the processor does not say where it is, until the next status.
            while True:
                (line, *_) = received(sock, 1)
                if (
                    line.startswith("STATUS=event loop 1 is blocked, for ")
                    and " in sleep()" in line
                ):
                    break
            # No ping from then on, however long it takes.
            sock.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    assert received(sock, 1)[0].startswith("STATUS=event loop 1 is blocked, for ")


def test_systemds_socket_is_full(tmp_path):
    """What it could not be told is said as soon as there is room."""
    path = str(tmp_path / "notify")
    with notify_socket(path) as sock:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    other.sendto(b"FULL=1", path)
        with program(BLOCKS.replace("KIND", "'sleep'"), NOTIFY_SOCKET=path, WATCHDOG_USEC="300000"):
            time.sleep(0.5)
            until = time.monotonic() + LIMIT
            while (line := received(sock, 1)[0]) != "READY=1":
                assert line == "FULL=1"
                assert time.monotonic() < until


def test_systemds_socket_is_made_anew(tmp_path):
    path = str(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000"}
    with contextlib.ExitStack() as stack:
        with notify_socket(path) as sock:
            stack.enter_context(program(BLOCKS.replace("KIND", "'sleep'"), **env))
            assert received(sock, 1)[0] == "READY=1"
        os.unlink(path)
        with notify_socket(path) as sock:
            assert "WATCHDOG=1" in received(sock, 2)


def test_no_watchdog_wanted(tmp_path):
    path = str(tmp_path / "notify")
    with notify_socket(path) as sock:
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}
        with program(BLOCKS.replace("KIND", "'sleep'"), **env):
            assert received(sock, 2)[0] == "READY=1"
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                received(sock, 1)


def test_systemd_switched_off(tmp_path):
    path = str(tmp_path / "notify")
    with notify_socket(path) as sock:
        env = {"NOTIFY_SOCKET": path, "ASYNCLOOP_SYSTEMD": "0"}
        with program(BLOCKS.replace("KIND", "'sleep'"), **env):
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                received(sock, 1)


# -- the health file -----------------------------------------------------------------------


def test_health_file(tmp_path):
    path = tmp_path / "healthy"
    with program(BLOCKS.replace("KIND", "'spin'"), ASYNCLOOP_HEALTH_FILE=str(path)) as child:
        until = time.monotonic() + LIMIT
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.utime(path, (1, 1))
        while path.stat().st_mtime == 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1
        block(child)
        while path.stat().st_mtime != 1:  # nobody touches it any more, some time after that
            assert time.monotonic() < until
            os.utime(path, (1, 1))
            time.sleep(1)


# -- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "9000x", "localhost:", ":", "127.0.0.1:65536", "[::1", "٣"])
def test_bad_address(value):
    with pytest.raises(ValueError, match="no address"):
        asyncloop.liveness(probe=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1", None, True, 10**400], ids=str)
def test_bad_threshold(value):
    with pytest.raises(ValueError, match="threshold"):
        asyncloop.liveness(threshold=value)


def test_bad_environment(tmp_path):
    """One line for each, and the program runs on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        for env in (
            {"ASYNCLOOP_PROBE": "nowhere"},
            {"ASYNCLOOP_PROBE": taken},
            {"NOTIFY_SOCKET": str(tmp_path / "none")},
            {"NOTIFY_SOCKET": "/" + "x" * 200},
        ):
            done = subprocess.run(
                [sys.executable, "-c", "import asyncloop; print('goes on')"],
                cwd=ROOT,
                env={**os.environ, **env},
                capture_output=True,
                text=True,
            )
            assert done.stdout == "goes on\n"
            assert done.stderr.startswith(f"asyncloop: {next(iter(env))}: ")
            assert done.stderr.count("\n") == 1


def test_used_twice():
    alive = asyncloop.liveness(probe="127.0.0.1:0")
    for _ in range(3):
        with alive:
            with pytest.raises(RuntimeError, match="started"):
                alive.start()
        alive.stop()
