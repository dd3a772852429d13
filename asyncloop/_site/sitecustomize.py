"""Found first on PYTHONPATH by every Python that `asyncloop-run` starts, directly or not.

Switches asyncio to asyncloop as soon as the program imports it, and runs the `sitecustomize` that
would have been found without this one. Has to be quick: most interpreters that a program starts
never import asyncio.
"""

import os
import sys


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    # The variable stays in the environment for the program's own children; the program's path is
    # as it would be.
    sys.path[:] = [entry for entry in sys.path if entry != here]
    if os.environ.get("ASYNCLOOP_RUN"):
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
