"""What write() was given is with the kernel when it returns, if the kernel takes it: whatever the
process does next, it arrives, once, in order, and before what is done to the socket later."""

import asyncio
import contextlib
import os
import random
import socket
import struct
import sys
import time

import pytest

from tests.protocols import Sender
from tests.support import check_script, script, turns, until

LINUX = sys.platform == "linux"

PAIR = """
def pair(kind):
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = socket.create_connection(server.getsockname())
            two = server.accept()[0]
        return one, two
    return socket.socketpair()
"""

CHILD = PAIR + script("another_way")


@pytest.mark.parametrize("before", ["single", "burst"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(
    "how",
    [
        "exit",
        "two",
        "exec",
        "kill",
        "closed",
        "raise",
        "close",
        "abort",
        "eof",
        "stop",
        "fork-exit",
        "fork-run",
        "fork-close",
        "fork-closes-loop",
        "fork-drop",
    ],
)
def test_the_process_goes_another_way(impl, kind, how, before):
    """The peer gets each byte once, and then the end."""
    check_script(impl, CHILD, "ok", args=(kind, how, before), flags=())


BLOCKED = (
    PAIR
    + """
one, two = pair(sys.argv[1])
one.setblocking(False)
two.settimeout(20)
got = []
def read():
    while len(b"".join(got)) < 5:
        got.append(two.recv(100))
    there.set()
there = threading.Event()
thread = threading.Thread(target=read)
thread.start()
async def main():
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=one)
    transport.write(b"a")
    transport.write(b"b")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    transport.write(b"cde")
    assert there.wait(20)                     # no other turn of the loop comes
    transport.abort()
    await asyncio.sleep(0)
loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
thread.join()
two.close()
assert b"".join(got) == b"abcde", got
print("ok")
"""
)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_callback_that_waits_for_the_peer(impl, kind):
    check_script(impl, BLOCKED, "ok", args=(kind,))


# -- in one process -----------------------------------------------------------------


def make_pair(kind):
    if kind == "unix":
        one, two = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = socket.create_connection(server.getsockname())
            two = server.accept()[0]
    one.setblocking(False)
    two.setblocking(False)
    return one, two


async def written(kind, pieces=3):
    """A transport that is expected to be written to so often in a callback, and its plain peer."""
    one, two = make_pair(kind)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Sender, sock=one)
    for _ in range(2):
        for number in range(pieces):
            transport.write(b"%d" % (number % 10))
        await turns(2)
        assert await receive(two, pieces) == b"".join(b"%d" % (n % 10) for n in range(pieces))
    await turns(2)
    return transport, protocol, two


async def receive(sock, count):
    """As many bytes as that, or what comes before the end."""
    got = b""
    while len(got) < count:
        data = await asyncio.get_running_loop().sock_recv(sock, count - len(got))
        if not data:
            break
        got += data
    return got


async def finish(transport, protocol, peer):
    transport.abort()
    await until(lambda: "lost" in protocol.events)
    peer.close()


@pytest.fixture(params=["tcp", "unix"])
def kind(request):
    return request.param


def test_shutdown_through_the_socket(run, kind):
    async def main():
        transport, protocol, peer = await written(kind)
        transport.write(b"x")
        transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        assert await receive(peer, 10) == b"x"
        await finish(transport, protocol, peer)

    run(main())


def test_send_through_a_duplicate(run, kind):
    async def main():
        transport, protocol, peer = await written(kind)
        with transport.get_extra_info("socket").dup() as other:
            transport.write(b"x")
            other.send(b"y")
            transport.write(b"z")
            os.write(other.fileno(), b"0")
            transport.write(b"1")
        assert await receive(peer, 5) == b"xyz01"
        await finish(transport, protocol, peer)

    run(main())


def test_sendfile(run, kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"file" * 1000)

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, peer = await written(kind)
        transport.write(b"<")
        with path.open("rb") as file:
            await loop.sendfile(transport, file)
        transport.write(b">")
        assert await receive(peer, 4002) == b"<" + b"file" * 1000 + b">"
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("then", ["close", "abort", "write_eof"])
def test_the_end_with_unread_input(run, kind, then):
    """The end of the connection drops nothing that was written before."""

    async def main():
        transport, protocol, peer = await written(kind)
        transport.pause_reading()
        peer.send(b"never read")
        await turns(3)
        transport.write(b"x")
        getattr(transport, then)()
        assert await receive(peer, 1) == b"x"
        transport.abort()
        await until(lambda: protocol.events)
        peer.close()

    run(main())


@pytest.mark.filterwarnings("ignore")
def test_dropped_in_its_callback(run, kind):
    async def main():
        transport, protocol, peer = await written(kind)
        transport.pause_reading()
        peer.send(b"never read")
        await turns(3)
        transport.write(b"x")
        protocol.transport = None
        del transport, protocol
        assert await receive(peer, 1) == b"x"
        peer.close()

    run(main())


def test_others_are_not_held_up(run, kind):
    """Several connections that are written to in turn."""

    async def main():
        three = [await written(kind) for _ in range(3)]
        for number in range(7):
            for transport, _, _ in three:
                transport.write(b"%d" % number)
        for transport, protocol, peer in three:
            assert await receive(peer, 7) == b"0123456"
            await finish(transport, protocol, peer)

    run(main())


@pytest.mark.skipif(not LINUX, reason="an option of Linux")
def test_a_burst_leaves_together(run):
    """Head and body in one segment wake their reader once.

    On asyncio each leaves on its own, which a reader mostly sees, but need not.
    """

    async def main():
        transport, protocol, peer = await written("tcp", 2)
        together = 0
        for _ in range(20):
            transport.write(b"head")
            transport.write(b"body")
            data = await asyncio.get_running_loop().sock_recv(peer, 100)
            together += data == b"headbody"
            if len(data) < 8:
                data += await receive(peer, 8 - len(data))
            assert data == b"headbody"
            await turns(1)
        assert together >= 10
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.skipif("ASYNCLOOP_LONG_WAYS" in os.environ, reason="to hold them is a short way")
@pytest.mark.our_loop("asyncio's segments are one for each write")
@pytest.mark.skipif(not LINUX, reason="an option of Linux")
def test_count_of_segments(run):
    def segments(sock):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        return struct.unpack_from("=I", info, 156)[0]  # tcpi_data_segs_out

    async def main():
        for pieces, count in ((2, 1), (5, 1), (100, 1)):
            transport, protocol, peer = await written("tcp", pieces)
            sock = transport.get_extra_info("socket")
            before = segments(sock)
            for number in range(pieces):
                transport.write(b"x")
            assert await receive(peer, pieces) == b"x" * pieces
            assert segments(sock) - before == count
            before = segments(sock)
            transport.write(b"y")  # and less than was expected
            assert await receive(peer, 1) == b"y"
            assert segments(sock) - before == 1
            await finish(transport, protocol, peer)

    run(main())


@pytest.mark.skipif(not LINUX, reason="options of Linux")
@pytest.mark.parametrize("nodelay", [0, 1])
@pytest.mark.parametrize("cork", [0, 1])
def test_options_of_the_user(run, nodelay, cork):
    """They stay what they are, and do what they do."""

    async def main():
        transport, protocol, peer = await written("tcp")
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, cork)
        for count in (1, 3, 2, 5, 1, 1, 4):
            for number in range(count):
                transport.write(b"%d" % number)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == nodelay
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == cork
            await turns(2)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == nodelay
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == cork
            if cork:
                with pytest.raises(BlockingIOError):
                    peer.recv(100)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            expected = b"".join(b"%d" % number for number in range(count))
            assert await receive(peer, count) == expected
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, cork)
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.skipif(not LINUX or not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="of Linux")
def test_what_was_not_sent_may_be_limited(run):
    """What the kernel holds leaves no room by itself: more is taken all the same."""

    async def main():
        transport, protocol, peer = await written("tcp", 10)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1)
        for number in range(10):
            transport.write(b"%04d" % number * 1000)
        assert transport.get_write_buffer_size() == 0
        assert await receive(peer, 40_000) == b"".join(b"%04d" % n * 1000 for n in range(10))
        await finish(transport, protocol, peer)

    run(main())


def test_another_file_in_its_place(run):
    """dup2() puts a Unix socket where the TCP socket was."""

    async def main():
        transport, protocol, peer = await written("tcp")
        one, two = make_pair("unix")
        os.dup2(one.fileno(), transport.get_extra_info("socket").fileno())
        one.close()
        for count in (3, 1, 5, 2):
            for number in range(count):
                transport.write(b"%d" % number)
            assert await receive(two, count) == b"01234"[:count]
        two.close()
        peer.close()
        transport.abort()
        await until(lambda: protocol.events)

    run(main())


def test_from_another_thread(run):
    """Nothing waits for a step that is not under way (and asyncio has no such guarantee either)."""

    async def main():
        transport, protocol, peer = await written("tcp")
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        await loop.run_in_executor(None, transport.write, b"x")
        assert await receive(peer, 1) == b"x"
        assert time.monotonic() - started < 30
        await finish(transport, protocol, peer)

    if getattr(sys, "_is_gil_enabled", lambda: True)():
        run(main())


def test_nothing_left_behind_by_an_old_connection(run, kind):
    """A descriptor's number goes to another connection within one callback."""

    async def main():
        first = await written(kind)
        second = await written(kind)
        first[0].write(b"x")
        first[0].get_extra_info("socket")._sock.close()
        second[0].write(b"y")
        second[0].write(b"z")
        assert await receive(first[2], 2) == b"x"
        assert await receive(second[2], 2) == b"yz"
        await finish(*second)
        first[0].abort()
        await until(lambda: first[1].events)
        first[2].close()

    run(main())


@pytest.mark.our_loop("a switch of the core")
@pytest.mark.parametrize("seed", range(1, 6))
def test_at_random_with_short_transfers(run, kind, seed):
    _core = pytest.importorskip("asyncloop._core")

    async def main():
        rng = random.Random(seed)
        one, peer = make_pair(kind)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(Sender, sock=one)
        wrote, got = bytearray(), bytearray()
        for _ in range(150):
            for _ in range(rng.choice([0, 1, 2, 2, 3, 3, 3, 8])):
                piece = rng.randbytes(rng.choice([1, 10, 300, 17_000]))
                wrote += piece
                if rng.randrange(4) == 0:
                    transport.writelines([piece[:5], bytearray(piece[5:])])
                else:
                    transport.write(rng.choice([bytes, bytearray, memoryview])(piece))
            await turns(rng.randrange(3))
            with contextlib.suppress(BlockingIOError):
                got += peer.recv(1 << 16)
        transport.close()
        while data := await loop.sock_recv(peer, 1 << 16):
            got += data
        assert got == wrote
        await until(lambda: "lost" in protocol.events)
        assert protocol.lost is None
        peer.close()

    _core._io_set_flaky(seed)
    try:
        run(main())
    finally:
        _core._io_set_flaky(0)


# -- output that waits, and fork() -----------------------------------------------------

WAITING = PAIR + script("output_waits")


@pytest.mark.parametrize("how", ["run", "write", "close", "abort"])
def test_a_child_drops_what_waits(impl, kind, how):
    """asyncio's child sends it once more if it runs the loop: there it does not."""
    check_script(impl, WAITING, "ok", args=(kind, how), flags=())
