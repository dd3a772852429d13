"""The conftest.py of a suite: names the loop for pytest-asyncio (anyio's suite does it itself)."""

import os

if os.environ["LOOP_UNDER_TEST"] == "asyncloop":
    import pytest

    import asyncloop

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories(config, item):
        return {"asyncloop": asyncloop.new_event_loop}
