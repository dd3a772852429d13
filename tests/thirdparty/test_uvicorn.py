"""FastAPI under uvicorn: HTTP/1.1, WebSocket, lifespan, TLS, reload, several workers, shutdown."""

import asyncio
import contextlib
import signal
import socket
import threading

import httpx
import pytest
import uvicorn
import websockets

from tests.support import until

APP = "tests.thirdparty.fastapi_app:app"


def loop_option(impl):
    return "asyncloop:new_event_loop" if impl.ours else "asyncio"


@pytest.fixture
def start(impl, start_child):
    """Start uvicorn with options; the child and its URL."""

    def start(*options, app=APP):
        child = start_child(
            *("-m", "uvicorn", app, "--port", "0", "--loop", loop_option(impl)), *options
        )
        return child, child.wait_for(r"running on (https?://127\.0\.0\.1:\d+)")[1]

    return start


@pytest.fixture
def client():
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_http(start, client, loop_name, http, tmp_path):
    child, url = start("--http", http)
    client.base_url = url

    assert client.get("/process").json()["loop"] == loop_name
    assert client.get("/lifespan-state").json() == "from lifespan"
    assert client.get("/sync").json() is False
    assert client.get("/depends/5").json() == {"number": 5, "given": "resource", "open": 1}
    assert client.get("/depends/50").status_code == 418
    assert client.get("/depends/five").status_code == 422
    assert client.get("/nowhere").status_code == 404
    assert client.get("/process").json()["open"] == 0

    body = bytes(range(256)) * 20_000
    assert client.post("/echo", content=body).content == body
    chunks = (body[i : i + 50_000] for i in range(0, len(body), 50_000))
    assert client.post("/echo", content=chunks).content == body

    big = tmp_path / "big"
    big.write_bytes(body)
    answer = client.get("/file", params={"path": str(big)})
    assert answer.content == body and answer.headers["content-length"] == str(len(body))

    assert client.get("/background").json() == "accepted"
    while not (background := client.get("/process").json()["background"]):
        pass
    assert background == ["done"]

    # A connection of its own: uvicorn closes it, but only when the answer is out already.
    assert httpx.get(url + "/broken", trust_env=False, timeout=30).status_code == 500
    child.wait_for("RuntimeError: broken on purpose")

    with client.stream("GET", "/endless") as answer:
        assert len(next(answer.iter_raw())) > 0
    while client.get("/process").json()["gone"] != 1:
        pass

    assert child.stop() in (0, -signal.SIGTERM)
    assert child.text.count("lifespan: started") == child.text.count("lifespan: ended") == 1


def test_pipelined_and_split(start):
    _, url = start()
    port = int(url.rpartition(":")[2])
    request = b"GET /depends/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"".join(request % n for n in range(10)))
        answers = sock.makefile("rb")
        numbers = []
        for _ in range(10):
            length = 0
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            numbers.append(answers.read(length)[10:11])
        assert numbers == [b"%d" % n for n in range(10)]

        for byte in request % 7:
            sock.sendall(bytes([byte]))
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        answers.close()


@pytest.mark.parametrize("library", ["websockets", "websockets-sansio"])
def test_websocket(start, client, run, library):
    _, url = start("--ws", library)

    async def talk():
        address = url.replace("http", "ws") + "/ws"
        async with websockets.connect(address, subprotocols=["chat"], proxy=None) as ws:
            assert ws.subprotocol == "chat"
            for text in ("hello", "é" * 1000, "x" * 500_000):
                await ws.send(text)
                assert f'"length":{len(text)}' in await ws.recv()
            await ws.send("close")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd.code == 4000 and closed.value.rcvd.reason == "as you wish"
        async with websockets.connect(address, subprotocols=["chat"], proxy=None) as ws:
            await ws.send("bye")
            await ws.recv()
        many = [websockets.connect(address, subprotocols=["chat"], proxy=None) for _ in range(20)]
        async with contextlib.AsyncExitStack() as stack:
            open_ones = [await stack.enter_async_context(one) for one in many]
            await asyncio.gather(*(one.send("all") for one in open_ones))
            assert len(set(await asyncio.gather(*(one.recv() for one in open_ones)))) == 1

    run(talk())
    while client.get(url + "/process").json()["left"] != 21:
        pass


def test_tls(start, tls):
    _, url = start("--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key))
    with httpx.Client(verify=tls.client, trust_env=False, timeout=30) as client:
        body = bytes(range(256)) * 8000
        assert client.post(url + "/echo", content=body).content == body
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(url + "/process")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_lets_requests_finish(start, number):
    child, url = start()
    answers = []

    def ask():
        answers.append(httpx.get(url + "/slow?seconds=0.5", trust_env=False, timeout=30).json())

    thread = threading.Thread(target=ask)
    thread.start()
    child.wait_for("slow: begun")
    status = child.stop(number)
    thread.join()
    assert answers == ["slept"]
    # uvicorn raises the signal once more when it has ended in order.
    assert status in (0, -number, 130)
    assert "lifespan: ended" in child.text
    assert "Finished server process" in child.text


def test_reload(impl, start, client, loop_name, tmp_path):
    app = tmp_path / "changing_app.py"
    source = (
        "import asyncio\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n"
        "        return\n"
        "    loop = type(asyncio.get_running_loop())\n"
        "    body = f'{VERSION} {loop.__module__}.{loop.__qualname__}'.encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
        "VERSION = 1\n"
    )
    app.write_text(source)
    child, url = start(
        *("--reload", "--reload-dir", str(tmp_path), "--reload-delay", "0.05"),
        *("--lifespan", "off"),
        app="changing_app:app",
    )
    child.wait_for("Application startup complete|Started server process")
    assert client.get(url).text == f"1 {loop_name}"
    # Of another size, so that no cached bytecode is taken for it.
    app.write_text(source.replace("VERSION = 1", "VERSION = 22"))
    child.wait_for("Started server process", count=2)
    assert client.get(url).text == f"22 {loop_name}"
    child.stop(signal.SIGINT)
    assert "Stopping reloader process" in child.text


def test_workers(start, loop_name):
    child, url = start("--workers", "3")
    child.wait_for("Application startup complete", count=3)
    pids = set()
    while len(pids) < 2:
        # A new connection each, for the kernel to give to any of them.
        answer = httpx.get(url + "/process", trust_env=False, timeout=30).json()
        assert answer["loop"] == loop_name
        pids.add(answer["pid"])
    child.stop()
    assert child.text.count("lifespan: ended") == 3
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/process", trust_env=False)


def test_server_in_the_same_loop(run, tls):
    """Server and client as two tasks, over TCP and over TLS."""
    from .fastapi_app import app

    async def serve_and_ask(scheme, options, verify):
        # Without a log configuration: uvicorn's would close pytest's handlers.
        config = uvicorn.Config(app, port=0, log_config=None, lifespan="on", **options)
        server = uvicorn.Server(config)
        with contextlib.closing(config.bind_socket()) as sock:
            serving = asyncio.create_task(server._serve(sockets=[sock]))
            try:
                await until(lambda: server.started)
                url = f"{scheme}://localhost:{sock.getsockname()[1]}"
                async with httpx.AsyncClient(
                    base_url=url, verify=verify, trust_env=False, timeout=30
                ) as client:
                    answers = await asyncio.gather(
                        *(client.get(f"/depends/{n % 10}") for n in range(60))
                    )
                    assert [a.json()["number"] for a in answers] == [n % 10 for n in range(60)]
            finally:
                server.should_exit = True
                await serving

    run(serve_and_ask("http", {}, True))
    keys = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
    run(serve_and_ask("https", keys, tls.client))
