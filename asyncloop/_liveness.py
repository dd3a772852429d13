"""Whether the loops of this process turn, told to others: systemd, a health file, a probe port.

A loop that answers a probe itself says nothing while it is blocked, as if it were dead, and one
that pings from a thread says that all is well. Here a thread in C looks at the loops from
outside, so it knows, and answers although a call holds the GIL.
"""

import atexit
import contextlib
import errno
import math
import os
import socket
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from . import _core
from ._say import say, says_no
from ._stacks import StackSignal

_THRESHOLD = 0.5  # seconds in one turn, from which on a loop counts as blocked


class Liveness:
    """What `liveness()` gives: a context manager.

    address: (host, port) of the probe while it is open, else None
    """

    def __init__(
        self,
        probe: str | None,
        health_file: "str | os.PathLike[str] | None",
        systemd: str | None,
        ping: float,
        threshold: float,
    ) -> None:
        self.threshold = _seconds(threshold)
        self._probe = None if probe is None else _address(probe)
        self._health_file = None if health_file is None else os.fspath(health_file)
        self._systemd = systemd
        self._ping = ping
        #: of the probe while it is open: (host, port)
        self.address: tuple[str, int] | None = None
        self._core: _core.Liveness | None = None
        self._dump: StackSignal | None = None

    def start(self) -> None:
        """Begin. RuntimeError if it has begun already, OSError for what cannot be had."""
        if self._core is not None:
            raise RuntimeError("this is started already")
        if self._health_file is not None:
            _look_for_the_folder(self._health_file)
        with contextlib.ExitStack() as undo:
            listen = -1
            if self._probe is not None:
                sock = undo.enter_context(_listen(*self._probe))
                self.address = sock.getsockname()[:2]
                listen = sock.fileno()
            # Its own: the watchdog reads what its signal brings.
            dump = StackSignal()
            number, descriptor = dump.acquire()
            undo.callback(dump.release)
            self._core = _core.Liveness(
                self.threshold,
                listen,
                os.fsencode(self._systemd or ""),
                self._ping,
                os.fsencode(self._health_file or ""),
                number,
                descriptor,
            )
            if listen >= 0:
                sock.detach()
            undo.pop_all()
        self._dump = dump
        _running.add(self)

    def stop(self) -> None:
        """End it: the port is closed, and nobody is told anything any more."""
        core, self._core = self._core, None
        if core is None:
            return
        _running.discard(self)
        core.stop()
        self.address = None
        if self._dump is not None:
            self._dump.release()

    def __enter__(self) -> "Liveness":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()


def _seconds(value: Any) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not 0 < number < 1e9:
        raise ValueError(
            f"threshold has to be a finite number of seconds above zero, not {value!r}"
        )
    return number


def _address(text: str) -> tuple[str, int]:
    """`host:port`, `[IPv6 address]:port` or a port of 127.0.0.1. ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    host = host if colon else "127.0.0.1"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address of the kind 127.0.0.1:9000")
    return host, int(port)


def _look_for_the_folder(path: Any) -> None:
    """Say what the thread could tell nobody. It tries all the same: the folder may come later."""
    folder = os.path.dirname(path) or os.curdir
    wrong = 0
    if os.path.isdir(path):
        wrong = errno.EISDIR
    elif not os.path.isdir(folder):
        wrong = errno.ENOENT
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        wrong = errno.EACCES
    if wrong:
        say(f"the health file {path!r} cannot be made as it is now: {os.strerror(wrong)}")


def _listen(host: str, port: int) -> socket.socket:
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, number, _, address = info[0]
    sock = socket.socket(family, kind, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(16)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


# -- life --------------------------------------------------------------------------------


_running: "weakref.WeakSet[Liveness]" = weakref.WeakSet()


def _stop_all() -> None:
    for one in list(_running):
        one.stop()


def _after_fork() -> None:
    """The thread and the port are the parent's; what it says is about the parent's loops."""
    for one in list(_running):
        _running.discard(one)
        core, one._core = one._core, None
        one.address = None
        if core is not None:
            core.leave_to_parent()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_after_fork)


def liveness(
    *,
    probe: str | None = None,
    health_file: "str | os.PathLike[str] | None" = None,
    systemd: bool = False,
    threshold: float = _THRESHOLD,
) -> Liveness:
    """Return what tells others whether the loops of this process turn.

    probe: `127.0.0.1:9000` answers HTTP there, 200 while all loops turn, else 503 with the line
        that blocks one
    health_file: a file that is touched twice a second while all loops turn
    systemd: READY=1, WATCHDOG=1 and STATUS= to systemd's socket, as its variables ask for
    threshold: seconds in one turn, from which on a loop counts as blocked

    Use it as a context manager, or call `start()` and `stop()`. "All is well" is said only while
    at least one loop runs, and none is blocked. Everything is said by a thread in C without the
    GIL. A child of fork() says nothing.

    Raises ValueError for an address or a threshold that is none.
    """
    path, ping = _systemd_of(os.environ) if systemd else (None, 0.0)
    return Liveness(probe, health_file, path, ping, threshold)


def _systemd_of(environ: Mapping[str, str]) -> tuple[str | None, float]:
    """Systemd's socket and how often it wants to hear of us; None and 0 if it does not ask."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return None, 0.0
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not limit.isascii() or not limit.isdigit() or pid not in ("", str(os.getpid())):
        return path, 0.0
    return path, min(int(limit), 10**15) * 1e-6 / 3


def start_from_environment(environ: Mapping[str, str]) -> None:
    """What ASYNCLOOP_PROBE, ASYNCLOOP_HEALTH_FILE and systemd ask for; one line for what fails."""
    if not _core._is_main_interpreter:
        return  # that one has done it
    threshold = _THRESHOLD
    with contextlib.suppress(ValueError):  # the watchdog has said it
        threshold = _seconds(float(environ.get("ASYNCLOOP_WATCHDOG", "")))
    probe = environ.get("ASYNCLOOP_PROBE") or None
    health_file = environ.get("ASYNCLOOP_HEALTH_FILE") or None
    wanted = not says_no("ASYNCLOOP_SYSTEMD", environ)
    path, ping = _systemd_of(environ) if wanted else (None, 0.0)
    if _start(probe, health_file, path, ping, threshold) is None:
        return
    # One of them fails: each by itself.
    errors = {
        "ASYNCLOOP_PROBE": _start(probe, None, None, 0.0, threshold),
        "ASYNCLOOP_HEALTH_FILE": _start(None, health_file, None, 0.0, threshold),
        "NOTIFY_SOCKET": _start(None, None, path, ping, threshold),
    }
    for name, error in errors.items():
        if error is not None:
            say(f"{name}: {error}")


def _start(
    probe: str | None,
    health_file: str | None,
    systemd: str | None,
    ping: float,
    threshold: float,
) -> Exception | None:
    """Start it, if there is anything to do: None, or what is wrong."""
    if probe is None and health_file is None and systemd is None:
        return None
    try:
        one = Liveness(probe, health_file, systemd, ping, threshold)
        one.start()
    except Exception as error:
        return error
    _of_environment.append(one)
    return None


_of_environment: list[Liveness] = []
