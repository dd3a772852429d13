"""What rows in the loop's process talk to: C programs, PostgreSQL, Redis.

Each is started when a row first needs it, on the core of the load, and stays until `close`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

from . import build, machine
from .child import Child, ChildError
from .compare import Options

START = 20.0
"""Seconds that a C program may take to start."""


class Missing(Exception):
    """A helper cannot be had on this machine; the message says why, in one line."""


_running = ExitStack()
_addresses: dict[str, str] = {}
_missing: dict[str, str] = {}


def address(name: str, options: Options) -> str:
    """Return the address of a helper, which is started if need be. Raises Missing."""
    if name in _missing:
        raise Missing(_missing[name])
    if name not in _addresses:
        try:
            _addresses[name] = _STARTERS[name](options)
        except Exception as exc:
            _missing[name] = str(exc).strip().split("\n")[0] or type(exc).__name__
            raise Missing(_missing[name]) from None
    return _addresses[name]


def close() -> None:
    """End all helpers."""
    _addresses.clear()
    _running.close()


def _port_of(command: list[str], options: Options) -> str:
    child = _running.enter_context(Child(command, options.load_core))
    ready = child.report(START)
    if ready is None:
        raise ChildError("ended without serving")
    return str(ready["port"])


def _answers(mode: str) -> Callable[[Options], str]:
    return lambda options: _port_of([str(build.answers()), mode], options)


def _tls_echo(options: Options) -> str:
    from .tls import certificate

    files = ["--certificate", certificate()[0], "--key", certificate()[1]]
    return _port_of([str(build.tls_echo_server()), *files], options)


@contextmanager
def _on(core: int | None) -> Any:
    """Children that are started in the block run on this core."""
    if core is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    machine.pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _service(name: str) -> Callable[[Options], str]:
    def start(options: Options) -> str:
        # The servers that the tests start: of this run alone, in temporary folders.
        from tests import services

        with _on(options.load_core):
            url: str = _running.enter_context(getattr(services, name)())
            return url

    return start


_STARTERS: dict[str, Callable[[Options], str]] = {
    "sink": _answers("sink"),
    "greet": _answers("greet"),
    "http": _answers("http"),
    "tls-echo": _tls_echo,
    "postgresql": _service("postgresql"),
    "redis": _service("redis"),
}
