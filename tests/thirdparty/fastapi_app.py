"""A FastAPI app for test_uvicorn.py: life cycle, threads, streams, files, disconnects."""

import asyncio
import contextlib
import os
import threading

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from starlette.websockets import WebSocketDisconnect

state = {"started": 0, "background": [], "gone": 0, "left": 0}


@contextlib.asynccontextmanager
async def lifespan(app):
    await asyncio.sleep(0)
    state["started"] += 1
    print("lifespan: started", flush=True)
    yield {"secret": "from lifespan"}
    await asyncio.sleep(0)
    print("lifespan: ended", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/process")
async def process():
    loop = type(asyncio.get_running_loop())
    return {"loop": f"{loop.__module__}.{loop.__qualname__}", "pid": os.getpid(), **state}


@app.get("/lifespan-state")
async def lifespan_state(request: Request):
    return request.state.secret


@app.get("/sync")
def sync():
    """Not a coroutine: starlette runs it in a thread."""
    return threading.current_thread() is threading.main_thread()


async def resource():
    state["open"] = state.get("open", 0) + 1
    try:
        yield "resource"
    finally:
        state["open"] -= 1


@app.get("/depends/{number}")
async def depends(number: int, given: str = Depends(resource)):
    if number > 9:
        raise HTTPException(418, "too large")
    return {"number": number, "given": given, "open": state["open"]}


@app.get("/background")
async def background(tasks: BackgroundTasks):
    async def later(what):
        await asyncio.sleep(0.01)
        state["background"].append(what)

    tasks.add_task(later, "done")
    return "accepted"


@app.post("/echo")
async def echo(request: Request):
    chunks = [chunk async for chunk in request.stream()]
    return StreamingResponse(iter(chunks), media_type="application/octet-stream")


@app.get("/file")
async def file(path: str):
    return FileResponse(path)


@app.get("/endless")
async def endless():
    async def body():
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            state["gone"] += 1

    return StreamingResponse(body())


@app.get("/slow")
async def slow(seconds: float):
    print("slow: begun", flush=True)
    await asyncio.sleep(seconds)
    return "slept"


@app.get("/broken")
async def broken():
    raise RuntimeError("broken on purpose")


@app.websocket("/ws")
async def websocket(socket: WebSocket):
    await socket.accept(subprotocol="chat")
    try:
        while True:
            text = await socket.receive_text()
            if text == "close":
                await socket.close(4000, "as you wish")
                break
            await socket.send_json({"echo": text, "length": len(text)})
    except WebSocketDisconnect:
        state["left"] += 1
