"""One line to standard error, of what asyncloop itself has to say outside of the program's log."""

import contextlib
import os
import re
import select
import sys
from collections.abc import Mapping

__all__ = ["descriptor_of_stderr", "one_line", "printable", "say", "says_no", "says_yes"]
__all__ += ["write_with_patience"]

_PATIENCE = 1.0  # seconds, of who writes to somebody that does not read
_AT_ONCE = 4096  # a pipe that may be written to takes that much
# What a terminal would obey: names of tasks, files and hosts may have it in them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def say(text: str) -> None:
    """Write a line. Where there is no standard error, or it takes no more, it is lost."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"asyncloop: {text}\n")


def says_yes(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable switches something on. One line where it says neither yes nor no."""
    value = environ.get(name, "")
    yes = value.strip().lower() in ("1", "true", "yes", "on")
    if value and not yes and not says_no(name, environ):
        say(f"{name}={value!r} is neither 1 nor 0: it counts as 0")
    return yes


def says_no(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable switches off what else would be on."""
    return environ.get(name, "").strip().lower() in ("0", "false", "no", "off")


def descriptor_of_stderr() -> int:
    """For who writes there without Python: -1 if the program was started without."""
    with contextlib.suppress(Exception):
        return sys.__stderr__.fileno()  # type: ignore[union-attr]
    return -1


def printable(text: str) -> str:
    r"""With \x1b, \udcff and the like in place of what a terminal would obey or no UTF-8 has.

    Lines stay lines: see one_line().
    """
    text = _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    r"""With \n in place of what would begin another line: names may have anything in them."""
    return text.replace("\n", "\\n")


def write_with_patience(descriptor: int, text: str) -> None:
    """Write as much as goes: nobody who reads for a second ends it. Raises OSError."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data and poll.poll(_PATIENCE * 1000):
        data = data[os.write(descriptor, data[:_AT_ONCE]) :]
