"""All rows, in the order in which they run. A new file of rows is added here."""

from __future__ import annotations

import re

from . import echo, memory, tasks, tls, udp, web
from .compare import Options, Row


def all_rows(options: Options) -> list[Row]:
    """Return every row for the options (message sizes make rows of their own)."""
    return [
        *tasks.ROWS,
        *echo.rows(options.sizes),
        *udp.rows(options.sizes),
        *tls.rows(options.sizes),
        *web.ROWS,
        *memory.rows(options),
    ]


def chosen(options: Options, pattern: str | None) -> list[Row]:
    """Return the rows whose key, group or title the regular expression finds."""
    rows = all_rows(options)
    if pattern is None:
        return rows
    search = re.compile(pattern, re.I).search
    return [row for row in rows if search(row.key) or search(row.group) or search(row.title)]
