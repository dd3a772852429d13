"""The C programs of the benchmarks, compiled when they are first needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "c"


class BuildError(Exception):
    """A C program could not be compiled; the message is one line."""


def cache() -> Path:
    """Return the folder for compiled programs, made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
    folder = Path(base) / "asyncloop-benchmarks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"asyncloop-benchmarks-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def compiled(source: Path, *arguments: str) -> Path:
    """Compile a C file and return the result's path.

    The name carries a hash of the source, the headers beside it and the arguments, so a change
    is compiled anew and two runs at the same time do not disturb each other. Raises BuildError.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BuildError("no C compiler (cc) on this machine")
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", *arguments]
    texts = [file.read_bytes() for file in (source, *sorted(source.parent.glob("*.h")))]
    digest = hashlib.sha256(b"\0".join([*texts, repr(flags).encode()])).hexdigest()[:16]
    target = cache() / f"{source.stem}-{digest}"
    if not target.exists():
        scratch = target.with_suffix(f".{os.getpid()}")
        libraries = [flag for flag in flags if flag.startswith("-l")]
        others = [flag for flag in flags if not flag.startswith("-l")]
        command = [compiler, *others, "-o", str(scratch), str(source), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            reason = (errors or done.stderr.splitlines() or ["unknown"])[0]
            raise BuildError(f"cannot compile {source.name}: {reason}")
        scratch.replace(target)
    return target


def load_generator() -> Path:
    """Return the compiled load generator. Raises BuildError."""
    return compiled(SOURCES / "load.c")


def echo_server() -> Path:
    """Return the compiled libev echo server. Raises BuildError (as without libev's headers)."""
    return compiled(SOURCES / "echo_libev.c", "-lev")


def answers() -> Path:
    """Return the compiled other side of clients (c/answers.c). Raises BuildError."""
    return compiled(SOURCES / "answers.c", "-lev")


def udp_echo_server() -> Path:
    """Return the compiled libev echo server for datagrams. Raises BuildError."""
    return compiled(SOURCES / "echo_udp.c", "-lev")


def tls_load_generator() -> Path:
    """Return the compiled load generator of the TLS rows. Raises BuildError."""
    return compiled(SOURCES / "load_tls.c", "-lssl", "-lcrypto")


def tls_echo_server() -> Path:
    """Return the compiled libev and OpenSSL echo server. Raises BuildError."""
    return compiled(SOURCES / "echo_tls.c", "-lev", "-lssl", "-lcrypto")
