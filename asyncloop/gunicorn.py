"""Worker classes for gunicorn whose applications run on asyncloop.

    gunicorn app:app -k asyncloop.gunicorn.UvicornWorker      # ASGI, by uvicorn or uvicorn-worker
    gunicorn app:app -k asyncloop.gunicorn.AiohttpWorker      # an aiohttp.web.Application

Needs gunicorn, and the server that the worker is for.
"""

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

import asyncloop

__all__ = ["AiohttpWorker", "UvicornWorker"]

_FACTORY = "asyncloop:new_event_loop"


def _uvicorn_worker() -> type:
    try:
        Base: Any = import_module("uvicorn_worker").UvicornWorker
    except ImportError:  # a part of uvicorn itself until 2024
        Base = import_module("uvicorn.workers").UvicornWorker

    class UvicornWorker(Base):  # type: ignore[misc]
        """gunicorn's worker class for ASGI applications, on uvicorn and asyncloop."""

        CONFIG_KWARGS = {**Base.CONFIG_KWARGS, "loop": _FACTORY}

    return UvicornWorker


def _aiohttp_worker() -> type:
    Base: Any = import_module("aiohttp.worker").GunicornWebWorker

    class AiohttpWorker(Base):  # type: ignore[misc]
        """gunicorn's worker class for aiohttp applications, on asyncloop."""

        def init_process(self) -> None:
            # What GunicornWebWorker does, with another loop.
            self.loop = asyncloop.new_event_loop()
            asyncio.set_event_loop(self.loop)
            super(Base, self).init_process()

    return AiohttpWorker


_WORKERS = {"UvicornWorker": _uvicorn_worker, "AiohttpWorker": _aiohttp_worker}

if TYPE_CHECKING:
    AiohttpWorker: Any
    UvicornWorker: Any
else:

    def __getattr__(name: str) -> type:
        # Made on first use: neither class asks for the other's server to be installed.
        if name not in _WORKERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        worker = _WORKERS[name]()
        worker.__module__ = __name__
        worker.__qualname__ = name
        globals()[name] = worker
        return worker
