"""Builds the C core: every C file below src/ into the extension asyncloop._core.

Switches, all of them environment variables:

ASYNCLOOP_DEBUG=1           no optimisation, assertions and the core's own checks on
ASYNCLOOP_SANITIZE=LIST     compile and link with -fsanitize=LIST, e.g. address,undefined
ASYNCLOOP_COVERAGE=1        no optimisation, and gcov counts what runs (tools/coverage)
ASYNCLOOP_WERROR=1          a compiler warning in the core is an error
ASYNCLOOP_LIBEV_SOURCE=DIR  compile libev's own ev.c found in DIR into the extension,
                            with its assertions off, instead of linking the system's libev
"""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
from build_core import BuildCore, core_extension  # noqa: E402, where the builder of a package is not

if sys.platform == "win32":
    raise SystemExit(
        "asyncloop runs on Linux and macOS; on Windows use asyncio's own event loop, or winloop."
    )
setup(ext_modules=[core_extension()], cmdclass={"build_ext": BuildCore})
