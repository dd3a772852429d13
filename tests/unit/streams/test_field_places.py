"""StreamReader and StreamWriter whose fields are not where __init__() has put them."""

import asyncio
import socket

import pytest


def in_another_order(op):
    """What was set first is deleted and set again, so that all others come before it."""
    for name in list(vars(op))[:3]:
        value = getattr(op, name)
        delattr(op, name)
        setattr(op, name, value)


def with_a_dict_of_its_own(op):
    op.__dict__ = dict(reversed(vars(op).items()))


def with_names_of_its_own(op):
    """Equal to the names of the fields, but other objects."""
    fields = {"".join(list(name)): value for name, value in vars(op).items()}
    op.__dict__ = fields


CHANGES = [in_another_order, with_a_dict_of_its_own, with_names_of_its_own]


async def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return [await asyncio.open_connection(sock=end) for end in ends]


@pytest.mark.parametrize("change", CHANGES)
def test_fields_are_found_wherever_they_are(run, change):
    async def main():
        (reader, writer), (other_reader, other_writer) = await pair()
        for op in (reader, writer, other_reader, other_writer):
            change(op)
        got = []
        waiting = asyncio.ensure_future(reader.readexactly(6))
        await asyncio.sleep(0)
        other_writer.write(b"abc")
        await other_writer.drain()
        await asyncio.sleep(0)
        other_writer.write(b"defline\nmore")
        await other_writer.drain()
        got.append(await waiting)
        got.append(await reader.readline())
        got.append(await reader.read(100))
        waiting = asyncio.ensure_future(reader.readuntil(b";"))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
            await reader.read(1)
        other_writer.write(b"last;")
        got.append(await waiting)
        writer.write(b"answer")
        await writer.drain()
        got.append(await other_reader.read(100))
        other_writer.close()
        got.append(await reader.read())
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()
        return got

    assert run(main()) == [b"abcdef", b"line\n", b"more", b"last;", b"answer", b""]


@pytest.mark.parametrize("change", CHANGES)
def test_exception_is_found_wherever_it_is(run, change):
    async def main():
        (reader, writer), (_, other_writer) = await pair()
        reader.set_exception(ConnectionAbortedError("told by hand"))
        change(reader)
        with pytest.raises(ConnectionAbortedError, match="told by hand"):
            await reader.read(1)
        with pytest.raises(ConnectionAbortedError, match="told by hand"):
            await writer.drain()
        for each in (writer, other_writer):
            each.close()
            await each.wait_closed()

    run(main())


@pytest.mark.parametrize("change", CHANGES)
def test_limit_pauses_wherever_it_is(run, change):
    async def main():
        (reader, writer), (_, other_writer) = await pair()
        reader._limit = 1000
        change(reader)
        sent = 4_000_000
        writing = asyncio.ensure_future(write_all(other_writer, bytes(sent)))
        while not reader._paused:
            await asyncio.sleep(0)
        held = len(reader._buffer)
        got = 0
        while got < sent:
            got += len(await reader.read(50_000))
        await writing
        for each in (writer, other_writer):
            each.close()
        return held < sent

    async def write_all(writer, data):
        writer.write(data)
        await writer.drain()

    assert run(main())
