"""Tests of asynchronous code with pytest and its plugin pytest-asyncio.

    python -m asyncloop -m pytest examples/testing_with_pytest.py      # on asyncloop
    pytest examples/testing_with_pytest.py                             # on the standard loop
"""

import asyncio
import os
import sys

import pytest
import pytest_asyncio


class Mailbox:
    def __init__(self) -> None:
        self._letters: asyncio.Queue[str] = asyncio.Queue()
        self.open = True

    def post(self, letter: str) -> None:
        self._letters.put_nowait(letter)

    async def next(self, seconds: float = 1) -> str:
        async with asyncio.timeout(seconds):
            return await self._letters.get()

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.open = False


@pytest_asyncio.fixture
async def mailbox():
    box = Mailbox()
    yield box
    await box.close()
    assert not box.open


@pytest.mark.asyncio
async def test_in_order(mailbox):
    for letter in ("first", "second"):
        mailbox.post(letter)
    assert [await mailbox.next(), await mailbox.next()] == ["first", "second"]


@pytest.mark.asyncio
async def test_waits(mailbox):
    reading = asyncio.create_task(mailbox.next())
    await asyncio.sleep(0)
    assert not reading.done()
    mailbox.post("at last")
    assert await reading == "at last"


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_gives_up(mailbox, seconds):
    with pytest.raises(TimeoutError):
        await mailbox.next(seconds)


if __name__ == "__main__":
    # With these settings alone, not those that a folder above may have.
    settings = ["-c", os.devnull, "-o", "asyncio_default_fixture_loop_scope=function"]
    # This file has imported the plugin before pytest could.
    settings += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([*settings, "-q", __file__]))
