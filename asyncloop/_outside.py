"""The loops of another process, from outside: for `python -m asyncloop ps` and its kin (`_ps.py`).

Counters are read from its page (`_page.py`), which costs it nothing, and works while its loops are
blocked. Tasks are asked for at its socket.
"""

import contextlib
import dataclasses
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from . import _core
from ._command import Trouble
from ._stats import LoopStats, stats_of

__all__ = [
    "STOPPED",
    "TASK_STATES",
    "Process",
    "SeenLoop",
    "all_processes",
    "ask",
    "ask_tasks",
    "read_process",
]

_MAGIC = b"asyncloop page\n\0"
_LINK = "/memfd:asyncloop-page"
# The beginning of struct page_header of the core: page.h.
_HEADER = struct.Struct("=16s6IQQ32s32s64sQQqqQ")
_HEADER_BYTES, _TEXT_BYTES = 4096, 2048
_PATIENCE = 3.0  # seconds for the process to begin an answer, or to go on with it
_WHOLE = 30.0  # seconds for all of it
_MOST_BYTES = 1 << 28
STOPPED = "it is stopped, by a signal or a debugger"
TASK_STATES = ("running", "ready", "waiting")
_BLOCKED = 0.1  # seconds: a loop that has not looked at the kernel for longer than that


@dataclasses.dataclass(frozen=True)
class SeenStall:
    loop: int
    lasted: float
    ago: float
    still_running: bool
    text: str  # of the watchdog: the blocking line, then the stack; or what faulthandler wrote

    @property
    def where(self) -> str:
        first, _, rest = self.text.partition("\n")
        if first.startswith("Stack ("):
            first = f"{rest.partition(chr(10))[0].strip()}, while a call holds the GIL"
        return first


@dataclasses.dataclass(frozen=True)
class SeenLoop:
    stats: LoopStats
    native_thread: int
    blocked: float  # seconds since it last looked at the kernel, if it runs and is awake

    @property
    def state(self) -> str:
        if not self.stats.running:
            return "stopped"
        if self.stats.asleep:
            return "asleep"
        return f"blocked {self.blocked:.1f} s" if self.blocked >= _BLOCKED else "busy"


@dataclasses.dataclass(frozen=True)
class Process:
    """What a page says at one moment."""

    pid: int
    asyncloop: str
    python: str
    socket: str
    loops: tuple[SeenLoop, ...]
    not_shown: int  # loops for which the page has no room
    stall: SeenStall | None
    stopped: bool  # by a signal or a debugger: whatever its loops were about, they do not go on


# -- pages -----------------------------------------------------------------------------------


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def read_page(descriptor: int, pid: int) -> Process:
    """What a page says. Raises Trouble for what is no page, or one of another version."""
    header = os.pread(descriptor, _HEADER_BYTES, 0)
    if len(header) < _HEADER.size + _TEXT_BYTES or len(header) < _HEADER_BYTES:
        raise Trouble(f"the page of process {pid} is truncated")
    magic, version, header_bytes, slot_bytes, slots, counters_bytes, buckets, *rest = (
        _HEADER.unpack_from(header)
    )
    if magic != _MAGIC:
        raise Trouble(f"process {pid} has no page of asyncloop's: what it has is something else")
    layout = (version, header_bytes, slot_bytes, slots, counters_bytes, buckets)
    if layout != _core._page_layout():
        raise Trouble(
            f"the page of process {pid} has version {version}, of asyncloop {_text(rest[2])}; "
            f"this one reads version {_core._page_layout()[0]}"
        )
    if os.fstat(descriptor).st_size < header_bytes + slots * slot_bytes:
        raise Trouble(f"the page of process {pid} is truncated")
    _, without_slot, asyncloop, python, name, *stall = rest
    return Process(
        pid,
        _text(asyncloop),
        _text(python),
        _text(name),
        tuple(_loops(descriptor, header_bytes, slot_bytes, slots, counters_bytes)),
        without_slot,
        _read_stall(stall, header),
        is_stopped(pid),
    )


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by SIGSTOP and the like or by a debugger."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the name, which may have anything in it.
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    return False


def _loops(
    descriptor: int, header_bytes: int, slot_bytes: int, slots: int, counters_bytes: int
) -> Iterator[SeenLoop]:
    for index in range(slots):
        data = os.pread(descriptor, counters_bytes, header_bytes + index * slot_bytes)
        if len(data) < counters_bytes:
            raise Trouble("the page was cut meanwhile")
        counters = _core._page_counters(data)
        if counters is not None:
            awake = counters["running"] and not counters["asleep"]
            blocked = max(0, counters["now"] - counters["looked"]) * 1e-9 if awake else 0.0
            yield SeenLoop(stats_of(counters), counters["native_thread"], blocked)


def _read_stall(fields: Sequence[int], header: bytes) -> SeenStall | None:
    stalls, loop, told, lasted, goes_on = fields
    if stalls == 0:
        return None
    text = _text(header[_HEADER.size : _HEADER.size + _TEXT_BYTES])
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return SeenStall(loop, lasted * 1e-9, max(0, now - told) * 1e-9, bool(goes_on), text)


def _is_page(path: str) -> bool:
    try:
        return os.readlink(path).startswith(_LINK)
    except FileNotFoundError:
        return False  # closed since


@contextlib.contextmanager
def open_pages(pid: int) -> Iterator[list[int]]:
    """Descriptors of the pages of a process, one for each interpreter. Raises Trouble."""
    folder = f"/proc/{pid}/fd"
    found: list[int] = []
    try:
        paths = [f"{folder}/{number}" for number in os.listdir(folder)]
        # All of them first: what is opened below is there as well, if this is the own process.
        for path in [path for path in paths if _is_page(path)]:
            with contextlib.suppress(FileNotFoundError):
                # Whatever bears that name: nothing is waited for.
                found.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        yield found
    except (FileNotFoundError, ProcessLookupError):
        raise Trouble(f"there is no process {pid}") from None
    except PermissionError:
        raise Trouble(_forbidden(pid)) from None
    finally:
        for descriptor in found:
            os.close(descriptor)


def _forbidden(pid: int) -> str:
    try:
        user = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"there is no process {pid}"
    if user != os.geteuid():
        return f"process {pid} belongs to another user ({user})"
    return f"process {pid} may not be looked into"


def read_process(pid: int) -> list[Process]:
    """Of each of its interpreters that has a page. Raises Trouble where there is none."""
    if not sys.platform.startswith("linux"):
        raise Trouble("looking into other processes needs Linux")
    with open_pages(pid) as descriptors:
        if not descriptors:
            raise Trouble(
                f"process {pid} has no page: start it with ASYNCLOOP_PAGE=1 or a watchdog"
            )
        try:
            return [read_page(descriptor, pid) for descriptor in descriptors]
        except OSError as error:
            raise Trouble(f"the page of process {pid} is none: {error.strerror}") from None


def all_processes() -> list[Process]:
    """Those that may be looked into, and have a page that can be read."""
    if not sys.platform.startswith("linux"):
        raise Trouble("looking into other processes needs Linux")
    found = []
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        if int(name) != os.getpid():
            with contextlib.suppress(Trouble, OSError):
                found += read_process(int(name))
    return found


def ask(process: Process, what: str) -> bytes:
    """What the process itself answers. Raises Trouble if it does not, within some seconds."""
    pid = process.pid
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(f"\0{process.socket}")
            sock.sendall(what.encode())
            until = time.monotonic() + _WHOLE
            while part := sock.recv(1 << 16):
                answer += part
                if len(answer) > _MOST_BYTES or time.monotonic() > until:
                    raise Trouble(f"process {pid} does not come to the end of its answer")
    except TimeoutError:
        where = f"; last stall: {process.stall.where}" if process.stall is not None else ""
        how = "stops in its answer" if answer else "does not answer"
        why = "a call may hold the GIL, or a repr() may not end"
        if is_stopped(pid):
            why = STOPPED
        raise Trouble(f"process {pid} {how}: {why}{where}") from None
    except ConnectionRefusedError:
        raise Trouble(
            f"process {pid} does not answer: it has ended, or has a network namespace of its own"
        ) from None
    except OSError as error:
        raise Trouble(f"process {pid} does not answer: {error.strerror}") from None
    if not answer:
        raise Trouble(f"process {pid} does not answer")
    return bytes(answer)


def ask_tasks(process: Process) -> list[dict[str, Any]]:
    """Its loops with their tasks, of a process that may be anything. Raises Trouble."""
    try:
        loops = json.loads(ask(process, "tasks"))
        for loop in loops:
            _check(loop, _LOOP_FIELDS)
            for task in loop["tasks"]:
                _check(task, _TASK_FIELDS)
                if task["state"] not in TASK_STATES or not all(
                    isinstance(each, str) for each in task["stack"]
                ):
                    raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise Trouble(f"process {process.pid} answers with something else") from None
    return list(loops)


_LOOP_FIELDS = {"loop": int, "thread": str, "tasks": list, "tasks_not_shown": int}
_NUMBER = (int, float, type(None))
_TASK_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("id", "name", "state"), str),
    **dict.fromkeys(("ran", "ready", "steps", "wakeups"), _NUMBER),
    **dict.fromkeys(("stack", "awaited_by"), list),
}


def _check(thing: Any, fields: dict[str, Any]) -> None:
    if not isinstance(thing, dict):
        raise TypeError
    for name, kind in fields.items():
        if not isinstance(thing.get(name), kind):
            raise TypeError
