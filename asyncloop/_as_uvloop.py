"""What a program that only knows the word uvloop finds under it: see `asyncloop-run --as-uvloop`.

Metadata of a distribution is not faked: `importlib.metadata.version("uvloop")` says what is
installed.
"""

from asyncloop import Loop, new_event_loop, run
from asyncloop import __version__ as _version

_asyncloop = True

# The version of uvloop whose names these are, and who answers.
__version__ = f"0.22.0+asyncloop.{_version}"

__all__ = ["Loop", "new_event_loop", "run", "install", "EventLoopPolicy"]

try:
    from asyncloop import EventLoopPolicy, install
except (ImportError, AttributeError):  # Python 3.16 has no policies
    __all__ = ["Loop", "new_event_loop", "run"]

libuv_version = None

if __name__ == "uvloop":
    from uvloop import loop as loop  # type: ignore[import-not-found]
