"""httpx's asynchronous client: pools, streams, time limits, TLS, Unix sockets, ASGI."""

import asyncio
import contextlib

import httpx
import pytest
from aiohttp import web

BODY = bytes(range(256)) * 8_000

stopping = web.AppKey("stopping", asyncio.Event)


async def echo(request):
    return web.Response(body=await request.read())


async def number(request):
    await asyncio.sleep(0.001)
    return web.json_response({"number": int(request.match_info["n"])})


async def drip(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for n in range(200):
        await response.write(b"line %d\n" % n)
        await asyncio.sleep(0)
    return response


async def never(request):
    # aiohttp lets a handler go on when its client has left.
    await request.app[stopping].wait()


async def redirect(request):
    raise web.HTTPFound("/numbers/7")


@contextlib.asynccontextmanager
async def server(unix=None, ssl=None):
    app = web.Application(client_max_size=2**24)
    app[stopping] = asyncio.Event()
    app.router.add_post("/echo", echo)
    app.router.add_get("/numbers/{n}", number)
    app.router.add_get("/drip", drip)
    app.router.add_get("/never", never)
    app.router.add_get("/redirect", redirect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        if unix:
            await web.UnixSite(runner, unix).start()
            yield "http://localhost"
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl).start()
            yield f"{'https' if ssl else 'http'}://localhost:{runner.addresses[0][1]}"
    finally:
        app[stopping].set()
        await runner.cleanup()


async def use(client):
    answers = await asyncio.gather(*(client.get(f"/numbers/{n}") for n in range(100)))
    assert [answer.json()["number"] for answer in answers] == list(range(100))
    assert (await client.post("/echo", content=BODY)).content == BODY

    async def pieces():
        for start in range(0, len(BODY), 50_000):
            yield BODY[start : start + 50_000]

    assert (await client.post("/echo", content=pieces())).content == BODY
    async with client.stream("GET", "/drip") as answer:
        lines = [line async for line in answer.aiter_lines()]
    assert lines == [f"line {n}" for n in range(200)]
    assert (await client.get("/redirect", follow_redirects=True)).json() == {"number": 7}


def client_for(url, **options):
    return httpx.AsyncClient(
        base_url=url,
        trust_env=False,
        timeout=30,
        limits=httpx.Limits(max_connections=10),
        **options,
    )


def test_plain(run):
    async def main():
        async with server() as url, client_for(url) as client:
            await use(client)
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/never", timeout=httpx.Timeout(30, read=0.05))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get("/never")
            # The pool is whole again: more than it holds at a time.
            await use(client)
            async with client.stream("GET", "/drip") as answer:
                assert await anext(answer.aiter_raw())

        async with client_for("http://127.0.0.1:1") as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/")

    run(main())


def test_pool_timeout(run):
    async def main():
        async with server() as url, client_for(url) as client:
            waiting = [asyncio.create_task(client.get("/never")) for _ in range(10)]
            await asyncio.sleep(0.05)
            with pytest.raises(httpx.PoolTimeout):
                await client.get("/numbers/1", timeout=httpx.Timeout(30, pool=0.05))
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert (await client.get("/numbers/1")).json() == {"number": 1}

    run(main())


def test_tls(run, tls):
    async def main():
        async with server(ssl=tls.server) as url:
            async with client_for(url, verify=tls.client) as client:
                await use(client)
            async with client_for(url) as client:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.get("/numbers/1")

    run(main())


def test_unix(run, tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        async with server(unix=path) as url:
            async with client_for(url, transport=httpx.AsyncHTTPTransport(uds=path)) as client:
                await use(client)

    run(main())


def test_asgi(run):
    """No socket at all: the app as the client's transport."""
    from .fastapi_app import app

    async def main():
        async with client_for("http://app", transport=httpx.ASGITransport(app)) as client:
            assert (await client.post("/echo", content=BODY)).content == BODY
            assert (await client.get("/sync")).json() is False

    run(main())
