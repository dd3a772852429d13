"""The warning of a transport that nobody has closed: of asyncio's module, which filters name."""

import asyncio
import gc
import os
import socket
import warnings

import pytest


async def unclosed(kind):
    """Makes one and forgets it."""
    loop = asyncio.get_running_loop()
    if kind == "datagrams":
        await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
    elif kind == "stream":
        ours, theirs = socket.socketpair()
        theirs.close()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.pause_reading()
    else:
        reading, writing = os.pipe()
        if kind == "reading pipe":
            transport, _ = await loop.connect_read_pipe(
                asyncio.Protocol, os.fdopen(reading, "rb", 0)
            )
            transport.pause_reading()
            os.close(writing)
        else:
            await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb", 0))
            os.close(reading)


@pytest.mark.parametrize(
    "kind, module",
    [
        ("stream", "asyncio.selector_events"),
        ("datagrams", "asyncio.selector_events"),
        ("reading pipe", "asyncio.unix_events"),
        ("writing pipe", "asyncio.unix_events"),
    ],
)
def test_module_of_the_warning(impl, kind, module):
    name = module.replace(".", "/") + ".py"
    for ignored in (False, True):
        loop = impl.new_event_loop()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if ignored:
                warnings.filterwarnings("ignore", "unclosed transport", module=module)
            loop.run_until_complete(unclosed(kind))
            loop.close()
            del loop
            gc.collect()
        told = [warning for warning in caught if "unclosed transport" in str(warning.message)]
        assert len(told) == (not ignored)
        for warning in told:
            assert warning.category is ResourceWarning
            assert warning.filename.endswith(name)
            with open(warning.filename) as lines:
                assert "warn(" in list(lines)[warning.lineno - 1]
            assert warning.source is not None
            del warning
        told.clear()
        caught.clear()
