"""A pytest plugin: everything in the test run that makes an event loop gets one of asyncloop's.

    pytest -p asyncloop.pytest_plugin

or `pytest_plugins = ["asyncloop.pytest_plugin"]` in the top conftest.py. Serves pytest-asyncio,
anyio's plugin (its asyncio backend), aiohttp's, and plain `asyncio.run()` and
`unittest.IsolatedAsyncioTestCase` alike, in the workers of pytest-xdist as well. A test that
names another loop keeps it. `--no-asyncloop` leaves everything as it is.
"""

from typing import Any

import asyncloop

from . import _switch


def pytest_addoption(parser: Any) -> None:
    """Add `--no-asyncloop`."""
    parser.getgroup("asyncloop").addoption(
        "--no-asyncloop", action="store_true", help="asyncio makes its own event loops"
    )


def pytest_configure(config: Any) -> None:
    """Switch asyncio before the first test module is imported."""
    if not config.getoption("--no-asyncloop"):
        _switch.start({"ASYNCLOOP_RUN": "1"})


def pytest_report_header(config: Any) -> str | None:
    """The line that says which loop the tests run on."""
    if config.getoption("--no-asyncloop"):
        return None
    return f"event loop: asyncloop {asyncloop.__version__}"
