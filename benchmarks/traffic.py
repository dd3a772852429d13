"""Rows that drive servers: one server process per contestant, loaded in turn, in rounds.

All servers of a row are up at the same time, each in a process of its own on the server
core, and idle but for the one whose turn it is. CPU time is read from the kernel before and
after each load.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from .busy import OtherWork
from .child import Child, ChildError
from .compare import Metric, Options, Outcome
from .load import Generator
from .machine import cpu_time

LIMIT = "C"
"""The contestant that is no event loop but the limit: a C program over libev."""

START = 20.0
"""Seconds that a server may take to start."""

RATE = Metric("rate", "requests/s", "1/s", better="higher")
SHARE = Metric("share", "share of C", "%", better="higher", ratio=False)
USER = Metric("user", "user CPU", "µs/request", digits=2, weight="requests")
SYSTEM = Metric("system", "system CPU", "µs/request", digits=2, weight="requests", ratio=False)
CPU = Metric("cpu", "all CPU", "µs/request", digits=2)
BUSY = Metric("busy", "server busy", "%", better="higher", ratio=False)
P99 = Metric("p99", "99th percentile", "µs", ratio=False)
P50 = Metric("p50", "median latency", "µs", shown=False, ratio=False)


def in_words(size: int) -> str:
    """Return a message size as a reader wants it."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


Starter = Callable[[str, Options], Child]
"""Starts the server of a contestant."""


def drive_servers(
    options: Options, contestants: Sequence[str], start: Starter, generator: Generator
) -> Outcome:
    """Start a server for each contestant and load them in turn, options.load_rounds times.

    A server that does not start, dies, hangs or answers wrongly is a failed contestant.
    """
    outcome = Outcome()
    with ExitStack() as stack:
        servers: dict[str, Child] = {}
        ports: dict[str, int] = {}
        for name in contestants:
            try:
                child = stack.enter_context(start(name, options))
                ready = child.report(START)
                if ready is None:
                    raise ChildError("ended without serving")
                ports[name] = int(ready["port"])
                servers[name] = child
                generator(ports[name], replace(options, load_seconds=0.3))
            except Exception as exc:
                servers.pop(name, None)
                outcome.fail(name, _reason(exc, child if name in ports else None))
        watch = OtherWork(child.pid for child in servers.values())
        for _ in range(options.load_rounds):
            for name in list(servers):
                try:
                    outcome.add(name, _load(servers[name], ports[name], options, generator))
                except ChildError as exc:
                    child = servers.pop(name)
                    outcome.fail(name, _reason(exc, child))
                    child.stop()
        if note := watch.note():
            outcome.notes.append(note)
    _add_shares(outcome)
    return outcome


def _load(child: Child, port: int, options: Options, generator: Generator) -> dict[str, float]:
    before = cpu_time(child.pid)
    load = generator(port, options)
    after = cpu_time(child.pid)
    if not child.alive():
        raise ChildError(child.failure())
    values = {"requests": load.requests, "rate": load.rate, "p50": load.p50_us, "p99": load.p99_us}
    if before is not None and after is not None:
        used = after - before
        values |= used.per_request(load.requests)
        values["busy"] = 100 * used.total / (load.requests / load.rate)
    return values


def _reason(exc: Exception, child: Child | None) -> str:
    """Say why a contestant failed, with what the server itself said about it."""
    # A dying server's connections are reset a moment before its end can be seen.
    if child is not None and child.ends_within(0.5):
        return f"server: {child.failure()}"
    text = str(exc) if isinstance(exc, ChildError) else f"{type(exc).__name__}: {exc}"
    said = child.last_words() if child is not None else ""
    return f"{text}; server: {said}" if said else text


def _add_shares(outcome: Outcome) -> None:
    """Add to each round the share of the throughput that C had in that round."""
    limit = outcome.samples.get(LIMIT)
    if limit is None:
        return
    for metrics in outcome.samples.values():
        pairs = zip(metrics["rate"], limit["rate"], strict=True)
        metrics["share"] = [100 * mine / best for mine, best in pairs]


def serve_python(kind: str, name: str, options: Options, *arguments: str) -> Child:
    """Start a server of serve.py on a loop."""
    print(f"    {name}", file=sys.stderr, flush=True)
    return Child.python("serve", kind, name, *arguments, core=options.server_core)
