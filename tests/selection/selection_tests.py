"""Test modules of a user's, one for each plugin: they print the loop that they run on."""

import unittest

import pytest
import selection_apps


class Unit(unittest.IsolatedAsyncioTestCase):
    async def test_unittest(self):
        print(await selection_apps.name())


@pytest.mark.asyncio
async def test_asyncio_plugin():
    print(await selection_apps.name())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio_plugin(anyio_backend):
    print(await selection_apps.name())


@pytest.mark.asyncio
async def test_pytest_aiohttp(aiohttp_client):
    client = await aiohttp_client(selection_apps.make_aiohttp_app())
    print("loop:", await (await client.get("/")).text())


async def test_own_aiohttp(aiohttp_client):
    client = await aiohttp_client(selection_apps.make_aiohttp_app())
    print("loop:", await (await client.get("/")).text())
