"""PostgreSQL and Redis for tests: servers of our own on loopback, gone when the tests are.

`postgresql` and `redis` are context managers that start a server from Debian's packages in a
temporary folder, on a free port, and give its URL; `postgresql_url` and `redis_url` are the
fixtures. Nothing that already runs on the machine is touched. Without the programs a test is
skipped, in CI (`CI` set in the environment) it fails.
"""

import contextlib
import ctypes
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

# Each step (making the database, starting, stopping) may take so many seconds.
SECONDS = 60


class Missing(Exception):
    """The programs of a service are not on this machine; says what to install."""


@pytest.fixture(scope="session")
def postgresql_url():
    """The URL of a PostgreSQL database for this run alone."""
    with contextlib.ExitStack() as stack:
        yield _enter(stack, postgresql())


@pytest.fixture(scope="session")
def redis_url():
    """The URL of a Redis server for this run alone."""
    with contextlib.ExitStack() as stack:
        yield _enter(stack, redis())


def in_ci():
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _enter(stack, service):
    try:
        return stack.enter_context(service)
    except Missing as missing:
        if in_ci():
            pytest.fail(f"{missing} (required where CI is set)", pytrace=False)
        pytest.skip(str(missing))


@contextlib.contextmanager
def postgresql():
    """A fresh PostgreSQL server with one database; the value is its URL."""
    programs = _postgresql_programs()
    with _folder("postgresql") as (folder, account):
        data, sockets = folder / "data", folder / "sockets"
        _run(
            [programs / "initdb", "--pgdata", data, "--username", "tester"]
            + ["--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C"],
            folder,
            account,
        )
        sockets.mkdir()
        os.chown(sockets, account.pw_uid, account.pw_gid)
        port = free_port()
        # Durability costs time and is of no use for data that is thrown away.
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": sockets,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
            "dynamic_shared_memory_type": "mmap",
        }
        command = [programs / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGINT: disconnect everyone and stop, without waiting for them.
        with _running(command, folder, account, stop=signal.SIGINT) as server:
            _until_ready(
                server,
                folder,
                lambda: _succeeds(
                    [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
                ),
            )
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def redis():
    """An empty Redis server; the value is its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("there is no redis-server: apt-get install redis-server")
    with _folder("redis") as (folder, account):
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with _running(command, folder, account, stop=signal.SIGTERM) as server:
            _until_ready(server, folder, lambda: _pong(port))
            yield f"redis://127.0.0.1:{port}/0"


def free_port():
    """A TCP port of loopback that nobody listens on, at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _postgresql_programs():
    """The folder of the newest PostgreSQL's server programs, which Debian keeps off the path."""

    def version(path):
        return [int(number) for number in re.findall(r"\d+", path)]

    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=version, reverse=True)
    initdb = shutil.which("initdb")
    for folder in [*found, *([os.path.dirname(initdb)] if initdb else [])]:
        if os.path.exists(os.path.join(folder, "initdb")):
            return Path(folder)
    raise Missing("there is no PostgreSQL server: apt-get install postgresql")


@contextlib.contextmanager
def _folder(name):
    """A temporary folder and the account that the server runs under.

    PostgreSQL refuses to run as root: then it is another account, which owns the folder.
    """
    account = pwd.getpwuid(os.getuid())
    if account.pw_uid == 0:
        for candidate in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                account = pwd.getpwnam(candidate)
                break
    path = Path(tempfile.mkdtemp(prefix=f"asyncloop-{name}-"))
    try:
        os.chown(path, account.pw_uid, account.pw_gid)
        yield path, account
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _environment():
    # A sanitizer's library is for the tests alone: PostgreSQL's programs hang with it.
    return {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}


def _as_account(account):
    """Arguments for subprocess that run a server's program under this account."""
    arguments = {"env": _environment()}
    if os.getuid() != account.pw_uid:
        arguments |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    return arguments


def _run(command, folder, account):
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        **_as_account(account),
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")


@contextlib.contextmanager
def _running(command, folder, account, stop):
    """The server's process while the block runs, then stopped, at last by force."""
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for the tests, which stop it themselves
            preexec_fn=_signal_when_parent_dies(stop),
            **_as_account(account),
        )
    try:
        yield server
    finally:
        server.send_signal(stop)
        try:
            server.wait(SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _signal_when_parent_dies(number):
    """A function for the child: tests that are killed leave no server behind, on Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, int(number))


def _until_ready(server, folder, is_ready):
    deadline = time.monotonic() + SECONDS
    while not is_ready():
        if server.poll() is not None or time.monotonic() > deadline:
            log = (folder / "log").read_text(errors="replace")
            raise RuntimeError(f"{server.args[0]} does not answer:\n{log}")
        time.sleep(0.05)


def _succeeds(command):
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        env=_environment(),
    )
    return done.returncode == 0


def _pong(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
