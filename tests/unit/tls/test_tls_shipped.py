"""What a program has put into ssl, or into asyncio's part of it, runs for each connection.

Methods of subclasses, replaced methods and replaced classes see the calls that asyncio makes, with
the arguments that asyncio gives them; nothing that they keep changes or dies under them.
"""

import asyncio
import functools
import gc
import logging
import ssl
from asyncio import sslproto

import pytest

from tests.protocols import Echo, OfAnotherKind, Recorder
from tests.support import FREE_THREADED, check_script, collect, until

pytestmark = pytest.mark.usefixtures("engine")

TIMEOUT = 10


class BufferedClient(asyncio.BufferedProtocol, Recorder):
    def __init__(self):
        super().__init__()
        self.memory = memoryview(bytearray(10))

    def get_buffer(self, hint):
        return self.memory

    def buffer_updated(self, n):
        self.data += self.memory[:n]


async def talk(server_context, client_context, factory=Recorder, server_factory=Echo):
    """A connection with some data in both directions: the client's protocol, at the end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(server_factory, "127.0.0.1", 0, ssl=server_context)
    try:
        transport, protocol = await loop.create_connection(
            factory,
            *server.sockets[0].getsockname(),
            ssl=client_context,
            server_hostname="localhost",
        )
        transport.write(b"first")
        transport.write(b"second")
        await until(lambda: len(protocol.data) == 11)
        assert protocol.data == b"firstsecond"
        await until(lambda: True)
        transport.close()
        await asyncio.wait_for(protocol.closed, TIMEOUT)
        return protocol
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), TIMEOUT)


class Calls:
    """Makes methods that note their calls and then do what the standard ones do."""

    def __init__(self):
        self.calls = []

    def method(self, function, name=None):
        name = name or function.__name__

        @functools.wraps(function)
        def recorded(*args, **kwargs):
            given = args if hasattr(function, "__self__") else args[1:]
            self.calls.append((name, given, kwargs))
            return function(*args, **kwargs)

        return recorded

    def names(self):
        return {name for name, _, _ in self.calls}

    def of(self, wanted):
        return [args for name, args, _ in self.calls if name == wanted]


USED = ["do_handshake", "read", "write", "unwrap", "getpeercert", "cipher", "compression"]


# -- what is called ----------------------------------------------------------------------


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("place", ["class", "subclass", "context", "object"])
def test_replaced_method_of_ssl_objects(
    run, monkeypatch, server_context, client_context, name, place
):
    recorder = Calls()
    replacement = recorder.method(getattr(ssl.SSLObject, name))
    if place == "class":
        monkeypatch.setattr(ssl.SSLObject, name, replacement)
    elif place == "subclass":
        subclass = type("Subclass", (ssl.SSLObject,), {name: replacement})
        monkeypatch.setattr(ssl.SSLContext, "sslobject_class", subclass)
    elif place == "context":
        client_context.sslobject_class = type("Subclass", (ssl.SSLObject,), {name: replacement})
    else:
        standard = client_context.wrap_bio

        def wrap_bio(*args, **kwargs):
            made = standard(*args, **kwargs)
            setattr(made, name, functools.partial(replacement, made))
            return made

        client_context.wrap_bio = wrap_bio
    run(talk(server_context, client_context))
    assert recorder.names() == {name}


def test_replaced_method_is_left_again(run, monkeypatch, server_context, client_context):
    recorder = Calls()
    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLObject, "read", recorder.method(ssl.SSLObject.read))
        run(talk(server_context, client_context))
    assert recorder.calls
    recorder.calls.clear()
    run(talk(server_context, client_context))
    assert not recorder.calls


def test_replaced_code_of_a_method(run, monkeypatch, server_context, client_context):
    """The function stays, what it does is another."""
    calls = []

    def do_handshake(self):
        self.note()
        self._sslobj.do_handshake()

    run(talk(server_context, client_context))
    client_context.sslobject_class = None
    del client_context.sslobject_class
    monkeypatch.setattr(ssl.SSLObject, "note", lambda self: calls.append(1), raising=False)
    run(talk(server_context, client_context))
    assert not calls
    standard = ssl.SSLObject.do_handshake
    monkeypatch.setattr(standard, "__code__", do_handshake.__code__)
    run(talk(server_context, client_context))
    assert calls


@pytest.mark.parametrize("name", ["wrap_bio", "_encode_hostname"])
@pytest.mark.parametrize("place", ["class", "subclass", "object"])
def test_replaced_method_of_contexts(run, monkeypatch, certificate, server_context, name, place):
    recorder = Calls()
    replacement = recorder.method(getattr(ssl.SSLContext, name))
    if place == "subclass":
        kind = type("Subclass", (ssl.SSLContext,), {name: replacement})
        client_context = kind(ssl.PROTOCOL_TLS_CLIENT)
        client_context.load_verify_locations(certificate[0])
    else:
        client_context = ssl.create_default_context(cafile=certificate[0])
    if place == "class":
        monkeypatch.setattr(ssl.SSLContext, name, replacement)
    elif place == "object":
        setattr(client_context, name, functools.partial(replacement, client_context))
    run(talk(server_context, client_context))
    assert recorder.names() == {name}


def test_methods_for_sockets_and_settings_do_not_count(
    impl, run, monkeypatch, server_context, client_context
):
    """Tools replace these, and no connection of asyncio's calls them."""
    for name in ("wrap_socket", "load_default_certs", "set_alpn_protocols"):
        method = Calls().method(getattr(ssl.SSLContext, name))
        monkeypatch.setattr(ssl.SSLContext, name, method)
    protocol = run(talk(server_context, client_context))
    if impl.ours:
        assert type(protocol.transport).__name__ == "SSLTransport"


@pytest.mark.skipif(
    not hasattr(ssl, "_check_sslobject_params"), reason="a function of newer versions"
)
def test_replaced_function_of_the_module(run, monkeypatch, server_context, client_context):
    recorder = Calls()
    replacement = recorder.method(ssl._check_sslobject_params)
    monkeypatch.setattr(ssl, "_check_sslobject_params", replacement)
    run(talk(server_context, client_context))
    assert recorder.calls


def test_private_wrap_bio_of_a_context(run, server_context, client_context):
    recorder = Calls()
    client_context._wrap_bio = recorder.method(client_context._wrap_bio, "_wrap_bio")
    run(talk(server_context, client_context))
    assert recorder.names() == {"_wrap_bio"}


@pytest.mark.parametrize("hook", ["__getattribute__", "__setattr__", "__del__"])
def test_hooks_of_the_class(run, monkeypatch, server_context, client_context, hook):
    calls = []

    def noted(*args):
        calls.append(args[1:])
        return None if hook == "__del__" else getattr(object, hook)(*args)

    monkeypatch.setattr(ssl.SSLObject, hook, noted, raising=False)
    run(talk(server_context, client_context))
    gc.collect()
    assert calls


def test_replaced_memory_bio(run, monkeypatch, server_context, client_context):
    """It may be a function, which keeps the objects: everything on the wire goes through them."""
    made = []
    standard = ssl.MemoryBIO

    def memory_bio():
        made.append(standard())
        return made[-1]

    class Watching(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
        transport, protocol = await loop.create_connection(
            Watching,
            *server.sockets[0].getsockname(),
            ssl=client_context,
            server_hostname="localhost",
        )
        transport.write(b"hello")
        await until(lambda: any(bio.pending for bio in made))  # the answer waits to be decrypted
        transport.resume_reading()
        await until(lambda: protocol.data == b"hello")
        transport.close()
        await protocol.closed
        server.close()

    monkeypatch.setattr(ssl, "MemoryBIO", memory_bio)
    run(main())
    assert len(made) == 4


@pytest.mark.parametrize(
    "owner, name",
    [
        (sslproto.SSLProtocol, "_do_handshake"),
        (sslproto.SSLProtocol, "_on_handshake_complete"),
        (sslproto.SSLProtocol, "data_received"),
        (sslproto.SSLProtocol, "buffer_updated"),
        (sslproto._SSLProtocolTransport, "write"),
        (sslproto._SSLProtocolTransport, "close"),
        (sslproto, "SSLProtocol"),
        (sslproto, "_SSLProtocolTransport"),
        (sslproto, "add_flowcontrol_defaults"),
    ],
)
def test_replaced_parts_of_asyncio(run, monkeypatch, server_context, client_context, owner, name):
    if not hasattr(owner, name):
        pytest.skip("not in this version")
    recorder = Calls()
    monkeypatch.setattr(owner, name, recorder.method(getattr(owner, name)))
    run(talk(server_context, client_context))
    if name != "data_received":  # nobody calls that of a BufferedProtocol
        assert recorder.names() == {name}


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("upgrade", [False, True])
def test_refusing_check(
    run, monkeypatch, asyncio_log, server_context, client_context, side, upgrade
):
    """A check after the handshake, in the class: it is asked on both sides, by all ways."""
    standard = ssl.SSLObject.do_handshake

    def do_handshake(self):
        standard(self)
        if self.server_side == (side == "server"):
            raise ssl.SSLCertVerificationError(1, "the pin does not match")

    monkeypatch.setattr(ssl.SSLObject, "do_handshake", do_handshake)

    async def handle(reader, writer):
        try:
            if upgrade:
                await writer.start_tls(server_context)
            writer.write(await reader.read(10))
        except OSError as exc:
            refused.append(exc)
        finally:
            writer.close()

    async def connect():
        if not upgrade:
            return await asyncio.open_connection(
                *address, ssl=client_context, server_hostname="localhost"
            )
        reader, writer = await asyncio.open_connection(*address)
        await writer.start_tls(client_context, server_hostname="localhost")
        return reader, writer

    async def main():
        nonlocal address
        server = await asyncio.start_server(
            handle, "127.0.0.1", 0, ssl=None if upgrade else server_context
        )
        address = server.sockets[0].getsockname()
        try:
            if side == "client":
                with pytest.raises(ssl.SSLCertVerificationError, match="the pin does not match"):
                    await asyncio.wait_for(connect(), TIMEOUT)
                return
            reader, writer = await asyncio.wait_for(connect(), TIMEOUT)
            writer.write(b"hello")
            try:
                assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
            except ConnectionError:
                pass  # a reset; what counts is that there is no answer
            writer.close()
            assert not upgrade or isinstance(refused[0], ssl.SSLCertVerificationError)
        finally:
            server.close()

    refused = []
    address = None
    run(main())
    if FREE_THREADED:
        # Its collector may finalize the future in which a StreamReaderProtocol keeps the error
        # before that protocol, whose __del__() would ask for it: with either loop.
        refused.clear()
        collect()
        for message in asyncio_log.take(logging.ERROR):
            assert message.startswith("Future exception was never retrieved")


PATCHED_BEFORE_IMPORT = """
import ssl, sys
calls = []
def noted(function):
    import functools
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)
    return wrapper
{patch}
import asyncio, threading, socket
if {loops!r} == "asyncloop":
    import asyncloop
    loop = asyncloop.new_event_loop()
else:
    loop = asyncio.SelectorEventLoop()
certificate, key = {certificate!r}
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(certificate, key)
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.load_verify_locations(certificate)
async def handle(reader, writer):
    writer.write(await reader.read(10))
    writer.close()
async def main():
    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server)
    reader, writer = await asyncio.open_connection(
        *listener.sockets[0].getsockname(), ssl=client, server_hostname="localhost")
    writer.write(b"hello")
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()
    listener.close()
loop.run_until_complete(main())
loop.close()
print(sorted(set(calls)))
"""


@pytest.mark.parametrize(
    "patch",
    [
        "for name in ('do_handshake', 'read', 'write', 'unwrap'):\n"
        "    setattr(ssl.SSLObject, name, noted(getattr(ssl.SSLObject, name)))",
        "class Mine(ssl.SSLObject):\n"
        "    do_handshake = noted(ssl.SSLObject.do_handshake)\n"
        "    read = noted(ssl.SSLObject.read)\n"
        "    write = noted(ssl.SSLObject.write)\n"
        "    unwrap = noted(ssl.SSLObject.unwrap)\n"
        "Mine.__name__ = Mine.__qualname__ = 'SSLObject'; Mine.__module__ = 'ssl'\n"
        "ssl.SSLObject = ssl.SSLContext.sslobject_class = Mine",
        "import asyncio.sslproto\n"
        "for name in ('do_handshake', 'read', 'write', 'unwrap'):\n"
        "    setattr(ssl.SSLObject, name, noted(getattr(ssl.SSLObject, name)))",
    ],
    ids=["methods", "class", "after-asyncio"],
)
def test_replaced_before_the_import(impl, certificate, patch):
    source = PATCHED_BEFORE_IMPORT.format(patch=patch, loops=impl.loops, certificate=certificate)
    check_script(impl, source, "['do_handshake', 'read', 'unwrap', 'write']")


# -- what it is called with --------------------------------------------------------------


class Spy(ssl.SSLObject):
    """Keeps what it gets."""

    written: list
    reads: list

    def write(self, data):
        self.written.append((data, type(data), bytes(data)))
        return super().write(data)

    def read(self, *args, **kwargs):
        result = super().read(*args, **kwargs)
        shape = tuple(type(a) if not isinstance(a, int) else a for a in args)
        self.reads.append((shape, tuple(kwargs)))
        if len(args) > 1:
            self.buffers.append(args[1])
        return result


def spy_class():
    return type("Mine", (Spy,), {"written": [], "reads": [], "buffers": []})


@pytest.mark.parametrize("factory", [Recorder, BufferedClient])
def test_arguments(run, server_context, client_context, factory):
    spy = client_context.sslobject_class = spy_class()
    protocol = run(talk(server_context, client_context, factory))
    written = [(kind, content) for _, kind, content in spy.written]
    assert written == [(bytes, b"first"), (bytes, b"second")]
    assert all(bytes(kept) == content for kept, _, content in spy.written)
    if factory is Recorder:
        assert set(spy.reads) == {((256 * 1024,), ())}
    else:
        assert {shape for shape, _ in spy.reads} <= {(n, memoryview) for n in range(1, 11)}
        assert ((10, memoryview), ()) in spy.reads
        assert all(view.obj is protocol.memory.obj for view in spy.buffers)


def test_types_of_what_is_written(run, server_context, client_context):
    spy = client_context.sslobject_class = spy_class()
    pieces = [b"1", bytearray(b"22"), memoryview(b"333"), bytearray(b"4444")]

    class Talker(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(pieces[0])
            transport.write(pieces[1])
            transport.writelines(pieces[2:])
            transport.write(b"5")

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
        transport, protocol = await loop.create_connection(
            Talker,
            *server.sockets[0].getsockname(),
            ssl=client_context,
            server_hostname="localhost",
        )
        await until(lambda: protocol.data == b"12233344445")
        transport.abort()
        await protocol.closed
        server.close()

    run(main())
    for piece in pieces:
        assert any(data is piece for data, _, _ in spy.written)


def test_read_with_one_parameter(run, server_context, client_context):
    class OneParameter(ssl.SSLObject):
        def read(self, n):
            return super().read(n)

        def write(self, data, /):
            return super().write(data)

        def unwrap(self):
            return super().unwrap()

    server_context.sslobject_class = client_context.sslobject_class = OneParameter
    run(talk(server_context, client_context))

    async def main():
        async def handle(reader, writer):
            writer.write(await reader.readexactly(5))
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context, server_hostname="localhost"
        )
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main())


@pytest.mark.parametrize("name", ["getpeercert", "cipher", "compression"])
def test_what_is_asked_after_the_handshake_raises(
    run, server_context, client_context, name, reports
):
    def method(self, *args):
        raise ZeroDivisionError(name)

    client_context.sslobject_class = type("Mine", (ssl.SSLObject,), {name: method})
    with pytest.raises(ZeroDivisionError, match=name):
        run(talk(server_context, client_context))


def test_read_gives_the_transport_a_protocol_of_another_kind(run, server_context, client_context):
    """What it has read is for the new one, by the method that those of the old kind have."""
    told = []

    class Replacing(ssl.SSLObject):
        def read(self, *args):
            data = super().read(*args)
            transports.pop().set_protocol(OfAnotherKind(told))
            return data

    transports = []

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
        transport, _ = await loop.create_connection(
            Recorder,
            *server.sockets[0].getsockname(),
            ssl=client_context,
            server_hostname="localhost",
        )
        transports.append(transport)
        transport.write(b"echo")
        await until(lambda: told)
        transport.abort()
        await until(lambda: len(told) == 2)
        server.close()

    client_context.sslobject_class = Replacing
    run(main())
    assert told == [b"echo", None]


def test_what_is_kept_stays_good(loop, run, server_context, client_context, certificate):
    """A subclass keeps all that it saw; other connections talk; the loop is closed."""
    spy = client_context.sslobject_class = spy_class()
    plain = ssl.create_default_context(cafile=certificate[0])
    kept = [run(talk(server_context, client_context, f)) for f in (Recorder, BufferedClient)]
    for _ in range(3):
        run(talk(server_context, plain))
    loop.close()
    gc.collect()
    assert kept
    assert all(bytes(data) == content for data, _, content in spy.written)
    for view in spy.buffers:
        bytes(view)


class Imitation:
    """No SSLObject at all, only what asyncio calls."""

    def __init__(self, real, log):
        self.real = real
        self.log = log

    def __getattr__(self, name):
        self.log.append(name)
        return getattr(self.real, name)


def test_object_that_only_behaves_like_one(run, server_context, client_context):
    log = []
    standard = client_context.wrap_bio
    client_context.wrap_bio = lambda *a, **k: Imitation(standard(*a, **k), log)
    run(talk(server_context, client_context))
    assert set(USED) <= set(log)


class ImitationOfAContext:
    def __init__(self, real, log):
        self.real = real
        self.log = log

    def wrap_bio(self, incoming, outgoing, server_side=False, server_hostname=None):
        self.log.append((type(incoming), type(outgoing), server_side, server_hostname))
        return self.real.wrap_bio(incoming, outgoing, server_side, server_hostname)


def test_context_that_only_behaves_like_one(run, server_context, client_context):
    log = []
    run(talk(server_context, ImitationOfAContext(client_context, log)))
    assert log == [(ssl.MemoryBIO, ssl.MemoryBIO, False, "localhost")]


def test_truststore(run, server_context, certificate):
    truststore = pytest.importorskip("truststore")
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate[0])
    run(talk(server_context, context))
    strict = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError):
        run(talk(server_context, strict))


# -- changed while the connection stands --------------------------------------------------


async def changed_talk(server_context, client_context, change, kind):
    """A connection whose SSLObject is changed in the middle; the calls that were recorded."""
    recorder = Calls()

    async def handle(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context)
    address = server.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    if kind == "streams":
        reader, writer = await asyncio.open_connection(
            *address, ssl=client_context, server_hostname="localhost"
        )
        transport = writer.transport
    else:
        transport, protocol = await loop.create_connection(
            BufferedClient if kind == "buffered" else Recorder,
            *address,
            ssl=client_context,
            server_hostname="localhost",
        )

    async def say(data):
        transport.write(data)
        if kind == "streams":
            assert await asyncio.wait_for(reader.readexactly(len(data)), TIMEOUT) == data
        else:
            await until(lambda: len(protocol.data) == len(data))
            assert protocol.data == data
            protocol.data = b""

    await say(b"before")
    undo = change(transport.get_extra_info("ssl_object"), recorder)
    try:
        await say(b"after")
        await say(b"x" * 50000)
        transport.close()
        if kind == "streams":
            await writer.wait_closed()
        else:
            await asyncio.wait_for(protocol.closed, TIMEOUT)
    finally:
        undo()
        server.close()
    return recorder


def change_object(made, recorder):
    for name in ("read", "write", "unwrap"):
        setattr(made, name, recorder.method(getattr(made, name), name))
    return lambda: None


def change_class(made, recorder):
    standard = {name: getattr(ssl.SSLObject, name) for name in ("read", "write", "unwrap")}
    for name, function in standard.items():

        def changed(self, *args, name=name, function=function):
            if self is made:
                recorder.calls.append((name, args, {}))
            return function(self, *args)

        setattr(ssl.SSLObject, name, changed)

    def undo():
        for name, function in standard.items():
            setattr(ssl.SSLObject, name, function)

    return undo


def change_type_of_object(made, recorder):
    class Other(ssl.SSLObject):
        read = recorder.method(ssl.SSLObject.read)
        write = recorder.method(ssl.SSLObject.write)
        unwrap = recorder.method(ssl.SSLObject.unwrap)

    made.__class__ = Other
    return lambda: None


def change_attributes_as_a_whole(made, recorder):
    new = dict(made.__dict__)
    for name in ("read", "write", "unwrap"):
        new[name] = recorder.method(getattr(made, name), name)
    made.__dict__ = new
    return lambda: None


def change_inner_object(made, recorder):
    real = made._sslobj

    class Noting:
        def read(self, *args):
            recorder.calls.append(("read", args, {}))
            return real.read(*args)

        def write(self, data):
            recorder.calls.append(("write", (data,), {}))
            return real.write(data)

        def shutdown(self):
            recorder.calls.append(("unwrap", (), {}))
            return real.shutdown()

    made._sslobj = Noting()
    return lambda: None


NOTED = """
def read(self, len=1024, buffer=None):
    noted.append(("read", (len, buffer), {}))
    return self._sslobj.read(len) if buffer is None else self._sslobj.read(len, buffer)

def write(self, data):
    noted.append(("write", (data,), {}))
    return self._sslobj.write(data)

def unwrap(self):
    noted.append(("unwrap", (), {}))
    return self._sslobj.shutdown()
"""


def change_code(made, recorder):
    """The functions stay, their code is another."""
    ssl.noted = recorder.calls  # where the functions look for names
    functions = {}
    exec(NOTED, functions)
    standard = {}
    for name in ("read", "write", "unwrap"):
        standard[name] = getattr(ssl.SSLObject, name).__code__
        getattr(ssl.SSLObject, name).__code__ = functions[name].__code__

    def undo():
        for name, code in standard.items():
            getattr(ssl.SSLObject, name).__code__ = code
        del ssl.noted

    return undo


CHANGES = [
    change_object,
    change_class,
    change_type_of_object,
    change_attributes_as_a_whole,
    change_inner_object,
    change_code,
]


@pytest.mark.parametrize("kind", ["protocol", "buffered", "streams"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_in_the_middle(run, server_context, client_context, change, kind):
    recorder = run(changed_talk(server_context, client_context, change, kind))
    assert recorder.names() == {"read", "write", "unwrap"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_changed_by_an_sni_callback(run, server_context, client_context, version):
    """The callback has the object before the handshake is over."""
    recorder = Calls()
    client_context.maximum_version = version

    def on_name(made, name, context):
        for method in ("do_handshake", "read", "write"):
            setattr(made, method, recorder.method(getattr(made, method), method))

    server_context.sni_callback = on_name
    run(talk(server_context, client_context))
    assert {"do_handshake", "read", "write"} <= recorder.names()
