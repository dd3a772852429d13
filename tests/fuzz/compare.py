"""Runs programs on two implementations and looks for a difference."""

import contextlib
import difflib
import io
import logging
import pprint
import sys
import warnings

from ..support import Impl
from . import scheduling, transports
from .choices import Choices, program_bytes, shrink

KINDS = {"scheduling": scheduling, "transports": transports}


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


def logs(kind, data):
    """(on the standard loop, on ours) of the program made from `data`."""
    module = KINDS[kind]
    choices = Choices(data)
    impl = chosen_impl(kind, choices)
    program = module.make_program(choices)
    with quiet():
        theirs = module.execute(Impl.named("asyncio"), program)
        ours = module.execute(Impl.named(impl), program)
    return theirs, ours


def differs(kind, data):
    theirs, ours = logs(kind, data)
    return theirs != ours


def difference(kind, data):
    """What to show of a program that differs, after shrinking it."""
    data = shrink(data, lambda candidate: differs(kind, candidate))
    theirs, ours = logs(kind, data)
    choices = Choices(data)
    impl = chosen_impl(kind, choices)
    program = KINDS[kind].make_program(choices)
    out = io.StringIO()
    print(f"{kind} program {data.hex()} on {impl}:", file=out)
    pprint.pprint(program, stream=out, width=110)
    lines = [[repr(entry) for entry in log] for log in (theirs, ours)]
    for line in difflib.unified_diff(*lines, "asyncio", "asyncloop", lineterm="", n=6):
        print(line, file=out)
    return out.getvalue()


def check(kind, seed):
    """None, or the difference that program number `seed` makes."""
    data = program_bytes(seed)
    return difference(kind, data) if differs(kind, data) else None


