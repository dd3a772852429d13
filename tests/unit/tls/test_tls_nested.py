"""TLS: what is written inside a call that is encrypting, and what a peer makes us keep."""

import asyncio
import contextlib
import logging
import random
import ssl
import tracemalloc
from asyncio import sslproto

import pytest

from tests.certificates import make_certificate
from tests.support import PY, turns

from .tls_below import Above, Below, Peer

pytestmark = pytest.mark.usefixtures("engine")

# -- written inside of write() ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, "lines"])
@pytest.mark.parametrize("taken", [0, 3])
def test_what_is_written_while_the_rest_has_to_wait(run, connection, kind, taken):
    """The object's write() writes to the transport, and then wants to read first."""

    async def main():
        async with connection() as made:
            engine = made.transport.get_extra_info("ssl_object")
            standard = engine.write
            calls = []

            def write(data):
                calls.append(bytes(data))
                if len(calls) == 1 and taken:
                    return standard(bytes(data)[:taken])
                if len(calls) == 1 + bool(taken):
                    made.transport.write(b"second ")
                    made.transport.write(bytearray(b"third"))
                    raise ssl.SSLWantReadError
                return standard(data)

            engine.write = write
            if kind == "lines":
                made.transport.writelines([b"first ", b"and more "])
            else:
                made.transport.write(kind(b"first and more "))
            made.say(1)
            await turns(4)
            return bytes(made.peer.got)

    assert run(main()) == b"first and more second third"


@pytest.mark.parametrize("what", ["write", "writelines", "close", "abort", "raise"])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_generator_of_lines_that_writes(run, connection, what, before):
    """Its parts are written one after the other, each as soon as it is there."""
    expected = {
        "write": b"1" * before + b"inside" + b"2after",
        "writelines": b"1" * before + b"in" + b"side" + b"2after",
        "close": b"1" * before,
        "abort": b"",
        "raise": b"1" * before + b"after",
    }

    async def main():
        async with connection() as made:

            def lines():
                yield from [b"1"] * before
                if what == "write":
                    made.transport.write(b"inside")
                elif what == "writelines":
                    made.transport.writelines([b"in", b"side"])
                elif what == "raise":
                    raise ZeroDivisionError
                else:
                    getattr(made.transport, what)()
                yield b"2"

            with contextlib.suppress(ZeroDivisionError):
                made.transport.writelines(lines())
            await turns(3)
            made.transport.write(b"after")
            await turns(3)
            return bytes(made.peer.got)

    assert run(main()) == expected[what]


@pytest.mark.skipif(PY < (3, 12), reason="__buffer__() came in 3.12")
@pytest.mark.our_loop("the standard loop asks again while it is asked, without an end")
def test_a_buffer_is_asked_once(run, connection):
    """It may write, and give other memory the next time."""

    async def main():
        async with connection() as made:
            asked = []

            class Buffer(bytearray):
                def __buffer__(self, flags):
                    asked.append(flags)
                    made.transport.write(b"inside ")
                    return memoryview(b"memory" * len(asked))

            made.transport.write(Buffer(b"x"))
            await turns(3)
            return bytes(made.peer.got), len(asked)

    assert run(main()) == (b"inside memory", 1)


# -- what is replaced -------------------------------------------------------------------------


def test_a_logger_of_the_module(loop, run, connection, monkeypatch):
    loop.set_debug(True)
    messages = []

    class Logger(logging.Logger):
        def debug(self, message, *args, **options):
            messages.append(message)

    monkeypatch.setattr(sslproto, "logger", Logger("test"))

    async def main():
        async with connection():
            pass

    run(main())
    assert messages[:2] == ["%r starts SSL handshake", "%r: SSL handshake took %.1f ms"]


@pytest.mark.parametrize("direction", ["read", "write", None])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_context_of_the_callback_for_names(loop, run, tmp_path, direction, version):
    """It has a message callback, and the first one has not: its exceptions come out of the call."""
    files = make_certificate(tmp_path)
    server, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (server, other):
        context.load_cert_chain(*files)
    client = ssl.create_default_context(cafile=files[0])
    client.maximum_version = version
    armed = False
    seen = []

    def on_message(conn, direction_of_it, *args):
        nonlocal armed
        seen.append(direction_of_it)
        if armed and direction_of_it == direction:
            armed = False  # a second exception in one call leaks the first
            raise ZeroDivisionError

    def on_name(made, name, context):
        made.context = other

    other._msg_callback = on_message
    server.sni_callback = on_name
    reported = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["message"]))

    async def main():
        nonlocal armed
        peer = Peer(client, False, "localhost")
        below = Below(loop, peer, [])
        log = []
        task = asyncio.ensure_future(
            loop.start_tls(below, Above(log), server, server_side=True)
        )
        await turns(2)
        peer.feed(b"")
        below.deliver()
        transport = await task
        await turns(4)
        del seen[:]
        armed = True
        if direction == "write":
            transport.write(b"hello")
        else:
            peer.object.write(b"hello")
            below.deliver()
        await turns(4)
        transport.abort()
        await turns(4)
        return log

    log = run(main())
    assert seen
    if direction is None:
        assert log == [("data", 5), ("lost", "NoneType")]
    else:
        assert log == [("lost", "ZeroDivisionError")]
        assert reported == ["Fatal error on SSL protocol"]


# -- what the peer makes us keep ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_small_segments_while_reading_is_paused(run, connection, seed):
    """In one order, whatever is kept, used in part, and added to."""
    choose = random.Random(seed)

    async def main():
        async with connection() as made:
            got = bytearray()

            def data_received(data):
                got.extend(data)
                if choose.random() < 0.3:
                    made.transport.pause_reading()

            made.protocol.data_received = data_received
            made.transport.set_read_buffer_limits(high=1 << 24)
            sent = bytearray()
            for _ in range(300):
                if choose.random() < 0.1:
                    made.transport.resume_reading()
                if choose.random() < 0.1:
                    made.transport.pause_reading()
                text = choose.randbytes(choose.choice([1, 1, 3, 100, 5000, 40000]))
                sent += text
                made.peer.object.write(text)
                data = made.peer.outgoing.read()
                while data:
                    size = choose.choice([1, 5, 22, 1000, 20000])
                    made.below.give(data[:size])
                    data = data[size:]
                    if choose.random() < 0.05:
                        await turns(1)
            while len(got) < len(sent):
                made.transport.resume_reading()
                await turns(2)
            assert got == sent

    run(main())


def test_records_without_data_take_no_memory(run, connection, contexts):
    """Tickets, in hundreds of kilobytes: what is read behind them needs room for itself."""
    tickets = contexts[0].num_tickets
    contexts[0].num_tickets = 5000

    async def main():
        async with connection() as made:
            made.peer.object.write(b"s")
            tracemalloc.start()
            try:
                made.below.deliver()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert made.log.count(("data", 1)) == 1
            return peak

    try:
        peak = run(main())
    finally:
        contexts[0].num_tickets = tickets
    assert peak < 400_000  # asyncio asks for 256 KiB at each read
