"""Builds the C core: every C file below src/ into the extension asyncloop._core.

Switches, all of them environment variables:

ASYNCLOOP_DEBUG=1           no optimisation, assertions and the core's own checks on
ASYNCLOOP_HOSTILE=1         tuned constants at values that nobody would choose (src/base/tuning.h)
ASYNCLOOP_SANITIZE=LIST     compile and link with -fsanitize=LIST, e.g. address,undefined
ASYNCLOOP_COVERAGE=1        no optimisation, and gcov counts what runs (tools/coverage)
ASYNCLOOP_WERROR=1          a compiler warning in the core is an error
ASYNCLOOP_LIBEV_SOURCE=DIR  compile libev's own ev.c found in DIR into the extension,
                            with its assertions off, instead of linking the system's libev
"""

import re
import sys
import tomllib
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
from build_core import BuildCore, core_extension  # noqa: E402, where the builder of a package is not

if sys.platform == "win32":
    raise SystemExit(
        "asyncloop runs on Linux and macOS; on Windows use asyncio's own event loop, or winloop."
    )


def addresses():
    """Where the project lives, as far as that is known."""
    urls = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["asyncloop"]["urls"]
    return {name: url for name, url in urls.items() if url}


def readme(source):
    """README.md for the package index, where a link to a file of the repository leads nowhere.

    source: the repository's address; without it such links are plain text, and pictures left out
    """
    text = Path("README.md").read_text(encoding="utf-8")
    if not source:
        text = re.sub(r"!\[[^]]*\]\((?![a-z]+:|#)[^)]*\)\n*", "", text)
        return re.sub(r"\[([^]]*)\]\((?![a-z]+:|#)[^)]*\)", r"\1", text)
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{source}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{source}/blob/main/", text)


setup(
    long_description=readme(addresses().get("Source")),
    long_description_content_type="text/markdown",
    project_urls=addresses(),
    ext_modules=[core_extension()],
    cmdclass={"build_ext": BuildCore},
)
