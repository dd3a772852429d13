"""Command line of the guard: ``python -m benchmarks.guard [--update]``."""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from .. import loops
from ..build import BuildError
from ..child import ChildError
from .callgrind import Count, count
from .paths import PATHS

SLACK = 10.0
"""Instructions per operation that never matter: what short paths may differ by."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    add = made.add_argument
    add("--update", action="store_true", help="keep the new counts")
    add("--paths", metavar="REGEX", default="", help="only paths whose key it finds")
    add("--loop", default="asyncloop", help="another loop, to look at: nothing is compared")
    add("--tolerance", type=float, default=3.0, help="percent; default: %(default)s")
    add("--strict", action="store_true", help="compare even if the tools were others")
    return made


def kept_file() -> Path:
    """Return the file of the counts for this Python version."""
    version = ".".join(platform.python_version_tuple()[:2])
    abi = getattr(sys, "abiflags", "")
    return Path(__file__).parent / f"counts-{version}{abi}.json"


def tools() -> dict[str, str]:
    """Return what the counts depend on besides our own code."""
    return {
        "python": platform.python_version(),
        "python_compiler": platform.python_compiler(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cc": _first_line("cc", "--version"),
        "valgrind": _first_line("valgrind", "--version"),
    }


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return (done.stdout.splitlines() or ["none"])[0]


def grown(new: Count, old: dict[str, float], tolerance: float) -> bool:
    """Return whether a path needs more instructions than the tolerance allows."""
    pairs = ((new.total, old["total"]), (new.own, old["own"]))
    return any(now > then * (1 + tolerance / 100) + SLACK for now, then in pairs)


def table(counts: dict[str, Count], kept: dict[str, dict[str, float]], tolerance: float) -> str:
    """Return the counts as text, each with what it was and how it has changed."""
    width = max(map(len, counts), default=4)
    lines = [f"{'path':{width}}  {'all':>8}  {'own':>8}  {'all kept':>8}  {'own kept':>8}"]
    for key, new in counts.items():
        line = f"{key:{width}}  {new.total:8,.0f}  {new.own:8,.0f}"
        if old := kept.get(key):
            change = 100 * (new.total / old["total"] - 1)
            line += f"  {old['total']:8,.0f}  {old['own']:8,.0f}  {change:+6.1f} %"
            line += "  GROWN" if grown(new, old, tolerance) else ""
        lines.append(line)
    return "\n".join(lines)


def _ended(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: list[str]) -> int:
    """Run the command line; 0, 1 when a path has grown or failed, 2 when nothing can be run."""
    arguments = parser().parse_args(argv)
    # Ended from outside, the process under valgrind still goes first.
    signal.signal(signal.SIGTERM, _ended)
    keys = [path.key for path in PATHS if re.search(arguments.paths, path.key)]
    loops.prefer_built()
    _, missing = loops.installed([arguments.loop])
    if missing or not keys:
        print(missing.get(arguments.loop, "no path has that name"), file=sys.stderr)
        return 2
    try:
        counts, errors = count(arguments.loop, keys)
    except (BuildError, ChildError) as exc:
        print(exc, file=sys.stderr)
        return 2
    file = kept_file()
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    compare = arguments.loop == "asyncloop"
    old = kept.get("paths", {}) if compare else {}
    print("Instructions per operation, all and in the loop's own shared objects\n")
    print(table(counts, old, arguments.tolerance))
    for key, error in errors.items():
        print(f"- {key} failed: {error}")
    if not compare:
        return 1 if errors else 0
    now = tools()
    if arguments.update:
        paths = {key: {"total": round(c.total), "own": round(c.own)} for key, c in counts.items()}
        # A partial run keeps the other paths, if they were counted with the same tools.
        if kept.get("tools") == now:
            paths = {path.key: p for path in PATHS if (p := paths.get(path.key, old.get(path.key)))}
        file.write_text(json.dumps({"tools": now, "paths": paths}, indent=1) + "\n")
        print(f"kept in {file.name}")
        return 1 if errors else 0
    bad = [
        key for key, c in counts.items() if key in old and grown(c, old[key], arguments.tolerance)
    ]
    if bad and kept["tools"] != now and not arguments.strict:
        changed = [key for key in now if now[key] != kept["tools"].get(key)]
        print(f"not judged: the kept counts were made with another {', '.join(changed)}")
        bad = []
    if not old:
        print(f"nothing to compare with: {file.name} is made by --update")
    return 1 if bad or errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
