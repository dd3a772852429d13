"""`python -m asyncloop ps`, `tree` and `top`: the loops of another process, as text or JSON."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from ._command import Parser, Trouble
from ._outside import (
    STOPPED,
    TASK_STATES,
    Process,
    SeenLoop,
    all_processes,
    ask,
    ask_tasks,
    read_process,
)
from ._say import one_line, printable
from ._stats import Delay, LoopStats

__all__ = ["LOOP_COLUMNS", "TASK_COLUMNS", "Shown", "Watch", "main"]

# -- as text -------------------------------------------------------------------------------------

LOOP_COLUMNS = (
    *("PID", "LOOP", "STATE", "BUSY", "P50", "P99", "MAX", "TURNS/S"),
    *("READY", "TIMERS", "TASKS", "FDS", "TRANSPORTS", "IN", "OUT"),
)


def _cell(text: str) -> str:
    return printable(one_line(text))


def _print(text: str, clear: str = "") -> None:
    print(clear + printable(text), flush=True)


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    return f"{seconds * 1e3:.1f}ms" if seconds < 1 else f"{seconds:.2f}s"


def _size(count: float) -> str:
    for unit in ("", "K", "M", "G"):
        if count < 10_000:
            return f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.0f}T"


def _row(pid: int, loop: SeenLoop, before: LoopStats | None) -> list[str]:
    now = loop.stats
    delay, busy, turns, total = _since(now, before)
    return [
        str(pid),
        str(now.loop),
        loop.state,
        f"{100 * busy / total:.1f}%" if total > 0 else "-",
        _time(delay.percentile(50)),
        _time(delay.percentile(99)),
        _time(delay.max),
        _size(turns / total) if total > 0 else "-",
        *map(str, (now.ready, now.timers, now.tasks, now.descriptors, now.transports)),
        _size(now.bytes_in - (before.bytes_in if before is not None else 0)),
        _size(now.bytes_out - (before.bytes_out if before is not None else 0)),
    ]


def _since(now: LoopStats, before: LoopStats | None) -> tuple[Delay, float, int, float]:
    """Delay, seconds busy, turns and seconds of its runs."""
    if before is None:
        return now.delay, now.busy, now.turns, now.busy + now.idle
    busy = max(0.0, now.busy - before.busy)
    idle = max(0.0, now.idle - before.idle)
    return now.delay - before.delay, busy, now.turns - before.turns, busy + idle


def _table(rows: Sequence[Sequence[str]], left: Sequence[int] = (2,)) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _state_lines(process: Process) -> list[str]:
    """That it is stopped, and its last stall."""
    lines = [f"process {process.pid}: {STOPPED}"] if process.stopped else []
    stall = process.stall
    if stall is None:
        return lines
    when = "now" if stall.still_running else f"{_time(stall.ago)} ago"
    _, _, stack = stall.text.partition("\n")
    head = f"last stall: loop {stall.loop}, {_time(stall.lasted)}, {when}: {stall.where}"
    return [*lines, head, *stack.splitlines()]


def _show(processes: Sequence[Process], before: dict[tuple[int, str, int], LoopStats]) -> str:
    rows: list[Sequence[str]] = [LOOP_COLUMNS]
    lines = []
    for process in processes:
        for loop in process.loops:
            key = (process.pid, process.socket, loop.stats.loop)
            rows.append(tuple(_row(process.pid, loop, before.get(key))))
        if process.not_shown:
            lines.append(f"process {process.pid}: {process.not_shown} loop(s) found no room")
        lines += _state_lines(process)
    return "\n".join([_table(rows), *lines])


# -- for programs -----------------------------------------------------------------------------


def _as_json(process: Process, before: dict[tuple[int, str, int], LoopStats]) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "asyncloop": process.asyncloop,
        "python": process.python,
        "stopped": process.stopped,
        "loops_not_shown": process.not_shown,
        "last_stall": None if process.stall is None else dataclasses.asdict(process.stall),
        "loops": [
            _loop_as_json(loop, before.get((process.pid, process.socket, loop.stats.loop)))
            for loop in process.loops
        ],
    }


def _loop_as_json(loop: SeenLoop, before: LoopStats | None) -> dict[str, Any]:
    delay, busy, _, total = _since(loop.stats, before)
    fields = dataclasses.asdict(loop.stats)
    fields["delay"] = {
        "mean": delay.mean,
        "p50": delay.percentile(50),
        "p90": delay.percentile(90),
        "p99": delay.percentile(99),
        "max": delay.max,
    }
    fields["utilization"] = busy / total if total > 0 else 0.0
    fields["native_thread"] = loop.native_thread
    fields["blocked"] = loop.blocked
    return fields


# -- the commands ------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m asyncloop", description="The event loops of other processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    ps = commands.add_parser("ps", help="the loops of a process, or of all that may be seen")
    ps.add_argument("pid", type=int, nargs="?")
    tree = commands.add_parser("tree", help="the tasks of its loops, with what they wait for")
    tree.add_argument("pid", type=int)
    top = commands.add_parser("top", help="its loops and tasks, again and again")
    top.add_argument("pid", type=int)
    top.add_argument("-d", "--delay", type=float, default=1.0, help="seconds in between")
    top.add_argument("--plain", action="store_true", help="text, also where there is textual")
    top.add_argument("-n", "--count", type=int, default=0, help="how often; 0: until Ctrl-C")
    for each in (ps, tree, top):
        each.add_argument("--json", action="store_true", help="for programs")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run a command, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.pid is not None and options.pid <= 0:
        parser.error(f"{options.pid} is no number of a process")
    if options.command == "top" and not (0.01 <= options.delay < 1e6 and options.count >= 0):
        parser.error("the delay has to be from 0.01 seconds on, and the count 0 or more")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be anything
    try:
        {"ps": _ps, "tree": _tree, "top": _top}[options.command](options)
    except Trouble as trouble:
        sys.stderr.write(f"asyncloop: {printable(str(trouble))}\n")
        return 2
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader has seen enough; nothing is to be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _ps(options: argparse.Namespace) -> None:
    processes = all_processes() if options.pid is None else read_process(options.pid)
    if options.json:
        print(json.dumps([_as_json(process, {}) for process in processes]))
    else:
        _print(_show(processes, {}))


def _tree(options: argparse.Namespace) -> None:
    processes = read_process(options.pid)
    if options.json:
        print(json.dumps([loop for process in processes for loop in ask_tasks(process)]))
        return
    # Bytes of zero only say that it goes on.
    parts = [ask(process, "tree").replace(b"\0", b"") for process in processes]
    answers = [part.decode("utf-8", "replace") for part in parts]
    _print("\n".join(answer.rstrip() for answer in answers))


# -- top -------------------------------------------------------------------------------------

TASK_COLUMNS = ("LOOP", "STATE", "NAME", "BUSY", "READY", "STEPS", "WAKEUPS", "WHERE")
_TASKS_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class ShownTask:
    key: str
    cells: tuple[str, ...]  # TASK_COLUMNS
    chain: str  # its coroutines and what it waits for, a line each


@dataclasses.dataclass(frozen=True)
class Shown:
    """What there is to see at one moment; of counters what they were since the one before."""

    processes: tuple[Process, ...]
    loops: tuple[tuple[str, ...], ...]  # rows of LOOP_COLUMNS
    stalls: tuple[str, ...]
    tasks: tuple[ShownTask, ...]
    threads: dict[str, tuple[str, int]]  # of each loop, by its number: name, and how many tasks
    troubles: tuple[str, ...]


class Watch:
    """A process that is looked at again and again. Raises Trouble where there is none, or no more.

    most_tasks: of each loop
    """

    def __init__(self, pid: int, most_tasks: int = 1000) -> None:
        self.pid = pid
        self._most_tasks = most_tasks
        self._processes = read_process(pid)
        self._looked = False
        self.before: dict[tuple[int, str, int], LoopStats] = {}

    def read(self) -> list[Process]:
        """The counters now; those of the last time are in `before`."""
        for process in self._processes:
            for loop in process.loops:
                self.before[process.pid, process.socket, loop.stats.loop] = loop.stats
        try:
            self._processes = read_process(self.pid)
        except Trouble as trouble:
            raise Trouble(f"process {self.pid} has ended") if self._looked else trouble from None
        self._looked = True
        return self._processes

    def look(self) -> Shown:
        """All of it. The tasks are asked for, which takes some seconds if a call holds the GIL."""
        processes = self.read()
        loops, tasks, troubles = [], [], []
        stalls: list[str] = []
        threads: dict[str, tuple[str, int]] = {}
        for process in processes:
            for loop in process.loops:
                key = (process.pid, process.socket, loop.stats.loop)
                loops.append(tuple(_row(process.pid, loop, self.before.get(key))))
            stalls += map(printable, _state_lines(process))
            try:
                answer = ask_tasks(process)
            except Trouble as trouble:
                troubles.append(f"{trouble}")
                continue
            for loop_tasks in answer:
                number = str(loop_tasks["loop"])
                count = len(loop_tasks["tasks"]) + loop_tasks["tasks_not_shown"]
                threads[number] = loop_tasks["thread"], count
                tasks += self._tasks(number, loop_tasks["tasks"])
        return Shown(
            *(tuple(processes), tuple(loops), tuple(stalls), tuple(tasks), threads, tuple(troubles))
        )

    def _tasks(self, loop: str, tasks: list[dict[str, Any]]) -> list[ShownTask]:
        """Those that run first, and of these what has taken the longest."""
        tasks.sort(key=lambda task: (TASK_STATES.index(task["state"]), -(task["ran"] or 0)))
        return [_shown_task(loop, task) for task in tasks[: self._most_tasks]]


def _shown_task(loop: str, task: dict[str, Any]) -> ShownTask:
    stack = task["stack"]
    places = [each for each in stack if not each.startswith("waits for")]
    counted = [
        "-" if task["steps"] is None else text
        for text in (
            *(_time(task["ran"] or 0), _time(task["ready"] or 0)),
            *(str(task["steps"]), str(task["wakeups"])),
        )
    ]
    # asyncio.sleep() and the like say little.
    own = [place for place in places if "/asyncio/" not in place]
    where = (own or places or ["-"])[-1]
    cells = (loop, task["state"], *map(_cell, (task["name"], *counted, where)))
    return ShownTask(f"{loop}-{task['id']}", cells, printable("\n".join(stack)))


def _top(options: argparse.Namespace) -> None:
    if not options.json and not options.plain and options.count == 0 and sys.stdout.isatty():
        try:
            from ._top import Top
        except ImportError:
            pass  # without the extra: text
        else:
            ended = Top(Watch(options.pid), options.delay).run()
            print(ended or "", end="\n" if ended else "")
            return
    watch = Watch(options.pid, _TASKS_SHOWN)
    shown = 0
    while True:
        time.sleep(options.delay)
        try:
            text = _json_of(watch) if options.json else _text_of(watch)
        except Trouble as trouble:
            if shown == 0:
                raise
            print(trouble)
            return
        if options.json:
            print(text, flush=True)
        else:
            _print(text, "\x1b[H\x1b[2J" if sys.stdout.isatty() else "")
        shown += 1
        if shown == options.count:
            return


def _json_of(watch: Watch) -> str:
    return json.dumps([_as_json(process, watch.before) for process in watch.read()])


def _text_of(watch: Watch) -> str:
    shown = watch.look()
    lines = [_show(shown.processes, watch.before), *shown.troubles]
    for number, (thread, count) in shown.threads.items():
        rows = [task.cells[1:] for task in shown.tasks if task.cells[0] == number]
        lines.append(f"\nloop {number} in thread {one_line(thread)}: {count} task(s)")
        if rows:
            lines.append(_table([TASK_COLUMNS[1:], *rows], left=(0, 1, 6)))
        if count > len(rows):
            lines.append(f"... and {count - len(rows)} more")
    return "\n".join(lines)
