"""Found first on PYTHONPATH by every Python that `asyncloop-run` starts, directly or not.

Switches asyncio to asyncloop as soon as the program imports it, and runs the `sitecustomize` that
would have been found without this one. Has to be quick: most interpreters that a program starts
never import asyncio. Any Python may meet this file: its syntax is that of Python 2 as well.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401, in comments


class _TooOld(object):  # noqa: UP004, Python 2
    """An import finder for a Python that asyncloop is not for: asyncio comes, but makes no loop."""

    def find_spec(self, name, path=None, target=None):
        # type: (str, Any, object) -> Any
        if name != "asyncio" or self not in sys.meta_path:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._wrap(spec.loader)
        return spec

    def _wrap(self, loader):
        # type: (Any) -> None
        execute = loader.exec_module

        def exec_module(module):
            # type: (Any) -> None
            del loader.exec_module
            execute(module)
            from asyncio import unix_events

            for policy in vars(unix_events).values():
                if isinstance(policy, type) and vars(policy).get("_loop_factory") is not None:
                    policy._loop_factory = staticmethod(_refuse)  # type: ignore[attr-defined]

        loader.exec_module = exec_module


def _refuse():
    # type: () -> None
    sys.stderr.write(
        "asyncloop-run: process {} makes an event loop, and asyncloop needs Python 3.11 or "
        "newer: {} is {}.{}\n".format(os.getpid(), sys.executable, *sys.version_info[:2])
    )
    raise SystemExit(2)


def _start():
    # type: () -> None
    here = os.path.dirname(os.path.abspath(__file__))
    # The variable stays in the environment for the program's own children; the program's path is
    # as it would be.
    sys.path[:] = [entry for entry in sys.path if entry != here]
    asked = os.environ.get("ASYNCLOOP_RUN", "").strip().lower()
    wanted = asked not in ("", "0", "false", "no", "off")
    if wanted and (3,) < sys.version_info < (3, 11):
        sys.meta_path.insert(0, _TooOld())
    elif wanted and sys.version_info > (3,):
        from _frozen_importlib_external import SourceFileLoader

        name = "_asyncloop_switch"
        loader = SourceFileLoader(name, os.path.join(os.path.dirname(here), "_switch.py"))
        switch = type(sys)(name)
        switch.__file__ = loader.path
        sys.modules[name] = switch
        loader.exec_module(switch)
        switch.start(os.environ)
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", None) != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


_start()
