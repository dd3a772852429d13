"""An ASGI app served by uvicorn on a loop in each thread, for free-threaded Python.

    python examples/uvicorn_threads.py fastapi_app:app 8000

Each thread has a server and a listening socket of its own; Linux shares the connections out.
"""

import asyncio
import logging
import sys
from typing import Any

import uvicorn

import asyncloop


async def serve(worker: asyncloop.Worker, app: Any, host: str, port: int, **options: Any) -> None:
    """Serve until cancelled: then requests under way are answered, and no more are taken."""
    sockets = asyncloop.listen_sockets(host, port, reuse_port=True)
    server = uvicorn.Server(uvicorn.Config(app, **options))
    serving = asyncio.ensure_future(server.serve(sockets=sockets))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
    finally:
        for sock in sockets:
            sock.close()


async def serve_again(worker: asyncloop.Worker, *args: Any, **options: Any) -> None:
    """The same, and one that has failed is started again: the other threads go on meanwhile."""
    while True:
        try:
            return await serve(worker, *args, **options)
        except Exception:
            logging.exception("%r failed, and is started again", worker)
            await asyncio.sleep(1)


if __name__ == "__main__":
    app, port = sys.argv[1], int(sys.argv[2])
    asyncloop.run_threads(lambda worker: serve_again(worker, app, "127.0.0.1", port))
