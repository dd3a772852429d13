"""TLS: what is written inside a call that is encrypting, and what a peer makes us keep."""

import random
import ssl
import tracemalloc

import pytest

from .support import turns
from .test_tls_order import connection  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")

# -- written inside of write() ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, "lines"])
@pytest.mark.parametrize("taken", [0, 3])
def test_what_is_written_while_the_rest_has_to_wait(run, connection, kind, taken):  # noqa: F811
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


# -- what the peer makes us keep ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_small_segments_while_reading_is_paused(run, connection, seed):  # noqa: F811
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


def test_records_without_data_take_no_memory(run, connection, contexts):  # noqa: F811
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
