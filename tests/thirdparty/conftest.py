"""What these tests share: servers, certificates, and the loop of this run for child processes."""

import contextlib
import importlib.metadata
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.services import in_ci, postgresql_url, redis_url  # noqa: F401, as fixtures
from tests.support import ROOT, import_root

SECONDS = 50

collect_ignore = ["suites"]  # for child processes


def pytest_sessionstart(session):
    """Everything is there in the version that it was tried with; elsewhere only a message."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["dependency-groups"]
    wrong = []
    for requirement in extras["thirdparty"]:
        name, version = requirement.split("==")
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "not installed"
        if installed != version:
            wrong.append(f"{requirement} (here: {installed})")
    if wrong:
        message = "other versions than those of `make thirdparty`: " + ", ".join(wrong)
        if in_ci():
            pytest.exit(message, returncode=2)
        print(message, file=sys.stderr)


@pytest.fixture
def loop_name(impl):
    """The type of this run's loops, as `module.name`."""
    loop = impl.new_event_loop()
    loop.close()
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


@pytest.fixture
def child_env(impl):
    """The environment of this run's child processes: the checkout is on their path."""
    paths = [str(ROOT), import_root(impl) or "", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """Contexts of a server called localhost and of a client that trusts it alone."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    try:
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
            " -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
            " -addext keyUsage=digitalSignature,keyCertSign".split()
            + ["-out", certificate, "-keyout", key],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=SECONDS,
        )
    except FileNotFoundError:
        if in_ci():
            raise
        pytest.skip("there is no openssl program: apt-get install openssl")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    return SimpleNamespace(
        certificate=certificate,
        key=key,
        server=server,
        client=ssl.create_default_context(cafile=certificate),
    )


class Child:
    """A server in a process of its own, and what it has printed so far."""

    def __init__(self, process, log):
        self.process = process
        self._log = log

    @property
    def text(self):
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern, count=1):
        """The `count`-th match of a regular expression in what the child prints."""
        deadline = time.monotonic() + SECONDS
        while True:
            matches = list(re.finditer(pattern, self.text))
            if len(matches) >= count:
                return matches[count - 1]
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} in:\n{self.text}")
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM):
        """Ask it to end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def start_child(child_env, tmp_path):
    """Start `python ARGS` as a server; whatever it does, it is gone after the test."""
    with contextlib.ExitStack() as stack:

        def start(*args, **env):
            log = tmp_path / f"child-{len(list(tmp_path.iterdir()))}.log"
            with open(log, "wb") as output:
                process = stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, *args],
                        cwd=tmp_path,
                        env={**child_env, "PYTHONUNBUFFERED": "1", **env},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
            stack.callback(_end_group, process)
            return Child(process, log)

        yield start


def _end_group(process):
    """End the child and the workers that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(SECONDS)


@pytest.fixture
def run_suite(child_env, loop_name, tmp_path):
    """Run `pytest` with a file of suites/ in a child process, far from our own conftest.py."""
    suites = Path(__file__).parent / "suites"

    def run(impl, name, *args, module=False, python=sys.executable):
        shutil.copy(suites / name, tmp_path / name)
        shutil.copy(suites / "name_the_loop.py", tmp_path / "conftest.py")
        # Either the suite names the loop, or `python -m asyncloop` decides for all of it.
        switch = ["-m", "asyncloop"] if module and impl.ours else []
        done = subprocess.run(
            [python, *switch, "-m", "pytest", "-c", "/dev/null", "-q", "-W", "error"]
            + ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), *args, name],
            cwd=tmp_path,
            env={
                **child_env,
                "LOOP_UNDER_TEST": "asyncio" if module else impl.name,
                "EXPECTED_LOOP": loop_name,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run
