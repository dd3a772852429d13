"""What compiling for an interpreter takes of it: its headers and some sizes.

    PYTHON tools/wheels/describe.py FOLDER TYPE...

Run by that interpreter. Writes FOLDER/include and FOLDER/python.json, which says, among others, how
large an instance of each TYPE is. One 64-bit Linux stands for all of them.
"""

import importlib
import json
import pathlib
import shutil
import sys
import sysconfig


def basic_size(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute).__basicsize__


def main(folder, *types):
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    headers = pathlib.Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        sys.exit(f"the headers of {sys.executable} are not installed")
    shutil.copytree(headers, folder / "include")
    # Debian has another file in its place, that chooses by the machine.
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    config = headers.parent / multiarch / headers.name / "pyconfig.h"
    if config.exists():
        shutil.copy(config, folder / "include" / "pyconfig.h")
    freethreaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    description = {
        "version": sys.version.split()[0],
        "tag": "cp{}{}".format(*sys.version_info),
        "abi": "cp{}{}{}".format(*sys.version_info[:2], "t" if freethreaded else ""),
        "freethreaded": freethreaded,
        "sizes": {name: basic_size(name) for name in types},
    }
    (folder / "python.json").write_text(json.dumps(description, indent=1) + "\n")


main(*sys.argv[1:])
