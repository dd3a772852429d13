"""Libraries that bring threads, terminals, processes or event loops of their own.

A program for each in programs/, in a process of its own, because many of them change the process;
what it prints at its end, and how it ends, is the same on both loops.
"""

import shutil
from pathlib import Path

import pytest

from tests.services import in_ci
from tests.support import check_script

PROGRAMS = Path(__file__).parent / "programs"
POSTGRESQL = "postgres_psycopg", "sqlalchemy_engines"


def check(impl, name, *args, **options):
    source = (PROGRAMS / f"{name}.py").read_text()
    done = check_script(impl, f"{source}\nprint('well')", args=args, flags=(), **options)
    assert done.stdout.strip().endswith("well"), done.stdout + done.stderr
    for trouble in ("Traceback", "never awaited", "never retrieved"):
        assert trouble not in done.stderr, done.stderr


def names():
    """Every program but those that have a test of their own, below or in test_apart.py."""
    others = (*POSTGRESQL, "dbus", "prompt", "trio_guest")
    return sorted(path.stem for path in PROGRAMS.glob("*.py") if path.stem not in others)


@pytest.mark.parametrize("name", names())
def test_library(impl, name):
    check(impl, name)


@pytest.mark.parametrize("name", POSTGRESQL)
def test_database(impl, postgresql_url, name):
    check(impl, name, postgresql_url)


def test_bus(impl):
    if shutil.which("dbus-daemon") is None:
        if in_ci():
            pytest.fail("there is no dbus-daemon: apt-get install dbus-daemon", pytrace=False)
        pytest.skip("there is no dbus-daemon: apt-get install dbus-daemon")
    check(impl, "dbus")


def test_prompt_at_a_terminal(impl, tmp_path):
    """The program starts itself once more, below a terminal."""
    from tests.support import PREAMBLE

    source = (PROGRAMS / "prompt.py").read_text()
    whole = PREAMBLE.format(limit=50, loops=impl.loops) + source
    done = check_script(
        impl,
        f"SOURCE = {whole!r}\n{source}\nprint('well')",
        args=[str(tmp_path / "asks.py")],
        flags=(),
    )
    assert done.stdout.strip() == "well", done.stdout + done.stderr
