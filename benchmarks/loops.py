"""The event loops that are compared, how to make one, and which of them are here."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class LoopKind:
    """An event loop by name."""

    name: str
    module: str
    factory: str = "new_event_loop"
    distribution: str | None = None

    def new(self) -> asyncio.AbstractEventLoop:
        """Make a fresh loop. Raises ImportError where the loop is not installed."""
        loop = getattr(importlib.import_module(self.module), self.factory)()
        assert isinstance(loop, asyncio.AbstractEventLoop)
        return loop

    def version(self) -> str:
        """Return the version that would be measured. Raises ImportError like `new`."""
        module = importlib.import_module(self.module)
        if self.module == "asyncio":
            return "CPython " + sys.version.split()[0]
        version = getattr(module, "__version__", None)
        if version is None:
            try:
                version = importlib.metadata.version(self.distribution or self.module)
            except importlib.metadata.PackageNotFoundError:
                version = "unknown"
        return str(version)


KINDS = {
    kind.name: kind
    for kind in (
        LoopKind("asyncloop", "asyncloop", distribution="asyncloop-libev"),
        LoopKind("asyncio", "asyncio", factory="SelectorEventLoop"),
        LoopKind("uvloop", "uvloop"),
        LoopKind("rloop", "rloop"),
    )
}


def kind_of(name: str) -> LoopKind:
    """Return a loop by its name, or by ``module:factory`` for any other loop."""
    if name in KINDS:
        return KINDS[name]
    module, _, factory = name.partition(":")
    if not factory:
        raise ValueError(f"unknown loop; known are {', '.join(KINDS)} and module:factory")
    return LoopKind(name, module, factory)


def ordered(names: list[str]) -> list[str]:
    """Return names of contestants without repetition, loops first and in the order above."""
    known = list(KINDS)
    place = {name: known.index(name) for name in names if name in KINDS}
    return sorted(dict.fromkeys(names), key=lambda name: place.get(name, len(known)))


def prefer_built() -> None:
    """Let ``import asyncloop`` find an installed copy if this checkout holds no built one.

    Modules run from the root of the checkout see its ``asyncloop`` folder first; without a
    compiled core in it that folder would only hide the copy that was installed with pip.
    """
    if not any((ROOT / "asyncloop").glob("_core*.so")):
        # The benchmarks package itself is already imported from here and keeps its path.
        sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]


def installed(names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return (name -> version) of the loops that work, and (name -> reason) of the others."""
    present: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            present[name] = kind_of(name).version()
        except ValueError as exc:
            missing[name] = str(exc)
        except Exception as exc:
            missing[name] = f"{type(exc).__name__}: {exc}"
    return present, missing
