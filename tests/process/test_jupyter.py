"""`python -m asyncloop.jupyter` where there is no Jupyter; with one: tests/selection."""

import subprocess
import sys

from asyncloop.jupyter import command_of


def test_without_ipykernel_one_line_says_what_to_install():
    code = """
import sys
sys.modules["ipykernel"] = None
from asyncloop import jupyter
sys.exit(jupyter.main(["install"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "pip install ipykernel" in done.stderr


def test_the_kernel_keeps_its_own_command_line():
    argv = ["python", "-X", "frozen_modules=off", "-m", "ipykernel_launcher", "-f", "{file}"]
    assert command_of(argv) == [*argv[:3], "-m", "asyncloop", *argv[3:]]
