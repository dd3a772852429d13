"""Every program in examples/ runs on both loops, prints what it should, and ends well.

What a program prints is kept in expected/ beside this file, one file each. Programs know nothing
of asyncloop: `python -m asyncloop` or plain `python` decides on the loop.
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import in_ci, postgresql_url, redis_url  # noqa: F401, as fixtures
from tests.support import PY, ROOT, import_root

EXAMPLES = ROOT / "examples"
EXPECTED = Path(__file__).resolve().parent / "expected"

# The program of `make run` and its parts have tests of their own.
ELSEWHERE = {"aiohttp_app", "fastapi_app", "http_load", "showcase", "uvicorn_threads"}

PACKAGES = {
    "aiohttp_client": "aiohttp",
    "files": "aiofiles",
    "httpx_client": "httpx",
    "postgres_pool": "asyncpg",
    "rate_limited_client": "aiohttp",
    "redis_pubsub": "redis",
    "streaming_response": "aiohttp",
    "testing_with_pytest": "pytest_asyncio",
}
SERVICES = {
    "postgres_pool": ("DATABASE_URL", "postgresql_url"),
    "redis_pubsub": ("REDIS_URL", "redis_url"),
}
LOOP_NAMES = {
    "asyncloop": "asyncloop._loop.Loop",
    "asyncio": "asyncio.unix_events._UnixSelectorEventLoop",
}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in ELSEWHERE)


def command(impl, name, *args):
    warnings = ["-W", "error"]
    if name == "process_pool" and PY >= (3, 15):
        # Its workers' tracebacks run into this warning in the standard library's own code.
        warnings += ["-W", "ignore:Module globals is missing:DeprecationWarning"]
    switch = ["-m", "asyncloop"] if impl.ours else []
    return [sys.executable, *warnings, *switch, str(EXAMPLES / f"{name}.py"), *args]


def environment(impl, **more):
    root = import_root(impl)
    return {**os.environ, **({"PYTHONPATH": root} if root else {}), **more}


def need_package(name):
    package = PACKAGES.get(name)
    if package is None or importlib.util.find_spec(package) is not None:
        return
    if in_ci():
        pytest.fail(f"{package} is not installed (required where CI is set)")
    pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize("name", NAMES)
def test_example(impl, name, request):
    need_package(name)
    services = {}
    if name in SERVICES:
        variable, fixture = SERVICES[name]
        services[variable] = request.getfixturevalue(fixture)
    done = subprocess.run(
        command(impl, name),
        cwd=ROOT,
        env=environment(impl, **services),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    expected = (EXPECTED / f"{name}.txt").read_text().replace("{loop}", LOOP_NAMES[impl.name])
    assert re.sub(r"\bin \d+\.\d+s$", "in {time}", done.stdout, flags=re.M) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_from_outside(impl, number):
    with subprocess.Popen(
        command(impl, "graceful_shutdown", "--serve"),
        env=environment(impl),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            assert server.stdout.readline().startswith("serving on port ")
            server.send_signal(number)
            rest, _ = server.communicate(timeout=50)
        finally:
            server.kill()
    assert rest.splitlines() == [
        f"received {number.name}",
        "no new clients; being served: 0",
        "bye",
    ]
    assert server.returncode == 0


@pytest.mark.parametrize("name", ["postgres_pool", "redis_pubsub"])
def test_service_not_named(impl, name):
    need_package(name)
    variable, _ = SERVICES[name]
    env = environment(impl)
    env.pop(variable, None)
    done = subprocess.run(
        command(impl, name), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"set {variable} to")


def test_list_of_examples():
    """The page about the examples names every program, and no other."""
    page = ROOT / "docs" / "examples.md"
    if page.parent.exists():  # a copy made for a special build is without documents
        named = set(re.findall(r"\(\.\./examples/(\w+)\.py\)", page.read_text()))
        assert named == {path.stem for path in EXAMPLES.glob("*.py")}
    assert {path.stem for path in EXPECTED.glob("*.txt")} == set(NAMES)
