"""A table of TLS situations: what is accepted, what is refused, and what everybody is told.

Each row runs on the standard loop and on the loop under test, with either engine, and the two have
to say the same: the exception with all its fields, the order of a protocol's events, the extra
information, what the loop's exception handler hears. The loop is the client in one run and the
server in the other; its peer is a blocking socket in a thread, the same for both.

What differs is named in the row with the reason, and in docs/tls.md.
"""

import asyncio
import contextlib
import gc
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.certificates import Pki

pytestmark = pytest.mark.usefixtures("engine")

TIMEOUT = 15
HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


# -- rows --------------------


@dataclass
class Row:
    name: str
    certificate: str = "localhost"  # the server's
    hostname: str | None = "localhost"
    client: Any = None  # changes the client's context: (context, pki)
    server: Any = None  # the same for the server's
    chain: str | None = None  # of the client
    peer: Any = None  # what the thread does after its handshake
    raw: Any = None  # what it does instead of one
    act: Any = None  # what the loop's side does instead of an exchange of words
    kind: str = "protocol"  # or buffered, streams
    sides: tuple[str, ...] = ("client", "server")
    # fields of the outcome in which asyncloop differs, by side, each with a reason
    differs: dict[str, str] = field(default_factory=dict)


def versions(minimum=None, maximum=None):
    def change(context, pki):
        if minimum:
            context.minimum_version = minimum
        if maximum:
            context.maximum_version = maximum

    return change


TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
until_12 = versions(maximum=TLS12)
from_13 = versions(minimum=TLS13)


def flags(value, *files):
    def change(context, pki):
        context.verify_flags |= value
        for name in files:
            context.load_verify_locations(pki.pem(name))

    return change


def no_flags(value):
    def change(context, pki):
        context.verify_flags &= ~value

    return change


def attribute(**values):
    def change(context, pki):
        for name, value in values.items():
            setattr(context, name, value)

    return change


def unverified(context, pki):
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def without_names(context, pki):
    context.check_hostname = False


def ciphers(text):
    def change(context, pki):
        context.maximum_version = TLS12
        context.set_ciphers(text)

    return change


def alpn(*names):
    return lambda context, pki: context.set_alpn_protocols(names)


def wants(mode, maximum=None, authority="ca", post=False):
    """Client certificates."""

    def change(context, pki):
        context.verify_mode = mode
        context.load_verify_locations(pki.pem(authority))
        context.post_handshake_auth = post
        if maximum:
            context.maximum_version = maximum

    return change


def post_handshake(context, pki):
    context.post_handshake_auth = True


def both(*changes):
    def change(context, pki):
        for one in changes:
            one(context, pki)

    return change


def trust_only(name, value=0):
    """The client's trust is replaced."""

    def change(context, pki):
        context.trust_only = name
        context.verify_flags |= value

    return change


def server_names(answer):
    """A callback for the name that the client asks for."""

    def change(context, pki):
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(*pki.chain("other"))
        other.set_alpn_protocols(["second"])

        def callback(made, name, own):
            return answer(made, name, other)

        context.sni_callback = callback

    return change


def switch(made, name, other):
    made.context = other


def raising(made, name, other):
    raise ZeroDivisionError("in the callback for names")


def keylog(context, pki):
    context.keylog_filename = str(pki.folder / "keys.log")


def message_callback(context, pki):
    context._msg_callback = lambda *args: None


def with_bad_class(name):
    """sslobject_class with a method that fails, once the handshake is over."""

    def change(context, pki):
        class Failing(ssl.SSLObject):
            pass

        def method(self, *args):
            raise ZeroDivisionError(name)

        setattr(Failing, name, method)
        context.sslobject_class = Failing

    return change


# -- what the peer does --------------------


def say_hello(sock):
    """Sends back what comes, and waits until that has arrived."""
    sock.sendall(sock.recv(5))
    sock.recv(5)


def converse(sock):
    say_hello(sock)
    with contextlib.suppress(OSError):
        sock.unwrap()


def truncate(sock):
    """The wire ends without close_notify."""
    say_hello(sock)
    sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while socket.socket.recv(sock, 1000):
            pass


def truncate_in_a_record(sock):
    say_hello(sock)
    raw_send(sock, b"\x17\x03\x03\x01\x00abc")
    sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while socket.socket.recv(sock, 1000):
            pass


def reset(sock):
    say_hello(sock)
    socket.socket.setsockopt(sock, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def raw_send(sock, data, cork=None):
    """Past TLS. From cork=True to cork=False all goes into one segment."""
    with socket.socket(fileno=os.dup(sock.fileno())) as duplicate:
        if cork:
            duplicate.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CORK", 4), 1)
        if data:
            duplicate.sendall(data)
        if cork is False:
            duplicate.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CORK", 4), 0)


def garbage(text):
    def peer(sock):
        say_hello(sock)
        raw_send(sock, text)
        with contextlib.suppress(OSError):
            while sock.recv(1000):
                pass

    return peer


def garbage_behind_data(sock):
    say_hello(sock)
    record = b"\x17\x03\x03\x00\x20" + b"x" * 32
    # both lie in the socket before the other side can look
    raw_send(sock, b"", cork=True)
    sock.sendall(b"the last words")
    raw_send(sock, record, cork=False)
    with contextlib.suppress(OSError):
        while sock.recv(1000):
            pass


def close_notify_and_more(sock):
    """What comes behind the end is nobody's."""
    say_hello(sock)
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.unwrap()
    sock.setblocking(True)
    raw_send(sock, b"behind the end")
    sock.shutdown(socket.SHUT_WR)


def one_way_close(sock):
    """close_notify, and the other direction stays open for a while."""
    say_hello(sock)
    sock.settimeout(5)
    with contextlib.suppress(OSError):
        sock.unwrap()


def ask_for_a_certificate(sock):
    sock.recv(5)
    sock.verify_client_post_handshake()
    sock.sendall(b"hello")
    with contextlib.suppress(OSError):
        sock.recv(5)
        sock.sendall(b"again")
        sock.unwrap()


def answer_the_question(sock):
    """The client of a server that asks for a certificate after the handshake."""
    sock.sendall(b"first")
    with contextlib.suppress(OSError):
        while sock.recv(100):
            sock.sendall(b"more")


# -- the rows --------------------

STRICT = ssl.VERIFY_X509_STRICT
PARTIAL = getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0x80000)

NAMES = [
    Row("plain"),
    Row("version 1.2", client=until_12),
    Row("version 1.3", client=from_13),
    Row("address", hostname="127.0.0.1"),
    Row("other address", hostname="127.0.0.2"),
    Row("other name", hostname="other.example"),
    Row("other name, 1.2", hostname="other.example", client=until_12),
    Row("empty label", hostname="local..host"),
    Row("dot at the end", hostname="localhost."),
    Row("name in capitals", hostname="LOCALHOST"),
    Row("name beyond ASCII", hostname="köln.example"),
    Row("wildcard", "wild", "a.example.org"),
    Row("wildcard, two labels", "wild", "a.b.example.org"),
    Row("wildcard, no label", "wild", "example.org"),
    Row("common name only", "cnonly"),
    Row("common name only, allowed", "cnonly", client=attribute(hostname_checks_common_name=True)),
    Row("no name is checked", "other", client=without_names),
    Row("no name is given", hostname="", client=without_names),
    Row("nothing is verified", "untrusted", client=unverified),
]

TRUST = [
    Row("expired", "expired"),
    Row("expired, 1.2", "expired", client=until_12),
    Row("not yet valid", "future"),
    Row("untrusted", "untrusted"),
    Row("purpose: a client's certificate", "clientonly"),
    Row("revoked, nobody asks", "revoked"),
    Row("revoked", "revoked", client=flags(ssl.VERIFY_CRL_CHECK_LEAF, "crl")),
    Row("not revoked", client=flags(ssl.VERIFY_CRL_CHECK_LEAF, "crl")),
    Row("list of revoked ones is missing", client=flags(ssl.VERIFY_CRL_CHECK_LEAF)),
    Row("strict", client=flags(STRICT)),
    Row("strict, and the certificate is not", "lax", client=flags(STRICT)),
    Row("lax", "lax", client=no_flags(STRICT)),
    Row("intermediate is not trusted", "below"),
    Row("partial chain", "below", client=trust_only("intermediate", PARTIAL)),
    Row(
        "partial chain is not allowed",
        "below",
        client=both(trust_only("intermediate"), no_flags(PARTIAL)),
    ),
]

NEGOTIATION = [
    Row("no version in common", client=until_12, server=from_13),
    Row("no version in common, the other way", client=from_13, server=until_12),
    Row(
        "no cipher in common",
        client=ciphers("ECDHE-ECDSA-AES128-GCM-SHA256"),
        server=ciphers("ECDHE-ECDSA-AES256-GCM-SHA384"),
    ),
    Row("cipher", client=ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")),
    Row("ALPN", client=alpn("h2", "http/1.1"), server=alpn("http/1.1", "h2")),
    Row("ALPN, nothing in common", client=alpn("h2"), server=alpn("http/1.1")),
    Row("ALPN, the client's alone", client=alpn("h2")),
    Row("ALPN, the server's alone", server=alpn("h2")),
    Row("names: nothing happens", server=server_names(lambda *args: None)),
    Row("names: another context", hostname="other.example", server=server_names(switch)),
    Row(
        "names: another context, 1.2",
        hostname="other.example",
        server=server_names(switch),
        client=until_12,
    ),
    Row("names: alert", server=server_names(lambda *args: ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE)),
    Row(
        "names: unknown name",
        server=server_names(lambda *args: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME),
    ),
    Row("names: no number", server=server_names(lambda *args: "what?")),
    Row("names: exception", server=server_names(raising)),
    Row("names: exception, 1.2", server=server_names(raising), client=until_12),
    Row("key log", client=keylog, server=keylog),
    Row("message callback", client=message_callback, server=message_callback),
]

CLIENTS = [
    Row(f"client's certificate {mode}, {given}, {version}", server=wants(value, limit), chain=chain)
    for version, limit in (("1.2", TLS12), ("1.3", None))
    for mode, value in (
        ("not wanted", ssl.CERT_NONE),
        ("optional", ssl.CERT_OPTIONAL),
        ("required", ssl.CERT_REQUIRED),
    )
    for given, chain in (
        ("given", "client"),
        ("missing", None),
        ("untrusted", "badclient"),
        ("a server's", "serveronly"),
    )
]

LATER = [
    Row(
        "later certificate",
        server=wants(ssl.CERT_REQUIRED, post=True),
        client=post_handshake,
        chain="client",
        peer=ask_for_a_certificate,
        sides=("client",),
    ),
    *(
        Row(
            f"later certificate, {given}",
            server=wants(ssl.CERT_REQUIRED, post=True),
            client=post_handshake,
            chain=chain,
            peer=answer_the_question,
            act="ask",
            sides=("server",),
        )
        for given, chain in (
            ("given", "client"),
            ("missing", None),
            ("untrusted", "badclient"),
            ("a server's", "serveronly"),
        )
    ),
    Row(
        "later certificate, the client cannot",
        server=wants(ssl.CERT_REQUIRED, post=True),
        chain="client",
        peer=answer_the_question,
        act="ask",
        sides=("server",),
    ),
]

ENDS = [
    Row(f"{name}{suffix}, {kind}", client=limit, peer=peer, kind=kind)
    for kind in ("protocol", "buffered", "streams")
    for suffix, limit in (("", None), (", 1.2", until_12))
    for name, peer in (
        ("truncated", truncate),
        ("truncated in a record", truncate_in_a_record),
        ("reset", reset),
        ("garbage, text", garbage(b"this is not TLS at all, for sure")),
        ("garbage, a record", garbage(b"\x17\x03\x03\x00\x20" + b"x" * 32)),
        ("garbage, a record that is too long", garbage(b"\x17\x03\x03\xff\xff" + b"x" * 100)),
        ("garbage, an alert in clear", garbage(b"\x15\x03\x03\x00\x02\x02\x28")),
        ("garbage, a handshake in clear", garbage(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00")),
        ("something behind the end", close_notify_and_more),
        ("close_notify", one_way_close),
    )
]

# All in one segment: asyncio drops what it has decrypted when it meets the garbage.
BEHIND_DATA = [
    Row(
        "garbage behind data",
        client=limit,
        peer=garbage_behind_data,
    )
    for limit in (None, until_12)
]

BEFORE = [
    Row(f"before the handshake: {name}", raw=lambda sock, text=text: sock.sendall(text))
    for name, text in (
        ("nothing", b""),
        ("a request of HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("an answer of HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("a proxy's request", b"CONNECT localhost:443 HTTP/1.1\r\n\r\n"),
        ("a banner", b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        ("an alert", b"\x15\x03\x01\x00\x02\x02\x28"),
        ("a warning", b"\x15\x03\x01\x00\x02\x01\x00"),
        ("half a record", b"\x16\x03\x01\x02\x00\x01\x00"),
        ("an empty record", b"\x16\x03\x01\x00\x00"),
        ("data", b"\x17\x03\x03\x00\x20" + b"x" * 32),
        ("a hello that is none", b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x03\x03xx"),
        ("an old hello", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\0" * 37),
        ("bytes", bytes(range(256)) * 4),
    )
]

OBJECTS = [
    Row(
        "method that fails: do_handshake", server=with_bad_class("do_handshake"), sides=("server",)
    ),
    *(
        Row(f"method that fails: {name}", client=with_bad_class(name), server=with_bad_class(name))
        for name in ("getpeercert", "cipher", "read", "write", "unwrap")
    ),
]

ROWS = [
    *NAMES,
    *TRUST,
    *NEGOTIATION,
    *CLIENTS,
    *LATER,
    *ENDS,
    *BEHIND_DATA,
    *BEFORE,
    *OBJECTS,
]


# -- running one --------------------


def describe(exc):
    """All that a program can see of an exception."""
    if exc is None:
        return None
    if isinstance(exc, type):
        return exc.__name__
    return {
        "type": type(exc).__name__,
        "args": repr(exc.args),
        "fields": {
            name: getattr(exc, name, "none")
            for name in ("errno", "strerror", "reason", "library", "verify_code", "verify_message")
        },
    }


def extra(transport):
    made = transport.get_extra_info("ssl_object")
    return {
        "version": made.version(),
        "cipher": (transport.get_extra_info("cipher"), made.cipher()),
        "compression": transport.get_extra_info("compression", "default"),
        "peercert": (transport.get_extra_info("peercert"), made.getpeercert()),
        "alpn": made.selected_alpn_protocol(),
        "reused": made.session_reused,
        "hostname": made.server_hostname,
        "server_side": made.server_side,
        "context": made.context is transport.get_extra_info("sslcontext"),
        "type": type(made).__name__,
        "pending": made.pending(),
        "missing": transport.get_extra_info("no such thing", 42),
        "socket": transport.get_extra_info("peername")[0],
        "keys": sorted(transport._ssl_protocol._extra),
    }


class Side(asyncio.Protocol):
    """The loop's end of the connection."""

    def __init__(self, row, outcome, server_side):
        self.row = row
        self.server_side = server_side
        self.outcome = outcome
        self.events = outcome.setdefault("events", [])
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")
        self.outcome["extra"] = extra(transport)
        if self.row.act != "ask":
            transport.write(b"hello")

    def data_received(self, data):
        if not self.data:
            self.events.append("data")
        self.data += data
        if self.row.act == "ask" and self.data == b"first":
            try:
                self.transport.get_extra_info("ssl_object").verify_client_post_handshake()
            except Exception as exc:
                self.outcome["asked"] = describe(exc)
            self.transport.write(b"show")
        elif self.row.act == "ask":
            made = self.transport.get_extra_info("ssl_object")
            self.outcome["shown"] = made.getpeercert()
            self.transport.close()
        elif self.data == b"hello":
            self.transport.write(b"thank")

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.outcome["lost"] = describe(exc)
        self.lost.set_result(None)


class BufferedSide(asyncio.BufferedProtocol, Side):
    def __init__(self, *args):
        super().__init__(*args)
        self.memory = bytearray(7)

    def get_buffer(self, hint):
        return memoryview(self.memory)

    def buffer_updated(self, n):
        self.data_received(bytes(self.memory[:n]))


class StreamSide(asyncio.StreamReaderProtocol):
    """The same over a StreamReader and a task."""

    def __init__(self, row, outcome, server_side):
        self.outcome = outcome
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()
        super().__init__(asyncio.StreamReader(), self.talk)
        self.reader = self._stream_reader  # the base forgets it

    def connection_made(self, transport):
        self.outcome["extra"] = extra(transport)
        super().connection_made(transport)

    async def talk(self, reader, writer):
        try:
            writer.write(b"hello")
            self.data += await reader.readexactly(5)
            writer.write(b"thank")
            await writer.drain()
            while part := await reader.read(100):
                self.data += part
        except Exception as exc:
            self.outcome["read"] = describe(exc)
        writer.close()
        try:
            await writer.wait_closed()
        except Exception as exc:
            self.outcome["closed"] = describe(exc)
        self.lost.done() or self.lost.set_result(None)

    def eof_received(self):
        self.outcome["eof"] = True
        return super().eof_received()

    def connection_lost(self, exc):
        self.outcome["lost"] = describe(exc)
        super().connection_lost(exc)


KINDS = {"protocol": Side, "buffered": BufferedSide, "streams": StreamSide}


def make_contexts(row, pki):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pki.chain(row.certificate))
    client = ssl.create_default_context()
    if row.server:
        row.server(server, pki)
    if row.client:
        row.client(client, pki)
    client.load_verify_locations(pki.pem(getattr(client, "trust_only", "ca")))
    if row.chain:
        client.load_cert_chain(*pki.chain(row.chain))
    return client, server


def in_thread(function):
    """Runs it in a thread, which ends in time: its sockets have time limits."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def peer_of(row, raw, context, server_side):
    raw.settimeout(TIMEOUT)
    if row.raw:
        with raw, contextlib.suppress(OSError):
            row.raw(raw)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(1000):
                pass
        return
    try:
        sock = context.wrap_socket(
            raw,
            server_side=server_side,
            server_hostname=None if server_side else row.hostname,
            do_handshake_on_connect=False,
        )
    except ValueError:  # a name that is none
        raw.close()
        return
    with sock, contextlib.suppress(OSError):
        try:
            sock.do_handshake()
        except OSError:
            # to close with bytes unread would be a reset, and cost the other side our alert
            sock.shutdown(socket.SHUT_WR)
            while socket.socket.recv(sock, 1000):
                pass
        else:
            (row.peer or converse)(sock)


async def as_client(row, pki, outcome, client, server):
    listener = socket.create_server((HOST, 0))
    listener.settimeout(TIMEOUT)

    def serve():
        with contextlib.suppress(OSError):
            peer_of(row, listener.accept()[0], server, True)
        listener.close()

    thread = in_thread(serve)
    loop = asyncio.get_running_loop()
    try:
        _, protocol = await asyncio.wait_for(
            loop.create_connection(
                lambda: KINDS[row.kind](row, outcome, False),
                *listener.getsockname(),
                ssl=client,
                server_hostname=row.hostname,
            ),
            TIMEOUT,
        )
    except Exception as exc:
        outcome["failed"] = describe(exc)
        # a protocol that was made, nevertheless, hears of the end
        for _ in range(5):
            await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), 1).close()
    else:
        await asyncio.wait_for(protocol.lost, TIMEOUT)
        outcome["data"] = protocol.data
    await loop.run_in_executor(None, thread.join, TIMEOUT)
    listener.close()


async def as_server(row, pki, outcome, client, server):
    loop = asyncio.get_running_loop()
    made = []
    failed = loop.create_future()

    def factory():
        made.append(KINDS[row.kind](row, outcome, True))
        made[0].lost.add_done_callback(lambda future: failed.done() or failed.set_result(None))
        return made[-1]

    def handler(loop, context):
        report(outcome, context)
        if "transport creation" in context["message"] and not failed.done():
            failed.set_result(None)

    loop.set_exception_handler(handler)
    listener = await loop.create_server(factory, HOST, 0, ssl=server)
    address = listener.sockets[0].getsockname()

    def call():
        with contextlib.suppress(OSError):
            peer_of(row, socket.create_connection(address, TIMEOUT), client, False)

    thread = in_thread(call)
    await asyncio.wait_for(failed, TIMEOUT)
    await loop.run_in_executor(None, thread.join, TIMEOUT)
    listener.close()
    outcome["data"] = made[0].data if made else None


def report(outcome, context):
    # what a callback was called with is not of interest
    message = re.sub(r"\(.*\)", "()", context["message"])
    outcome.setdefault("reports", []).append((message, describe(context.get("exception"))))


def outcome_of(new_event_loop, row, pki, side):
    loop = new_event_loop()
    loop.set_debug(True)  # a server tells of failed handshakes only then
    outcome = {}
    loop.set_exception_handler(lambda loop, context: report(outcome, context))
    client, server = make_contexts(row, pki)
    try:
        run = as_client if side == "client" else as_server
        loop.run_until_complete(run(row, pki, outcome, client, server))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        gc.collect()  # asyncio leaves sockets open when a name is none
    return outcome


CASES = [pytest.param(row, side, id=f"{row.name} / {side}") for row in ROWS for side in row.sides]


@pytest.mark.parametrize("row, side", CASES)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_table(impl, pki, row, side, asyncio_log, unraisable):
    expected = outcome_of(asyncio.SelectorEventLoop, row, pki, side)
    got = outcome_of(impl.new_event_loop, row, pki, side)
    for key, reason in row.differs.items():
        assert reason
        expected.pop(key, None)
        got.pop(key, None)
    asyncio_log.take()
    unraisable.clear()  # what callbacks for names raise
    assert got == expected


# -- in the middle of a connection: new keys, a new handshake --------------------

# The ssl module cannot ask for these: the peer is the `openssl` command. A letter at the beginning
# of a line that it reads is a command: K for new keys, r and R for a new handshake.


class Command:
    """`openssl s_server` or `s_client`, line by line."""

    def __init__(self, *args):
        # a terminal: what it says comes line by line
        self.terminal, theirs = os.openpty()
        self.process = subprocess.Popen(
            ["openssl", *args], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, bufsize=0
        )
        os.close(theirs)
        self.said = b""

    def read(self):
        try:
            return os.read(self.terminal, 1000)
        except OSError:  # nobody has the other end any more
            return b""

    def wait_for(self, text):
        while text not in self.said:
            part = self.read()
            assert part, f"{text} never came:\n{self.said.decode()}"
            self.said += part
        begin, _, self.said = self.said.partition(text)
        return begin

    def say(self, text):
        self.process.stdin.write(text)

    def play(self, command, done):
        """A command is done before the next line: it takes all that has come for itself."""
        try:
            self.wait_for(b"ping")
            for _ in range(3):
                self.say(command + b"\n")
                self.wait_for(done)
                self.say(b"word\n")
                self.wait_for(b"pong")
            self.say(b"Q\n")
            self.process.stdin.close()
            while self.read():
                pass
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            os.close(self.terminal)


class Talker(asyncio.Protocol):
    def __init__(self, outcome):
        self.outcome = outcome
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""
        transport.write(b"ping")

    def data_received(self, data):
        self.rest += data
        while b"word\n" in self.rest:
            self.rest = self.rest.replace(b"word\n", b"", 1)
            self.outcome.append("word")
            self.transport.write(b"pong")

    def eof_received(self):
        self.outcome.append("eof")

    def connection_lost(self, exc):
        self.outcome.append(describe(exc))
        self.lost.set_result(None)


async def play_as_client(pki, version, command, names):
    outcome = []
    peer = Command(
        *("s_server", "-accept", f"{HOST}:0", version, "-naccept", "1"),
        *("-cert", pki.pem("localhost"), "-key", pki.key("localhost")),
    )
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, peer.wait_for, b"ACCEPT ")
    await loop.run_in_executor(None, peer.wait_for, b":")
    port = int(await loop.run_in_executor(None, peer.wait_for, b"\n"))
    playing = loop.run_in_executor(None, peer.play, command, b"SSL_do_handshake -> 1")
    context = ssl.create_default_context(cafile=pki.pem("ca"))
    _, protocol = await loop.create_connection(
        lambda: Talker(outcome), HOST, port, ssl=context, server_hostname="localhost"
    )
    await asyncio.wait_for(asyncio.gather(playing, protocol.lost), TIMEOUT)
    return outcome


async def play_as_server(pki, version, command, names):
    outcome = []
    made = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.chain("localhost"))
    context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    context.sni_callback = lambda made, name, context: names.append(name)
    loop = asyncio.get_running_loop()

    def factory():
        made.append(Talker(outcome))
        return made[0]

    server = await loop.create_server(factory, HOST, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    peer = Command(
        *("s_client", "-connect", f"{HOST}:{port}", version, "-servername", "localhost"),
        *("-CAfile", pki.pem("ca")),
    )
    done = b"KEYUPDATE" if command == b"K" else b"RENEGOTIATING"
    await asyncio.wait_for(loop.run_in_executor(None, peer.play, command, done), TIMEOUT)
    await asyncio.wait_for(made[0].lost, TIMEOUT)
    server.close()
    return outcome


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("version, command", [("-tls1_3", b"K"), ("-tls1_2", b"R")])
def test_in_the_middle(impl, pki, side, version, command):
    if side == "client" and command == b"R":
        command = b"r"

    def outcome_on(new_event_loop):
        loop = new_event_loop()
        names = []
        play = play_as_client if side == "client" else play_as_server
        try:
            outcome = loop.run_until_complete(play(pki, version, command, names))
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        return outcome, names

    expected = outcome_on(asyncio.SelectorEventLoop)
    assert expected[0][:3] == ["word"] * 3
    assert outcome_on(impl.new_event_loop) == expected
