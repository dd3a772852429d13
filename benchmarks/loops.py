"""The event loops that are compared, how to make one, and which of them are here."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class LoopKind:
    """A contestant: an event loop by name, or one that a library has given other transports."""

    name: str
    module: str
    factory: str = "new_event_loop"
    distribution: str | None = None
    patched: bool = False
    """Whether aiofastnet replaces the loop's network methods."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that choose how the loop works, set before its module is imported."""
    only: frozenset[str] = frozenset()
    """Takes part only in rows with one of these traits (see compare.Row); empty: in all."""

    def new(self) -> asyncio.AbstractEventLoop:
        """Make a fresh loop. Raises ImportError where the loop is not installed."""
        os.environ.update(self.environment)
        loop = getattr(importlib.import_module(self.module), self.factory)()
        assert isinstance(loop, asyncio.AbstractEventLoop)
        if self.patched:
            importlib.import_module("aiofastnet").patch_loop(loop)
        return loop

    def version(self) -> str:
        """Return the version that would be measured. Raises ImportError like `new`."""
        module = importlib.import_module(self.module)
        if self.module == "asyncio":
            version = "CPython " + sys.version.split()[0]
        else:
            version = _version_of(module, self.distribution or self.module)
        if self.patched:
            patch = _version_of(importlib.import_module("aiofastnet"), "aiofastnet")
            return f"{patch} on {self.module} {version}"
        return version

    def takes_part(self, traits: Collection[str]) -> bool:
        """Return whether it is measured in a row with these traits."""
        return not self.only or not self.only.isdisjoint(traits)


def _version_of(module: ModuleType, distribution: str) -> str:
    version = getattr(module, "__version__", None)
    if version is None:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
    return str(version)


NETWORK = "network"
"""Trait of rows that work through the loop's own transports and sock_ methods."""
TLS = "tls"
"""Trait of rows that talk TLS."""

_OWN = "asyncloop-libev"

KINDS = {
    kind.name: kind
    for kind in (
        LoopKind("asyncloop", "asyncloop", distribution=_OWN),
        LoopKind(
            "asyncloop-portable",
            "asyncloop",
            distribution=_OWN,
            environment=(("ASYNCLOOP_TLS", "portable"),),
            only=frozenset({TLS}),
        ),
        LoopKind("asyncio", "asyncio", factory="SelectorEventLoop"),
        LoopKind("uvloop", "uvloop"),
        LoopKind("rloop", "rloop"),
        LoopKind("zuvloop", "zuvloop"),
        LoopKind(
            "aiofastnet",
            "asyncio",
            factory="SelectorEventLoop",
            patched=True,
            only=frozenset({NETWORK, TLS}),
        ),
        LoopKind("aiofastnet-uvloop", "uvloop", patched=True, only=frozenset({NETWORK, TLS})),
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


def suited(names: Iterable[str], traits: Collection[str]) -> list[str]:
    """Return those of the names that take part in a row with these traits."""
    return [name for name in names if kind_of(name).takes_part(traits)]


def ordered(names: list[str]) -> list[str]:
    """Return names of contestants without repetition, loops first and in the order above."""
    known = list(KINDS)
    place = {name: known.index(name) for name in names if name in KINDS}
    return sorted(dict.fromkeys(names), key=lambda name: place.get(name, len(known)))


def add_path(folder: Path) -> None:
    """Let this process and its children import from another folder too."""
    path = str(folder.resolve())
    sys.path.insert(1, path)  # where PYTHONPATH is for children
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), path]))


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
