"""Datagram endpoints: UDP over IPv4 and IPv6, and Unix datagram sockets."""

import asyncio
import asyncio.selector_events
import contextvars
import errno
import gc
import os
import socket
import sys
import weakref

import pytest

from tests.support import (
    PY,
    check_script,
    collect,
    open_descriptors,
    plain_repr,
    spin,
    turns,
    until,
    without_collector,
)

SENDS_EMPTY = PY >= (3, 13)
# Of asyncio's own transports: 3.13.0 adds a header for each queued datagram and never takes it off.
STANDARD = asyncio.selector_events._SelectorDatagramTransport
STANDARD_COUNTS = PY < (3, 13) or hasattr(STANDARD, "_header_size")
LARGE = 9000  # more than a usual packet of a network, less than what sockets buffer


def has_ipv6():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


class Recorder(asyncio.DatagramProtocol):
    """Notes every call; `on` maps names of methods to what is done besides."""

    def __init__(self, **on):
        self.on = on
        self.transport = None
        self.calls = []

    def note(self, name, *args):
        self.calls.append((name, *args))
        action = self.on.get(name)
        if action is not None:
            action(*args)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def connection_lost(self, exc):
        self.note("lost", exc)

    def datagram_received(self, data, addr):
        self.note("received", data, addr)

    def error_received(self, exc):
        self.note("error", exc)

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]

    @property
    def data(self):
        return [data for data, _ in self.named("received")]

    @property
    def senders(self):
        return [addr for _, addr in self.named("received")]

    @property
    def lost(self):
        return [exc for (exc,) in self.named("lost")]


@pytest.fixture
def endpoint(loop, run):
    """Makes endpoints of `loop`, which are closed at the end of the test."""
    made = []

    def make(protocol=None, **kwargs):
        protocol = protocol if protocol is not None else Recorder()
        if not kwargs:
            kwargs = {"local_addr": ("127.0.0.1", 0)}
        transport, same = run(loop.create_datagram_endpoint(lambda: protocol, **kwargs))
        assert same is protocol
        made.append((transport, protocol))
        return transport, protocol

    yield make
    if loop.is_closed():
        return
    for transport, _ in made:
        if not transport.is_closing():
            transport.abort()
    spin(loop, 2)
    for _, protocol in made:
        if isinstance(protocol, Recorder):
            assert len(protocol.lost) == 1
            assert protocol.calls[0] == ("made",)
            assert protocol.calls[-1][0] == "lost"


@pytest.fixture
def peer():
    """A plain, bound socket; recv() of what does not come ends by a time-out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(20)
        yield sock


def nowhere():
    """An address at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


def is_empty(sock):
    limit = sock.gettimeout()
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(limit)
    return False


def name_of(transport):
    return transport.get_extra_info("sockname")


def wait(run, predicate):
    run(until(predicate))


@pytest.fixture
def full(loop, endpoint, tmp_path):
    """An endpoint whose socket takes no more: over a Unix socket that nobody reads.

    Gives (transport, protocol, reader, sent): `sent` messages are in the kernel.
    """
    # Where there is no flow control between UDP sockets there is between Unix ones.
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = str(tmp_path / "reader")
    reader.bind(path)
    reader.settimeout(20)
    transport, protocol = endpoint(family=socket.AF_UNIX, remote_addr=path)
    sent = 0
    while transport.get_write_buffer_size() == 0:
        transport.sendto(b"%05d" % sent)
        sent += 1
        assert sent < 100_000
    yield transport, protocol, reader, sent - 1
    reader.close()


@pytest.fixture
def counts(impl):
    if not impl.ours and not STANDARD_COUNTS:
        pytest.skip("this Python's own transport counts wrongly")


# -- sending and receiving ------------------------------------------------------------------


def test_unconnected_pair(endpoint, run):
    one, first = endpoint()
    other, second = endpoint()
    one.sendto(b"hello", name_of(other))
    wait(run, lambda: second.data)
    assert second.calls == [("made",), ("received", b"hello", name_of(one))]
    other.sendto(b"answer", second.senders[0])
    wait(run, lambda: first.data)
    assert first.named("received") == [(b"answer", name_of(other))]


def test_connected(endpoint, run, peer):
    transport, protocol = endpoint(remote_addr=peer.getsockname())
    transport.sendto(b"no address")
    transport.sendto(b"None", None)
    transport.sendto(b"the same", peer.getsockname())
    transport.sendto(b"keyword", addr=peer.getsockname())
    found = [peer.recvfrom(100) for _ in range(4)]
    assert [data for data, _ in found] == [b"no address", b"None", b"the same", b"keyword"]
    assert {sender for _, sender in found} == {name_of(transport)}
    peer.sendto(b"back", name_of(transport))
    wait(run, lambda: protocol.data)
    assert protocol.named("received") == [(b"back", peer.getsockname())]


def test_connected_hears_only_its_peer(endpoint, run, peer):
    transport, protocol = endpoint(remote_addr=peer.getsockname())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"spam", name_of(transport))
    peer.sendto(b"mail", name_of(transport))
    wait(run, lambda: protocol.data)
    run(turns(3))
    assert protocol.data == [b"mail"]


def test_connected_socket_given(endpoint, run, peer):
    """A socket that was connected by somebody else: any address is ignored."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(peer.getsockname())
    transport, protocol = endpoint(sock=sock)
    transport.sendto(b"one")
    transport.sendto(b"two", nowhere())
    assert peer.recv(10) == b"one"
    assert peer.recv(10) == b"two"
    assert protocol.named("error") == []


def test_bound_socket_given(endpoint, run, peer):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    name = sock.getsockname()
    transport, protocol = endpoint(sock=sock)
    assert name_of(transport) == name
    assert sock.gettimeout() == 0
    peer.sendto(b"x", name)
    wait(run, lambda: protocol.data)
    transport.sendto(b"y", protocol.senders[0])
    assert peer.recvfrom(10) == (b"y", name)


@pytest.mark.parametrize("size", [1, 2, 511, 512, 1472, 1473, LARGE, 65507])
def test_sizes(endpoint, run, size):
    one, first = endpoint()
    other, second = endpoint()
    data = os.urandom(size)
    one.sendto(data, name_of(other))
    wait(run, lambda: second.data)
    assert second.data == [data]
    assert type(second.data[0]) is bytes
    assert first.named("error") == []


def test_empty_datagram_received(endpoint, run, peer):
    transport, protocol = endpoint()
    peer.sendto(b"", name_of(transport))
    peer.sendto(b"after", name_of(transport))
    wait(run, lambda: len(protocol.data) == 2)
    assert protocol.named("received") == [
        (b"", peer.getsockname()),
        (b"after", peer.getsockname()),
    ]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("connected", [True, False])
def test_empty_datagram_sent(endpoint, peer, connected, kind):
    kwargs = {"remote_addr": peer.getsockname()} if connected else {}
    transport, _ = endpoint(**kwargs)
    target = None if connected else peer.getsockname()
    transport.sendto(kind(b""), target)
    transport.sendto(b"after", target)
    assert peer.recv(10) == (b"" if SENDS_EMPTY else b"after")


@pytest.mark.skipif(SENDS_EMPTY, reason="empty datagrams are sent like others")
def test_empty_datagram_is_dropped_before_its_address_is_looked_at(endpoint, peer):
    transport, _ = endpoint(remote_addr=peer.getsockname())
    transport.sendto(b"", "nonsense")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_kinds_of_bytes(endpoint, peer, kind):
    transport, _ = endpoint()
    transport.sendto(kind(b"some bytes"), peer.getsockname())
    assert peer.recv(100) == b"some bytes"


def test_subclasses_and_views(endpoint, peer):
    class Bytes(bytes):
        pass

    transport, _ = endpoint()
    for data in (
        Bytes(b"subclass"),
        memoryview(b"0123456789")[2:5],
        memoryview(bytearray(b"abcd")).cast("I"),
    ):
        transport.sendto(data, peer.getsockname())
        assert peer.recv(100) == bytes(data)


@pytest.mark.parametrize("data", ["text", 5, None, [1], [b"x"], object()], ids=plain_repr)
def test_not_bytes(endpoint, peer, data):
    transport, protocol = endpoint(remote_addr=peer.getsockname())
    with pytest.raises(TypeError, match="data argument must be a bytes-like object"):
        transport.sendto(data)
    transport.sendto(b"alive")
    assert peer.recv(10) == b"alive"


def test_arguments(endpoint):
    transport, _ = endpoint()
    with pytest.raises(TypeError):
        transport.sendto()
    with pytest.raises(TypeError):
        transport.sendto(b"x", None, None)
    with pytest.raises(TypeError):
        transport.sendto(b"x", address=None)
    with pytest.raises(TypeError):
        transport.sendto(b"x", data=b"y")


def test_bytearray_is_free_after_sendto(endpoint, peer):
    transport, _ = endpoint()
    data = bytearray(b"before")
    transport.sendto(data, peer.getsockname())
    data[:] = b"changed and resized"
    del data[:]
    assert peer.recv(100) == b"before"


def test_bytearray_is_free_while_an_error_is_told(endpoint):
    data = bytearray(70_000)  # too large for a datagram
    transport, protocol = endpoint(Recorder(error=lambda exc: data.clear()))
    transport.sendto(data, ("127.0.0.1", 9))
    assert len(protocol.named("error")) == 1
    assert data == b""


def test_many_in_order(endpoint, run):
    one, _ = endpoint()
    other, second = endpoint()
    target = name_of(other)

    async def main():
        for i in range(1000):
            one.sendto(b"%d" % i, target)
            if i % 50 == 49:  # no more than the receive buffer of a socket holds
                await until(lambda i=i: len(second.data) == i + 1)

    run(main())
    assert second.data == [b"%d" % i for i in range(1000)]
    assert set(second.senders) == {name_of(one)}


def test_burst_waits_in_the_kernel(endpoint, run, peer):
    """More than one event takes at a time."""
    transport, protocol = endpoint()
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for i in range(200):
        peer.sendto(b"%d" % i, name_of(transport))
    wait(run, lambda: len(protocol.data) == 200)
    assert protocol.data == [b"%d" % i for i in range(200)]


def test_echo_between_two(endpoint, run):
    def echo(data, addr):
        other.sendto(data + b"!", addr)

    one, first = endpoint()
    other, _ = endpoint(Recorder(received=echo))
    for i in range(20):
        one.sendto(b"%d" % i, name_of(other))
    wait(run, lambda: len(first.data) == 20)
    assert first.data == [b"%d!" % i for i in range(20)]


# -- addresses ------------------------------------------------------------------------------


def test_wrong_address_on_a_connected_endpoint(endpoint, peer):
    transport, _ = endpoint(remote_addr=peer.getsockname())
    host, port = peer.getsockname()
    for wrong in ((host, port + 1), ("127.0.0.2", port), (host, port, 0), "text", 5, ()):
        with pytest.raises(ValueError, match=r"Invalid address: must be None or \('127"):
            transport.sendto(b"x", wrong)
    transport.sendto(b"right")
    assert peer.recv(10) == b"right"


def test_address_that_cannot_be_compared(endpoint, peer):
    class Strange:
        def __eq__(self, other):
            raise ZeroDivisionError

    transport, _ = endpoint(remote_addr=peer.getsockname())
    with pytest.raises(ZeroDivisionError):
        transport.sendto(b"x", Strange())


def test_address_given_as_subclasses(endpoint, peer):
    class Pair(tuple):
        pass

    class Text(str):
        pass

    class Number(int):
        pass

    transport, _ = endpoint()
    host, port = peer.getsockname()
    for i, address in enumerate(
        [Pair((host, port)), (Text(host), port), (host, Number(port)), (host.encode(), port)]
    ):
        transport.sendto(b"%d" % i, address)
        assert peer.recv(10) == b"%d" % i


def test_address_objects_again_and_again(endpoint, peer):
    """The same object, an equal one, and one at the place in memory of a dead one."""
    transport, _ = endpoint()
    host, port = peer.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
        second.bind(("127.0.0.1", 0))
        second.settimeout(20)
        other_port = second.getsockname()[1]
        same = (host, port)
        for i in range(50):
            transport.sendto(b"%d" % i, same)
            assert peer.recv(10) == b"%d" % i
            transport.sendto(b"a%d" % i, (host, port))
            assert peer.recv(10) == b"a%d" % i
            transport.sendto(b"b%d" % i, (host, other_port))
            assert second.recv(10) == b"b%d" % i


def test_host_name_as_target(endpoint, run, peer):
    if ("127.0.0.1", 80) not in [
        info[4] for info in socket.getaddrinfo("localhost", 80, socket.AF_INET)
    ]:
        pytest.skip("localhost is no name of 127.0.0.1 here")
    transport, protocol = endpoint()
    for i in range(3):
        transport.sendto(b"%d" % i, ("localhost", peer.getsockname()[1]))
        assert peer.recv(10) == b"%d" % i
    assert protocol.named("error") == []


def test_host_name_when_made(endpoint, peer):
    transport, _ = endpoint(
        remote_addr=("localhost", peer.getsockname()[1]), family=socket.AF_INET
    )
    assert transport.get_extra_info("peername") == peer.getsockname()
    transport.sendto(b"x")
    assert peer.recv(10) == b"x"


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1",), ("127.0.0.1", 1, 2), ["127.0.0.1", 1], ("127.0.0.1", "1"), 5, None],
    ids=plain_repr,
)
def test_target_of_another_shape(endpoint, loop, run, reports, address):
    """As in asyncio: not an OSError, so it ends the endpoint."""
    transport, protocol = endpoint()
    transport.sendto(b"x", address)
    run(turns(2))
    (exc,) = protocol.lost
    assert isinstance(exc, TypeError)
    (report,) = reports
    assert report["exception"] is exc
    assert report["message"] == "Fatal write error on datagram transport"
    assert report["transport"] is transport and report["protocol"] is protocol


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_port_out_of_range(endpoint, run, reports, port):
    transport, protocol = endpoint()
    transport.sendto(b"x", ("127.0.0.1", port))
    run(turns(2))
    assert isinstance(protocol.lost[0], OverflowError)
    assert len(reports) == 1


def test_senders_interleaved(endpoint, run):
    """More peers than any small cache would hold, in changing order."""
    transport, protocol = endpoint()
    peers = []
    try:
        for _ in range(25):
            peers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            peers[-1].bind(("127.0.0.1", 0))
        expected = []
        for turn in range(6):
            for i in range(len(peers)):
                one = peers[(i * 7 + turn * 3) % len(peers)]
                for _ in range(1 + (i + turn) % 3):
                    one.sendto(b"%d" % one.getsockname()[1], name_of(transport))
                    expected.append((b"%d" % one.getsockname()[1], one.getsockname()))
            wait(run, lambda: len(protocol.data) == len(expected))
        assert protocol.named("received") == expected
        # And back, by the objects that were received.
        for data, sender in list(protocol.named("received"))[-40:]:
            transport.sendto(data, sender)
        for one in peers:
            one.setblocking(False)
            while not is_empty(one):
                assert one.recv(10) == b"%d" % one.getsockname()[1]
    finally:
        for one in peers:
            one.close()


@needs_ipv6
def test_ipv6(endpoint, run):
    one, first = endpoint(local_addr=("::1", 0))
    other, second = endpoint(local_addr=("::1", 0))
    assert len(name_of(one)) == 4
    one.sendto(b"four", name_of(other))
    one.sendto(b"two", name_of(other)[:2])
    one.sendto(b"three", name_of(other)[:3])
    one.sendto(b"long", ("0:0:0:0:0:0:0:1", name_of(other)[1]))
    wait(run, lambda: len(second.data) == 4)
    assert second.named("received") == [
        (data, name_of(one)) for data in (b"four", b"two", b"three", b"long")
    ]


@needs_ipv6
def test_ipv6_sender_has_four_fields_whatever_was_sent_to(endpoint, run):
    one, first = endpoint(local_addr=("::1", 0))
    other, second = endpoint(local_addr=("::1", 0))
    port = name_of(other)[1]
    for target in (("::1", port), ("0:0::1", port), ("::1", port, 0)):
        one.sendto(b"ping", target)
        wait(run, lambda: second.data)
        second.calls.clear()
        second.calls.append(("made",))
        other.sendto(b"pong", name_of(one))
        wait(run, lambda: first.data)
        assert first.senders == [("::1", port, 0, 0)]
        first.calls[:] = [("made",)]


@needs_ipv6
def test_ipv6_connected(endpoint, run):
    other, second = endpoint(local_addr=("::1", 0))
    one, first = endpoint(remote_addr=name_of(other)[:2])
    assert one.get_extra_info("peername") == name_of(other)
    one.sendto(b"x")
    wait(run, lambda: second.data)
    other.sendto(b"y", second.senders[0])
    wait(run, lambda: first.data)
    assert first.senders == [name_of(other)]


@needs_ipv6
def test_ipv6_socket_for_both(endpoint, run, peer):
    """An IPv4 address in IPv6 clothes, on a socket that takes both."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    transport, protocol = endpoint(sock=sock)
    peer.sendto(b"x", ("127.0.0.1", name_of(transport)[1]))
    wait(run, lambda: protocol.data)
    assert protocol.senders == [("::ffff:127.0.0.1", peer.getsockname()[1], 0, 0)]
    transport.sendto(b"y", protocol.senders[0])
    assert peer.recv(10) == b"y"


# -- Unix sockets ------------------------------------------------------------------------------


def test_unix(endpoint, run, tmp_path):
    one_path, other_path = str(tmp_path / "one"), str(tmp_path / "other")
    one, first = endpoint(family=socket.AF_UNIX, local_addr=one_path)
    other, second = endpoint(family=socket.AF_UNIX, local_addr=other_path)
    assert name_of(one) == one_path
    one.sendto(b"hello", other_path)
    wait(run, lambda: second.data)
    assert second.named("received") == [(b"hello", one_path)]
    other.sendto(b"answer", second.senders[0])
    wait(run, lambda: first.data)
    assert first.named("received") == [(b"answer", other_path)]


def test_unix_senders_whose_names_are_of_two_lengths(endpoint, run, tmp_path):
    paths = [str(tmp_path / name) for name in ("one", "the other")]
    transport, protocol = endpoint(family=socket.AF_UNIX, local_addr=str(tmp_path / "all"))
    senders = [endpoint(family=socket.AF_UNIX, local_addr=path)[0] for path in paths]
    for i in range(6):
        senders[i % 2].sendto(b"%d" % i, str(tmp_path / "all"))
        wait(run, lambda: len(protocol.data) == i + 1)
    assert protocol.senders == paths * 3


def test_unix_sender_without_a_name(endpoint, run, tmp_path):
    path = str(tmp_path / "socket")
    transport, protocol = endpoint(family=socket.AF_UNIX, local_addr=path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.sendto(b"who?", path)
        expected = one.getsockname() or None
    wait(run, lambda: protocol.data)
    assert protocol.named("received") == [(b"who?", expected)]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has abstract names")
def test_unix_abstract_name(endpoint, run):
    one_name, other_name = f"\0asyncloop-{os.getpid()}-1", f"\0asyncloop-{os.getpid()}-2"
    one, first = endpoint(family=socket.AF_UNIX, local_addr=one_name)
    other, second = endpoint(family=socket.AF_UNIX, local_addr=other_name)
    one.sendto(b"x", other_name)
    wait(run, lambda: second.data)
    assert second.senders == [one_name.encode()]
    other.sendto(b"y", second.senders[0])
    wait(run, lambda: first.data)
    assert first.senders == [other_name.encode()]


def test_unix_connected(endpoint, run, tmp_path):
    paths = [str(tmp_path / name) for name in ("server", "client")]
    server, second = endpoint(family=socket.AF_UNIX, local_addr=paths[0])
    client, first = endpoint(family=socket.AF_UNIX, local_addr=paths[1], remote_addr=paths[0])
    assert client.get_extra_info("peername") == paths[0]
    client.sendto(b"x")
    client.sendto(b"y", paths[0])
    with pytest.raises(ValueError):
        client.sendto(b"z", paths[1])
    wait(run, lambda: len(second.data) == 2)
    server.sendto(b"back", paths[1])
    wait(run, lambda: first.data)
    assert first.named("received") == [(b"back", paths[0])]


def test_unix_large(endpoint, run, tmp_path):
    """Larger than any UDP datagram, if the system allows it."""
    path = str(tmp_path / "socket")
    data = os.urandom(150_000)
    transport, protocol = endpoint(family=socket.AF_UNIX, local_addr=path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(data, path)
        except OSError:
            pytest.skip("not so large here")
    wait(run, lambda: protocol.data)
    assert protocol.data == [data]


def test_unix_target_that_is_gone(endpoint, run, tmp_path):
    transport, protocol = endpoint(
        family=socket.AF_UNIX, local_addr=str(tmp_path / "one")
    )
    transport.sendto(b"x", str(tmp_path / "nobody"))
    ((exc,),) = protocol.named("error")
    assert isinstance(exc, FileNotFoundError)
    assert not transport.is_closing()


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [True, False])
def test_too_large(endpoint, peer, run, connected):
    transport, protocol = endpoint(
        **({"remote_addr": peer.getsockname()} if connected else {})
    )
    target = None if connected else peer.getsockname()
    transport.sendto(bytes(70_000), target)
    ((exc,),) = protocol.named("error")
    assert isinstance(exc, OSError) and exc.errno == errno.EMSGSIZE
    assert not transport.is_closing()
    transport.sendto(b"alive", target)
    assert peer.recv(10) == b"alive"
    run(turns(2))
    assert protocol.lost == []


def test_refused(endpoint, run):
    """The answer of a host on which nobody listens, at a connected socket."""
    transport, protocol = endpoint(remote_addr=nowhere())
    transport.sendto(b"anybody?")
    wait(run, lambda: protocol.named("error"))
    assert [type(exc) for (exc,) in protocol.named("error")] == [ConnectionRefusedError]
    assert not transport.is_closing()
    # The next sendto() may itself be told of a refusal.
    transport.sendto(b"still nobody?")
    wait(run, lambda: len(protocol.named("error")) == 2)
    assert protocol.lost == [] and protocol.data == []
    transport.close()
    run(turns(2))
    assert protocol.lost == [None]


def test_refused_and_then_somebody_listens(endpoint, run):
    target = nowhere()
    transport, protocol = endpoint(remote_addr=target)
    transport.sendto(b"x")
    wait(run, lambda: protocol.named("error"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind(target)
        late.settimeout(20)
        transport.sendto(b"y")
        assert late.recv(10) == b"y"
        late.sendto(b"z", name_of(transport))
        wait(run, lambda: protocol.data)
    assert protocol.data == [b"z"]


def test_not_allowed_to_broadcast(endpoint):
    transport, protocol = endpoint(local_addr=("0.0.0.0", 0))
    transport.sendto(b"x", ("255.255.255.255", 9))
    ((exc,),) = protocol.named("error")
    assert isinstance(exc, OSError)
    assert not transport.is_closing()


def test_error_without_a_handler(endpoint, run, peer):
    """asyncio.DatagramProtocol has an error_received() that does nothing."""
    transport, _ = endpoint(asyncio.DatagramProtocol(), remote_addr=peer.getsockname())
    transport.sendto(bytes(70_000))
    transport.sendto(b"alive")
    assert peer.recv(10) == b"alive"


def raiser(exc):
    def action(*args):
        raise exc

    return action


def test_error_received_raises_in_sendto(endpoint, peer, run):
    transport, protocol = endpoint(
        Recorder(error=raiser(ZeroDivisionError("!"))), remote_addr=peer.getsockname()
    )
    with pytest.raises(ZeroDivisionError):
        transport.sendto(bytes(70_000))
    assert not transport.is_closing()
    transport.sendto(b"alive")
    assert peer.recv(10) == b"alive"


def test_error_received_raises_in_the_loop(endpoint, run, reports):
    exc = ZeroDivisionError("!")
    transport, protocol = endpoint(Recorder(error=raiser(exc)), remote_addr=nowhere())
    transport.sendto(b"x")
    wait(run, lambda: reports)
    assert reports[0]["exception"] is exc
    assert protocol.lost == [] and not transport.is_closing()


def test_datagram_received_raises(endpoint, run, reports, peer):
    """The exception handler is told, and the endpoint goes on."""
    exc = ZeroDivisionError("!")

    def received(data, addr):
        if data == b"bad":
            raise exc

    transport, protocol = endpoint(Recorder(received=received))
    for data in (b"one", b"bad", b"two", b"bad", b"three"):
        peer.sendto(data, name_of(transport))
    wait(run, lambda: len(protocol.data) == 5)
    assert protocol.data == [b"one", b"bad", b"two", b"bad", b"three"]
    assert [report["exception"] for report in reports] == [exc, exc]
    assert protocol.lost == [] and not transport.is_closing()


def test_connection_made_raises(endpoint, run, reports, peer):
    exc = ZeroDivisionError("!")
    transport, protocol = endpoint(Recorder(made=raiser(exc)))
    run(turns(2))
    assert [report["exception"] for report in reports] == [exc]
    peer.sendto(b"x", name_of(transport))
    wait(run, lambda: protocol.data)


def test_connection_lost_raises(endpoint, run, reports):
    exc = ZeroDivisionError("!")
    transport, protocol = endpoint(Recorder(lost=raiser(exc)))
    transport.close()
    run(turns(3))
    assert [report["exception"] for report in reports] == [exc]
    assert transport.get_extra_info("socket").fileno() == -1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_exception_leaves_the_loop(endpoint, loop, run, peer, kind):
    """What has been received by then is not lost, and the order stays."""
    protocol = Recorder()

    def received(data, addr):
        if data == b"1":
            raise kind

    protocol.on["received"] = received
    transport, _ = endpoint(protocol)
    for i in range(6):
        peer.sendto(b"%d" % i, name_of(transport))
    with pytest.raises(kind):
        run(until(lambda: len(protocol.data) == 6))
    assert protocol.data == [b"0", b"1"]
    wait(run, lambda: len(protocol.data) == 6)
    assert protocol.data == [b"%d" % i for i in range(6)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_exception_from_error_received(endpoint, run, kind):
    transport, protocol = endpoint(Recorder(error=raiser(kind)), remote_addr=nowhere())
    transport.sendto(b"x")
    with pytest.raises(kind):
        run(until(lambda: protocol.calls == []))
    assert not transport.is_closing()


# -- flow control --------------------------------------------------------------------------------


def drain(run, protocol, reader, count):
    """Read `count` messages while the loop sends what waits."""

    async def main():
        found = []
        reader.setblocking(False)
        while len(found) < count:
            try:
                found.append(reader.recv(1 << 16))
            except BlockingIOError:
                await asyncio.sleep(0)
        return found

    return run(main())


def queued(transport, sizes):
    header = 8 if PY >= (3, 13) else 0
    return sum(sizes) + header * len(sizes)


def test_buffer(full, run, reports):
    transport, protocol, reader, sent = full
    assert transport.get_write_buffer_size() == queued(transport, [5])
    transport.sendto(b"second")
    assert transport.get_write_buffer_size() == queued(transport, [5, 6])
    found = drain(run, protocol, reader, sent + 2)
    assert found == [b"%05d" % i for i in range(sent + 1)] + [b"second"]
    assert protocol.named("error") == []


def test_what_waits_is_seen_by_the_collector(loop, endpoint, run, tmp_path):
    """The collector goes through the messages that wait, and their addresses."""
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        transport, _ = endpoint(family=socket.AF_UNIX, local_addr=str(tmp_path / "sender"))
        while not transport.get_write_buffer_size():
            transport.sendto(bytes(1000), path)
        gc.collect()
        transport.sendto(b"still open", path)
        transport.abort()
        run(turns(2))


def test_buffer_size_comes_back_to_zero(full, run, counts):
    transport, protocol, reader, sent = full
    for i in range(300):
        transport.sendto(b"x" * i + b"y")
    drain(run, protocol, reader, sent + 301)
    assert transport.get_write_buffer_size() == 0


def test_buffered_bytearrays_are_copies(full, run):
    transport, protocol, reader, sent = full
    data = bytearray(b"as it was")
    transport.sendto(data)
    transport.sendto(memoryview(data)[3:])
    transport.sendto(memoryview(data)[::2])
    data[:] = b"something else"
    found = drain(run, protocol, reader, sent + 4)
    assert found[-3:] == [b"as it was", b"it was", b"a tws"]


def test_empty_datagram_is_buffered_in_its_place(full, run):
    transport, protocol, reader, sent = full
    transport.sendto(b"")
    transport.sendto(b"end")
    expected = [b"", b"end"] if SENDS_EMPTY else [b"end"]
    found = drain(run, protocol, reader, sent + 1 + len(expected))
    assert found[sent + 1 :] == expected


def test_pause_and_resume_writing(full, run, counts):
    transport, protocol, reader, sent = full
    transport.set_write_buffer_limits(high=1000, low=100)
    assert transport.get_write_buffer_limits() == (100, 1000)
    count = 0
    while not protocol.named("pause"):
        transport.sendto(b"z" * 100)
        count += 1
    assert transport.get_write_buffer_size() > 1000
    transport.sendto(b"more")  # paused once
    assert protocol.calls[-1] == ("pause",)
    drain(run, protocol, reader, sent + 1 + count + 1)
    wait(run, lambda: protocol.named("resume"))
    assert [call[0] for call in protocol.calls] == ["made", "pause", "resume"]


def test_resume_writing_sends_more(full, run, counts):
    transport, protocol, reader, sent = full
    transport.set_write_buffer_limits(high=0)
    protocol.on["resume"] = lambda: transport.sendto(b"from resume")
    transport.sendto(b"pause")
    assert protocol.named("pause")
    found = drain(run, protocol, reader, sent + 3)
    assert found[-2:] == [b"pause", b"from resume"]


@pytest.mark.parametrize("which", ["pause", "resume"])
def test_flow_control_raises(full, run, reports, counts, which):
    transport, protocol, reader, sent = full
    exc = ZeroDivisionError("!")
    protocol.on[which] = raiser(exc)
    transport.set_write_buffer_limits(high=0)
    transport.sendto(b"x")
    drain(run, protocol, reader, sent + 2)
    wait(run, lambda: protocol.named("resume"))
    (report,) = reports
    assert report["exception"] is exc
    assert report["message"] == f"protocol.{which}_writing() failed"
    assert protocol.lost == []


def test_buffered_message_fails(full, run):
    """The others go on behind it."""
    transport, protocol, reader, sent = full
    # Too large for the send buffer: found out when its turn comes.
    transport.sendto(bytes(8 << 20))
    transport.sendto(b"behind")
    found = drain(run, protocol, reader, sent + 2)
    assert found[-2:] == [b"%05d" % sent, b"behind"]
    ((exc,),) = protocol.named("error")
    assert exc.errno in (errno.EMSGSIZE, errno.ENOBUFS)


def test_reader_goes_away_while_output_waits(full, run, tmp_path):
    transport, protocol, reader, sent = full
    transport.sendto(b"lost")
    reader.close()
    wait(run, lambda: len(protocol.named("error")) == 2)
    assert all(isinstance(exc, OSError) for (exc,) in protocol.named("error"))
    assert transport.get_write_buffer_size() < 20
    assert not transport.is_closing()


def test_error_received_closes_while_output_waits(full, run):
    transport, protocol, reader, sent = full
    protocol.on["error"] = lambda exc: transport.abort()
    for _ in range(100):
        transport.sendto(b"lost")
    reader.close()
    wait(run, lambda: protocol.lost)
    assert len(protocol.named("error")) == 1


def test_unconnected_output_waits(endpoint, run, tmp_path):
    """With a target for each message, two of them in turn."""
    readers = []
    paths = [str(tmp_path / f"reader{i}") for i in range(2)]
    for path in paths:
        readers.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        readers[-1].bind(path)
        readers[-1].setblocking(False)
    transport, protocol = endpoint(family=socket.AF_UNIX, local_addr=str(tmp_path / "one"))
    count = 0
    while transport.get_write_buffer_size() == 0:
        transport.sendto(b"%d" % count, paths[count % 2])
        count += 1
    for _ in range(100):
        transport.sendto(b"%d" % count, paths[count % 2])
        count += 1
    found = [[], []]

    async def main():
        while sum(map(len, found)) < count:
            for reader, mine in zip(readers, found, strict=True):
                while not is_empty(reader):
                    mine.append(reader.recv(10))
            await asyncio.sleep(0)

    run(main())
    for i in range(2):
        assert found[i] == [b"%d" % n for n in range(i, count, 2)]
        readers[i].close()


def test_limits_checked(endpoint):
    transport, _ = endpoint()
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)


# -- the end -------------------------------------------------------------------------------------


def test_close(endpoint, run, peer):
    transport, protocol = endpoint()
    name = name_of(transport)
    transport.close()
    assert transport.is_closing()
    assert protocol.lost == []  # in the next iteration
    transport.close()
    peer.sendto(b"late", name)
    run(turns(3))
    assert protocol.calls == [("made",), ("lost", None)]
    transport.close()
    transport.abort()
    run(turns(3))
    assert protocol.lost == [None]


def test_close_in_connection_made(endpoint, run):
    protocol = Recorder()
    protocol.on["made"] = lambda: protocol.transport.close()
    endpoint(protocol)
    run(turns(2))
    assert protocol.calls == [("made",), ("lost", None)]


def test_close_in_datagram_received(endpoint, run, peer):
    protocol = Recorder()
    protocol.on["received"] = lambda data, addr: protocol.transport.close()
    transport, _ = endpoint(protocol)
    for i in range(5):
        peer.sendto(b"%d" % i, name_of(transport))
    wait(run, lambda: protocol.lost)
    assert protocol.data == [b"0"]


def test_close_sends_what_waits(full, run):
    transport, protocol, reader, sent = full
    transport.sendto(b"last")
    transport.close()
    run(turns(3))
    assert protocol.lost == []
    transport.sendto(b"very last")  # accepted while the socket is open
    found = drain(run, protocol, reader, sent + 3)
    assert found[-2:] == [b"last", b"very last"]
    wait(run, lambda: protocol.lost)
    assert protocol.lost == [None]


def test_abort_drops_what_waits(full, run):
    transport, protocol, reader, sent = full
    transport.sendto(b"dropped")
    transport.abort()
    assert protocol.lost == []
    run(turns(2))
    assert protocol.lost == [None]
    found = drain(run, protocol, reader, sent)
    assert len(found) == sent and is_empty(reader)


def test_abort_while_closing(full, run):
    transport, protocol, reader, sent = full
    transport.close()
    transport.abort()
    run(turns(2))
    assert protocol.lost == [None]


def test_sendto_after_close(endpoint, run, peer, asyncio_log):
    transport, protocol = endpoint(remote_addr=peer.getsockname())
    transport.close()
    for _ in range(4):
        transport.sendto(b"x")
    run(turns(2))
    assert asyncio_log.take() == []
    transport.sendto(b"x")
    assert asyncio_log.take() == ["socket.send() raised exception."]
    assert is_empty(peer)
    with pytest.raises(TypeError):
        transport.sendto("text")
    with pytest.raises(ValueError):
        transport.sendto(b"x", nowhere())


def test_sendto_between_close_and_the_end(endpoint, run, peer):
    """Without a fixed target it still goes out, until connection_lost()."""
    transport, protocol = endpoint()
    transport.close()
    transport.sendto(b"goodbye", peer.getsockname())
    assert peer.recv(10) == b"goodbye"
    run(turns(2))
    assert protocol.lost == [None]


def test_socket_is_closed(endpoint, loop, run):
    transport, _ = endpoint()
    number = transport.get_extra_info("socket").fileno()
    transport.close()
    spin(loop, 2)
    with pytest.raises(OSError):
        os.fstat(number)
    assert transport.get_extra_info("socket").fileno() == -1


def test_nothing_keeps_protocol_and_transport(loop, run, peer):
    """Reference counting alone frees the protocol once connection_lost() was called."""
    protocol = Recorder()
    transport, _ = run(
        loop.create_datagram_endpoint(lambda: protocol, local_addr=("127.0.0.1", 0))
    )
    for _ in range(3):
        peer.sendto(b"x", name_of(transport))
        transport.sendto(b"y", peer.getsockname())
    wait(run, lambda: len(protocol.data) == 3)
    transport.close()
    spin(loop, 2)
    reference = weakref.ref(protocol)
    with without_collector():
        del protocol
        assert reference() is None


def test_unclosed_transport_warns(loop, run):
    transport, protocol = run(
        loop.create_datagram_endpoint(Recorder, local_addr=("127.0.0.1", 0))
    )
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del transport, protocol
        collect()


def test_cycle_is_collected(loop, run):
    """A transport that nobody holds but its loop stays; without the loop it goes."""
    protocol = Recorder()
    run(loop.create_datagram_endpoint(lambda: protocol, local_addr=("127.0.0.1", 0)))
    reference = weakref.ref(protocol)
    del protocol
    collect()
    assert reference() is not None
    reference().transport.close()
    spin(loop, 2)
    collect()
    assert reference() is None


def test_no_descriptor_is_left(loop, run):
    before = open_descriptors()

    async def main():
        for _ in range(50):
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            transport.sendto(b"x", transport.get_extra_info("sockname"))
            transport.close()
            await asyncio.sleep(0)

    run(main())
    spin(loop, 2)
    after = open_descriptors()
    assert len(after) <= len(before) + 2  # what the loop opens at first use


def test_loop_closes_first(impl):
    """No call and no crash, whatever the order in which things go."""
    check_script(
        impl,
        """
class P(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def connection_lost(self, exc):
        print("lost")
loop = new_event_loop()
transport, protocol = loop.run_until_complete(
    loop.create_datagram_endpoint(P, local_addr=("127.0.0.1", 0)))
address = transport.get_extra_info("sockname")
loop.close()
warnings.simplefilter("ignore")
try:
    transport.sendto(b"x", address)
except Exception:
    pass
try:
    transport.close()
except RuntimeError as exc:
    print(exc)
repr(transport)
del transport, protocol, loop
gc.collect()
print("done")
""",
        "Event loop is closed\ndone",
    )


def test_end_of_the_process_with_open_endpoints(impl):
    check_script(
        impl,
        """
warnings.simplefilter("ignore")
class P(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)
loop = new_event_loop()
async def main():
    global kept
    kept = [await loop.create_datagram_endpoint(P, local_addr=("127.0.0.1", 0)) for _ in range(3)]
    kept[0][0].sendto(b"x", kept[1][0].get_extra_info("sockname"))
    await asyncio.sleep(0.01)
loop.run_until_complete(main())
print("end")
""",
        "end",
    )


# -- reading ------------------------------------------------------------------------------------


def test_pause_reading(endpoint, run, peer):
    transport, protocol = endpoint()
    assert transport.is_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    for i in range(3):
        peer.sendto(b"%d" % i, name_of(transport))
    run(turns(5))
    assert protocol.data == []
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    wait(run, lambda: len(protocol.data) == 3)
    assert protocol.data == [b"0", b"1", b"2"]


def test_pause_in_the_callback(endpoint, run, peer):
    """Not one datagram more, and none is lost."""
    protocol = Recorder()
    protocol.on["received"] = lambda data, addr: protocol.transport.pause_reading()
    transport, _ = endpoint(protocol)
    for i in range(9):
        peer.sendto(b"%d" % i, name_of(transport))
    for i in range(9):
        wait(run, lambda i=i: len(protocol.data) == i + 1)
        run(turns(3))
        assert protocol.data == [b"%d" % n for n in range(i + 1)]
        transport.resume_reading()
    assert set(protocol.senders) == {peer.getsockname()}


def test_pause_and_resume_in_the_callback(endpoint, run, peer):
    protocol = Recorder()

    def received(data, addr):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()

    protocol.on["received"] = received
    transport, _ = endpoint(protocol)
    for i in range(20):
        peer.sendto(b"%d" % i, name_of(transport))
    wait(run, lambda: len(protocol.data) == 20)
    assert protocol.data == [b"%d" % i for i in range(20)]


def test_resume_later_and_more_comes(endpoint, loop, run, peer):
    protocol = Recorder()

    def received(data, addr):
        if int(data) % 3 == 0:
            protocol.transport.pause_reading()
            loop.call_soon(protocol.transport.resume_reading)

    protocol.on["received"] = received
    transport, _ = endpoint(protocol)
    for i in range(60):
        peer.sendto(b"%d" % i, name_of(transport))
        if i % 7 == 0:
            run(turns(1))
    wait(run, lambda: len(protocol.data) == 60)
    assert protocol.data == [b"%d" % i for i in range(60)]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_close_while_paused(endpoint, run, peer, how):
    protocol = Recorder()
    protocol.on["received"] = lambda data, addr: protocol.transport.pause_reading()
    transport, _ = endpoint(protocol)
    for i in range(5):
        peer.sendto(b"%d" % i, name_of(transport))
    wait(run, lambda: protocol.data)
    getattr(transport, how)()
    transport.resume_reading()
    run(turns(3))
    assert protocol.data == [b"0"] and protocol.lost == [None]


def test_pause_in_connection_made(endpoint, run, peer):
    protocol = Recorder()
    protocol.on["made"] = lambda: protocol.transport.pause_reading()
    transport, _ = endpoint(protocol)
    peer.sendto(b"x", name_of(transport))
    run(turns(4))
    assert protocol.data == []
    transport.resume_reading()
    wait(run, lambda: protocol.data)


# -- the protocol --------------------------------------------------------------------------------


def test_set_protocol(endpoint, run, peer):
    transport, first = endpoint()
    assert transport.get_protocol() is first
    second = Recorder()
    second.transport = transport
    peer.sendto(b"1", name_of(transport))
    wait(run, lambda: first.data)
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    peer.sendto(b"2", name_of(transport))
    wait(run, lambda: second.data)
    transport.close()
    run(turns(2))
    assert first.data == [b"1"] and second.calls[0][:2] == ("received", b"2")
    assert second.lost == [None] and first.lost == []
    first.calls.append(("lost", None))  # for the fixture


def test_set_protocol_in_the_callback(endpoint, run, peer):
    first, second = Recorder(), Recorder()
    first.on["received"] = lambda data, addr: first.transport.set_protocol(second)
    transport, _ = endpoint(first)
    for i in range(5):
        peer.sendto(b"%d" % i, name_of(transport))
    wait(run, lambda: len(second.data) == 4)
    assert first.data == [b"0"] and second.data == [b"1", b"2", b"3", b"4"]
    transport.set_protocol(first)


def test_old_protocol_is_let_go(endpoint, run, peer):
    transport, first = endpoint()
    peer.sendto(b"x", name_of(transport))
    wait(run, lambda: first.data)

    class Protocol(asyncio.DatagramProtocol):
        seen = 0

        def datagram_received(self, data, addr):
            Protocol.seen += 1

    one = Protocol()
    transport.set_protocol(one)
    peer.sendto(b"x", name_of(transport))
    wait(run, lambda: Protocol.seen)
    reference = weakref.ref(one)
    transport.set_protocol(first)
    del one
    assert reference() is None


def test_method_replaced(endpoint, run, peer):
    """datagram_received is looked up for each datagram."""
    transport, protocol = endpoint()
    peer.sendto(b"1", name_of(transport))
    wait(run, lambda: protocol.data)
    seen = []
    protocol.datagram_received = lambda data, addr: seen.append((data, addr))
    peer.sendto(b"2", name_of(transport))
    wait(run, lambda: seen)
    assert seen == [(b"2", peer.getsockname())]
    assert protocol.data == [b"1"]


def test_protocol_without_the_method(endpoint, run, peer, reports):
    class Half:
        def connection_made(self, transport):
            pass

        def connection_lost(self, exc):
            pass

    transport, _ = endpoint(Half())
    peer.sendto(b"x", name_of(transport))
    wait(run, lambda: reports)
    assert isinstance(reports[0]["exception"], AttributeError)
    assert not transport.is_closing()


variable = contextvars.ContextVar("variable", default="outside")


def test_context_of_callbacks(loop, run, peer):
    """That of the task which made the endpoint."""
    seen = []

    def note(*args):
        seen.append(variable.get())

    async def main():
        variable.set("inside")
        protocol = Recorder(made=note, received=note, lost=note)
        transport, _ = await loop.create_datagram_endpoint(
            lambda: protocol, local_addr=("127.0.0.1", 0)
        )
        return transport, protocol

    transport, protocol = run(main())
    peer.sendto(b"x", name_of(transport))
    wait(run, lambda: protocol.data)
    assert seen == ["inside", "inside"]
    # connection_lost() is called by what close() schedules: in asyncio in the context of
    # that call, here in the transport's.
    transport.close()
    run(turns(2))
    assert len(seen) == 3


def test_order_of_the_beginning(loop, run):
    """connection_made() comes before the factory's caller goes on."""
    calls = []

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            calls.append("made")

    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            Protocol, local_addr=("127.0.0.1", 0)
        )
        calls.append("returned")
        transport.close()

    run(main())
    spin(loop)
    assert calls == ["made", "returned"]


def test_sendto_in_connection_made(endpoint, peer):
    protocol = Recorder()
    protocol.on["made"] = lambda: protocol.transport.sendto(b"first")
    endpoint(protocol, remote_addr=peer.getsockname())
    assert peer.recv(10) == b"first"


# -- options and information ----------------------------------------------------------------------


def test_is_a_datagram_transport(endpoint, impl):
    transport, _ = endpoint()
    assert isinstance(transport, asyncio.BaseTransport)
    if impl.ours or PY >= (3, 12):  # a mistake of 3.11
        assert isinstance(transport, asyncio.DatagramTransport)


def test_extra_info(endpoint, run, peer):
    transport, _ = endpoint(remote_addr=peer.getsockname())
    sock = transport.get_extra_info("socket")
    assert sock.type == socket.SOCK_DGRAM and sock.family == socket.AF_INET
    assert transport.get_extra_info("sockname") == sock.getsockname()
    assert transport.get_extra_info("peername") == peer.getsockname()
    assert transport.get_extra_info("nothing") is None
    assert transport.get_extra_info("nothing", 5) == 5
    name = name_of(transport)
    transport.close()
    run(turns(2))
    assert transport.get_extra_info("sockname") == name
    assert transport.get_extra_info("peername") == peer.getsockname()


def test_peername_of_an_unconnected_endpoint(endpoint):
    transport, _ = endpoint()
    assert transport.get_extra_info("peername") is None


def test_repr(endpoint, run):
    transport, _ = endpoint()
    fd = transport.get_extra_info("socket").fileno()
    assert f"fd={fd}" in repr(transport)
    assert "read=polling" in repr(transport)
    assert "write=<idle, bufsize=0>" in repr(transport)
    transport.close()
    assert "closing" in repr(transport)
    run(turns(2))
    assert "closed" in repr(transport)


def test_private_attributes(endpoint, run, loop, peer):
    """Those of asyncio's that libraries read."""
    transport, protocol = endpoint(remote_addr=peer.getsockname())
    assert transport._loop is loop
    assert transport._protocol is protocol
    assert transport._address == peer.getsockname()
    assert transport._sock.getsockname() == name_of(transport)
    assert transport._sock_fd == transport._sock.fileno()
    assert transport._conn_lost == 0 and not transport._closing
    assert transport._extra["peername"] == peer.getsockname()
    assert endpoint()[0]._address is None


def test_allow_broadcast(endpoint):
    for allowed in (True, False):
        transport, _ = endpoint(local_addr=("127.0.0.1", 0), allow_broadcast=allowed)
        sock = transport.get_extra_info("socket")
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)) is allowed


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
def test_reuse_port(endpoint, loop, run):
    first, _ = endpoint(local_addr=("127.0.0.1", 0), reuse_port=True)
    second, _ = endpoint(local_addr=name_of(first), reuse_port=True)
    assert name_of(first) == name_of(second)
    with pytest.raises(OSError):
        run(loop.create_datagram_endpoint(Recorder, local_addr=name_of(first)))


def test_address_in_use(endpoint, loop, run):
    transport, _ = endpoint()
    before = open_descriptors()
    with pytest.raises(OSError) as info:
        run(loop.create_datagram_endpoint(Recorder, local_addr=name_of(transport)))
    assert info.value.errno == errno.EADDRINUSE
    assert open_descriptors() == before


def test_family_and_protocol(endpoint):
    transport, _ = endpoint(family=socket.AF_INET, proto=socket.IPPROTO_UDP)
    sock = transport.get_extra_info("socket")
    assert sock.proto == socket.IPPROTO_UDP


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"local_addr": "text"},
        {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 9)},
        {"family": socket.AF_UNIX, "local_addr": 5},
    ],
    ids=["nothing", "text", "two families", "not a path"],
)
def test_wrong_arguments(loop, run, kwargs):
    with pytest.raises((ValueError, TypeError, AssertionError)):
        run(loop.create_datagram_endpoint(Recorder, **kwargs))


def test_stream_socket_refused(loop, run):
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="was expected"):
            run(loop.create_datagram_endpoint(Recorder, sock=sock))


def test_socket_of_another_transport(endpoint, loop):
    transport, _ = endpoint()
    fd = transport.get_extra_info("socket").fileno()
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(fd, print)
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.remove_writer(fd)


def test_debug_mode(endpoint, loop, run, peer, caplog):
    caplog.set_level("DEBUG", "asyncio")
    loop.set_debug(True)
    transport, protocol = endpoint()
    transport.pause_reading()
    transport.resume_reading()
    peer.sendto(b"x", name_of(transport))
    wait(run, lambda: protocol.data)
    transport.sendto(b"y", protocol.senders[0])
    assert peer.recv(10) == b"y"
    for what in ("pauses reading", "resumes reading"):
        assert any(what in message for message in caplog.messages)


def test_loop_run_inside_a_callback(endpoint, impl, run, peer):
    """Another loop, in the same thread, from within datagram_received()."""

    def received(data, addr):
        asyncio._set_running_loop(None)
        try:
            inner = impl.new_event_loop()
            inner.run_until_complete(asyncio.sleep(0))
            inner.close()
        finally:
            asyncio._set_running_loop(outer)

    outer = None

    async def main():
        nonlocal outer
        outer = asyncio.get_running_loop()
        await until(lambda: len(protocol.data) == 6)

    transport, protocol = endpoint(Recorder(received=received))
    for i in range(6):
        peer.sendto(b"%d" % i, name_of(transport))
    run(main())
    assert protocol.data == [b"%d" % i for i in range(6)]
