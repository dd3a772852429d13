"""No memory: each allocation of the core failing once in turn, by tests/programs/oom.py."""

import os
import shutil
import sys

import pytest

from tests.support import check_program

from . import oom


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CC", "cc")), reason="no C compiler for the failing allocator"
)
@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer's allocator takes no interruptions by backtrace()",
)
@pytest.mark.skipif(sys.platform != "linux", reason="the hook reads /proc and ELF tables")
@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("scenario", sorted(oom.SCENARIOS))
def test_each_allocation_fails(scenario, times):
    arguments = "--seconds", "20", "--times", str(times)
    check_program("tests.programs.oom", scenario, *arguments, limit=120)
