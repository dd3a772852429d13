"""Echo rows: each way to write a server, at each message size, with C over libev as the limit."""

from __future__ import annotations

from collections.abc import Sequence

from . import build, traffic
from .child import Child
from .compare import Options, Outcome, Row
from .load import own
from .loops import NETWORK
from .traffic import BUSY, CPU, P50, P99, RATE, SHARE, SYSTEM, USER, in_words

METRICS = (RATE, SHARE, USER, SYSTEM, CPU, BUSY, P99, P50)

KINDS = {
    "protocol": "Protocol",
    "buffered": "BufferedProtocol",
    "streams": "streams",
    "sock": "sock_recv, sock_sendall",
}


def _row(kind: str, title: str, size: int) -> Row:
    def start(name: str, options: Options) -> Child:
        if name == traffic.LIMIT:
            return Child([str(build.echo_server())], options.server_core)
        return traffic.serve_python(f"echo-{kind}", name, options, "--size", str(size))

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        generator = own(build.load_generator(), "--size", str(size))
        return traffic.drive_servers(options, [*loops, traffic.LIMIT], start, generator)

    return Row(
        f"echo-{kind}-{size}",
        "echo",
        f"{title}, {in_words(size)}",
        METRICS,
        run,
        traits=frozenset({NETWORK}),
    )


def rows(sizes: Sequence[int]) -> list[Row]:
    """Return the rows for the message sizes; none given: 1 KiB, and 64 KiB for Protocol."""
    made = [_row(kind, title, size) for size in sizes or (1024,) for kind, title in KINDS.items()]
    return made if sizes else [made[0], _row("protocol", "Protocol", 65536), *made[1:]]
