"""Load generators: our own (c/load.c) and wrk. One call is one load on one server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .child import Child, ChildError
from .compare import Options

GRACE = 15.0
"""Seconds that a load may take longer than it was asked to, with few connections."""
CONNECTIONS_PER_SECOND = 400
"""So many connections each loop can open and end, whatever else the machine does."""

_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


@dataclass(frozen=True)
class Load:
    """What a load generator saw."""

    requests: float
    rate: float
    p50_us: float
    p99_us: float


Generator = Callable[[int, Options], Load]
"""Drives a port and returns what it saw. Raises ChildError."""


def own(program: Path, *arguments: str) -> Generator:
    """Return a generator that runs c/load.c with further arguments."""

    def drive(port: int, options: Options) -> Load:
        command = [
            *(str(program), "--port", str(port)),
            *("--connections", str(options.connections)),
            *("--seconds", str(options.load_seconds), *arguments),
        ]
        with Child(command, options.load_core) as child:
            line = child.line(
                options.load_seconds + GRACE + options.connections / CONNECTIONS_PER_SECOND
            )
            try:
                report = json.loads(line or b"")
            except ValueError:
                raise ChildError(f"load generator: {child.failure()}") from None
        if "error" in report:
            raise ChildError(f"load generator: {report['error']}")
        return Load(report["requests"], report["rate"], report["p50_us"], report["p99_us"])

    return drive


def wrk(path: str) -> Generator:
    """Return a generator that runs wrk, which takes whole seconds only."""

    def drive(port: int, options: Options) -> Load:
        seconds = max(1, round(options.load_seconds))
        command = [
            *("wrk", "--threads", "1", "--connections", str(options.connections)),
            *("--duration", f"{seconds}s", "--latency", f"http://127.0.0.1:{port}{path}"),
        ]
        with Child(command, options.load_core) as child:
            return parse_wrk(child.output(seconds + GRACE))

    return drive


def has_wrk() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


def parse_wrk(text: str) -> Load:
    """Read what wrk prints. Raises ChildError on errors that it counted."""
    for problem in ("Socket errors:", "Non-2xx"):
        found = re.search(rf"^\s*{problem}.*$", text, re.M)
        # wrk counts the answers under way when it stops as timeouts, but never the others.
        if found and not re.search(r"connect 0, read 0, write 0, timeout \d+$", found[0]):
            raise ChildError(f"wrk: {found[0].strip()}")
    requests = re.search(r"^\s*(\d+) requests in", text, re.M)
    rate = re.search(r"^Requests/sec:\s*([\d.]+)", text, re.M)
    if requests is None or rate is None or not int(requests[1]):
        raise ChildError("wrk: no requests were answered")
    return Load(float(requests[1]), float(rate[1]), _latency(text, 50), _latency(text, 99))


def _latency(text: str, percent: int) -> float:
    found = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\b", text, re.M)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")
