"""Found first on PYTHONPATH by every Python that `asyncloop-run` starts, directly or not.

Switches asyncio to asyncloop as soon as the program imports it, and runs the `sitecustomize` that
would have been found without this one. Has to be quick: most interpreters that a program starts
never import asyncio. Any Python may meet this file: its syntax is that of Python 2 as well.
"""

import os
import sys


class _TooOld(object):  # noqa: UP004, Python 2
    """An import finder for a Python that cannot even read what switches the others."""

    def find_spec(self, name, path=None, target=None):
        # type: (str, object, object) -> None
        if name == "asyncio" and self in sys.meta_path:
            sys.meta_path.remove(self)
            sys.stderr.write(
                "asyncloop-run: process {} runs without asyncloop, which needs Python 3.11 or "
                "newer: {} is {}.{}\n".format(os.getpid(), sys.executable, *sys.version_info[:2])
            )


def _start():
    # type: () -> None
    here = os.path.dirname(os.path.abspath(__file__))
    # The variable stays in the environment for the program's own children; the program's path is
    # as it would be.
    sys.path[:] = [entry for entry in sys.path if entry != here]
    if os.environ.get("ASYNCLOOP_RUN") and (3,) < sys.version_info < (3, 8):
        sys.meta_path.insert(0, _TooOld())
    elif os.environ.get("ASYNCLOOP_RUN"):
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
