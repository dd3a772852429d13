"""The programs of table.py: each answers with the class of the loop that it runs on.

Imported by servers and run as a script, in processes of their own. What a server does not need is
not imported.
"""

import asyncio
import sys


def loop_class():
    kind = type(asyncio.get_running_loop())
    return f"{kind.__module__}.{kind.__qualname__}"


async def name():
    return f"loop: {loop_class()}"


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = loop_class().encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make_aiohttp_app(argv=None):
    from aiohttp import web

    async def root(request):
        return web.Response(text=loop_class())

    app = web.Application()
    app.router.add_get("/", root)
    return app


def make_fastapi_app():
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/", response_class=PlainTextResponse)
    async def root():
        return loop_class()

    return app


def make_sanic_app():
    from sanic import Sanic, text

    app = Sanic("selection")

    @app.get("/")
    async def root(request):
        return text(loop_class())

    return app


def make_quart_app():
    from quart import Quart

    app = Quart("selection")

    @app.get("/")
    async def root():
        return loop_class()

    return app


def make_litestar_app():
    from litestar import Litestar, MediaType, get

    @get("/", media_type=MediaType.TEXT)
    async def root() -> str:
        return loop_class()

    return Litestar([root])


MAKERS = {
    "aiohttp_app": make_aiohttp_app,
    "fastapi_app": make_fastapi_app,
    "sanic_app": make_sanic_app,
    "quart_app": make_quart_app,
    "litestar_app": make_litestar_app,
}


def __getattr__(attribute):
    if attribute not in MAKERS:
        raise AttributeError(attribute)
    app = globals()[attribute] = MAKERS[attribute]()
    return app


def __dir__():
    return [*globals(), *MAKERS]


# -- scripts ---------------------------------------------------------------------------


def run_robyn(port):
    from robyn import Robyn

    app = Robyn(__file__)

    @app.get("/")
    async def root(request):
        return loop_class()

    sys.argv[1:] = []
    app.start(host="127.0.0.1", port=int(port))


def run_aiohttp(port):
    from aiohttp import web

    web.run_app(make_aiohttp_app(), host="127.0.0.1", port=int(port))


def run_quart(port):
    make_quart_app().run(port=int(port))


def run_tornado(port):
    import tornado.web

    class Root(tornado.web.RequestHandler):
        async def get(self):
            self.write(loop_class())

    async def main():
        tornado.web.Application([("/", Root)]).listen(int(port), "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(main())


def run_run():
    print(asyncio.run(name()))


def run_kernel():
    """A Jupyter kernel in a process of its own, asked through its client."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(extra_arguments=["--log-level=ERROR"])
    try:
        client.execute_interactive(
            "import selection_apps as s; print(await s.name())",
            timeout=60,
            output_hook=lambda message: print(message["content"].get("text", ""), end=""),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_textual():
    from textual.app import App

    class Selection(App):
        def on_mount(self):
            self.exit(loop_class())

    print("loop:", Selection().run(headless=True))


def run_dask():
    """A cluster of processes on this machine."""
    from distributed import Client, LocalCluster, SubprocessCluster

    del LocalCluster

    def of_scheduler(dask_scheduler):
        return loop_class_of(dask_scheduler.loop.asyncio_loop)

    def of_worker(dask_worker):
        return loop_class_of(dask_worker.loop.asyncio_loop)

    with SubprocessCluster(worker_kwargs={"nthreads": 1}) as cluster, Client(cluster) as client:
        print("loop:", loop_class_of(client.loop.asyncio_loop))
        print("loop:", client.run_on_scheduler(of_scheduler))
        for loop in client.run(of_worker).values():
            print("loop:", loop)


def loop_class_of(loop):
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


if __name__ == "__main__":
    globals()[f"run_{sys.argv[1]}"](*sys.argv[2:])
