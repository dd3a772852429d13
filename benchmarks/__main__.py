"""Command line of the benchmarks: ``python -m benchmarks`` from the root of a checkout."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from . import helpers, loops, machine, markdown, picture, report, table
from .compare import Options, Result, run_rows
from .rows import chosen


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare event loops, each row interleaved in rounds, in one run.",
    )
    add = made.add_argument
    add("--quick", action="store_true", help="short samples and loads: a look, not a result")
    add("--short", action="store_true", help="fewer rounds: a result in half the time")
    add("--rows", metavar="REGEX", help="only rows whose key, group or title it finds")
    add(
        "--loops",
        metavar="NAMES",
        default=",".join(loops.KINDS),
        help="also module:factory; default: %(default)s",
    )
    add("--list", action="store_true", help="list the rows and end")
    add("--json", metavar="FILE", type=Path, help="write all numbers as JSON")
    add("--picture", metavar="FILE", type=Path, help="draw the ratios (needs matplotlib)")
    add(
        "--markdown",
        nargs="?",
        choices=["main", "all"],
        const="main",
        help="print Markdown tables: the main quantity of each row, or all",
    )
    add(
        "--into",
        metavar="FILE",
        type=Path,
        help="with --markdown: put the tables between the marks of this file instead",
    )
    add(
        "--from-json",
        metavar="FILE",
        type=Path,
        help="show an earlier run's results, measuring nothing",
    )
    add(
        "--zuvloop",
        metavar="PATH",
        type=Path,
        help="where a built zuvloop is, if it is not installed: the folder with its package",
    )
    add("--sizes", metavar="BYTES", default="", help="message sizes of all echo and TLS rows")
    add("--connections", metavar="N", type=int, default=50, help="default: %(default)s")
    add("--rounds", metavar="N", type=int, help="rounds of every row")
    add("--seconds", metavar="S", type=float, help="duration of one load on one server")
    add("--http-load", choices=["auto", "wrk", "own"], default="auto", help="default: %(default)s")
    add(
        "--pin",
        metavar="CORES",
        default="auto",
        help="cores of the measured process and of the load, as 0,1; none: no pinning",
    )
    return made


def cores(wanted: str) -> tuple[int | None, int | None]:
    """Return the core of the measured process and that of the load generator."""
    if wanted == "none":
        return None, None
    numbers = machine.cores() if wanted == "auto" else [int(n) for n in wanted.split(",")]
    if not numbers:
        return None, None
    if wanted == "auto" and len(numbers) < 2:
        print("only one core: server and load share it, throughput says little", file=sys.stderr)
    return numbers[0], numbers[1] if len(numbers) > 1 else None


def options_of(arguments: argparse.Namespace) -> Options:
    """Make the options of a run from the command line."""
    quick = arguments.quick
    size = 0 if quick else 1 if arguments.short else 2
    server_core, load_core = cores(arguments.pin)
    return Options(
        rounds=arguments.rounds or (2, 4, 7)[size],
        sample_seconds=(0.01, 0.05, 0.05)[size],
        load_rounds=arguments.rounds or (1, 3, 5)[size],
        load_seconds=arguments.seconds or (0.3, 0.7, 1.0)[size],
        connections=arguments.connections,
        sizes=tuple(int(size) for size in arguments.sizes.split(",") if size),
        idle_connections=500 if quick else 2000,
        timers=200_000 if quick else 1_000_000,
        http_load=arguments.http_load,
        server_core=server_core,
        load_core=load_core,
    )


def _ended(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: list[str]) -> int:
    """Run the command line; 0, or 1 when a cell of asyncloop failed."""
    arguments = parser().parse_args(argv)
    if arguments.from_json:
        return _show(arguments)
    options = options_of(arguments)
    rows = chosen(options, arguments.rows)
    if arguments.list:
        width = max((len(row.key) for row in rows), default=0)
        print("\n".join(f"{row.key:{width}}  {row.group}: {row.title}" for row in rows))
        return 0
    if not rows:
        print("no row has that name; --list shows them", file=sys.stderr)
        return 2
    # Ended from outside, the children still go first.
    signal.signal(signal.SIGTERM, _ended)
    loops.prefer_built()
    if arguments.zuvloop:
        loops.add_path(arguments.zuvloop)
    present, missing = loops.installed([n for n in arguments.loops.split(",") if n])
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    if not present:
        return 2
    about = report.head(options, present, missing, argv)

    def keep(results: list[Result]) -> None:
        about["seconds"] = round(time.monotonic() - started)
        if arguments.json:
            report.write(arguments.json, report.as_json(results, about))

    started = time.monotonic()
    print(f"{len(rows)} rows for {', '.join(present)}:", file=sys.stderr)
    try:
        results = run_rows(rows, options, list(present), keep)
    finally:
        helpers.close()
    _print(results, about, arguments)
    return 1 if any("asyncloop" in result.outcome.errors for result in results) else 0


def _show(arguments: argparse.Namespace) -> int:
    try:
        about, results = report.read(arguments.from_json)
    except (OSError, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 2
    if arguments.rows:
        search = re.compile(arguments.rows, re.I).search
        results = [r for r in results if search(r.row.key) or search(r.row.group)]
    return 0 if _print(results, about, arguments) else 2


def _print(results: list[Result], about: dict[str, object], arguments: argparse.Namespace) -> bool:
    """Show results as the command line asks for; return whether that was possible."""
    problems: list[str | None] = []
    if arguments.markdown:
        made = markdown.text(results, about, arguments.markdown == "all")
        if arguments.into:
            problems.append(markdown.put_into(arguments.into, made, about))
        else:
            print(made, end="")
    else:
        print(_headline(about))
        print(table.text(results), end="")
    if arguments.picture:
        problems.append(picture.draw(arguments.picture, results, about))
    for problem in filter(None, problems):
        print(problem, file=sys.stderr)
    return not any(problems)


def _headline(about: dict[str, object]) -> str:
    present, missing = about["loops"], about["missing_loops"]
    options = about["options"]
    assert isinstance(present, dict) and isinstance(missing, dict) and isinstance(options, dict)
    core = options["server_core"]
    lines = [
        report.where(about),
        ", ".join(f"{n} {v}" for n, v in present.items()),
        f"{str(about['date'])[:10]}, {about.get('seconds', 0)} s, "
        + (f"measured process on core {core}" if core is not None else "not pinned"),
    ]
    lines += [f"left out: {name} ({reason})" for name, reason in missing.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
