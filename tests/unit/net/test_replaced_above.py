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


# -- limits and flow control --------------------

MIXIN = "asyncio.transports._FlowControlMixin"


async def connected(loop):
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    events = []

    class Protocol(asyncio.Protocol):
        def pause_writing(self):
            events.append("pause")

        def resume_writing(self):
            events.append("resume")

    transport, _ = await loop.create_connection(Protocol, sock=a)
    return transport, b, events


@pytest.mark.parametrize("wraps", [False, True])
def test_limits(run, loop, wraps):
    """Also where what is put there calls asyncio's own."""
    from asyncio.transports import _FlowControlMixin

    log = []

    def replacement(name):
        real = getattr(_FlowControlMixin, name)

        def method(self, *args, **kwargs):
            log.append(name)
            return real(self, *args, **kwargs) if wraps else "replaced"

        return method

    async def main():
        transport, peer, events = await connected(loop)
        with peer:
            before = transport.get_write_buffer_limits()
            for name in ("set_write_buffer_limits", "get_write_buffer_limits"):
                with mock.patch(f"{MIXIN}.{name}", replacement(name)):
                    answer = getattr(transport, name)()
                assert log == [name]
                assert wraps or answer == "replaced"
                del log[:]
            with mock.patch(
                f"{MIXIN}._set_write_buffer_limits", replacement("_set_write_buffer_limits")
            ):
                transport.set_write_buffer_limits(high=100)
                transport._set_write_buffer_limits(high=100)
            assert log == ["_set_write_buffer_limits"] * 2
            assert transport.get_write_buffer_limits() == ((25, 100) if wraps else before)
            transport.set_write_buffer_limits(high=8)
            assert transport.get_write_buffer_limits() == (2, 8)
            assert events == []
            transport.abort()
            await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("where", ["class", "object"])
def test_flow_control(run, loop, where):
    from asyncio.transports import _FlowControlMixin

    async def main():
        transport, peer, events = await connected(loop)
        log = []
        pause, resume = (
            _FlowControlMixin._maybe_pause_protocol,
            _FlowControlMixin._maybe_resume_protocol,
        )

        def maybe_pause(self=transport):
            log.append("maybe pause")
            pause(self)

        def maybe_resume(self=transport):
            log.append("maybe resume")
            resume(self)

        target = _FlowControlMixin if where == "class" else transport
        with (
            peer,
            mock.patch.object(target, "_maybe_pause_protocol", maybe_pause, create=True),
            mock.patch.object(target, "_maybe_resume_protocol", maybe_resume, create=True),
        ):
            transport.set_write_buffer_limits(high=100)
            assert log == ["maybe pause"]
            del log[:]
            size = 1 << 20
            transport.write(bytes(size))
            assert (log, events) == (["maybe pause"], ["pause"])
            assert transport._protocol_paused
            peer.setblocking(False)
            while size:
                await asyncio.sleep(0)
                try:
                    size -= len(peer.recv(1 << 16))
                except BlockingIOError:
                    pass
            while "resume" not in events:
                await asyncio.sleep(0)
            assert set(log) == {"maybe pause", "maybe resume"} and log[-1] == "maybe resume"
            assert events == ["pause", "resume"]
            transport.abort()
            await asyncio.sleep(0)

    run(asyncio.wait_for(main(), 20))


def test_an_exception_of_maybe_pause_reaches_the_writer(run, loop):
    async def main():
        transport, peer, _ = await connected(loop)
        with peer, mock.patch(f"{MIXIN}._maybe_pause_protocol", side_effect=KeyError("boom")):
            with pytest.raises(KeyError):
                transport.write(bytes(1 << 20))
            transport.abort()
            await asyncio.sleep(0)

    run(main())
