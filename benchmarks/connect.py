"""Rows of accepting: a connection from accept to its first byte and its end."""

from __future__ import annotations

from collections.abc import Sequence

from . import build, traffic
from .child import Child
from .compare import Options, Outcome, Row
from .load import own
from .loops import NETWORK
from .traffic import BUSY, CPU, P50, P99, RATE, SHARE, SYSTEM, USER

METRICS = (RATE, SHARE, CPU, USER, SYSTEM, BUSY, P99, P50)

KINDS = {"protocol": "Protocol", "streams": "streams"}


def _row(kind: str, title: str) -> Row:
    def start(name: str, options: Options) -> Child:
        if name == traffic.LIMIT:
            return Child([str(build.answers()), "greet"], options.server_core)
        return traffic.serve_python(f"accept-{kind}", name, options)

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        generator = own(build.load_generator(), "--connect", "1")
        return traffic.drive_servers(options, [*loops, traffic.LIMIT], start, generator)

    return Row(
        f"accept-{kind}",
        "connect",
        f"accept, first byte, end: {title}",
        METRICS,
        run,
        traits=frozenset({NETWORK}),
    )


ROWS = [_row(kind, title) for kind, title in KINDS.items()]
