"""A protocol's methods, and those of the stream classes, replaced after the first data has come."""

import asyncio
import contextlib
import os
import socket
import types

import pytest

from tests.support import turns, until

# -- connections: each gives (a transport, send(bytes)) -------------------------------------------


@contextlib.asynccontextmanager
async def over_sockets(factory, family, contexts):
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair(family)
    transport, protocol = await loop.create_connection(lambda: factory, sock=near)
    try:
        yield transport, far.send
    finally:
        transport.abort()
        far.close()
        await turns(3)


def over_unix(factory, contexts):
    return over_sockets(factory, socket.AF_UNIX, contexts)


@contextlib.asynccontextmanager
async def over_tcp(factory, contexts, tls=False):
    loop = asyncio.get_running_loop()
    others = []

    class Far(asyncio.Protocol):
        def connection_made(self, transport):
            others.append(transport)

    there = {"ssl": contexts[0]} if tls else {}
    here = {"ssl": contexts[1], "server_hostname": "localhost"} if tls else {}
    server = await loop.create_server(Far, "127.0.0.1", 0, **there)
    address = server.sockets[0].getsockname()
    transport, _ = await loop.create_connection(lambda: factory, *address, **here)
    await until(lambda: others)
    try:
        yield transport, others[0].write
    finally:
        transport.abort()
        others[0].abort()
        server.close()
        await turns(5)


def over_tls(factory, contexts):
    return over_tcp(factory, contexts, tls=True)


@contextlib.asynccontextmanager
async def over_pipe(factory, contexts):
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    transport, _ = await loop.connect_read_pipe(lambda: factory, os.fdopen(read, "rb", 0))
    try:
        yield transport, lambda data: os.write(write, data)
    finally:
        transport.close()
        os.close(write)
        await turns(3)


CONNECTIONS = {"unix": over_unix, "tcp": over_tcp, "tls": over_tls, "pipe": over_pipe}


# -- protocols: each notes (who was called, the bytes) --------------------------------------------


def make_plain():
    class Plain(asyncio.Protocol):
        name = "data_received"

        def __init__(self):
            self.log = []

        def data_received(self, data):
            self.log.append(("first", bytes(data)))

        def another(self, data):
            self.log.append(("second", bytes(data)))

        def further(self, data):
            self.log.append(("third", bytes(data)))

    return Plain


def make_buffered():
    class Buffered(asyncio.BufferedProtocol):
        name = "buffer_updated"

        def __init__(self):
            self.log = []
            self.buffer = bytearray(100)

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, count):
            self.log.append(("first", bytes(self.buffer[:count])))

        def another(self, count):
            self.log.append(("second", bytes(self.buffer[:count])))

        def further(self, count):
            self.log.append(("third", bytes(self.buffer[:count])))

    return Buffered


def make_getting():
    """What is replaced gives the memory."""

    class Getting(asyncio.BufferedProtocol):
        name = "get_buffer"

        def __init__(self):
            self.log = []
            self.buffers = [bytearray(100) for _ in range(3)]

        def get_buffer(self, sizehint):
            self.current = "first", self.buffers[0]
            return self.buffers[0]

        def another(self, sizehint):
            self.current = "second", self.buffers[1]
            return self.buffers[1]

        def further(self, sizehint):
            self.current = "third", self.buffers[2]
            return self.buffers[2]

        def buffer_updated(self, count):
            self.log.append((self.current[0], bytes(self.current[1][:count])))

    return Getting


PROTOCOLS = [make_plain, make_buffered, make_getting]


# -- ways to replace: each makes protocol.<name> another one --------------------------------------


def on_instance(protocol, replacement):
    setattr(protocol, protocol.name, types.MethodType(replacement, protocol))


def in_dict(protocol, replacement):
    vars(protocol)[protocol.name] = types.MethodType(replacement, protocol)


def on_class(protocol, replacement):
    setattr(type(protocol), protocol.name, replacement)


def by_other_class(protocol, replacement):
    class Other(type(protocol)):
        pass

    setattr(Other, protocol.name, replacement)
    protocol.__class__ = Other


def by_other_dict(protocol, replacement):
    bound = types.MethodType(replacement, protocol)
    protocol.__dict__ = {**vars(protocol), protocol.name: bound}


def by_property(protocol, replacement):
    setattr(
        type(protocol),
        protocol.name,
        property(lambda self: types.MethodType(replacement, self)),
    )


def by_getattribute(protocol, replacement):
    name = protocol.name

    def getattribute(self, wanted):
        if wanted == name:
            return types.MethodType(replacement, self)
        return object.__getattribute__(self, wanted)

    type(protocol).__getattribute__ = getattribute


WAYS = [
    on_instance,
    in_dict,
    on_class,
    by_other_class,
    by_other_dict,
    by_property,
    by_getattribute,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", PROTOCOLS)
@pytest.mark.parametrize("kind", CONNECTIONS)
def test_protocol_gives_itself_another_method(run, contexts, kind, make, way):
    if kind == "pipe" and make is not make_plain:
        pytest.skip("a pipe has no BufferedProtocol")
    protocol = make()()
    other = make()()  # its class is another one

    async def main():
        async with CONNECTIONS[kind](protocol, contexts) as (transport, send):

            async def exchange(data):
                count = len(protocol.log)
                send(data)
                await until(lambda: len(protocol.log) > count)

            await exchange(b"1")
            await exchange(b"2")
            way(protocol, type(other).another)
            await exchange(b"3")
            await exchange(b"4")
            way(protocol, type(other).further)
            await exchange(b"5")

    run(main())
    names = [name for name, _ in protocol.log]
    if kind == "tls" and make is not make_plain:
        assert names == ["first"] * 5  # asyncio looks them up when the protocol is set
    else:
        assert names == ["first", "first", "second", "second", "third"]
    assert [data for _, data in protocol.log] == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("make", PROTOCOLS)
def test_protocol_replaces_its_method_while_it_is_called(run, contexts, make):
    made = make()

    class Changing(made):
        def another(self, *args):
            delattr(self, self.name)
            return made.another(self, *args)

    first = getattr(made, made.name)

    def changing(self, *args):
        setattr(self, self.name, self.another)
        return first(self, *args)

    setattr(Changing, made.name, changing)
    protocol = Changing()

    async def main():
        async with over_unix(protocol, contexts) as (transport, send):
            for i in range(6):
                send(b"%d" % i)
                await until(lambda: len(protocol.log) > i)

    run(main())
    assert [name for name, _ in protocol.log] == ["first", "second"] * 3


def test_an_earlier_instance_had_the_method(run, contexts):
    """Objects of one class may share the table of their names: what one has, another may get."""
    Plain = make_plain()
    before, protocol = Plain(), Plain()
    before.data_received = before.another

    async def main():
        async with over_unix(protocol, contexts) as (transport, send):
            send(b"1")
            await until(lambda: len(protocol.log) == 1)
            protocol.data_received = protocol.another
            send(b"2")
            await until(lambda: len(protocol.log) == 2)
            del protocol.data_received
            send(b"3")
            await until(lambda: len(protocol.log) == 3)

    run(main())
    assert [name for name, _ in protocol.log] == ["first", "second", "first"]


def test_attributes_that_come_and_go_do_not_matter(run, contexts):
    protocol = make_plain()()

    async def main():
        async with over_unix(protocol, contexts) as (transport, send):
            for i in range(300):  # more often than anybody looks again
                setattr(protocol, f"attribute_{i}", i)
                send(b"x")
                await until(lambda: len(protocol.log) > i)
                if i > 2:
                    delattr(protocol, f"attribute_{i - 1}")
            protocol.data_received = protocol.another
            send(b"y")
            await until(lambda: protocol.log[-1][1] == b"y")

    run(main())
    assert {name for name, _ in protocol.log[:-1]} == {"first"}
    assert protocol.log[-1] == ("second", b"y")


class Slots(asyncio.Protocol):
    __slots__ = ("data_received", "log")

    def __init__(self):
        self.log = []
        self.data_received = lambda data: self.log.append(("first", data))


def test_method_in_a_slot(run, contexts):
    protocol = Slots()

    async def main():
        async with over_unix(protocol, contexts) as (transport, send):
            send(b"1")
            await until(lambda: len(protocol.log) == 1)
            protocol.data_received = lambda data: protocol.log.append(("second", data))
            send(b"2")
            await until(lambda: len(protocol.log) == 2)

    run(main())
    assert [name for name, _ in protocol.log] == ["first", "second"]


def test_datagram_protocol_gives_itself_other_methods(run):
    log = []

    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            log.append(("first", data))
            self.datagram_received = lambda data, address: log.append(("second", data))

        def error_received(self, exc):
            log.append(("first", type(exc)))
            self.error_received = lambda exc: log.append(("second", type(exc)))

    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            transport, _ = await loop.create_datagram_endpoint(
                Datagrams, remote_addr=far.getsockname()
            )
            for data in (b"1", b"2"):
                far.sendto(data, transport.get_extra_info("sockname"))
                await until(lambda: log and log[-1][1] == data)
        for i in (3, 4):
            transport.sendto(b"nobody")
            await until(lambda: len(log) >= i)
        transport.close()
        await turns(2)

    run(main())
    assert log[:4] == [
        ("first", b"1"),
        ("second", b"2"),
        ("first", ConnectionRefusedError),
        ("second", ConnectionRefusedError),
    ]


# -- streams --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def streams(kind, contexts):
    """(reader, writer, send, protocol) of a server's connection, after the first data."""
    handed = []

    async def connected(reader, writer):
        handed.append((reader, writer))
        await reader.readexactly(5)
        handed.append("begun")

    secure = kind == "tls"
    server = await asyncio.start_server(
        connected, "127.0.0.1", 0, ssl=contexts[0] if secure else None
    )
    loop = asyncio.get_running_loop()
    address = server.sockets[0].getsockname()
    client, _ = await loop.create_connection(
        asyncio.Protocol,
        *address,
        ssl=contexts[1] if secure else None,
        server_hostname="localhost" if secure else None,
    )
    client.write(b"begin")
    await until(lambda: len(handed) == 2)
    reader, writer = handed[0]
    try:
        yield reader, writer, client.write, writer.transport.get_protocol()
    finally:
        client.abort()
        writer.transport.abort()
        server.close()
        await turns(5)


def wrap(target, name, log):
    function = getattr(target, name)

    def wrapped(*args):
        log.append((name, *[bytes(a) for a in args if isinstance(a, bytes | bytearray)]))
        return function(*args)

    return wrapped


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("where", ["instance", "class", "dict"])
@pytest.mark.parametrize("who", ["reader", "protocol"])
def test_feeding_is_wrapped_after_the_first_data(run, contexts, monkeypatch, kind, where, who):
    log = []

    async def main():
        async with streams(kind, contexts) as (reader, writer, send, protocol):
            target, name = (reader, "feed_data") if who == "reader" else (protocol, "data_received")
            if where == "instance":
                setattr(target, name, wrap(target, name, log))
            elif where == "dict":
                vars(target)[name] = wrap(target, name, log)
            else:
                standard = asyncio.StreamReader if who == "reader" else asyncio.StreamReaderProtocol
                monkeypatch.setattr(standard, name, wrap(standard, name, log))
            send(b"second")
            assert await reader.readexactly(6) == b"second"
            send(b"third")
            assert await reader.read(100) == b"third"

    run(main())
    name = "feed_data" if who == "reader" else "data_received"
    assert log == [(name, b"second"), (name, b"third")]


@pytest.mark.parametrize("where", ["instance", "class"])
@pytest.mark.parametrize(
    "name, call",
    [
        ("_wait_for_data", lambda reader: reader.read(10)),
        ("_wait_for_data", lambda reader: reader.readexactly(5)),
        ("_wait_for_data", lambda reader: reader.readline()),
        ("readuntil", lambda reader: reader.readline()),
        ("_maybe_resume_transport", lambda reader: reader.readexactly(5)),
        ("_maybe_resume_transport", lambda reader: reader.read(10)),
        ("_wakeup_waiter", lambda reader: reader.read(10)),
        ("read", lambda reader: reader.read(10)),
        ("readexactly", lambda reader: reader.readexactly(5)),
        ("readline", lambda reader: reader.readline()),
    ],
)
def test_what_the_reader_calls_of_itself(run, contexts, monkeypatch, where, name, call):
    log = []

    async def main():
        async with streams("tcp", contexts) as (reader, writer, send, protocol):
            if where == "instance":
                setattr(reader, name, wrap(reader, name, log))
            else:
                function = getattr(asyncio.StreamReader, name)

                def wrapped(self, *args, **kwargs):
                    log.append((name,))
                    return function(self, *args, **kwargs)

                monkeypatch.setattr(asyncio.StreamReader, name, wrapped)
            asyncio.get_running_loop().call_later(0.01, send, b"line\n")
            assert await call(reader) == b"line\n"

    run(main())
    assert {entry[0] for entry in log} == {name}


@pytest.mark.parametrize("where", ["instance", "class"])
def test_another_reader_is_put_under_the_protocol(run, contexts, where):
    async def main():
        async with streams("tcp", contexts) as (reader, writer, send, protocol):
            import weakref

            other = asyncio.StreamReader(loop=asyncio.get_running_loop())
            protocol._stream_reader_wr = weakref.ref(other)
            send(b"for another")
            assert await other.readexactly(11) == b"for another"
            assert not reader._buffer

    run(main())


@pytest.mark.parametrize("name", ["feed_eof", "set_exception"])
def test_the_end_reaches_what_was_put_on_the_reader(run, contexts, name):
    log = []

    async def main():
        async with streams("tcp", contexts) as (reader, writer, send, protocol):
            setattr(reader, name, wrap(reader, name, log))
            if name == "feed_eof":
                writer.transport.close()
            else:
                writer.transport._force_close(ValueError("on purpose"))
            await until(lambda: log)

    run(main())
    assert log == [(name,)]
