"""What makes asyncio's default loops asyncloop's in a program that knows nothing of it.

Shared by `asyncloop-run` (through `_site/sitecustomize.py`, in every Python process of the
program) and `python -m asyncloop`. Stands alone: nothing of the package is imported before the
program makes its first loop, and nothing at all in a program that never imports asyncio.

Environment, all of it inherited by the program's own children; "0" and the like are as good as
nothing:

ASYNCLOOP_RUN        set: asyncio is switched. "named": the command line names asyncio's own loop
ASYNCLOOP_AS_UVLOOP  set: `import uvloop` gives asyncloop under that name
ASYNCLOOP_CHECK      set: each process says which loops ran in it, on standard error
ASYNCLOOP_CHECK_FILE where it is said instead, a line each: process, class of the loop, command;
                     and a line without a class by each interpreter that starts
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` takes longer than everything that is done here
    from collections.abc import Mapping
    from typing import Any

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
SITE = os.path.join(_PACKAGE, "_site")


def environment(before: Mapping[str, str], command: list[str]) -> dict[str, str]:
    """The environment in which `command`, and what it starts, run on asyncloop."""
    entries = (before.get("PYTHONPATH") or SITE).split(os.pathsep)
    path = os.pathsep.join([SITE, *(entry for entry in entries if not _is_site(entry))])
    named = "named" if _names_asyncio(before, command) else "1"
    return {**before, "PYTHONPATH": path, "ASYNCLOOP_RUN": named}


def _is_site(entry: str) -> bool:
    """Ours, or that of another asyncloop: the launcher that was typed last decides."""
    folder, name = os.path.split(entry)
    return name == "_site" and os.path.exists(os.path.join(folder, "_switch.py"))


def _names_asyncio(environment: Mapping[str, str], command: list[str]) -> bool:
    """Does uvicorn's command line ask for asyncio's own loop? Then it is to have it."""
    words = [os.path.basename(word) for word in command]
    if not any(word.startswith("uvicorn") for word in words):
        return False
    if "--loop" in words:
        return words[words.index("--loop") + 1 :][:1] == ["asyncio"]
    return "--loop=asyncio" in words or environment.get("UVICORN_LOOP") == "asyncio"


def _is_set(name: str, environment: Mapping[str, str]) -> bool:
    return environment.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


def start(environment: Mapping[str, str]) -> None:
    """Do what the variables say, now or as soon as asyncio is imported."""
    report = environment.get("ASYNCLOOP_CHECK_FILE")
    if report:
        append(report, [_line("")])
    if _is_set("ASYNCLOOP_AS_UVLOOP", environment):
        answer_for_uvloop()
    if "asyncio" in sys.modules:
        switch(environment)
    else:
        _Waiter(environment)


class _Waiter:
    """An import finder that finds nothing, but sees asyncio come."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._waits = True
        sys.meta_path.insert(0, self)
        # A finder of the program's own may come first, and ask Python's own by itself.
        self._library: Any = sys.path_importer_cache.get(os.path.dirname(os.__file__))
        library = self._library
        if library is not None:
            find = library.find_spec

            def find_spec(name: str, target: Any = None) -> Any:
                spec = find(name, target)
                if name == "asyncio" and spec is not None:
                    self._wrap(spec.loader)
                return spec

            vars(library)["find_spec"] = find_spec

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "asyncio" or not self._waits:
            return None
        # Those behind: one before may ask this one.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec = find and find(name, path, target)
            if spec is not None:
                self._wrap(spec.loader)
                return spec
        return None

    def _wrap(self, loader: Any) -> None:
        """Who only asks where asyncio is does not execute it, and whoever imports it asks again."""
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            vars(loader).pop("exec_module", None)
            execute(module)
            # A module of the program's own that has this name has no such part.
            if self._waits and "asyncio.events" in sys.modules:
                self._end()
                switch(self._environment)

        loader.exec_module = exec_module

    def _end(self) -> None:
        self._waits = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self._library is not None:
            vars(self._library).pop("find_spec", None)


def new_event_loop() -> Any:
    """A new loop of asyncloop. Where it cannot be had the program ends: never another loop."""
    from asyncio import AbstractEventLoop

    try:
        package = _import_asyncloop()
    except ImportError as error:
        wrong = f"{sys.executable} cannot import asyncloop: {error}"
    else:
        factory = getattr(package, "new_event_loop", None)
        loop = factory() if callable(factory) else None
        if isinstance(loop, AbstractEventLoop):
            return loop
        wrong = f"{getattr(package, '__file__', package)!r} gives no event loop"
    sys.stderr.write(f"asyncloop-run: {wrong}\n")
    raise SystemExit(2)


def _import_asyncloop() -> Any:
    """The package beside this file, which need not be on the program's path."""
    parent = os.path.dirname(_PACKAGE)
    added = "asyncloop" not in sys.modules and parent not in sys.path
    if added:
        sys.path.append(parent)
    try:
        import asyncloop
    finally:
        if added:
            sys.path.remove(parent)
    return asyncloop


def switch(environment: Mapping[str, str]) -> None:
    """Make asyncio's default loops ours, silently, whatever this Python offers for it."""
    import asyncio
    from asyncio import events, unix_events

    factory = staticmethod(new_event_loop)
    policies = [
        value
        for value in vars(unix_events).values()
        if isinstance(value, type) and vars(value).get("_loop_factory") is not None
    ]
    for policy in policies:
        policy._loop_factory = factory  # type: ignore[attr-defined]
    if not policies:
        # Python 3.16 has no policies any more: Runner and everybody else ask this function.
        events.new_event_loop = asyncio.new_event_loop = new_event_loop
    if environment.get("ASYNCLOOP_RUN") != "named":
        _switch_selector_loop(unix_events)
    watch(environment)


def _switch_selector_loop(unix_events: Any) -> None:
    """`asyncio.SelectorEventLoop()`, as servers make their loop that "auto" stands for.

    A subclass of it, and one with a selector of the program's own, stay what they are.
    """
    kind = unix_events._UnixSelectorEventLoop

    def __new__(cls: type, selector: Any = None, *args: Any, **kwargs: Any) -> Any:
        if cls is kind and selector is None and not args and not kwargs:
            return new_event_loop()
        return object.__new__(cls)

    kind.__new__ = __new__


# -- which loop runs -----------------------------------------------------------------


def watch(environment: Mapping[str, str]) -> None:
    """See each loop that begins to run, and say what there is to say of it."""
    import _asyncio
    import asyncio
    from asyncio import events

    inner = events._set_running_loop
    if hasattr(inner, "_asyncloop"):
        return
    seen: set[tuple[int, str]] = set()

    def _set_running_loop(loop: Any, /) -> None:
        inner(loop)
        if loop is not None:
            key = os.getpid(), _class_of(loop)
            if key not in seen:
                seen.add(key)
                _tell(loop, key[1], environment)

    _set_running_loop._asyncloop = True  # type: ignore[attr-defined]
    for module in (events, _asyncio, asyncio):
        if hasattr(module, "_set_running_loop"):
            setattr(module, "_set_running_loop", _set_running_loop)  # noqa: B010


def _class_of(loop: Any) -> str:
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


def is_ours(loop: Any) -> bool:
    """Is it a loop of asyncloop's?"""
    package = sys.modules.get("asyncloop")
    return package is not None and isinstance(loop, getattr(package, "Loop", ()))


def _tell(loop: Any, name: str, environment: Mapping[str, str]) -> None:
    if is_ours(loop):
        name = "asyncloop.Loop" if name == "asyncloop._loop.Loop" else name
    report = environment.get("ASYNCLOOP_CHECK_FILE")
    try:
        if report:
            append(report, [_line(name)])
        elif _is_set("ASYNCLOOP_CHECK", environment):
            sys.stderr.write(f"asyncloop: process {os.getpid()} runs on {name}: {_command()}\n")
        if not is_ours(loop) and _is_set("ASYNCLOOP_RUN", environment):
            sys.stderr.write(
                f"asyncloop-run: process {os.getpid()} runs on {name}, not on asyncloop: "
                f"{_advice(name)}\n"
            )
    except (OSError, ValueError, AttributeError):
        pass  # no standard error, or a full disk: the program is not to suffer


def _line(loop: str) -> str:
    return f"{os.getpid()}\t{loop}\t{_command()}"


def append(report: str, lines: list[str]) -> None:
    """Add to the file, whole lines at once: other processes write there as well."""
    try:
        with open(report, "ab", buffering=0) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
    except OSError:
        pass  # the command has ended already, or the disk is full


def _command() -> str:
    """The command line of this process, fit for any terminal."""
    words = getattr(sys, "orig_argv", None) or getattr(sys, "argv", None) or []
    shown = "".join(
        letter if letter.isprintable() or letter > "\xa0" else " "
        for letter in " ".join(words)[:300]
    )
    return shown.encode("utf-8", "backslashreplace").decode()


def _advice(name: str) -> str:
    if name.startswith("uvloop."):
        return "it names uvloop; asyncloop-run --as-uvloop answers for that"
    if "uvicorn" in sys.modules:
        return "start it with `uvicorn --loop asyncloop:new_event_loop`"
    if name.startswith("rloop."):
        return "it names rloop; granian takes `--loop asyncio`, which asyncloop-run switches"
    return "it names its loop itself; give it the factory asyncloop.new_event_loop"


# -- in the place of uvloop ------------------------------------------------------------


class _Uvloop:
    """An import finder for `uvloop` and its parts: the same thin module under all names."""

    def find_spec(self: Any, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in ("uvloop", "uvloop.loop", "uvloop._version"):
            return None
        from _frozen_importlib import ModuleSpec

        return ModuleSpec(name, self, origin="asyncloop", is_package=name == "uvloop")

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        from _frozen_importlib_external import SourceFileLoader

        _import_asyncloop()
        path = os.path.join(_PACKAGE, "_as_uvloop.py")
        module.__file__ = path
        code: Any = SourceFileLoader(module.__name__, path).get_code(module.__name__)
        exec(code, module.__dict__)


def answer_for_uvloop() -> None:
    """Let `import uvloop` give asyncloop from now on; a warning where the real one is there."""
    real = sys.modules.get("uvloop")
    if real is not None and not getattr(real, "_asyncloop", False):
        import warnings

        warnings.warn(
            "uvloop is imported already: what was taken from it stays uvloop's",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    if not any(isinstance(finder, _Uvloop) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Uvloop())
