"""A small FastAPI app with the kinds of routes that real ones have.

    uvicorn --app-dir examples fastapi_app:app --loop asyncloop:new_event_loop

`examples/aiohttp_app.py` serves the same routes with aiohttp.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

app = FastAPI()


class Order(BaseModel):
    item: str = Field(min_length=1)
    count: int = Field(ge=1)


@app.get("/process")
async def process() -> dict[str, object]:
    """Which loop serves, and the CPU time of this process so far, in seconds."""
    loop = type(asyncio.get_running_loop())
    return {
        "loop": f"{loop.__module__}.{loop.__qualname__}",
        "cpu_seconds": time.process_time(),
        "pid": os.getpid(),
    }


@app.get("/json")
async def json_answer() -> dict[str, object]:
    return {"message": "hello", "numbers": [1, 2, 3]}


@app.get("/items/{number}")
async def item(number: int, q: str = "") -> dict[str, object]:
    return {"number": number, "q": q}


@app.post("/orders")
async def order(order: Order) -> dict[str, object]:
    return {"item": order.item, "count": order.count}


@app.get("/stream")
async def stream(lines: int = 100) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        for number in range(lines):
            yield b"line %d\n" % number
            if number % 10 == 0:
                await asyncio.sleep(0.001)

    return StreamingResponse(body(), media_type="text/plain")


@app.get("/slow")
async def slow(seconds: float) -> dict[str, object]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.get("/download")
async def download(size: int) -> Response:
    return Response(bytes(range(256)) * (size // 256), media_type="application/octet-stream")


@app.post("/upload")
async def upload(request: Request) -> dict[str, object]:
    digest, size = hashlib.sha256(), 0
    with contextlib.suppress(ClientDisconnect):  # a client that went away half-way
        async for chunk in request.stream():
            digest.update(chunk)
            size += len(chunk)
    return {"size": size, "sha256": digest.hexdigest()}


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


@app.websocket("/ws")
async def websocket_echo(socket: WebSocket) -> None:
    await socket.accept()
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        if message.get("bytes") is not None:
            await socket.send_bytes(message["bytes"])
        else:
            await socket.send_text(message["text"])
