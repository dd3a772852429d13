"""Do the files of the core that know of the debug build compile in it? For `make lint`.

    python tools/check_switches.py
"""

import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys
import sysconfig

from build_core import core_extension

KNOWS = re.compile(r"\bASYNCLOOP_DEBUG\b|\bVERIFY\(|\bSHORT_WAY\(|\bTUNED\(")


def main():
    os.environ.update(ASYNCLOOP_DEBUG="1", ASYNCLOOP_HOSTILE="1", ASYNCLOOP_WERROR="1")
    extension = core_extension()
    command = [
        *shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"),
        "-fsyntax-only",
        *(f"-I{folder}" for folder in [*extension.include_dirs, sysconfig.get_path("include")]),
        *(f"-D{name}" if value is None else f"-D{name}={value}"
          for name, value in extension.define_macros),
        *extension.extra_compile_args,
    ]
    sources = [source for source in extension.sources
               if KNOWS.search(pathlib.Path(source).read_text())]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        runs = executor.map(lambda source: subprocess.run([*command, source]), sources)
        return max(run.returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
