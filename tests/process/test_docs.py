"""Every code block of the documentation and the README is run, or says why it cannot be.

The language of a block may be followed by a mark, which the site does not show:

    ```python no-run: REASON     not run
    ```python serves             a server, on port 8000: waited for, and ended by Ctrl-C

Shell commands that name the reader's own application (READERS_OWN) are not run. A Python block may
use what NAMES has. `await` outside of a function is run in a coroutine. Settings
(toml, ini, json) are parsed.
"""

import configparser
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import asyncloop

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```(\w*)(?: +([^\n]*))?\n(.*?)^```$", re.M | re.S)
NOT_CODE = {"", "text", "console"}
LIMIT = 50

# What the blocks take as given. Those of a page have their own namespace, in which they follow one
# another, as a reader goes on from one to the next.
NAMES = '''
import ast, asyncio, inspect, json, sys
import asyncloop

async def main(*args):
    await asyncio.sleep(0)

async def fetch(url):
    return url

loop = asyncloop.new_event_loop()

def run_block(source, name):
    code = compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = NAMESPACE
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)
        return
    async def in_coroutine():
        real = asyncio.sleep
        names["asyncio"] = SHORT
        await eval(code, names)
    names["loop"].run_until_complete(in_coroutine())

class Short:
    """asyncio, where nobody sleeps for longer than a tenth of a second."""
    def __getattr__(self, name):
        return getattr(asyncio, name)
    @staticmethod
    def sleep(delay, result=None):
        return asyncio.sleep(min(delay, 0.1), result)

SHORT = Short()
NAMESPACE = {"__name__": "__main__", "asyncio": asyncio, "asyncloop": asyncloop, "main": main,
             "fetch": fetch, "loop": loop, "sys": sys}
for source, name in json.load(sys.stdin):
    try:
        run_block(source, name)
    except ImportError as error:
        absent = error.__cause__ or error
        if not isinstance(absent, ModuleNotFoundError) or absent.name.startswith("asyncloop"):
            raise
        print(f"MISSING {name}: {absent.name}")
'''


def blocks(page, *languages):
    """[(source with as many empty lines in front as the page has, name, mark)]"""
    found = []
    text = page.read_text()
    for match in BLOCK.finditer(text):
        language, mark, source = match.groups()
        if language in languages:
            line = text.count("\n", 0, match.start(3))
            found.append(("\n" * line + source, f"{page.relative_to(ROOT)}:{line + 1}", mark or ""))
    return found


def environment(folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT)}


def run(command, folder, text=None):
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), input=text, text=True, timeout=LIMIT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def ids(page):
    return str(page.relative_to(ROOT))


def test_blocks_say_what_they_are():
    known = {"python", "sh", "toml", "ini", "json", "dockerfile", "yaml", *NOT_CODE}
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text(), re.M)
        assert len(fences) == 2 * len(BLOCK.findall(page.read_text())), page
        for language, mark, _ in BLOCK.findall(page.read_text()):
            assert language in known, (page, language)
            assert not mark or re.fullmatch(r"no-run: .+|serves(: .+)?", mark), (page, mark)
            assert language not in ("dockerfile", "yaml") or mark, page


def unmarked(page):
    return [(source, name) for source, name, mark in blocks(page, "python") if not mark]


@pytest.mark.parametrize("page", [page for page in PAGES if unmarked(page)], ids=ids)
def test_python_blocks_run(page, tmp_path):
    wanted = unmarked(page)
    output = run([sys.executable, "-c", NAMES], tmp_path, json.dumps(wanted))
    if missing := [line for line in output.splitlines() if line.startswith("MISSING")]:
        pytest.skip("; ".join(missing))


SERVERS = [
    pytest.param(source, id=name)
    for page in PAGES
    for source, name, mark in blocks(page, "python")
    if mark.startswith("serves")
]


@pytest.mark.parametrize("source", SERVERS)
def test_servers_serve_until_they_are_ended(source, tmp_path):
    if missing := [
        name
        for name in re.findall(r"^(?:import|from) (\w+)", source, re.M)
        if run_quietly(f"import {name}")
    ]:
        pytest.skip(f"needs {missing}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "program.py").write_text(source.replace("8000", str(port)))
    program = subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment(tmp_path), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except ConnectionRefusedError:
                assert program.poll() is None, program.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        program.send_signal(signal.SIGTERM if "signal.SIGTERM" in source else signal.SIGINT)
        output, _ = program.communicate(timeout=LIMIT)
    finally:
        program.kill()
        program.wait()
    assert program.returncode in (0, 1, 130, -signal.SIGINT), output


def run_quietly(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


# What these stand for is the reader's: there is nothing here to run.
READERS_OWN = re.compile(r"\bapp:app\b|\bservice\.py\b|\bapp\.py\b|\bPID\b|\bCOMMAND\b")

SHELL = [
    pytest.param(source, id=name)
    for page in PAGES
    for source, name, mark in blocks(page, "sh")
    if not mark and not READERS_OWN.search(source)
]


@pytest.mark.parametrize("source", SHELL)
def test_shell_blocks_run(source, tmp_path):
    command = Path(sys.executable).parent / "asyncloop-run"
    if not command.exists():  # in a checkout that was built in place
        folder = tmp_path / "bin"
        folder.mkdir()
        command = folder / "asyncloop-run"
        command.write_text(f"#!/bin/sh\nexec {sys.executable} -m asyncloop._run \"$@\"\n")
        command.chmod(0o755)
    source = source.replace("examples/", f"{ROOT}/examples/")
    path = f"PATH={command.parent}:$PATH\n"
    run(["sh", "-e", "-c", path + source], tmp_path)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "toml", "ini", "json")], ids=ids
)
def test_settings_can_be_parsed(page):
    for source, _, _ in blocks(page, "toml"):
        tomllib.loads(source)
    for source, _, _ in blocks(page, "json"):
        json.loads(source)
    for source, _, _ in blocks(page, "ini"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(source.lstrip())
        assert parser.sections()


def test_navigation_names_pages_that_exist(tmp_path):
    """All others are listed at its end."""
    text = (ROOT / "docs" / "zensical.toml").read_text()
    named = set(re.findall(r'"([\w/-]+\.md)"', text))
    made = {"reference.md", "architecture.md", "short-ways.md", "contributing.md", "security.md",
            "changes.md"}
    assert named - made <= {str(page.relative_to(ROOT / "docs")) for page in PAGES[:-1]}


def test_links_lead_somewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs.py"), "--pages-only", str(tmp_path)],
        capture_output=True, text=True, timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "reference.md").read_text()
    for name in asyncloop.__all__:
        assert f"asyncloop.{name}" in reference, name
