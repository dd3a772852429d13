"""`python -m asyncloop`: run a program on asyncloop that knows nothing of it.

    python -m asyncloop script.py ARGS      also a folder or zip file with a __main__.py
    python -m asyncloop -m module ARGS
    python -m asyncloop -c 'code' ARGS
    python -m asyncloop - ARGS              code from the standard input
    python -m asyncloop ps PID              nothing of it: loops of another process (_ps.py)

The program finds what it would find under plain `python`: its own `__main__` module, `sys.argv` and
`sys.path[0]`, and its exit status and traceback are the same. The only difference is the type of
the loops that asyncio makes by default, in further interpreters that it starts as well. A program
that names its loop keeps the one it names, and one line says so. `asyncloop-run` does the same for
commands of any kind.
"""

import importlib.machinery
import importlib.util
import os
import pkgutil
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

import asyncloop
from asyncloop import _switch

USAGE = """\
usage: python -m asyncloop [-m module | -c code | script.py | folder | -] [ARGS ...]
       python -m asyncloop ps [PID] | tree PID | top PID

Run a Python program with asyncloop as asyncio's default event loop.

  script.py ARGS   run a script (or a folder or zip file with a __main__.py)
  -m module ARGS   run a module or package, as python -m does
  -c code ARGS     run code given on the command line
  - ARGS           run code from the standard input
  ps, tree, top    look at the loops of other processes: each has a --help of its own
  -h, --help       show this text
  -V, --version    show the versions of asyncloop, libev and Python
"""


class _NotRunnable(Exception):
    """There is no such program: the line that says so and the exit status, both as in python."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def _activate() -> None:
    """Make asyncio's default loops ours, here and in the Pythons that the program starts."""
    os.environ.update(_switch.environment(os.environ, sys.orig_argv))
    _switch.start(os.environ)


def _set_path0(entry: str) -> None:
    """Replace the current folder, which `python -m asyncloop` put first on the path."""
    if not sys.flags.safe_path:
        sys.path[: _full("") != ""] = [entry]  # nothing was put there for one that was removed


def _full(path: str) -> str:
    """With its dots, as python has it. A folder that was removed has no name."""
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        return path


def _new_main(**names: Any) -> types.ModuleType:
    module = types.ModuleType("__main__")
    # Not in the module's own dict yet, and where user code looks for it.
    module.__dict__["__builtins__"] = sys.modules["builtins"]
    if sys.version_info < (3, 14):
        module.__dict__["__annotations__"] = {}
    if sys.version_info >= (3, 15):
        names.pop("__cached__", None)
    module.__dict__.update(names)
    return module


def _script(path: str) -> tuple[types.ModuleType, Callable[[], Any]]:
    full = _full(path)
    try:
        with open(full, "rb") as file:
            source = file.read()
    except OSError as error:
        raise _NotRunnable(
            f"can't open file {full!r}: [Errno {error.errno}] {error.strerror}", status=2
        ) from None
    _set_path0(os.path.dirname(os.path.realpath(full)))
    if full.endswith(".pyc"):
        compiled = importlib.machinery.SourcelessFileLoader("__main__", full)
        main = _new_main(__loader__=compiled, __file__=full, __cached__=None)
        return main, lambda: compiled.get_code("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", full)
    main = _new_main(__loader__=loader, __file__=full, __cached__=None)
    return main, lambda: compile(source, full, "exec", dont_inherit=True)


def _code(
    source: str | bytes, filename: str, **names: Any
) -> tuple[types.ModuleType, Callable[[], Any]]:
    _set_path0("")
    main = _new_main(__loader__=importlib.machinery.BuiltinImporter, **names)
    return main, lambda: compile(source, filename, "exec", dont_inherit=True)


def _module(name: str) -> tuple[types.ModuleType, Callable[[], Any]]:
    """The module `name`, or the package's `__main__`, found as `python -m` finds it."""
    main = _new_main()

    def load() -> Any:
        spec = _find(name)
        if spec.submodule_search_locations is not None:
            spec = _find(f"{name}.__main__", of_package=name)
        sys.argv[0] = spec.origin or name
        return _load(main, spec)

    return main, load


def _container(path: str) -> tuple[types.ModuleType, Callable[[], Any]]:
    """The `__main__` module of a folder or zip file, which goes on the path itself."""
    main = _new_main()
    path = _full(path)
    if sys.flags.safe_path:
        sys.path.insert(0, path)  # as python does: without it there is nothing to run
    else:
        _set_path0(path)

    def load() -> Any:
        spec = importlib.machinery.PathFinder.find_spec("__main__", [path])
        if spec is None:
            raise _NotRunnable(f"can't find '__main__' module in {path!r}")
        return _load(main, spec)

    return main, load


def _load(main: types.ModuleType, spec: importlib.machinery.ModuleSpec) -> Any:
    loader: Any = spec.loader
    code = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise _NotRunnable(f"No code object available for {spec.name}")
    main.__dict__.update(
        __spec__=spec, __loader__=loader, __package__=spec.parent, __file__=spec.origin
    )
    if sys.version_info < (3, 15):
        main.__dict__["__cached__"] = spec.cached
    return code


def _find(name: str, of_package: str | None = None) -> importlib.machinery.ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        # A parent that does not exist; any other missing module is the program's own error.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    except ValueError as error:
        raise _NotRunnable(
            f"Error while finding module specification for {name!r}: {error}"
        ) from None
    if spec is not None:
        return spec
    if of_package is None:
        raise _NotRunnable(f"No module named {name}")
    raise _NotRunnable(
        f"No module named {name}; {of_package!r} is a package and cannot be directly executed"
    )


def _execute(main: types.ModuleType, load: Callable[[], Any]) -> None:
    """Load the program and run it. In tracebacks everything up to here, and this file, is ours."""
    exec(load(), main.__dict__)


def _run(main: types.ModuleType, load: Callable[[], Any]) -> None:
    _activate()
    sys.modules["__main__"] = main
    try:
        _execute(main, load)
    except (SystemExit, _NotRunnable):
        raise
    except BaseException:
        # Raised on, so that the interpreter itself prints it and ends as it always does (a
        # KeyboardInterrupt ends the process by SIGINT); only our own frames are taken off.
        _hide_our_frames_once()
        raise


def _hide_our_frames_once() -> None:
    hook = getattr(sys, "excepthook", sys.__excepthook__)
    ours = _execute.__code__.co_filename

    def report(
        kind: type[BaseException],
        error: BaseException,
        traceback: types.TracebackType | None,
    ) -> None:
        sys.excepthook = hook
        entry = traceback
        while entry is not None and entry.tb_frame.f_code is not _execute.__code__:
            entry = entry.tb_next
        if entry is not None:
            while entry is not None and entry.tb_frame.f_code.co_filename == ours:
                entry = entry.tb_next
            traceback = entry
            error.__traceback__ = traceback
            sys.last_traceback = traceback
        hook(kind, error, traceback)

    sys.excepthook = report


def _usage_error(message: str) -> NoReturn:
    sys.stderr.write(f"python -m asyncloop: {message}\n{USAGE}")
    raise SystemExit(2)


def version() -> str:
    """What `--version` prints: the versions of asyncloop, libev and Python."""
    info = asyncloop.build_info()
    return (
        f"asyncloop {info['asyncloop']} (libev {info['libev_version']}, {info['libev']}, "
        f"{info['backend']}), {info['implementation']} {info['python']}"
    )


def main() -> None:
    """Run what the command line names, as plain `python` would."""
    args = sys.argv[1:]
    if not args:
        _usage_error("no program given")
    first, rest = args[0], args[1:]
    if first in ("-h", "--help"):
        print(USAGE, end="")
        return
    if first in ("-V", "--version"):
        print(version())
        return
    if first in ("ps", "tree", "top"):
        from asyncloop import _ps

        raise SystemExit(_ps.main(args))

    try:
        _run(*_program(first, rest))
    except _NotRunnable as error:
        sys.stderr.write(f"{sys.executable}: {error}\n")
        raise SystemExit(error.status) from None


def _program(first: str, rest: list[str]) -> tuple[types.ModuleType, Callable[[], Any]]:
    """The program that the arguments name; `sys.argv` and the path are set for it."""
    option = first[:2]
    if option in ("-m", "-c"):
        # As with python itself, the value may be attached: -mjson.tool.
        if first == option:
            if not rest:
                _usage_error(f"argument expected for the {option} option")
            value, rest = rest[0], rest[1:]
        else:
            value = first[2:]
        sys.argv[:] = [option, *rest]
        return _module(value) if option == "-m" else _code(value, "<string>")
    if first.startswith("-") and first != "-":
        _usage_error(f"unknown option {first}")
    sys.argv[:] = [first, *rest]
    if first == "-":
        return _code(sys.stdin.buffer.read(), "<stdin>", __file__="<stdin>", __cached__=None)
    return _script(first) if pkgutil.get_importer(first) is None else _container(first)


if __name__ == "__main__":
    main()
