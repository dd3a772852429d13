"""Tests of asynchronous code with unittest alone: IsolatedAsyncioTestCase.

Each test has a loop of its own, with fixtures that may await. `python -m asyncloop -m unittest`
runs such tests on asyncloop as well.
"""

import asyncio
import sys
import unittest
from unittest.mock import AsyncMock


class Cache:
    """The code under test: asks for each key once, however many want it at the same time."""

    def __init__(self, load) -> None:
        self._load = load
        self._tasks: dict[str, asyncio.Task] = {}

    async def get(self, key: str):
        if key not in self._tasks:
            self._tasks[key] = asyncio.ensure_future(self._load(key))
        return await asyncio.shield(self._tasks[key])


class CacheTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.load = AsyncMock(return_value="value")
        self.cache = Cache(self.load)
        self.addAsyncCleanup(asyncio.sleep, 0)

    async def test_asks_once(self) -> None:
        self.assertEqual(
            await asyncio.gather(*(self.cache.get("key") for _ in range(10))), ["value"] * 10
        )
        self.load.assert_awaited_once_with("key")

    async def test_error_reaches_everyone(self) -> None:
        self.load.side_effect = LookupError("gone")
        for _ in range(2):
            with self.assertRaisesRegex(LookupError, "gone"):
                await self.cache.get("key")

    async def test_impatient_caller_does_not_spoil_it(self) -> None:
        may_go_on = asyncio.Event()

        async def slow_load(key: str) -> str:
            await may_go_on.wait()
            return "late"

        cache = Cache(slow_load)
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(cache.get("key"), 0.01)
        may_go_on.set()
        self.assertEqual(await cache.get("key"), "late")


if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(CacheTest)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, buffer=True).run(suite)
    print("tests:", result.testsRun, "- all good:", result.wasSuccessful())
    sys.exit(not result.wasSuccessful())
