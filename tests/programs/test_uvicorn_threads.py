"""uvicorn on a loop in each thread, under load, while a worker dies."""

import asyncio
import http.client
import socket
import threading

import pytest

from tests.support import ROOT

uvicorn = pytest.importorskip("uvicorn")

WORKERS, CLIENTS, REQUESTS = 3, 3, 60
LOST = (ConnectionError, http.client.HTTPException)


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import uvicorn_threads

    return uvicorn_threads


@pytest.fixture
def port():
    """A port that stays taken, with a socket that does not listen."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Served:
    """Workers in threads, and what they have answered."""

    def __init__(self, example, port):
        self.example = example
        self.port = port
        self.started = threading.Semaphore(0)
        self.one_has_ended = threading.Event()
        self.ended = []
        self.failure = None
        self.workers = []
        self.thread = threading.Thread(target=self.run)

    async def main(self, worker):
        self.workers.append(worker)
        death = asyncio.get_running_loop().create_future()

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                self.started.release()
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            if scope["path"] == "/die" and not death.done():
                death.set_result(None)
            await asyncio.sleep(0.001)
            headers = [(b"worker", b"%d" % worker.index)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x" * 5000})

        async def die():
            await death
            raise LookupError(f"worker {worker.index} dies")

        serving = asyncio.ensure_future(
            self.example.serve(worker, app, "127.0.0.1", self.port, log_config=None)
        )
        dying = asyncio.ensure_future(die())
        try:
            await asyncio.wait([serving, dying], return_when=asyncio.FIRST_COMPLETED)
            await dying if dying.done() else await serving
        finally:
            serving.cancel()
            dying.cancel()
            await asyncio.wait([serving, dying])
            self.ended.append(worker.index)
            self.one_has_ended.set()

    def run(self):
        import asyncloop

        try:
            asyncloop.run_threads(self.main, WORKERS, stop_on="never")
        except BaseException as exc:
            self.failure = exc

    def __enter__(self):
        self.thread.start()
        for _ in range(WORKERS):
            assert self.started.acquire(timeout=30)
        return self

    def __exit__(self, *exc_info):
        self.workers[0].stop_all()
        self.thread.join()


def ask(port, path):
    """One request on a connection of its own, tried again while workers take theirs with them."""
    for _ in range(1000):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except LOST:
            continue
        finally:
            connection.close()
        assert answer.status == 200 and len(body) == 5000
        return int(answer.getheader("worker"))
    raise AssertionError("nobody answers")


def test_a_worker_dies_under_load(example, port):
    asked = []
    with Served(example, port) as served:

        def client(number):
            for i in range(REQUESTS):
                path = "/die" if number == 0 and i == REQUESTS // 3 else "/"
                asked.append((path, ask(port, path)))

        threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The one that dies may take its answer with it: then another one is asked to, as well.
        assert served.one_has_ended.wait(30)
        dead = set(served.ended)
        after = {ask(port, "/") for _ in range(20)}
        assert len(asked) == CLIENTS * REQUESTS and not after & dead
    assert isinstance(served.failure, ExceptionGroup)
    assert served.failure.subgroup(LookupError) is not None


def test_answers_under_way_are_given_when_all_end(example, port):
    """stop_all() ends the servers as SIGTERM ends uvicorn: what was asked is answered."""
    answers = []
    with Served(example, port) as served:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        with connection.getresponse() as answer:
            answers.append(len(answer.read()))
        connection.request("GET", "/")
        served.workers[0].stop_all()
        try:
            answers.append(len(connection.getresponse().read()))
        except LOST:    # it ended before the request came
            answers.append(5000)
        connection.close()
    assert answers == [5000, 5000] and served.failure is None
