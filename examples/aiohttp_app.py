"""A small aiohttp app with the kinds of routes that real ones have.

    python -m asyncloop examples/aiohttp_app.py --port 8080     # on asyncloop
    python examples/aiohttp_app.py --port 8080                  # on the standard loop

`examples/fastapi_app.py` serves the same routes with FastAPI.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import time

from aiohttp import WSMsgType, web

routes = web.RouteTableDef()


def unprocessable(reason: str) -> web.Response:
    return web.json_response({"detail": reason}, status=422)


@routes.get("/process")
async def process(request: web.Request) -> web.Response:
    """Which loop serves, and the CPU time of this process so far, in seconds."""
    loop = type(asyncio.get_running_loop())
    return web.json_response(
        {
            "loop": f"{loop.__module__}.{loop.__qualname__}",
            "cpu_seconds": time.process_time(),
            "pid": os.getpid(),
        }
    )


@routes.get("/json")
async def json_answer(request: web.Request) -> web.Response:
    return web.json_response({"message": "hello", "numbers": [1, 2, 3]})


@routes.get("/items/{number}")
async def item(request: web.Request) -> web.Response:
    try:
        number = int(request.match_info["number"])
    except ValueError:
        return unprocessable("number must be an integer")
    return web.json_response({"number": number, "q": request.query.get("q", "")})


@routes.post("/orders")
async def order(request: web.Request) -> web.Response:
    try:
        given = await request.json()
    except ValueError:
        return unprocessable("the body must be JSON")
    if not isinstance(given, dict):
        return unprocessable("the body must be an object")
    item, count = given.get("item"), given.get("count")
    if not isinstance(item, str) or not item:
        return unprocessable("item must be a string that is not empty")
    if not isinstance(count, int) or count < 1:
        return unprocessable("count must be a positive integer")
    return web.json_response({"item": item, "count": count})


@routes.get("/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    for number in range(int(request.query.get("lines", "100"))):
        await response.write(b"line %d\n" % number)
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    await response.write_eof()
    return response


@routes.get("/slow")
async def slow(request: web.Request) -> web.Response:
    seconds = float(request.query["seconds"])
    await asyncio.sleep(seconds)
    return web.json_response({"slept": seconds})


@routes.get("/download")
async def download(request: web.Request) -> web.Response:
    return web.Response(body=bytes(range(256)) * (int(request.query["size"]) // 256))


@routes.post("/upload")
async def upload(request: web.Request) -> web.Response:
    digest, size = hashlib.sha256(), 0
    with contextlib.suppress(ConnectionResetError):  # a client that went away half-way
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
    return web.json_response({"size": size, "sha256": digest.hexdigest()})


@routes.post("/echo")
async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


@routes.get("/ws")
async def websocket_echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


def make_app() -> web.Application:
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    web.run_app(make_app(), host=options.host, port=options.port, access_log=None, print=None)
