"""`python -m asyncloop ps`, `tree` and `top` of processes that are not what they seem.

Root looks into those of others, so what is read there is not to be trusted. asyncio has nothing
like it, so all of this is about asyncloop alone.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from asyncloop import _outside, _ps
from tests.support import Impl, import_root

from .test_outside import SERVICE, look, own_page, program

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks below /proc")

ROOT = import_root(Impl.named("asyncloop"))
SOCKET_AT = 120  # of the page's header: see struct page_header
PAGE = (Path(__file__).parents[2] / "docs" / "outside.md").read_text()


@contextlib.contextmanager
def answers(*sent, parts=None):
    """A page of this process that names a socket at which somebody else answers."""
    name = f"asyncloop-test-{os.getpid()}-{os.urandom(4).hex()}"

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection:
                    connection.recv(100)
                    for part in sent if parts is None else parts:
                        connection.sendall(part)

    def change(data):
        data[SOCKET_AT : SOCKET_AT + 64] = name.encode().ljust(64, b"\0")
        return data

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with own_page(change):
                yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def tasks(**changed):
    task = {"id": "1", "name": "n", "state": "ready", "stack": [], "awaited_by": []}
    task |= {"ran": 1, "ready": 1, "steps": 1, "wakeups": 1, **changed}
    return json.dumps([{"loop": 1, "thread": "t", "tasks": [task], "tasks_not_shown": 0}]).encode()


@pytest.mark.parametrize(
    "answer",
    [
        *(b"x", b"null", b"1", b'"tasks"', b"[1]", b"[{}]", b"\xff\xfe", b"[" * 100_000),
        b'[{"loop": 1, "thread": "t", "tasks": 5}]',
        b'[{"loop": 1, "thread": "t", "tasks": [{}]}]',
        tasks(state="odd"),
        tasks(stack=[None]),
        tasks(ran="1"),
    ],
)
def test_answers_that_are_none(answer, capsys):
    with answers(answer):
        line = look(capsys, "tree", os.getpid(), "--json", status=2)
        assert f"process {os.getpid()} answers with something else" in line
        text = look(capsys, "top", os.getpid(), "-d", "0.01", "-n", "1")
        assert "answers with something else" in text


def test_an_answer_without_an_end(capsys, monkeypatch):
    monkeypatch.setattr(_outside, "_MOST_BYTES", 10_000)
    with answers(*[bytes(5000)] * 10):
        assert "does not come to the end" in look(capsys, "tree", os.getpid(), status=2)
    monkeypatch.setattr(_outside, "_WHOLE", -1.0)
    with answers(b"x"):
        assert "does not come to the end" in look(capsys, "tree", os.getpid(), status=2)


def test_an_answer_that_stops(capsys, monkeypatch):
    monkeypatch.setattr(_outside, "_PATIENCE", 0.2)
    release = threading.Event()

    def never():
        yield b" "
        release.wait(60)

    with answers(parts=never()):
        line = look(capsys, "tree", os.getpid(), status=2)
        release.set()
    assert "stops in its answer" in line and len(line.splitlines()) == 1


SULKS = """
import asyncio, os, sys, threading

class Sulks(asyncio.Future):
    def __repr__(self):
        MISBEHAVE
        return "back again"

async def main():
    future = Sulks()
    waiters = [asyncio.create_task(waits(future), name=f"waiter {n}") for n in range(3)]
    await asyncio.sleep(0)
    print("runs", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        release.set()
    os._exit(0)

async def waits(future):
    await future

release = threading.Event()
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["", "--json"])
def test_a_repr_that_blocks(how, capsys, monkeypatch):
    """Whoever asks gets a line in its time, and an answer when the block is over."""
    source = SULKS.replace("MISBEHAVE", "release.wait()")
    with sulking(source) as process:
        with monkeypatch.context() as patch:
            patch.setattr(_outside, "_PATIENCE", 0.3)
            for _ in range(2):
                line = look(capsys, "tree", process.pid, *how.split(), status=2)
                assert "a repr() may not end" in line and len(line.splitlines()) == 1
        process.stdin.write("go on\n")
        process.stdin.flush()
        until = time.monotonic() + 50
        text = ""
        while "waiter 2" not in text and time.monotonic() < until:
            with contextlib.suppress(AssertionError):  # the earlier answers are made meanwhile
                text = look(capsys, "tree", process.pid, *how.split())
        assert "waiter 2" in text and "back again" in text


@pytest.mark.parametrize(
    "how", ["raise SystemExit", "raise KeyboardInterrupt", "import asyncloop; asyncloop.dump()"]
)
def test_a_repr_that_raises_or_asks_itself(how, capsys):
    with sulking(SULKS.replace("MISBEHAVE", how)) as process:
        if how == "raise KeyboardInterrupt":  # nothing that is contained; but it is that thread's
            _ps.main(["tree", str(process.pid)])
        else:
            assert "waiter 2" in look(capsys, "tree", process.pid)
            assert "waiter 2" in look(capsys, "tree", process.pid, "--json")
        assert process.poll() is None
        assert str(process.pid) in look(capsys, "ps", process.pid)


@contextlib.contextmanager
def sulking(source):
    with subprocess.Popen(
        [sys.executable, "-m", "asyncloop", "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ASYNCLOOP_PAGE": "1"},
    ) as process:
        try:
            assert process.stdout.readline() == "runs\n"
            yield process
        finally:
            process.kill()


def test_many_tasks(capsys, monkeypatch):
    """Who asks is told that it goes on, though the whole of it takes longer than the patience."""
    source = """
import asyncio, sys

async def main():
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(asyncio.sleep(1000)) for n in range(30_000)]
    await asyncio.sleep(0)
    print("runs", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""
    with sulking(source) as process:
        text = look(capsys, "tree", process.pid)
        assert "30002 task(s)" in text or "30001 task(s)" in text
        assert text.count("\n  task Task-") == 20_000 and "more tasks" in text
        (loop,) = json.loads(look(capsys, "tree", process.pid, "--json"))
        assert len(loop["tasks"]) == 10_000


def test_a_name_that_is_a_pipe(tmp_path, capsys, monkeypatch):
    """In a namespace of its own anything may be called so. Nobody waits for it."""
    path = tmp_path / "memfd:asyncloop-page"
    os.mkfifo(path)
    monkeypatch.setattr(_outside, "_LINK", str(path))
    held = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        line = look(capsys, "ps", os.getpid(), status=2)
        assert f"the page of process {os.getpid()} is " in line and len(line.splitlines()) == 1
    finally:
        os.close(held)


def test_nothing_that_a_terminal_obeys(capsys):
    """Of names, of paths, and of a page and an answer that somebody else has made."""
    service = """
import asyncio, asyncloop, time
source = "async def waits(): await asyncio.sleep(1000)"
exec(compile(source, "/tmp/\\x1b]0;evil\\x07\\x9b.py", "exec"))
exec(compile("def blocks(): time.sleep(1)", "/tmp/\\x1b[31mevil\\udcff.py", "exec"))
async def main():
    task = asyncio.create_task(waits(), name="\\x1b[2J\\u202eevil")
    await asyncio.sleep(0.1)
    blocks()
    print("ready", flush=True)
    await task
asyncloop.run(main())
"""
    with program(service, ASYNCLOOP_WATCHDOG="0.1") as process:
        for command in (["ps"], ["tree"], ["top", "-d", "0.01", "-n", "1"]):
            text = look(capsys, command[0], process.pid, *command[1:])
            assert "evil" in text and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        for command in (["ps"], ["tree"], ["top", "-d", "0.01", "-n", "1"]):
            text = look(capsys, command[0], process.pid, "--json", *command[1:])
            assert json.loads(text) and text.isascii()
    with answers(b"\x1b[2Jtree\x07\r\n"):
        assert look(capsys, "tree", os.getpid()) == "\\x1b[2Jtree\\x07\\r\n".replace("\\r\n", "\n")


def test_a_terminal_that_knows_few_characters():
    service = SERVICE.replace("BLOCK", "sleep").replace("waiter", "Käse")
    with program(service, ASYNCLOOP_PAGE="1") as process:
        done = subprocess.run(
            [sys.executable, "-m", "asyncloop", "tree", str(process.pid)],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            timeout=60,
        )
    assert done.returncode == 0 and b"K\\xe4se" in done.stdout, done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs namespaces")
@pytest.mark.parametrize("kind", ["--net", "--pid"])
def test_namespaces(kind, capsys):
    """Of a process in a container the counters are seen, and the tasks in the same network."""
    command = ["unshare", kind, "--fork", "--kill-child", sys.executable, "-c"]
    if subprocess.run([*command[:-2], "true"], capture_output=True).returncode:
        pytest.skip("may not make namespaces")
    code = "import os; print(os.readlink('/proc/self'), flush=True)\n" if kind == "--pid" else ""
    with subprocess.Popen(
        [*command, code + SERVICE.replace("BLOCK", "sleep")],
        env={**os.environ, "ASYNCLOOP_PAGE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while process.stdout.readline() != "ready\n":
                pass
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            pid = int(children.split()[0])
            (shown,) = json.loads(look(capsys, "ps", pid, "--json"))
            assert shown["pid"] == pid and shown["loops"][0]["tasks"] > 3
            if kind == "--net":
                assert "network namespace" in look(capsys, "tree", pid, status=2)
            else:
                assert "the outer one" in look(capsys, "tree", pid)
        finally:
            process.kill()


def test_the_page_lists_every_field(capsys):
    documented = set(re.findall(r"`([a-z_0-9]+)`", PAGE.partition("## For programs")[2]))
    service = SERVICE.replace("await BLOCK()", "time.sleep(0.5); await sleep()")
    with program(service, ASYNCLOOP_WATCHDOG="0.1") as process:
        while True:
            (shown,) = json.loads(look(capsys, "ps", process.pid, "--json"))
            if shown["last_stall"] is not None:
                break
        loops = json.loads(look(capsys, "tree", process.pid, "--json"))
    fields = {*shown, *shown["last_stall"], *shown["loops"][0], *shown["loops"][0]["delay"]}
    fields |= {*loops[0], *loops[0]["tasks"][0]}
    assert fields <= documented, fields - documented
    assert documented - fields <= {"top", "running", "waiting"}
