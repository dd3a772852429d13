"""Runs programs on two implementations and looks for a difference."""

import contextlib
import difflib
import io
import logging
import pprint
import sys
import warnings

from tests.support import Impl

from . import scheduling, stacks, transports
from .choices import Choices, shrink

KINDS = {"scheduling": scheduling, "transports": transports, "stacks": stacks}


@contextlib.contextmanager
def quiet():
    """Without what the programs provoke: log records, warnings, unraisable exceptions."""
    unraisable = []
    old_hook, sys.unraisablehook = sys.unraisablehook, lambda info: unraisable.append(str(info))
    level = logging.getLogger("asyncio").level
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield unraisable
    finally:
        logging.getLogger("asyncio").setLevel(level)
        sys.unraisablehook = old_hook


def chosen_impl(kind, choices):
    mixed = choices.chance(12) and kind == "scheduling"
    return "asyncloop-on-asyncio" if mixed else "asyncloop"


def program_of(kind, data):
    """(the implementation to compare with the standard loop, the program)"""
    choices = Choices(data)
    return chosen_impl(kind, choices), KINDS[kind].make_program(choices)


def logs(kind, impl, program):
    """What the program gives (on the standard loop, on ours)."""
    execute = KINDS[kind].execute
    with quiet():
        return execute(Impl.named("asyncio"), program), execute(Impl.named(impl), program)


def listed(program, theirs, ours):
    """The difference of two logs, in lines; none: they are the same."""
    if theirs == ours:
        return []
    lines = [[repr(entry) for entry in log] for log in (theirs, ours)]
    return [*difflib.unified_diff(*lines, "asyncio", "asyncloop", lineterm="", n=6)]


def explained(kind, impl, program):
    """What is wrong with what the program did, in lines; none: nothing."""
    return getattr(KINDS[kind], "explain", listed)(program, *logs(kind, impl, program))


def shrunk(kind, data, lines):
    """(implementation, a program that is smaller and makes the same difference)"""
    module = KINDS[kind]
    named = hasattr(module, "explain")  # the first line says of what kind the difference is

    def is_like_it(impl, program):
        found = explained(kind, impl, program)
        return bool(found) and (not named or found[0] == lines[0])

    attempts = 500 if named else 1500
    data = shrink(data, lambda candidate: is_like_it(*program_of(kind, candidate)), attempts)
    impl, program = program_of(kind, data)
    found = named
    while found:
        found = next((one for one in module.smaller(program) if is_like_it(impl, one)), None)
        program = found or program
    return impl, program


def difference(kind, data, lines):
    """What to show of a program that differs, after shrinking it."""
    impl, program = shrunk(kind, data, lines)
    out = io.StringIO()
    print(f"{kind} program on {impl}:", file=out)
    pprint.pprint(program, stream=out, width=110)
    # Once more: what hangs on the moment may not come again.
    lines = explained(kind, impl, program) or [*lines, "(not when it ran again)"]
    print(*lines, sep="\n", file=out)
    print(f'again: python -m tests.fuzz --kind {kind} --on {impl} --program "{program}"', file=out)
    return out.getvalue()


def check(kind, data):
    """None, or the difference that the program made from these bytes makes."""
    lines = explained(kind, *program_of(kind, data))
    return difference(kind, data, lines) if lines else None
