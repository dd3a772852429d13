"""The program behind `make run`: it is content with right answers, and only with those."""

import asyncio
import importlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import asyncloop
from tests.support import ROOT

EXAMPLES = ROOT / "examples"
PACKAGE_PARENT = str(Path(asyncloop.__file__).resolve().parent.parent)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("http_load")


def showcase(folder, *args):
    return subprocess.run(
        [sys.executable, str(folder / "showcase.py"), "--seconds", "0.4", *args],
        env={**os.environ, "PYTHONPATH": PACKAGE_PARENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )


def servers_left(port_marker):
    """Command lines of this machine's processes that name `port_marker`."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(port_marker.encode() in word for word in words):
            found.append(words)
    return found


@pytest.fixture
def examples(tmp_path):
    """A copy of the examples, with a path that no other process names."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_right_answers(examples):
    done = showcase(examples, "--connections", "20")
    assert done.returncode == 0, done.stdout
    for app in ("FastAPI under uvicorn", "aiohttp"):
        for loop in ("asyncloop", "asyncio"):
            assert f"{app} on {loop}: 13 of 13 checks passed" in done.stdout
    assert done.stdout.endswith("All answers were right.\n")
    assert servers_left(str(examples)) == []


def test_wrong_answers(examples):
    app = examples / "aiohttp_app.py"
    text = app.read_text()
    broken = text.replace('{"number": number,', '{"number": number + (number == 42),')
    broken = broken.replace('b"line %d', 'b"LINE %d')
    assert broken.count("LINE") == 1 and broken.count("== 42") == 1
    app.write_text(broken)
    done = showcase(examples)
    assert done.returncode == 1
    assert "FastAPI under uvicorn on asyncloop: 13 of 13 checks passed" in done.stdout
    assert "aiohttp on asyncloop: 10 of 13 checks passed" in done.stdout
    assert "wrong: aiohttp on asyncio: streamed answer" in done.stdout
    assert "All answers were right" not in done.stdout
    assert servers_left(str(examples)) == []


def test_server_that_does_not_start(examples):
    (examples / "aiohttp_app.py").write_text("raise SystemExit('no server today')")
    done = showcase(examples)
    assert done.returncode == 1
    assert "does not answer" in done.stdout and "no server today" in done.stdout
    assert servers_left(str(examples)) == []


RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        RIGHT + RIGHT,
        RIGHT[:-1],
        b"",
    ],
)
def test_load_sees_what_is_wrong(load, answer):
    served = 0

    async def handle(reader, writer):
        nonlocal served
        while await reader.readuntil(b"\r\n\r\n"):
            served += 1
            if served == 50:
                writer.write(answer)
                writer.close()
                return
            writer.write(RIGHT)

    async def client_gone(reader, writer):
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    async def main():
        exchange = load.Exchange(b"GET / HTTP/1.1\r\n\r\n", 200, b"ok")
        async with await asyncio.start_server(client_gone, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(
                load.keep_busy, port, [exchange], connections=3, seconds=0.2
            )

    result = asyncio.run(main())
    assert len(result.wrong) == 1
    assert served > 50
    assert len(result.latencies) >= 49


def test_load_of_a_server_that_never_answers(load, monkeypatch):
    monkeypatch.setattr(load, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        exchange = load.Exchange(b"GET / HTTP/1.1\r\n\r\n", 200, b"ok")
        result = load.keep_busy(server.getsockname()[1], [exchange], connections=2, seconds=0.1)
    assert len(result.wrong) == 2
    assert result.latencies == []
