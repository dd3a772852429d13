"""TLS echo rows: Protocol and streams over TLS, with C over libev and OpenSSL as the limit."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import build, traffic
from .child import Child
from .compare import Options, Outcome, Row
from .load import own
from .loops import TLS
from .traffic import BUSY, CPU, P50, P99, RATE, SHARE, SYSTEM, USER, in_words

METRICS = (RATE, SHARE, USER, SYSTEM, CPU, BUSY, P99, P50)

LARGEST = 16 << 20
"""Bytes under way on all connections: with large messages there are fewer connections."""

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
    arguments = ["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]
    arguments += ["-pkeyopt", "ec_paramgen_curve:P-256"]
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
        few = replace(options, connections=max(1, min(options.connections, LARGEST // size)))
        return traffic.drive_servers(few, [*loops, traffic.LIMIT], start, generator)

    return Row(
        f"tls-{kind}-{size}",
        "tls",
        f"TLS: {title}, {in_words(size)}",
        METRICS,
        run,
        traits=frozenset({TLS}),
    )


def rows(sizes: Sequence[int]) -> list[Row]:
    """Return the rows for the message sizes; none given: 1 KiB, and for Protocol up to 1 MiB."""
    if not sizes:
        large = [_row("protocol", "Protocol", size) for size in (65536, 1 << 20)]
        return [_row("protocol", "Protocol", 1024), *large, _row("streams", "streams", 1024)]
    return [_row(kind, title, size) for size in sizes for kind, title in KINDS.items()]
