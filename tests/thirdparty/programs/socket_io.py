"""python-socketio: an ASGI server under uvicorn, clients by polling and by WebSocket."""

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi")


@server.event
async def connect(sid, environ):
    await server.enter_room(sid, "all")


@server.event
async def upper(sid, text):
    await server.emit("news", text, room="all")
    return text.upper()


async def main():
    sock = socket.create_server(("127.0.0.1", 0))
    host = uvicorn.Server(
        uvicorn.Config(socketio.ASGIApp(server), log_level="error", lifespan="off")
    )
    serving = asyncio.create_task(host.serve([sock]))
    while not host.started:
        await asyncio.sleep(0.001)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    clients = []
    for transports in (["polling"], ["websocket"], ["polling", "websocket"]):
        client, news = socketio.AsyncClient(), []
        client.on("news", news.append)
        await client.connect(url, transports=transports)
        clients.append((client, news))
    for n in range(20):
        assert await clients[n % 3][0].call("upper", f"text {n}", timeout=20) == f"TEXT {n}"
    while any(len(news) < 20 for _, news in clients):
        await asyncio.sleep(0.001)
    assert all(news == [f"text {n}" for n in range(20)] for _, news in clients)
    for client, _ in clients:
        await client.disconnect()
    host.should_exit = True
    await serving
    sock.close()


loop = new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
loop.close()
