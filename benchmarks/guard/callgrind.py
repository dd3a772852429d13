"""Runs the paths under callgrind and reads its files."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..build import BuildError, compiled
from ..child import Child, ChildError
from ..tls import certificate
from .paths import PATHS
from .paths import Path as GuardedPath

OWN = re.compile(r"/(_core\.|libev\b)")
"""Shared objects whose instructions are the loop's own: its extension and libev."""

PATIENCE = 60.0
"""Seconds that one path may take."""

SAME_EVERYWHERE = {
    # A bare environment: its size moves the stack, its variables change Python.
    "PATH": os.defpath,
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    # The same variants of memcpy() and of ciphers on every processor of an architecture.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,"
    "-AVX_Usable,-AVX2_Usable,-AVX_Fast_Unaligned_Load",
    "OPENSSL_ia32cap": "~0x1000000000000000:0",
}
"""The whole environment of the counted process, but for PYTHONPATH and what a path asks for."""


@dataclass(frozen=True)
class Count:
    """Instructions, of everything and of the loop's own shared objects."""

    total: float
    own: float


def count(loop: str, keys: list[str]) -> tuple[dict[str, Count], dict[str, str]]:
    """Return instructions per operation of each path, and the errors of those that failed.

    Raises BuildError or ChildError when nothing can be measured at all.
    """
    if shutil.which("valgrind") is None:
        raise ChildError("valgrind is not installed")
    try:
        marks = compiled(Path(__file__).parent / "marks.c", "-shared", "-fPIC")
    except BuildError as exc:
        raise BuildError(f"{exc} (valgrind's headers come with its package)") from None
    counts: dict[str, Count] = {}
    errors: dict[str, str] = {}
    for engine in sorted({path.tls for path in PATHS}):
        paths = [path for path in PATHS if path.key in keys and path.tls == engine]
        if paths:
            environment = dict(SAME_EVERYWHERE)
            if engine:
                environment["ASYNCLOOP_TLS"] = engine
                environment["BENCHMARKS_CERTIFICATE"] = os.pathsep.join(certificate())
            _count(loop, paths, marks, environment, counts, errors)
    return {path.key: counts[path.key] for path in PATHS if path.key in counts}, errors


def _count(
    loop: str,
    paths: list[GuardedPath],
    marks: Path,
    environment: dict[str, str],
    counts: dict[str, Count],
    errors: dict[str, str],
) -> None:
    """Count paths in one process and add what came of them."""
    finished: list[str] = []
    keys = [path.key for path in paths]
    if inherited := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] = inherited
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            "LD_PRELOAD=" + str(marks),
            *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
            *(f"--callgrind-out-file={folder}/out", "-q"),
            *(sys.executable, "-m", "benchmarks.guard.measured", loop, ",".join(keys)),
        ]
        with Child(command) as child:
            try:
                while (event := child.report(PATIENCE)) is not None:
                    finished.append(event["path"])
                    print(f"  {event['path']}", file=sys.stderr, flush=True)
                    if event["error"]:
                        errors[event["path"]] = event["error"]
            except ChildError as exc:
                missing = [key for key in keys if key not in finished]
                errors[missing[0] if missing else keys[-1]] = str(exc)
        raw = dict(map(read, sorted(Path(folder).iterdir())))
    for path in paths:
        once, twice = raw.get(f"{path.key} 1"), raw.get(f"{path.key} 2")
        if path.key not in errors and once and twice:
            counts[path.key] = Count(
                (twice.total - once.total) / path.n, (twice.own - once.own) / path.n
            )


def read(path: Path) -> tuple[str, Count]:
    """Return the name that a dump was given and the instructions in it."""
    name = ""
    total = own = 0
    names: dict[str, str] = {}
    ours = False
    inclusive = False
    with path.open() as lines:
        for line in lines:
            if line.startswith("desc: Trigger: Client Request: "):
                name = line.rpartition(": ")[2].strip()
            elif line.startswith("ob="):
                number, _, text = line[3:].strip().partition(" ")
                ours = bool(OWN.search(names.setdefault(number, text)))
            elif line.startswith("cob="):
                number, _, text = line[4:].strip().partition(" ")
                names.setdefault(number, text)
            elif line.startswith("calls="):
                # The next line holds what the called function cost: counted there already.
                inclusive = True
            elif line[:1] in "0123456789+-*" and line[:1]:
                if not inclusive:
                    cost = int(line.split()[1])
                    total += cost
                    own += cost if ours else 0
                inclusive = False
    return name, Count(total, own)
