"""HTTP rows: what real frameworks make of a loop."""

from __future__ import annotations

from collections.abc import Sequence

from . import build, load, traffic
from .child import Child
from .compare import Options, Outcome, Row
from .traffic import BUSY, CPU, P50, P99, RATE, SYSTEM, USER

METRICS = (RATE, USER, SYSTEM, CPU, BUSY, P99, P50)

KINDS = {
    "aiohttp": "aiohttp",
    "asgi": "bare ASGI under uvicorn",
    "large": "the same, 10 KiB body",
    "websocket": "the same, WebSocket echo of 1 KiB",
    "fastapi": "FastAPI under uvicorn",
}


def _row(kind: str, title: str) -> Row:
    def start(name: str, options: Options) -> Child:
        return traffic.serve_python(f"http-{kind}", name, options)

    def run(options: Options, loops: Sequence[str]) -> Outcome:
        if kind == "websocket":
            websocket = load.own(build.load_generator(), "--websocket", "/")
            return traffic.drive_servers(options, loops, start, websocket)
        use_wrk = options.http_load == "wrk" or (options.http_load == "auto" and load.has_wrk())
        path = "/hello"
        generator = load.wrk(path) if use_wrk else load.own(build.load_generator(), "--http", path)
        outcome = traffic.drive_servers(options, loops, start, generator)
        outcome.notes.append("driven by wrk" if use_wrk else "driven by c/load.c")
        return outcome

    return Row(f"http-{kind}", "http", title, METRICS, run)


ROWS = [_row(kind, title) for kind, title in KINDS.items()]
