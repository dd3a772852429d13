"""The results as JSON: all numbers with the machine, the versions and the command."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import shlex
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import machine
from .compare import Metric, Options, Outcome, Result, Row
from .loops import ROOT

LIBRARIES = (
    *("uvicorn", "httptools", "websockets", "fastapi", "starlette", "pydantic", "aiohttp"),
    *("asyncpg", "redis", "pyperformance", "pyperf"),
)


def head(
    options: Options, loops: dict[str, str], missing: dict[str, str], arguments: Sequence[str]
) -> dict[str, Any]:
    """Return what has to be known to judge the numbers: where, with what, how."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "benchmarks", *arguments]),
        "machine": machine.describe(),
        "openssl": ssl.OPENSSL_VERSION,
        "loops": loops,
        "missing_loops": missing,
        "asyncloop_build": _build_info() if "asyncloop" in loops else None,
        "libraries": {name: v for name in LIBRARIES if (v := _version(name))},
        "options": dataclasses.asdict(options),
    }


def where(about: dict[str, Any]) -> str:
    """Return the machine and the interpreter of a run in one line."""
    place = about["machine"]
    return (
        f"CPython {place['python']}, {place['processor']}, {place['cores']} cores, "
        f"{place['distribution']}, {place['system']}, {about['openssl']}"
    )


def as_json(results: Sequence[Result], about: dict[str, Any]) -> dict[str, Any]:
    """Return the whole run as one object."""
    return {**about, "rows": [_row(result) for result in results]}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the object to a file, folders included; the file is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
    scratch.replace(path)


def read(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Return what is known about a run, and its results, from its JSON.

    Raises OSError, and ValueError where the file is not such JSON.
    """
    content = json.loads(path.read_text())
    try:
        rows = content.pop("rows")
        return content, [_result(row) for row in rows]
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"{path} holds no results of the benchmarks: {exc!r}") from None


def _result(row: dict[str, Any]) -> Result:
    metrics = tuple(
        Metric(
            key,
            m["label"],
            m["unit"],
            **{name: m[name] for name in ("better", "digits", "shown", "ratio", "total", "weight")},
        )
        for key, m in row["metrics"].items()
    )
    outcome = Outcome(row["samples"], row["errors"], row["notes"])
    made = Row(
        row["key"],
        row["group"],
        row["title"],
        metrics,
        lambda options, loops: outcome,
        series=row["series"],
        x=row["x"],
    )
    return Result(made, outcome, row["seconds"])


def _row(result: Result) -> dict[str, Any]:
    metrics = {}
    for metric in result.row.metrics:
        cells = {}
        for name in result.contestants:
            cell = result.cell(metric, name)
            if cell is not None:
                ratio = result.ratio(metric, name)
                cells[name] = {
                    "value": _rounded(cell.value),
                    "minimum": _rounded(cell.minimum),
                    "maximum": _rounded(cell.maximum),
                    "times_better_than_asyncio": _rounded(ratio),
                }
        metrics[metric.key] = {
            "label": metric.label,
            "unit": metric.unit,
            "better": metric.better,
            "value_is": "sum" if metric.total else "weighted mean" if metric.weight else "median",
            "digits": metric.digits,
            "shown": metric.shown,
            "ratio": metric.ratio,
            "total": metric.total,
            "weight": metric.weight,
            "cells": cells,
        }
    return {
        "key": result.row.key,
        "group": result.row.group,
        "title": result.row.title,
        "series": result.row.series,
        "x": result.row.x,
        "seconds": round(result.seconds, 1),
        "metrics": metrics,
        "samples": {
            name: {key: [_rounded(value) for value in rounds] for key, rounds in samples.items()}
            for name, samples in result.outcome.samples.items()
        },
        "errors": result.outcome.errors,
        "notes": result.outcome.notes,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.5g}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _build_info() -> Any:
    import asyncloop

    return asyncloop.build_info()
