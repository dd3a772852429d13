"""A TLS transport in odd states, and asked for odd things: the same answers on each loop."""

import array
import asyncio
import logging
import socket
import ssl
import struct

import pytest

from tests.support import turns

from .tls_below import Above

pytestmark = pytest.mark.usefixtures("engine")


class Buffered(Above, asyncio.BufferedProtocol):
    buffer: object = bytearray(100)

    def get_buffer(self, hint):
        return memoryview(self.buffer) if type(self.buffer) is bytearray else self.buffer

    def buffer_updated(self, n):
        self.log.append(("updated", n))


def answer(function, *args):
    """What a call gives, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"


# -- a second close() --------------------

NEEDED = {
    "is_reading": "_app_reading_paused",
    "pause_reading": "_pause_reading",
    "resume_reading": "_resume_reading",
    "get_write_buffer_size": "_get_write_buffer_size",
    "get_read_buffer_size": "_get_read_buffer_size",
    "get_write_buffer_limits": "_outgoing_low_water",
    "get_read_buffer_limits": "_incoming_low_water",
    "set_write_buffer_limits": "_set_write_buffer_limits",
    "set_read_buffer_limits": "_set_read_buffer_limits",
    "get_protocol": "_app_protocol",
}


@pytest.mark.parametrize("first", ["close", "abort"])
def test_a_second_close_parts_the_transport_from_its_connection(run, connection, first):
    async def main():
        async with connection() as c:
            transport, protocol = c.transport, c.transport._ssl_protocol
            getattr(transport, first)()
            transport.close()
            assert transport._ssl_protocol is None
            assert transport.is_closing()
            for name, attribute in NEEDED.items():
                expected = f"AttributeError: 'NoneType' object has no attribute '{attribute}'"
                assert answer(getattr(transport, name)) == expected
            for call in (
                lambda: transport.write(b"x"),
                lambda: transport.writelines([]),
                lambda: transport.get_extra_info("cipher"),
                lambda: transport.set_protocol(c.protocol),
            ):
                assert "'NoneType' object has no attribute" in answer(call)
            assert transport.write(b"") is None
            assert "TypeError" in answer(transport.write, "text")
            assert not transport.can_write_eof()
            # abort() has nothing to end any more; what is below still belongs to the other half
            before = list(c.log)
            transport.abort()
            transport.close()
            assert c.log == before
            protocol.connection_lost(None)
            await turns(3)
            assert c.log[-1] == ("lost", "NoneType")

    run(main())


def test_attributes_of_none_are_asked_for_by_name(run, connection):
    async def main():
        async with connection() as c:
            c.transport.close()
            c.transport.close()
            with pytest.raises(AttributeError) as info:
                c.transport.write(b"x")
            assert info.value.name == "_write_appdata"
            assert info.value.obj is None

    run(main())


# -- the connection is lost --------------------


def test_the_protocol_is_gone_when_the_connection_is_lost(run, connection):
    async def main():
        async with connection() as c:
            other = Above(["the other one"])
            c.below.protocol.connection_lost(None)
            assert c.transport.get_protocol() is None
            c.transport.set_protocol(other)
            assert c.transport.get_protocol() is other
            # what is called was looked up when the connection was lost
            c.protocol.connection_lost = lambda exc: c.log.append("too late")
            await turns(3)
            assert c.log == [("lost", "NoneType")]
            assert other.log == ["the other one"]
            c.below.lost = True

    run(main())


def test_extra_info_after_the_connection_is_lost(run, connection):
    async def main():
        async with connection() as c:
            c.below.protocol.connection_lost(None)
            await turns(2)
            assert c.transport.get_extra_info("sslcontext") is c.contexts[1]
            assert c.transport.get_extra_info("socket", "none") == "none"
            assert c.transport.get_extra_info("socket") is None
            c.below.lost = True

    run(main())


def test_limits_are_looked_at_after_the_connection_is_lost(run, connection, reports):
    async def main():
        async with connection() as c:
            c.below.protocol.connection_lost(None)
            await turns(3)
            c.transport.set_write_buffer_limits(high=0)
            (report,) = reports
            assert report["message"] == "protocol.pause_writing() failed"
            assert str(report["exception"]) == "'NoneType' object has no attribute 'pause_writing'"
            c.below.lost = True

    run(main())


def test_a_protocol_without_connection_lost(run, connection):
    async def main():
        async with connection() as c:

            class Nothing:
                pass

            c.transport.set_protocol(Nothing())
            with pytest.raises(AttributeError, match="connection_lost"):
                c.below.protocol.connection_lost(None)
            c.below.lost = True
            await turns(3)

    run(main())


def test_an_exception_of_connection_lost_is_told_as_that_of_a_handle(run, connection, reports):
    async def main():
        async with connection() as c:

            class Failing(Above):
                def connection_lost(self, exc):
                    raise KeyError("boom")

            c.transport.set_protocol(Failing(c.log))
            c.transport.abort()
            await turns(4)
            (report,) = reports
            assert report["message"].startswith("Exception in callback ")
            assert "Failing.connection_lost(" in report["message"]
            assert isinstance(report["exception"], KeyError)
            assert isinstance(report["handle"], asyncio.Handle)

    run(main())


# -- as the protocol below --------------------


def test_it_is_a_buffered_protocol(run, connection):
    async def main():
        async with connection() as c:
            protocol = c.transport._ssl_protocol
            assert isinstance(protocol, asyncio.BufferedProtocol)
            assert not hasattr(protocol, "data_received")
            for hint in (0, -1, 1, True, 1.5, 10**30, -(10**30)):
                assert len(protocol.get_buffer(hint)) == 256 * 1024
            for hint in (None, "1", []):
                with pytest.raises(TypeError, match="not supported between instances"):
                    protocol.get_buffer(hint)
            assert protocol.buffer_updated(0) is None
            expected = "cannot switch state from SSLProtocolState.WRAPPED to "
            with pytest.raises(RuntimeError, match=expected):
                protocol.connection_made(c.below)

    run(main())


def test_all_of_the_buffer_is_updated(run, connection):
    """buffer_updated() takes the end of a slice."""

    async def main():
        async with connection() as c:
            protocol = c.transport._ssl_protocol
            sent = bytes(300_000)
            c.peer.object.write(sent)
            piece = c.peer.outgoing.read()
            buffer = protocol.get_buffer(-1)
            size = len(buffer)
            assert len(piece) > size
            buffer[:] = piece[:size]
            protocol.buffer_updated(None)
            c.below.give(piece[size:])
            await turns(2)
            assert sum(each[1] for each in c.log if each[0] == "data") == len(sent)

    run(main())


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_logger_raises_at_what_eof_received_says(run, connection, error):
    """That answer True has no effect is a warning."""

    async def main():
        async with connection() as c:
            c.protocol.eof_received = lambda: True

            def look(record):
                raise error("logged")

            logger = logging.getLogger("asyncio")
            logger.addFilter(look)
            try:
                c.peer.close_notify()
                if error is SystemExit:
                    with pytest.raises(SystemExit):
                        c.below.deliver()
                else:
                    c.below.deliver()
            finally:
                logger.removeFilter(look)
            await turns(3)
            if error is ValueError:
                assert type(c.protocol.reason) is ValueError

    run(main())


def test_pauses_of_the_transport_below_alternate(run, connection):
    async def main():
        async with connection() as c:
            protocol = c.transport._ssl_protocol
            with pytest.raises(AssertionError):
                protocol.resume_writing()
            protocol.pause_writing()
            with pytest.raises(AssertionError):
                protocol.pause_writing()
            protocol.resume_writing()
            c.transport.write(b"goes")
            await turns(2)
            assert c.peer.got == b"goes"

    run(main())


def test_eof_received_says_none_or_true(run, connection):
    async def main():
        async with connection() as c:
            c.transport.pause_reading()
            assert c.transport._ssl_protocol.eof_received() is True
            # once more, while what has come waits for resume_reading(): then it ends
            assert c.transport._ssl_protocol.eof_received() is None
            await turns(3)
            assert ("below.close", "NoneType") in c.log
        async with connection() as c:
            assert c.transport._ssl_protocol.eof_received() is None

    run(main())


@pytest.mark.parametrize("name", ["get_buffer", "buffer_updated"])
def test_methods_that_are_put_on_the_protocol_below_are_called(run, contexts, name):
    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        log = []
        peer = Above(log)
        accepting = asyncio.ensure_future(
            loop.connect_accepted_socket(lambda: peer, b, ssl=contexts[0])
        )
        transport, _ = await loop.create_connection(
            lambda: Above([]), sock=a, ssl=contexts[1], server_hostname="localhost"
        )
        other, _ = await accepting
        below = other._ssl_protocol
        original = getattr(below, name)
        called = []

        def method(*args):
            called.append(name)
            return original(*args)

        setattr(below, name, method)
        transport.write(b"hello")
        while not log:
            await asyncio.sleep(0.001)
        assert called and log == [("data", 5)]
        delattr(below, name)
        del called[:], log[:]
        transport.write(b"again")
        while not log:
            await asyncio.sleep(0.001)
        assert not called
        transport.abort()
        other.abort()
        await turns(4)

    run(asyncio.wait_for(main(), 10))


def test_a_socket_with_methods_is_received_into(run, contexts):
    called = []

    class Sock(socket.socket):
        def recv(self, *args):
            called.append("recv")
            return super().recv(*args)

        def recv_into(self, buffer, *args):
            called.append(("recv_into", len(buffer)))
            return super().recv_into(buffer, *args)

        def send(self, data):
            called.append("send")
            return super().send(data)

        def sendmsg(self, *args):
            called.append("sendmsg")
            return super().sendmsg(*args)

    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        log = []
        accepting = asyncio.ensure_future(
            loop.connect_accepted_socket(lambda: Above([]), b, ssl=contexts[0])
        )
        sock = Sock(a.family, a.type, a.proto, fileno=a.detach())
        transport, _ = await loop.create_connection(
            lambda: Above(log), sock=sock, ssl=contexts[1], server_hostname="localhost"
        )
        other, _ = await accepting
        other.write(b"hello")
        transport.writelines([b"one", b"two"])
        while not log:
            await asyncio.sleep(0.001)
        assert {"send", ("recv_into", 256 * 1024)} == set(called)
        transport.abort()
        other.abort()
        await turns(4)

    run(asyncio.wait_for(main(), 10))


# -- writelines() --------------------


@pytest.mark.parametrize(
    "parts, message",
    [
        (["text"], "a bytes-like object is required, not 'str'"),
        ("text", "a bytes-like object is required, not 'str'"),
        ([b"one", "text", b"two"], "a bytes-like object is required, not 'str'"),
        ([[b"nested"]], "a bytes-like object is required, not 'list'"),
        ([memoryview(b"abcdef")[::2]], "memoryview: underlying buffer is not C-contiguous"),
        (lambda: iter((b"one", "text")), "a bytes-like object is required, not 'str'"),
    ],
    ids=["list", "str", "between", "nested", "view", "iterator"],
)
def test_a_part_that_is_no_data_ends_the_connection(run, connection, reports, parts, message):
    async def main():
        async with connection() as c:
            c.transport.writelines(parts() if callable(parts) else parts)
            await turns(3)
            kind = "BufferError" if "view" in message else "TypeError"
            assert c.log == [("below._force_close", kind), ("lost", kind)]
            assert c.peer.got == b""
            (report,) = reports
            assert report["message"] == "Fatal error on SSL protocol"
            assert str(report["exception"]) == message

    run(main())


@pytest.mark.parametrize("parts", [[5], [b"one", 5], b"bytes", [None]])
def test_a_part_without_a_length_is_raised_and_stays(run, connection, reports, parts):
    """asyncio puts it into its queue before it asks for the length."""

    async def main():
        async with connection() as c:
            with pytest.raises(TypeError, match="has no len"):
                c.transport.writelines(parts)
            await turns(2)
            assert c.log == [] and not c.transport.is_closing()
            assert c.transport.get_write_buffer_size() == (3 if parts[0] == b"one" else 0)
            c.transport.write(b"next")
            await turns(3)
            assert c.log == [("below._force_close", "TypeError"), ("lost", "TypeError")]
            assert "a bytes-like object is required, not" in str(reports[0]["exception"])

    run(main())


def test_parts_stay_that_came_before_an_exception(run, connection):
    async def main():
        async with connection() as c:

            def parts():
                yield b"one"
                yield bytearray(b"two")
                raise KeyError("generator")

            with pytest.raises(KeyError):
                c.transport.writelines(parts())
            assert c.transport.get_write_buffer_size() == 6
            c.transport.write(b"three")
            await turns(2)
            assert c.peer.got == b"onetwothree"

    run(main())


def test_what_cannot_be_encrypted_counts_as_waiting(run, connection, reports):
    async def main():
        async with connection() as c:
            c.transport.write(memoryview(b"abcdef")[::2])
            assert c.transport.get_write_buffer_size() == 3
            await turns(3)
            assert c.transport.get_write_buffer_size() == 3
            assert c.log == [("below._force_close", "BufferError"), ("lost", "BufferError")]

    run(main())


def test_a_type_is_named_without_its_module(run, connection):
    async def main():
        async with connection() as c:
            with pytest.raises(TypeError, match="got array$"):
                c.transport.write(array.array("b", b"x"))

    run(main())


def test_nothing_is_sent_when_encrypting_fails(run, connection):
    """A transport in Python does not get an alert that asyncio keeps to itself."""

    async def main():
        async with connection() as c:
            c.below._force_close = lambda exc: c.log.append("forced")
            c.below.give(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            assert c.log == ["forced"]
            c.transport.write(b"later")
            await turns(2)
            assert c.log[:1] == ["forced"] and "below.write" not in [each[0] for each in c.log]

    run(main())


# -- reading --------------------


@pytest.mark.parametrize("protocol", [Above, Buffered])
@pytest.mark.parametrize("act", ["pause_reading", "abort", "close", "nothing"])
def test_an_end_behind_data_is_told_at_once(run, connection, protocol, act):
    async def main():
        async with connection(protocol=protocol) as c:
            received = []
            name = "data_received" if protocol is Above else "buffer_updated"

            class Acting(protocol):
                def buffer_updated(self, n):
                    received.append(n)
                    getattr(c.transport, act, lambda: None)()

                def data_received(self, data):
                    self.buffer_updated(len(data))

            assert hasattr(Acting, name)
            c.transport.set_protocol(Acting(c.log))
            c.peer.object.write(b"hello")
            c.peer.close_notify()
            c.below.deliver()
            assert received == [5]
            assert "eof" in c.log
            await turns(3)
            assert c.log[-1] == ("lost", "NoneType")

    run(main())


@pytest.mark.parametrize("protocol", [Above, Buffered])
def test_data_before_garbage_in_the_same_segment_is_dropped(run, connection, protocol):
    async def main():
        async with connection(protocol=protocol) as c:
            c.peer.object.write(b"hello")
            c.below.give(c.peer.outgoing.read() + b"garbage" * 5)
            await turns(3)
            assert [each for each in c.log if each[0] in ("data", "updated")] == []
            # what OpenSSL calls it depends on its version
            assert type(c.protocol.reason) is ssl.SSLError

    run(main())


@pytest.mark.parametrize(
    "buffer, message",
    [
        (b"read only", "read() argument 2 must be read-write bytes-like object, not bytes"),
        ("text", "read() argument 2 must be read-write bytes-like object, not str"),
        (5, "object of type 'int' has no len()"),
        (None, "object of type 'NoneType' has no len()"),
    ],
)
def test_a_buffer_that_is_none(run, connection, reports, buffer, message):
    async def main():
        async with connection(protocol=Buffered) as c:
            c.protocol.buffer = buffer
            c.say(5)
            await turns(3)
            assert c.log == [("below._force_close", "TypeError"), ("lost", "TypeError")]
            assert str(reports[0]["exception"]) == message

    run(main())


@pytest.mark.parametrize("buffer", [bytearray(), memoryview(bytearray())])
def test_an_empty_buffer_is_the_end(run, connection, buffer):
    async def main():
        async with connection(protocol=Buffered) as c:
            c.protocol.buffer = buffer
            c.say(5)
            await turns(3)
            assert c.log[0] == "eof"
            assert c.transport.is_closing()

    run(main())


def test_a_buffer_is_filled_up_to_its_length(run, connection):
    """len() of a view of other items is less than its bytes."""

    async def main():
        async with connection(protocol=Buffered) as c:
            memory = bytearray(64)
            c.protocol.buffer = memoryview(memory).cast("I")
            c.say(20)
            await turns(8)
            assert c.log == [("updated", 16), ("updated", 4)]

    run(main())


@pytest.mark.parametrize("act", ["close", "abort", "pause_reading", "swap", "swap buffered"])
def test_get_buffer_closes_or_replaces(run, connection, act):
    """asyncio goes on, and tells buffer_updated() of whoever has buffers."""

    async def main():
        async with connection(protocol=Buffered) as c:

            class Acting(Buffered):
                acted = False

                def get_buffer(self, hint):
                    if not self.acted:
                        self.acted = True
                        if act.startswith("swap"):
                            new = Buffered if act == "swap buffered" else Above
                            c.transport.set_protocol(new(["new"]))
                        else:
                            getattr(c.transport, act)()
                    return super().get_buffer(hint)

            first = Acting(c.log)
            c.transport.set_protocol(first)
            c.say(5)
            if act == "swap buffered":
                assert c.transport.get_protocol().log[:2] == ["new", ("updated", 5)]
            else:
                assert ("updated", 5) in c.log
            await turns(4)

    run(main())


# -- the end of the wire --------------------


def test_half_of_a_record_counts_as_nothing(run, contexts):
    """The wire ends in the middle of a record."""

    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        b.setblocking(False)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = contexts[0].wrap_bio(incoming, outgoing, server_side=True)
        log = []
        connecting = asyncio.ensure_future(
            loop.create_connection(
                lambda: Above(log), sock=a, ssl=contexts[1], server_hostname="localhost"
            )
        )
        while not connecting.done():
            await asyncio.sleep(0.001)
            try:
                incoming.write(b.recv(100_000))
                peer.do_handshake()
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            if outgoing.pending:
                b.send(outgoing.read())
        transport, _ = connecting.result()
        peer.write(b"whole")
        peer.write(b"half of this one")
        b.send(outgoing.read()[:-3])
        b.shutdown(socket.SHUT_WR)
        while len(log) < 3:
            await asyncio.sleep(0.001)
        assert log == [("data", 5), "eof", ("lost", "NoneType")]
        b.close()

    run(asyncio.wait_for(main(), 10))


def test_a_reset_while_reading_is_paused(run, contexts):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = socket.create_connection(listener.getsockname())
            b, _ = listener.accept()
        log = []
        other = []
        accepting = asyncio.ensure_future(
            loop.connect_accepted_socket(lambda: Above(other), b, ssl=contexts[0])
        )
        transport, _ = await loop.create_connection(
            lambda: Above(log), sock=a, ssl=contexts[1], server_hostname="localhost"
        )
        peer, _ = await accepting
        transport.pause_reading()
        linger = struct.pack("ii", 1, 0)
        peer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.abort()
        while not log:
            await asyncio.sleep(0.001)
        assert log == [("lost", "ConnectionResetError")]

    run(asyncio.wait_for(main(), 10))
