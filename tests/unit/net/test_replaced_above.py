"""Methods that asyncio's transports inherit, replaced in the class that they have them from."""

import asyncio
import os
import socket
from unittest import mock

import pytest

CLASSES = ["asyncio.BaseTransport", "asyncio.Transport", "asyncio.ReadTransport"]


@pytest.mark.parametrize("name", [*CLASSES, "asyncio.transports._FlowControlMixin"])
@pytest.mark.parametrize("how", ["mock", "function"])
def test_get_extra_info(run, loop, name, how):
    """It is called for transports that were there before and for new ones, until it is put back."""

    def function(self, name, default=None):
        return "replaced", name, default

    async def main():
        ends = [socket.socketpair() for _ in range(2)]
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ends[0][0])
        assert transport.get_extra_info("no", 1) == 1
        new = function if how == "function" else mock.MagicMock(return_value="mocked")
        with mock.patch(f"{name}.get_extra_info", new, create=True):
            other, _ = await loop.create_connection(asyncio.Protocol, sock=ends[1][0])
            for each in (transport, other):
                if how == "function":
                    assert each.get_extra_info("socket", 1) == ("replaced", "socket", 1)
                    assert each.get_extra_info("socket") == ("replaced", "socket", None)
                else:
                    assert each.get_extra_info("socket") == "mocked"
        if how == "mock":
            assert new.mock_calls[-1] == mock.call("socket")
        for each in (transport, other):
            assert each.get_extra_info("socket").family == socket.AF_UNIX
            assert each.get_extra_info("no") is None
            each.close()
        for pair in ends:
            pair[1].close()
        await asyncio.sleep(0)

    run(main())


def test_of_other_kinds(run, loop):
    async def main():
        reading, writing = os.pipe()
        pipe, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reading, "rb", 0))
        datagrams, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        with mock.patch("asyncio.BaseTransport.get_extra_info", return_value="mocked"):
            assert pipe.get_extra_info("pipe") == datagrams.get_extra_info("x") == "mocked"
        assert pipe.get_extra_info("pipe").fileno() == reading
        pipe.close()
        datagrams.close()
        os.close(writing)
        await asyncio.sleep(0)

    run(main())
