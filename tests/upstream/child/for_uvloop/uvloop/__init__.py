"""What uvloop's own tests find as `uvloop`: the rest of the package that is installed, with the
default loop in the place of its loop, in the tests and in the programs that they start."""

import asyncio
import importlib.machinery
import os
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

installed = importlib.machinery.PathFinder.find_spec(
    "uvloop", [folder for folder in sys.path if os.path.abspath(folder or ".") != HERE]
)
__path__ = list(installed.submodule_search_locations)

from asyncio import DefaultEventLoopPolicy as EventLoopPolicy  # noqa: E402, F401
from asyncio import new_event_loop, run  # noqa: E402, F401

from ._version import __version__  # noqa: E402, F401

loop = asyncio.new_event_loop()
loop.close()
Loop = type(loop)
del loop

from . import _testbase  # noqa: E402

_testbase.BaseTestCase.is_asyncio_loop = lambda self: True
