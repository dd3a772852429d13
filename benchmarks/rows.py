"""All rows, in the order in which they run. A new file of rows is added here."""

from __future__ import annotations

import re

from . import apps, connect, echo, growth, memory, network, suites, tasks, timing, tls, udp, web
from .compare import Options, Row


def all_rows(options: Options) -> list[Row]:
    """Return every row for the options (message sizes make rows of their own)."""
    return [
        *tasks.ROWS,
        *timing.ROWS,
        *echo.rows(options.sizes),
        *udp.rows(options.sizes),
        *tls.rows(options.sizes),
        *[row for row in network.ROWS if row.group == "write"],
        *connect.ROWS,
        *[row for row in network.ROWS if row.group != "write"],
        *web.ROWS,
        *apps.ROWS,
        *suites.ROWS,
        *memory.rows(options),
        *growth.ROWS,
    ]


def chosen(options: Options, pattern: str | None) -> list[Row]:
    """Return the rows whose key, group or title the regular expression finds."""
    rows = all_rows(options)
    if pattern is None:
        return rows
    search = re.compile(pattern, re.I).search
    return [row for row in rows if search(row.key) or search(row.group) or search(row.title)]
