"""No memory: each allocation of the core failing once in turn, by tests/oom.py."""

import os
import shutil
import subprocess
import sys

import pytest

from . import oom
from .support import Impl, import_root


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CC", "cc")), reason="no C compiler for the failing allocator"
)
@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer's allocator takes no interruptions by backtrace()",
)
@pytest.mark.skipif(sys.platform != "linux", reason="the hook reads /proc and ELF tables")
@pytest.mark.parametrize("scenario", sorted(oom.SCENARIOS))
def test_each_allocation_fails_once(scenario):
    done = subprocess.run(
        [sys.executable, "-m", "tests.oom", scenario, "--seconds", "20"],
        cwd=import_root(Impl.named("asyncloop")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-5000:]
