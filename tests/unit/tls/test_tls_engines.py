"""What the engines of the TLS transport know: which library serves, and who is inside a call."""

import asyncio
import contextlib
import os
import re
import ssl
import sys
from pathlib import Path

import pytest

from tests.protocols import Echo, EchoingRecorder, Recorder
from tests.support import PY, check_script, compile_hook, turns, until

TIMEOUT = 10


# -- libraries that resemble OpenSSL ------------------------------------------------------


def loaded_libraries():
    """The files of OpenSSL in this process."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        pytest.skip("needs /proc")
    found = sorted(set(re.findall(r"\s(/\S*/lib(?:ssl|crypto)[.-]\S*)", maps)))
    if len(found) != 2:
        pytest.skip("OpenSSL is linked into the interpreter")
    return found


RESEMBLING = """
import ctypes, sys
import _ssl
library = ctypes.CDLL({library!r})
_ssl.__file__ = {library!r}
if {text!r}:
    _ssl.OPENSSL_VERSION = {text!r}
import asyncloop
print(asyncloop.build_info()["tls"])
"""


@pytest.mark.our_loop("the standard loop has no engines")
@pytest.mark.parametrize(
    "text, symbol, engine",
    [
        (None, None, "direct"),
        (ssl.OPENSSL_VERSION, "some_function", "direct"),
        ("AWS-LC 1.42.0", None, "portable"),
        ("OpenSSL 1.1.1 (compatible; AWS-LC 1.42.0)", None, "portable"),
        ("BoringSSL", None, "portable"),
        ("LibreSSL 4.0.0", None, "portable"),
        (None, "BORINGSSL_self_test", "portable"),
        (None, "awslc_version_string", "portable"),
    ],
)
@pytest.mark.skipif("ASYNCLOOP_LONG_WAYS" in os.environ, reason="one of them is a short way")
def test_library(impl, tmp_path, text, symbol, engine):
    """The very functions of OpenSSL, from a library that says, or shows, what it is."""
    options = ["-Wl,--no-as-needed", *loaded_libraries()]
    if text:
        options.append(f'-DTEXT="{text}"')
    if symbol:
        options.append(f"-DSYMBOL={symbol}")
    library = compile_hook("resembling_library", tmp_path, *options)
    check_script(impl, RESEMBLING.format(library=library, text=text), engine)


# -- the short way is taken -----------------------------------------------------------------


@pytest.mark.usefixtures("engine")
@pytest.mark.our_loop("asyncio calls the methods of each object")
def test_standard_objects_need_no_python(run, contexts_of_a_test):
    """Or everything would be right, and slow."""
    called = set()

    def note(frame, event, arg):
        if event == "call" and frame.f_globals.get("__name__") in ("ssl", "asyncio.sslproto"):
            called.add(frame.f_code.co_name)

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=contexts_of_a_test[0])
        transport, protocol = await loop.create_connection(
            Recorder,
            *server.sockets[0].getsockname(),
            ssl=contexts_of_a_test[1],
            server_hostname="localhost",
        )
        sys.setprofile(note)
        try:
            transport.write(b"hello")
            await until(lambda: protocol.data == b"hello")
            transport.write(b"x" * 100000)
            await until(lambda: len(protocol.data) == 100005)
        finally:
            sys.setprofile(None)
        transport.close()
        await protocol.closed
        server.close()

    run(main())
    # the server's handshake may not be over before
    assert called <= {"do_handshake", "getpeercert", "cipher", "compression"}


# -- the end comes inside a call ----------------------------------------------------------


def abort(transport):
    transport.abort()


def close(transport):
    transport.close()


def abort_below(transport):
    transport._ssl_protocol._transport.abort()


def lose(transport):
    """As the transport below does it."""
    protocol = transport._ssl_protocol
    below = protocol._transport
    protocol.connection_lost(None)
    below.abort()


def set_protocol_and_abort(transport):
    transport.set_protocol(asyncio.Protocol())
    transport.abort()


ENDS = [abort, close, abort_below, lose, set_protocol_and_abort]


class Trap:
    """Ends the connection when it is sprung, once."""

    def __init__(self, end):
        self.end = end
        self.transport = None
        self.sprung = False

    def __call__(self, *args):
        # let go: a context's callback that leads to the transport is a cycle no collector sees
        transport, self.transport = self.transport, None
        if transport is not None and not self.sprung:
            self.sprung = True
            self.end(transport)


@pytest.fixture
def contexts_of_a_test(server_context, client_context):
    return server_context, client_context


def set_trap(loop, trap, server_side):
    """Gives the trap the next TLS transport of that side as soon as it exists."""
    standard = loop._make_ssl_transport

    def make(*args, **kwargs):
        transport = standard(*args, **kwargs)
        if bool(kwargs.get("server_side")) == server_side and not trap.sprung:
            trap.transport = transport
        return transport

    loop._make_ssl_transport = make


async def converse(server_context, client_context, before=None):
    """Two connections; errors are as they come, but there is an end."""
    loop = asyncio.get_running_loop()
    protocols = []

    def serve():
        protocols.append(EchoingRecorder())
        return protocols[-1]

    server = await loop.create_server(serve, "127.0.0.1", 0, ssl=server_context)
    try:
        for _ in range(2):
            try:
                transport, protocol = await asyncio.wait_for(
                    loop.create_connection(
                        Recorder,
                        *server.sockets[0].getsockname(),
                        ssl=client_context,
                        server_hostname="localhost",
                        ssl_shutdown_timeout=0.3,
                    ),
                    TIMEOUT,
                )
            except (OSError, ssl.SSLError, RuntimeError, AttributeError):
                continue
            if before is not None:
                before(transport)
            try:
                transport.write(b"hello")
                transport.write(b"x" * 100000)
                for _ in range(20):
                    await asyncio.sleep(0.001)
                transport.close()
            except (OSError, RuntimeError, AttributeError):
                transport.abort()
            await asyncio.wait([protocol.closed], timeout=0.5)
            transport.abort()
    finally:
        server.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await turns(10)


def check_end(loop, run, contexts_of_a_test, before=None):
    loop.set_exception_handler(lambda loop, context: None)
    run(converse(*contexts_of_a_test, before))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_end_in_the_callback_for_names(loop, run, contexts_of_a_test, end, version):
    server, client = contexts_of_a_test
    client.maximum_version = version
    trap = Trap(end)
    server.sni_callback = trap
    set_trap(loop, trap, True)
    check_end(loop, run, contexts_of_a_test)
    assert trap.sprung


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("end", [abort, close, lose])
@pytest.mark.parametrize("server_side", [False, True])
@pytest.mark.parametrize("at", [1, 8, 20])
def test_end_in_a_message_callback(loop, run, contexts_of_a_test, end, server_side, at):
    trap = Trap(end)
    count = 0

    def callback(*args):
        nonlocal count
        count += 1
        if count >= at:
            trap()

    contexts_of_a_test[0 if server_side else 1]._msg_callback = callback
    set_trap(loop, trap, server_side)
    check_end(loop, run, contexts_of_a_test)
    assert trap.sprung


@pytest.mark.usefixtures("engine")
@pytest.mark.skipif(PY < (3, 13), reason="came in 3.13")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("server_side", [False, True])
def test_end_in_a_callback_for_keys(loop, run, contexts_of_a_test, end, server_side):
    if not ssl.HAS_PSK:
        pytest.skip("no keys that are shared before")
    trap = Trap(end)
    server, client = (ssl.SSLContext(p) for p in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("PSK")

    def of_client(hint):
        if not server_side:
            trap()
        return "somebody", b"key"

    def of_server(identity):
        if server_side:
            trap()
        return b"key"

    client.set_psk_client_callback(of_client)
    server.set_psk_server_callback(of_server, "hint")
    set_trap(loop, trap, server_side)
    check_end(loop, run, (server, client))
    assert trap.sprung


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["read", "write", "unwrap"])
@pytest.mark.parametrize("first", [False, True])
def test_end_in_a_method_that_was_replaced(loop, run, contexts_of_a_test, end, name, first):
    """Replaced on the object, while the connection stands."""
    trap = Trap(end)

    def before(transport):
        made = transport.get_extra_info("ssl_object")
        standard = getattr(made, name)

        def method(*args):
            if first:
                trap()
            try:
                return standard(*args)
            finally:
                trap()

        setattr(made, name, method)
        trap.transport = transport

    check_end(loop, run, contexts_of_a_test, before)
    assert trap.sprung


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["do_handshake", "getpeercert", "read", "write", "unwrap"])
def test_end_in_a_method_of_a_subclass(loop, run, contexts_of_a_test, end, name):
    trap = Trap(end)
    standard = getattr(ssl.SSLObject, name)

    def method(self, *args):
        try:
            return standard(self, *args)
        finally:
            trap()

    contexts_of_a_test[1].sslobject_class = type("Subclass", (ssl.SSLObject,), {name: method})
    set_trap(loop, trap, False)
    check_end(loop, run, contexts_of_a_test)
    assert trap.sprung


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("end", ENDS)
def test_end_in_a_new_handshake(loop, run, contexts_of_a_test, end):
    """TLS 1.2, and the client asks for it: the callback for names runs inside read()."""
    trap = Trap(end)
    names = []
    server, _ = contexts_of_a_test
    server.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION

    def on_name(made, name, context):
        names.append(name)
        if len(names) > 1:
            trap()

    server.sni_callback = on_name
    set_trap(loop, trap, True)
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        made = []

        def factory():
            made.append(EchoingRecorder())
            return made[0]

        listener = await loop.create_server(factory, "127.0.0.1", 0, ssl=server)
        host, port = listener.sockets[0].getsockname()
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-servername", "x"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            await until(lambda: made and made[0].transport)
            process.stdin.write(b"R\n")
            await until(lambda: trap.sprung)
            await asyncio.wait([made[0].closed], timeout=1)
            made[0].transport.abort()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
            listener.close()
            await turns(10)

    run(asyncio.wait_for(main(), TIMEOUT))
    assert len(names) == 2


# -- the object after the end -----------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_object_after_the_end(loop, run, contexts_of_a_test):
    """It says what an object over empty memory says."""

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=contexts_of_a_test[0])
        transport, protocol = await loop.create_connection(
            Recorder,
            *server.sockets[0].getsockname(),
            ssl=contexts_of_a_test[1],
            server_hostname="localhost",
        )
        made = transport.get_extra_info("ssl_object")
        transport.abort()
        await protocol.closed
        server.close()
        await turns(10)
        return made

    made = run(main())
    with pytest.raises(ssl.SSLWantReadError):
        made.read(10)
    assert made.write(b"to nobody") == 9
    assert made.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLWantReadError):
        made.unwrap()
