"""What to say where the C core cannot be imported."""

import os
import sys
from importlib.machinery import PathFinder


def not_built() -> str:
    """What to type where this package has no core."""
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        version = "{}.{}.{}".format(*sys.version_info)
        return f"asyncloop needs CPython 3.11 or newer; this is {sys.implementation.name} {version}"
    here = os.path.dirname(os.path.abspath(__file__))
    parent = os.path.dirname(here)
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry) != parent]
    version = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    if PathFinder.find_spec("asyncloop", elsewhere) is not None:
        return (
            f"the folder {parent} hides the asyncloop that is installed, and its own C core is not "
            f"built for {version}: type `make build` there, or the same command in another folder"
        )
    if not os.path.exists(os.path.join(parent, "setup.py")):
        return (
            f"the asyncloop in {parent} was installed for another Python: install asyncloop-libev "
            f"for {version} as well, with `{sys.executable} -m pip install`"
        )
    return (
        f"asyncloop's C core is not built for {version} here: run `pip install .` in a checkout "
        "and leave it, or `make build` to use the checkout itself."
    )
