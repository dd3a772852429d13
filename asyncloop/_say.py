"""One line to standard error, of what asyncloop itself has to say outside of the program's log."""

import contextlib
import os
import select
import sys
from collections.abc import Mapping

__all__ = ["descriptor_of_stderr", "encodable", "say", "says_no", "says_yes"]
__all__ += ["write_with_patience"]

_PATIENCE = 1.0  # seconds, of who writes to somebody that does not read
_AT_ONCE = 4096  # a pipe that may be written to takes that much


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


def encodable(text: str) -> str:
    r"""With \\udcff and the like, of names of files that are no UTF-8, as such."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_with_patience(descriptor: int, text: str) -> None:
    """Write as much as goes: nobody who reads for a second ends it. Raises OSError."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data and poll.poll(_PATIENCE * 1000):
        data = data[os.write(descriptor, data[:_AT_ONCE]) :]
