"""TLS echo rows: Protocol and streams over TLS, with C over libev and OpenSSL as the limit."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import build, traffic
from .child import Child
from .compare import Options, Outcome, Row
from .load import own
from .traffic import BUSY, CPU, P50, P99, RATE, SHARE, SYSTEM, USER

METRICS = (RATE, SHARE, USER, SYSTEM, CPU, BUSY, P99, P50)

KINDS = {"protocol": "Protocol", "streams": "streams"}


@functools.cache
def certificate() -> tuple[str, str]:
    """Return the files of a certificate for localhost and its key, made when first needed.

    Raises BuildError where there is no openssl command.
    """
    command = shutil.which("openssl")
    if command is None:
        raise build.BuildError("no openssl command to make a certificate with")
    folder = Path(tempfile.mkdtemp(prefix="tls-", dir=build.cache()))
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    done = subprocess.run(
        [command, *arguments, *names, *files], capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        raise build.BuildError("openssl cannot make a certificate")
    return str(certificate), str(key)


def _row(kind: str, title: str, size: int) -> Row:
    def start(name: str, options: Options) -> Child:
        files = ["--certificate", certificate()[0], "--key", certificate()[1]]
        if name == traffic.LIMIT:
            return Child([str(build.tls_echo_server()), *files], options.server_core)
        return traffic.serve_python(f"tls-{kind}", name, options, "--size", str(size), *files)

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        generator = own(build.tls_load_generator(), "--size", str(size))
        return traffic.drive_servers(options, [*loops, traffic.LIMIT], start, generator)

    return Row(f"tls-{kind}-{size}", "tls", f"TLS: {title}, {size} bytes", METRICS, run)


def rows(sizes: Sequence[int]) -> list[Row]:
    """Return the rows for the message sizes."""
    return [_row(kind, title, size) for size in sizes for kind, title in KINDS.items()]
