"""What each tuned constant of the core saves: ``python -m benchmarks.tuning``.

For each of them the core is built once more, below build/tuning, with the value that stands for
"without it" (or with other lines, for what no constant switches), and measured against the core
as it is, in turns: benchmark rows by their times, or with --count guarded paths by callgrind's
instructions, which need no quiet machine. What saves less than 3 % everywhere is not worth
its lines.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .loops import ROOT

FOLDER = ROOT / "build" / "tuning"


@dataclass(frozen=True)
class Variation:
    """The core without something that only saves time."""

    name: str
    """Of the constant, as in TUNED(); or of what the other lines switch off."""
    value: str = ""
    """Stands for "without": of a constant."""
    rows: tuple[str, ...] = ()
    """Keys of benchmark rows, maybe with options of the benchmarks behind them."""
    paths: tuple[str, ...] = ()
    """Keys of guarded paths."""
    lines: tuple[str, str, str] | None = None
    """File, text and what stands in its place, for what is no constant."""

    def changed(self, tree: Path) -> tuple[Path, str]:
        """Return which file it changes, and to what.

        Raises ValueError where the sources are not as this takes for granted.
        """
        if self.lines is not None:
            file, old, new = self.lines
            text = (tree / file).read_text()
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {file} does not have this line once: {old}")
            return tree / file, text.replace(old, new)
        for path in sorted((tree / "src").rglob("*.[ch]")):
            text = path.read_text()
            begin = text.find(f"TUNED({self.name},")
            if begin >= 0:
                return path, text[:begin] + f"({self.value})" + text[end_of_call(text, begin) :]
        raise ValueError(f"{self.name}: no TUNED() has that name")


VARIATIONS = (
    Variation("FREELIST_MAX", "0", ("future", "call-soon"), ("future", "call-soon", "timers-fire")),
    Variation("HEAP_ARITY", "2", ("timers-due", "growth-timers-100000"), ("timers-fire",)),
    Variation("SCRATCH_KEPT", "1", ("tls-protocol-1048576",), ("protocol", "tls-direct")),
    Variation("HANDLE_INLINE_ARGS", "1", paths=("call-soon-arguments",)),
    Variation("SLOW_ANSWER_NS", "INT64_MAX", ("http-asgi", "http-aiohttp", "echo-streams-1024")),
    Variation("MANY_EVENTS", "1", ("http-asgi", "echo-streams-1024")),
    Variation("TIMERFD_HORIZON_NS", "0", ("late-500", "late-5000")),
    Variation("POLL_INTERVAL_NS", "0", ("queue", "echo-protocol-1024"), ("queue",)),
    Variation("KEPT_VALUE_MAX", "-1", ("echo-sock-1024",), ("sock",)),
    Variation("SPARE_MIN", "((size_t)1 << 40)", ("echo-protocol-1024",), ("protocol",)),
    Variation(
        "LARGE_BYTES",
        "((size_t)1 << 40)",
        ("echo-protocol-65536", "echo-protocol-1048576 --sizes 1048576"),
    ),
    Variation(
        "READER_LARGE_BYTES",
        "((size_t)1 << 40)",
        ("echo-streams-65536 --sizes 65536", "echo-streams-1048576 --sizes 1048576"),
    ),
    Variation(
        "room for large messages",
        rows=("echo-streams-1048576 --sizes 1048576 --connections 1",),
        lines=("src/net/stream_read.c", "net_loop(loop)->behind_room == NULL) {", "false) {"),
    ),
    Variation("JOIN_BYTES", "0", ("writelines-64",)),
    Variation("WRITE_BUDGET_BYTES", "(size_t)65536", ("write-1048576",)),
    Variation("HOLD_BYTES", "0", ("http-asgi", "http-large", "write-burst")),
    Variation("PUSH_INTERVAL_NS", "0", ("http-asgi", "http-large")),
    Variation("DATAGRAM_BUDGET", "1", ("echo-udp-1024",), ("datagram",)),
    Variation("ADDRESS_CACHE_SIZE", "2", ("echo-udp-1024",)),
    Variation(
        "addresses that are kept",
        rows=("echo-udp-1024",),
        paths=("datagram",),
        lines=(
            "src/net/datagram_addresses.c",
            "if (UNLIKELY(dgram->cache == NULL)) {",
            "if (false) {",
        ),
    ),
    Variation("GATHER_PIECES", "1", ("tls-writelines-64",)),
    Variation("TLS_OUT_RECORDS", "1", ("tls-protocol-1048576",)),
    Variation(
        "prefetch of handles",
        rows=("timers-due", "call-soon"),
        lines=("src/iteration.c", "if (ready_length(ready) < 2) {", "if (true) {"),
    ),
)

BOUNDS = {
    "ARRAY_FIRST": "where an array begins, which doubles from there",
    "DIRECT_MAX": "how long descriptors wait behind a flood of calls from other threads",
    "DRAIN_MAX": "the same",
    "PLAIN_BYTES": "asyncio's: what a StreamReader gets at once, and so where it pauses",
    "PAGE_BITS": "memory for a descriptor with a high number",
    "IO_IOV_MAX": "the kernel's",
    "LOOK_UP_IDLE_MS": "how long a thread that asks for names stays without work",
    "CHECK_INTERVAL_NS": "when a socket that somebody has closed is noticed",
    "SEND_UNLOCKED_BYTES": "how long other threads wait for the GIL",
}
"""Tuned constants that save nothing: what they bound instead."""


def end_of_call(text: str, begin: int) -> int:
    """Return where the call of a macro ends that begins there."""
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if text[at] == ")" and depth == 0:
            return at + 1
    raise ValueError(text[begin : begin + 40])


def tuned() -> set[str]:
    """Return the names of all tuned constants."""
    names: set[str] = set()
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        names.update(re.findall(r"#define \w+ TUNED\(([A-Z][A-Z0-9_]*),", path.read_text()))
    return names


def build(variation: Variation | None) -> Path:
    """Return a tree with a built core: as it is, or with a variation."""
    tree = FOLDER / (re.sub(r"\W", "_", variation.name) if variation else "as-it-is")
    copied = ["env", f"PY={sys.executable}", "tools/copy-and-build"]
    subprocess.run([*copied, "--no-build", str(tree)], cwd=ROOT, check=True)
    if variation is not None:
        path, text = variation.changed(tree)
        path.write_text(text)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, check=True)
    return tree


def times(tree: Path, row: str, arguments: list[str]) -> dict[str, float]:
    """Return what the first quantity of a row is in a tree, by loop."""
    key, *options = row.split()
    if "--loops" not in options:
        options += ["--loops", "asyncloop"]
    file = tree / "tuning.json"
    command = [sys.executable, "-m", "benchmarks", "--rows", f"^{key}$", "--json", str(file)]
    subprocess.run(
        [*command, *options, *arguments], cwd=tree, check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (found,) = json.loads(file.read_text())["rows"]
    metric = next(iter(found["metrics"]))
    return {loop: statistics.median(values[metric]) for loop, values in found["samples"].items()}


def timed(trees: tuple[Path, Path], row: str, turns: int, arguments: list[str]) -> Iterator[str]:
    """Measure a row in both trees in turns, and yield a line for each loop."""
    with_it, without = [], []
    for _ in range(turns):
        with_it.append(times(trees[0], row, arguments))
        without.append(times(trees[1], row, arguments))
    for loop in with_it[0]:
        ratios = sorted(b[loop] / a[loop] - 1 for a, b in zip(with_it, without, strict=True))
        value = min(a[loop] for a in with_it)
        yield (
            f"{row:48} {value:10.2f}  saves {100 * statistics.median(ratios):+6.1f} %"
            f"  ({100 * ratios[0]:+.1f} to {100 * ratios[-1]:+.1f})"
        )


def instructions(tree: Path, keys: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Return (all, own) instructions of guarded paths in a tree."""
    code = (
        "import json, sys; from benchmarks.guard.callgrind import count;"
        "counts, errors = count('asyncloop', sys.argv[1].split(','));"
        "print(json.dumps({key: (c.total, c.own) for key, c in counts.items()}))"
    )
    command = [sys.executable, "-c", code, ",".join(keys)]
    done = subprocess.run(command, cwd=tree, check=True, stdout=subprocess.PIPE, text=True)
    return {key: (total, own) for key, (total, own) in json.loads(done.stdout).items()}


def counted(
    trees: tuple[Path, Path], keys: tuple[str, ...], known: dict[str, tuple[float, float]]
) -> Iterator[str]:
    """Count paths in both trees, and yield a line for each. `known`: of the first tree, so far."""
    if missing := tuple(key for key in keys if key not in known):
        known.update(instructions(trees[0], missing))
    for key, (total, own) in instructions(trees[1], keys).items():
        saved, ours = 100 * (total / known[key][0] - 1), 100 * (own / known[key][1] - 1)
        yield f"{key:48} {known[key][0]:10,.0f}  saves {saved:+6.1f} %  (own {ours:+.1f} %)"


def main(argv: list[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; regular expressions")
    parser.add_argument("--count", action="store_true", help="instructions of guarded paths")
    parser.add_argument("--turns", type=int, default=5, help="how often each row is timed")
    parser.add_argument("--keep", action="store_true", help="keep the trees")
    parser.add_argument(
        "--with", dest="arguments", default="--short", help="options of the benchmarks"
    )
    options = parser.parse_args(argv)
    wanted = re.compile("|".join(options.names) or ".").search
    plain = build(None)
    known: dict[str, tuple[float, float]] = {}
    for variation in VARIATIONS:
        if not wanted(variation.name) or not (variation.paths if options.count else variation.rows):
            continue
        print(f"{variation.name}, without it: {variation.value or 'other lines'}", flush=True)
        trees = plain, build(variation)
        if options.count:
            for line in counted(trees, variation.paths, known):
                print(f"    {line}", flush=True)
        else:
            for row in variation.rows:
                for line in timed(trees, row, options.turns, options.arguments.split()):
                    print(f"    {line}", flush=True)
        if not options.keep:
            shutil.rmtree(trees[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
