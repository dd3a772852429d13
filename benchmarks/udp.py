"""Datagram rows: UDP echo from 20 sockets, with C over libev as the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import build, traffic
from .child import Child
from .compare import Options, Outcome, Row
from .load import own
from .loops import NETWORK
from .traffic import BUSY, CPU, P50, P99, RATE, SHARE, SYSTEM, USER, in_words

METRICS = (RATE, SHARE, USER, SYSTEM, CPU, BUSY, P99, P50)

SOCKETS = 20
LARGEST = 65507
"""Bytes: no UDP datagram over IPv4 is larger."""


def _row(size: int) -> Row:
    def start(name: str, options: Options) -> Child:
        if name == traffic.LIMIT:
            return Child([str(build.udp_echo_server())], options.server_core)
        return traffic.serve_python("echo-udp", name, options, "--size", str(size))

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        generator = own(build.load_generator(), "--size", str(size), "--udp", "1")
        of_these = replace(options, connections=SOCKETS)
        return traffic.drive_servers(of_these, [*loops, traffic.LIMIT], start, generator)

    return Row(
        f"echo-udp-{size}",
        "echo",
        f"UDP, {in_words(size)}, {SOCKETS} sockets",
        METRICS,
        run,
        traits=frozenset({NETWORK}),
    )


def rows(sizes: Sequence[int]) -> list[Row]:
    """Return the rows for those message sizes that fit into a datagram; none given: 1 KiB."""
    return [_row(size) for size in sizes or (1024,) if size <= LARGEST]
