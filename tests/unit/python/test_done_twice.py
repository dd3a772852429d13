"""What is done a second time, or dropped before anybody has asked for it."""

import asyncio
import socket
import sys
import time
from unittest import mock

import pytest

import asyncloop
from asyncloop import _core
from tests.compare import same
from tests.support import until


@pytest.mark.our_loop("asyncio's would leave the first selector and pipe open")
def test_a_loop_is_initialised_again(loop):
    async def main():
        return await asyncio.sleep(0.001, "runs")

    assert loop.run_until_complete(main()) == "runs"
    type(loop).__init__(loop)
    assert loop.run_until_complete(main()) == "runs"


def test_a_handle_is_pushed_again():
    async def program(log, loop):
        handle = loop.call_soon(log, "called")
        loop._add_callback(handle)
        await asyncio.sleep(0)
        cancelled = asyncio.Handle(log, ("never",), loop)
        cancelled.cancel()
        log.call("cancelled", loop._add_callback, cancelled)
        loop._add_callback(asyncio.Handle(log, ("another kind",), loop))
        await asyncio.sleep(0)

    same(program)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such pages")
def test_a_page_is_opened_again():
    """The first one's counters stay where they are, for the loops that count in it."""
    for name in ("first", "second"):
        _core._page_open("0", "3", name)
    _core._page_close()
    _core._page_close()
    loop = asyncio.new_event_loop()
    loop.close()


def test_a_watchdog_goes_whose_events_nobody_has_taken():
    dog = _core.Watchdog(0.02, 0.0, 0, -1, -1)

    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        limit = time.monotonic() + 30
        while loop.stats().stalls == 0 and time.monotonic() < limit:
            time.sleep(0.02)
        return loop.stats().stalls

    assert asyncloop.run(main()) == 1
    dog.stop()
    del dog


@pytest.mark.parametrize("method", ["sock_connect", "getaddrinfo"])
def test_a_coroutine_is_closed_that_awaits_another(impl, method):
    """The inner one is closed, too."""
    log = []

    async def resolving(*args, **kwargs):
        try:
            await asyncio.sleep(30)
        finally:
            log.append("closed")

    class Own(impl.Loop):
        async def run_in_executor(self, *args):
            return await resolving()

        _ensure_resolved = staticmethod(resolving)

    loop = Own()
    try:
        with socket.socket() as sock, mock.patch.object(loop, "_ensure_resolved", resolving):
            sock.setblocking(False)

            async def main():
                args = (sock, ("localhost", 1)) if method == "sock_connect" else ("a.b", 1)
                coro = getattr(loop, method)(*args)
                coro.send(None)
                coro.close()

            loop.run_until_complete(main())
        assert log == ["closed"]
    finally:
        loop.close()


def test_the_transport_of_a_writer_is_replaced(run):
    """drain() asks the one that is there."""

    async def main():
        handed = []
        server = await asyncio.start_server(lambda *pair: handed.append(pair), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await until(lambda: handed)
        for each in (handed[0][1], writer):
            transport, each._transport = each._transport, mock.Mock(spec=asyncio.Transport)
            each._transport.is_closing.return_value = False
            await each.drain()
            assert each._transport.is_closing.called
            each._transport = transport
            each.close()
        server.close()

    run(main())
