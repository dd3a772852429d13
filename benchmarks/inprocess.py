"""Parent side of the in-process rows: starts worker.py and survives whatever happens there."""

from __future__ import annotations

from collections.abc import Sequence

from . import helpers
from .body import Body
from .child import Child, ChildError
from .compare import Options, Outcome, Row

PATIENCE = 100.0
"""Seconds without a sign of life after which a worker counts as hanging."""


def row_of(code: Body) -> Row:
    """Return the row of a body."""

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        contestants = ["floor"] if code.floor else list(loops)
        if code.plain:
            contestants.append(code.plain[0])
        return sample_rows(code, options, contestants)

    return Row(
        code.key,
        code.group,
        code.title,
        code.metrics,
        run,
        solo=code.floor,
        traits=code.traits,
        series=code.series,
        x=code.x,
    )


def sample_rows(code: Body, options: Options, contestants: Sequence[str]) -> Outcome:
    """Measure one body on all contestants in one process, interleaved in rounds.

    A loop that crashes or hangs the process is marked as failed, and the others are measured
    again without it. A helper that cannot be had is the row's one note.
    """
    try:
        address = helpers.address(code.needs, options) if code.needs else ""
    except helpers.Missing as missing:
        return Outcome(notes=[f"left out: {missing}"])
    left = list(contestants)
    failed: dict[str, str] = {}
    while True:
        outcome = Outcome()
        culprit = _attempt(code, address, options, left, outcome) if left else None
        if culprit is None:
            for name, error in failed.items():
                outcome.fail(name, error)
            return outcome
        name, error = culprit
        failed[name] = error
        left = [other for other in left if other != name]


def _attempt(
    code: Body, address: str, options: Options, loops: list[str], outcome: Outcome
) -> tuple[str, str] | None:
    """Fill the outcome; return who broke the process and how, or None if nobody did."""
    current = loops[0]
    rounds = min(options.rounds, code.rounds or options.rounds)
    arguments = [code.key, ",".join(loops), str(rounds), str(options.sample_seconds)]
    with Child.python("worker", *arguments, address, core=options.server_core) as child:
        try:
            while (event := child.report(PATIENCE)) is not None:
                current = event["loop"]
                if "error" in event:
                    outcome.fail(current, event["error"])
                elif "values" in event:
                    outcome.add(current, event["values"])
        except ChildError as exc:
            return current, str(exc)
    return None
