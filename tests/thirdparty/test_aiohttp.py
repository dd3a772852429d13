"""aiohttp's server and client: bodies, streams, files, WebSockets, TLS, Unix sockets, shutdown."""

import asyncio
import hashlib
import io
import re
import signal

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, unused_port

BODY = bytes(range(256)) * 20_000

closed = web.AppKey("closed", list)


async def digest(request):
    found, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_chunked(10_000):
        found.update(chunk)
        size += len(chunk)
    return web.json_response({"size": size, "sha256": found.hexdigest()})


async def stream(request):
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for n in range(int(request.query["n"])):
        await response.write(b"%d\n" % n)
    await response.write_eof()
    return response


async def slow(request):
    await asyncio.sleep(float(request.query["seconds"]))
    return web.Response(text="slept")


async def websocket(request):
    socket = web.WebSocketResponse(heartbeat=10, max_msg_size=2**22)
    await socket.prepare(request)
    async for message in socket:
        if message.data == "close":
            await socket.close(code=4001, message=b"as you wish")
        elif message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data[::-1])
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    request.app[closed].append(socket.close_code)
    return socket


async def upload(request):
    form = await request.post()
    return web.json_response({key: len(getattr(form[key], "file", None).read()) for key in form})


def make_app():
    app = web.Application(client_max_size=2**24)
    app[closed] = []
    app.router.add_post("/digest", digest)
    app.router.add_get("/stream", stream)
    app.router.add_get("/slow", slow)
    app.router.add_get("/ws", websocket)
    app.router.add_post("/upload", upload)
    return app


def test_requests(run, tmp_path):
    (tmp_path / "big").write_bytes(BODY)

    async def main():
        app = make_app()
        app.router.add_static("/files", tmp_path)
        async with TestClient(TestServer(app)) as client:
            right = {"size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
            assert await (await client.post("/digest", data=io.BytesIO(BODY))).json() == right

            async def pieces():
                for start in range(0, len(BODY), 77_777):
                    yield BODY[start : start + 77_777]

            assert await (await client.post("/digest", data=pieces())).json() == right

            async with client.get("/stream?n=5000") as answer:
                assert [int(line) async for line in answer.content] == list(range(5000))
            async with client.get("/files/big") as answer:
                assert await answer.read() == BODY
            async with client.get("/files/big", headers={"Range": "bytes=100-299"}) as answer:
                assert answer.status == 206 and await answer.read() == BODY[100:300]
            assert (await client.get("/files/none")).status == 404

            form = aiohttp.FormData()
            form.add_field("one", b"x" * 1000, filename="one")
            form.add_field("two", b"y" * 100_000, filename="two")
            assert await (await client.post("/upload", data=form)).json() == {
                "one": 1000,
                "two": 100_000,
            }

            answers = await asyncio.gather(*(client.get(f"/stream?n={n}") for n in range(150)))
            lines = [len((await answer.text()).splitlines()) for answer in answers]
            assert lines == list(range(150))

    run(main())


def test_giving_up(run):
    async def main():
        async with TestClient(TestServer(make_app())) as client:
            with pytest.raises(asyncio.TimeoutError):
                await client.get("/slow?seconds=3600", timeout=aiohttp.ClientTimeout(total=0.05))
            task = asyncio.create_task(client.get("/slow?seconds=3600"))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # A stream that is left in the middle, and one that the client only looks at.
            async with client.get("/stream?n=1000000") as answer:
                assert await answer.content.readline() == b"0\n"
            # The server goes on as if nothing had happened.
            assert await (await client.get("/slow?seconds=0")).text() == "slept"

        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://127.0.0.1:{unused_port()}/")
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("http://no-such-host.invalid/")

    run(main())


def test_websocket(run):
    async def main():
        app = make_app()
        async with TestClient(TestServer(app)) as client:
            for compress in (0, 15):
                async with client.ws_connect("/ws", compress=compress, max_msg_size=2**22) as ws:
                    for text in ("abc", "x" * 200_000 + "y"):
                        await ws.send_str(text)
                        assert await ws.receive_str() == text[::-1]
                    await ws.send_bytes(BODY[:2_000_000])
                    assert await ws.receive_bytes() == BODY[:2_000_000]
                    await ws.ping()
                    for n in range(100):
                        await ws.send_str(str(n))
                    got = [await ws.receive_str() for _ in range(100)]
                    assert got == [str(n)[::-1] for n in range(100)]
                    await ws.send_str("close")
                    message = await ws.receive()
                    assert message.type is aiohttp.WSMsgType.CLOSE and message.data == 4001
            ws = await client.ws_connect("/ws")
            await ws.close(code=4002)
            while len(app[closed]) < 3:
                await asyncio.sleep(0.001)
            assert app[closed][-1] == 4002

    run(main())


def test_tls_and_unix(run, tls, tmp_path):
    async def main():
        runner = web.AppRunner(make_app(), access_log=None)
        await runner.setup()
        path = str(tmp_path / "socket")
        await web.UnixSite(runner, path).start()
        await web.TCPSite(runner, "localhost", 0, ssl_context=tls.server).start()
        port = next(address[1] for address in runner.addresses if address != path)
        right = {"size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
        try:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
                async with session.post("http://localhost/digest", data=io.BytesIO(BODY)) as answer:
                    assert await answer.json() == right

            connector = aiohttp.TCPConnector(ssl=tls.client)
            async with aiohttp.ClientSession(
                f"https://localhost:{port}", connector=connector
            ) as session:
                posts = (session.post("/digest", data=io.BytesIO(BODY)) for _ in range(4))
                assert [await one.json() for one in await asyncio.gather(*posts)] == [right] * 4
                async with session.ws_connect("/ws") as ws:
                    await ws.send_str("secret")
                    assert await ws.receive_str() == "terces"
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(f"https://localhost:{port}/")
        finally:
            await runner.cleanup()

    run(main())


PROGRAM = """
import asyncio, sys
from aiohttp import web

async def index(request):
    loop = type(asyncio.get_running_loop())
    return web.Response(text=f"{loop.__module__}.{loop.__qualname__}")

async def life(app):
    print("app: started", flush=True)
    yield
    print("app: ended", flush=True)

app = web.Application()
app.router.add_get("/", index)
app.cleanup_ctx.append(life)
loop = None
if sys.argv[1] == "asyncloop":
    import asyncloop
    loop = asyncloop.new_event_loop()
web.run_app(app, host="127.0.0.1", port=0, loop=loop)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_app(impl, run, start_child, loop_name, tmp_path, number):
    (tmp_path / "program.py").write_text(PROGRAM)
    child = start_child("-W", "error", "program.py", impl.name)
    url = child.wait_for(r"Running on (http://127\.0\.0\.1:\d+)")[1]

    async def main():
        async with aiohttp.request("GET", url) as answer:
            return await answer.text()

    assert run(main()) == loop_name
    assert child.stop(number) == 0
    assert re.findall(r"app: \w+", child.text) == ["app: started", "app: ended"]
