"""sys.addaudithook(): what asyncio raises through the calls that it makes is raised."""

import sys

import pytest

from tests.support import ROOT, run_script, script

SCRIPT = script("audit_tour")


@pytest.mark.skipif(sys.platform != "linux", reason="compares what the system gives")
def test_audit_events_of_a_tour(impl):
    """In the same order within each step, but for what another thread does."""
    from tests.support import Impl

    def events(of):
        lines = run_script(of, SCRIPT).stdout.splitlines()
        steps = {}
        for line in lines:
            if not line.startswith("("):
                current = steps.setdefault(line, [])
            else:
                current.append(line)
        return {name: sorted(found) for name, found in steps.items()}

    assert events(impl) == events(Impl.named("asyncio"))


def test_every_short_way_has_its_test():
    """The table names tests that exist."""
    import re

    table = ROOT / "src" / "short_ways.md"
    if not table.exists():
        pytest.skip("no source tree")
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known.update(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", table.read_text()))
    assert named and named <= known, named - known
