"""Command line of the guard: ``python -m benchmarks.guard [--update]``."""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from .. import loops
from ..build import BuildError
from ..child import ChildError
from .callgrind import Count, count
from .paths import PATHS

OWN_PERCENT, OWN_SLACK = 2.0, 3.0
"""What our own instructions may grow by, in percent and per operation: they repeat exactly."""
ALL_PERCENT, ALL_SLACK = 5.0, 20.0
"""The same of all instructions: where objects lie decides how the interpreter's sets collide."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    add = made.add_argument
    add("--update", action="store_true", help="keep the new counts")
    add("--paths", metavar="REGEX", default="", help="only paths whose key it finds")
    add("--loop", default="asyncloop", help="another loop, to look at: nothing is compared")
    add("--strict", action="store_true", help="judge even if the tools were others")
    add(
        "--optional", action="store_true", help="without valgrind or a compiler, say so and succeed"
    )
    return made


def kept_file() -> Path:
    """Return the file of the counts for this Python version."""
    version = ".".join(platform.python_version_tuple()[:2])
    abi = getattr(sys, "abiflags", "")
    return Path(__file__).parent / f"counts-{version}{abi}.json"


OWN_TOOLS = ("python", "machine", "core", "libev")
"""Where these are the same, the instructions of our own shared objects are comparable."""


def tools() -> dict[str, str]:
    """Return what the counts depend on besides our own code."""
    import asyncloop
    from asyncloop import _core

    built = asyncloop.build_info()
    binary = Path(_core.__file__).read_bytes()
    compiler = re.search(rb"(GCC: \([^)]*\) [\d.]+|clang version [\d.]+)", binary)
    kind = "checked" if b"__assert_fail" in binary else "release"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "core": f"{compiler[0].decode() if compiler else 'unknown compiler'}, {kind}",
        "libev": f"{built['libev']} {built['libev_version']}",
        # The rest matters for what the interpreter and libraries do in between.
        "python_build": f"{' '.join(platform.python_build())}, {platform.python_compiler()}",
        "libc": " ".join(platform.libc_ver()),
        "openssl": ssl.OPENSSL_VERSION,
        "valgrind": _first_line("valgrind", "--version"),
    }


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return (done.stdout.splitlines() or ["none"])[0]


def comparable(now: dict[str, str], then: dict[str, str]) -> tuple[bool, bool, str]:
    """Return whether all instructions and whether our own may be judged, and why not."""
    changed = [key for key in now if now[key] != then.get(key)]
    own = not any(key in OWN_TOOLS for key in changed)
    told = "; ".join(f"{key} is {now[key]}, was {then.get(key, 'not known')}" for key in changed)
    if not changed:
        return True, True, ""
    if own:
        return False, True, f"only the loop's own instructions are judged: {told}"
    return False, False, f"reported, not judged: {told}"


def grown(new: Count, old: dict[str, float], total: bool = True, own: bool = True) -> bool:
    """Return whether a path needs more instructions than the tolerance allows.

    total and own say which of the two numbers are judged. Work that moves from the interpreter
    into our own code may add to the one where it takes more from the other.
    """
    if total and new.total > old["total"] * (1 + ALL_PERCENT / 100) + ALL_SLACK:
        return True
    moved = total and new.total + (new.own - old["own"]) < old["total"]
    return own and not moved and new.own > old["own"] * (1 + OWN_PERCENT / 100) + OWN_SLACK


def table(counts: dict[str, Count], kept: dict[str, dict[str, float]], bad: Collection[str]) -> str:
    """Return the counts as text, each with what it was and how it has changed."""
    width = max(map(len, counts), default=4)
    heads = ("all", "own", "all kept", "own kept", "all is", "own is")
    lines = [f"{'path':{width}}  " + "  ".join(f"{head:>8}" for head in heads)]
    for key, new in counts.items():
        line = f"{key:{width}}  {new.total:8,.0f}  {new.own:8,.0f}"
        if old := kept.get(key):
            line += f"  {old['total']:8,.0f}  {old['own']:8,.0f}"
            line += f"  {100 * (new.total / old['total'] - 1):+6.1f} %"
            line += f"  {100 * (new.own / old['own'] - 1):+6.1f} %"
            line += "  GROWN" if key in bad else ""
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
    if arguments.optional and shutil.which("valgrind") is None:
        print("guard of the instruction counts left out: valgrind is not installed")
        return 0
    try:
        counts, errors = count(arguments.loop, keys)
    except (BuildError, ChildError) as exc:
        print(f"guard of the instruction counts: {exc}", file=sys.stderr)
        return 0 if arguments.optional and isinstance(exc, BuildError) else 2
    file = kept_file()
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    compare = arguments.loop == "asyncloop"
    old = kept.get("paths", {}) if compare else {}
    now = tools() if compare else {}
    total, own, reason = comparable(now, kept.get("tools", {}))
    if arguments.strict:
        total = own = True
    bad = [key for key, c in counts.items() if key in old and grown(c, old[key], total, own)]
    print("Instructions per operation, all and in the loop's own shared objects\n")
    print(table(counts, old, bad))
    for key, error in errors.items():
        print(f"- {key} failed: {error}")
    if not compare:
        return 1 if errors else 0
    if arguments.update:
        paths = {key: {"total": round(c.total), "own": round(c.own)} for key, c in counts.items()}
        # A partial run keeps the other paths, if they were counted with the same tools.
        if kept.get("tools") == now:
            paths = {path.key: p for path in PATHS if (p := paths.get(path.key, old.get(path.key)))}
        file.write_text(json.dumps({"tools": now, "paths": paths}, indent=1) + "\n")
        print(f"kept in {file.name}")
        return 1 if errors else 0
    if not old:
        print(f"nothing to compare with: {file.name} is made by --update")
    elif reason and not arguments.strict:
        print(reason)
    if bad:
        print(
            f"{', '.join(bad)}: above {file.name} by more than {OWN_PERCENT:g} % of our own or "
            f"{ALL_PERCENT:g} % of all instructions. Where that is meant, "
            "python -m benchmarks.guard --update keeps the new counts."
        )
    return 1 if bad or errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
