"""The results as JSON: all numbers with the machine, the versions and the command."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import machine
from .compare import Options, Result
from .loops import ROOT

LIBRARIES = ("uvicorn", "httptools", "fastapi", "starlette", "pydantic", "aiohttp")


def head(options: Options, loops: dict[str, str], missing: dict[str, str]) -> dict[str, Any]:
    """Return what has to be known to judge the numbers: where, with what, how."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine.describe(),
        "loops": loops,
        "missing_loops": missing,
        "asyncloop_build": _build_info() if "asyncloop" in loops else None,
        "libraries": {name: v for name in LIBRARIES if (v := _version(name))},
        "options": dataclasses.asdict(options),
    }


def as_json(
    results: Sequence[Result], about: dict[str, Any], arguments: Sequence[str]
) -> dict[str, Any]:
    """Return the whole run as one object."""
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    return {**about, "command": command, "rows": [_row(result) for result in results]}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the object to a file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


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
                    "rounds": [_rounded(value) for value in cell.rounds],
                }
        metrics[metric.key] = {
            "label": metric.label,
            "unit": metric.unit,
            "better": metric.better,
            "value_is": "weighted mean" if metric.weight else "median",
            "cells": cells,
        }
    return {
        "key": result.row.key,
        "group": result.row.group,
        "title": result.row.title,
        "metrics": metrics,
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
