"""loop.sock_*: on both loops, and what only ours promises."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl
import threading
import weakref

import pytest

from tests.support import listening, tcp_pair, turns, until


@pytest.fixture
def pair():
    """Two connected, non-blocking stream sockets."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


@pytest.fixture
def datagrams():
    """Two UDP sockets, not connected."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(2):
            sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            made.append(sock)
        yield made


def fill(sock):
    """Send until the kernel takes no more; the number of bytes."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += sock.send(b"x" * 65536)
    return total


def drain(sock, count):
    while count > 0:
        count -= len(sock.recv(min(count, 1 << 20)))


# -- receiving --------------------------------------------------------------------------------


def test_recv_at_once(run, loop, pair):
    one, other = pair
    one.send(b"abc")

    async def main():
        return await loop.sock_recv(other, 2), await loop.sock_recv(other, 100)

    assert run(main()) == (b"ab", b"c")


def test_recv_waits(run, loop, pair):
    one, other = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(other, 100))
        await turns(3)
        assert not task.done()
        one.send(b"late")
        return await task

    assert run(main()) == b"late"


def test_recv_end_of_stream(run, loop, pair):
    one, other = pair
    one.close()
    assert run(loop.sock_recv(other, 100)) == b""


@pytest.mark.parametrize("size", [0, 1, 262144, 262145, 1 << 22])
def test_recv_sizes(run, loop, pair, size):
    one, other = pair
    one.send(b"q" * 5)
    data = run(loop.sock_recv(other, size))
    assert data == b"q" * min(size, 5)


@pytest.mark.parametrize("size, error", [(-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_recv_bad_size(run, loop, pair, size, error):
    with pytest.raises(error):
        run(loop.sock_recv(pair[0], size))


def test_recv_into(run, loop, pair):
    one, other = pair
    buffer = bytearray(8)

    async def main():
        task = asyncio.create_task(loop.sock_recv_into(other, memoryview(buffer)[2:5]))
        await turns(2)
        one.send(b"abcdef")
        return await task

    assert run(main()) == 3
    assert buffer == b"\0\0abc\0\0\0"


def test_recv_into_read_only(run, loop, pair):
    with pytest.raises(TypeError):
        run(loop.sock_recv_into(pair[0], b"abc"))


def test_recv_into_holds_no_buffer_while_waiting(run, loop, pair):
    one, other = pair
    buffer = bytearray(2)

    async def main():
        task = asyncio.create_task(loop.sock_recv_into(other, buffer))
        await turns(2)
        buffer.extend(b"..")  # BufferError if it were held
        one.send(b"abcd")
        return await task

    assert run(main()) == 4
    assert buffer == b"abcd"


def test_recvfrom_and_sendto(run, loop, datagrams):
    one, other = datagrams

    async def main():
        task = asyncio.create_task(loop.sock_recvfrom(other, 100))
        await turns(2)
        assert await loop.sock_sendto(one, b"hello", other.getsockname()) == 5
        return await task

    assert run(main()) == (b"hello", one.getsockname())


def test_recvfrom_into(run, loop, datagrams):
    one, other = datagrams
    buffer = bytearray(10)

    async def main():
        one.sendto(b"hello", other.getsockname())
        first = await loop.sock_recvfrom_into(other, buffer)
        one.sendto(b"HELLO", other.getsockname())
        return first, await loop.sock_recvfrom_into(other, buffer, 3)

    first, second = run(main())
    assert first == (5, one.getsockname())
    assert second == (3, one.getsockname())
    assert buffer[:5] == b"HELlo"


def test_recvfrom_empty_datagram(run, loop, datagrams):
    one, other = datagrams
    one.sendto(b"", other.getsockname())
    assert run(loop.sock_recvfrom(other, 100)) == (b"", one.getsockname())


def test_recvfrom_ipv6_and_unix(run, loop, tmp_path):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6")
        sock.setblocking(False)
        sock.sendto(b"6", sock.getsockname())
        assert run(loop.sock_recvfrom(sock, 10)) == (b"6", sock.getsockname())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.setblocking(False)
        sock.sendto(b"u", sock.getsockname())
        assert run(loop.sock_recvfrom(sock, 10)) == (b"u", sock.getsockname())


def test_recvfrom_of_a_stream_has_no_address(run, loop, pair):
    one, other = pair
    one.send(b"x")
    expected = (b"x", None)
    assert run(loop.sock_recvfrom(other, 10)) == expected


# -- sending ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sendall_more_than_the_kernel_takes(run, loop, pair, kind):
    one, other = pair
    data = os.urandom(1 << 20) * 3

    async def main():
        task = asyncio.create_task(loop.sock_sendall(one, kind(data)))
        received = bytearray()
        while len(received) < len(data):
            received += await loop.sock_recv(other, 1 << 16)
        assert await task is None
        return received

    assert run(main()) == data


def test_sendall_nothing(run, loop, pair):
    assert run(loop.sock_sendall(pair[0], b"")) is None


@pytest.mark.parametrize("data", ["text", None, 5])
def test_sendall_bad_data(run, loop, pair, data):
    with pytest.raises(TypeError):
        run(loop.sock_sendall(pair[0], data))


def test_sendall_to_a_closed_peer(run, loop, pair):
    one, other = pair
    other.close()
    with pytest.raises(BrokenPipeError):
        run(loop.sock_sendall(one, b"x"))


def test_sendall_cancelled_while_the_kernel_is_full(run, loop, pair):
    one, other = pair
    filled = fill(one)

    async def main():
        task = asyncio.create_task(loop.sock_sendall(one, b"lost"))
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        drain(other, filled)
        await loop.sock_sendall(one, b"next")
        return await loop.sock_recv(other, 100)

    assert run(main()) == b"next"


# -- connecting and accepting -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connect_and_accept(run, loop, host):
    async def main(server):
        task = asyncio.create_task(loop.sock_accept(server))
        await turns(2)
        with socket.socket() as sock:
            sock.setblocking(False)
            assert await loop.sock_connect(sock, (host, server.getsockname()[1])) is None
            conn, address = await task
            with conn:
                assert type(conn) is socket.socket
                assert conn.gettimeout() == 0
                assert not os.get_inheritable(conn.fileno())
                assert address == sock.getsockname()
                assert (conn.family, conn.type) == (socket.AF_INET, socket.SOCK_STREAM)

    with listening() as server:
        server.setblocking(False)
        run(main(server))


def test_accept_at_once(run, loop):
    with listening() as server:
        server.setblocking(False)
        with socket.create_connection(server.getsockname()) as client:
            conn, address = run(loop.sock_accept(server))
            with conn:
                assert address == client.getsockname()


def test_accept_unix(run, loop, tmp_path):
    path = str(tmp_path / "socket")
    with listening(socket.AF_UNIX, path) as server:
        server.setblocking(False)
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            run(loop.sock_connect(client, path))
            conn, address = run(loop.sock_accept(server))
            with conn:
                assert address == ""
                assert conn.family == socket.AF_UNIX


def test_connect_refused(run, loop):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as caught:
            run(loop.sock_connect(sock, address))
    assert caught.value.errno == errno.ECONNREFUSED
    assert "Connect call failed" in str(caught.value)


def test_connect_unknown_name(run, loop):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(socket.gaierror):
            run(loop.sock_connect(sock, ("name.invalid", 80)))


def test_connect_wrong_family(run, loop):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(socket.gaierror):
            run(loop.sock_connect(sock, ("::1", 80)))


@pytest.mark.parametrize("address", [None, 5, ()])
def test_connect_bad_address(run, loop, address):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises((TypeError, ValueError)):
            run(loop.sock_connect(sock, address))


@pytest.mark.our_loop("asyncio takes the full queue of a listener for success")
def test_connect_unix_waits_for_room(run, loop, tmp_path):
    path = str(tmp_path / "socket")

    async def main(server, stack):
        waiting = []
        for _ in range(8):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            waiting.append(asyncio.create_task(loop.sock_connect(sock, path)))
        for _ in range(8):
            conn, _ = await loop.sock_accept(server)
            stack.enter_context(conn)
        await asyncio.gather(*waiting)

    with listening(socket.AF_UNIX, path, backlog=0) as server, contextlib.ExitStack() as stack:
        server.setblocking(False)
        run(main(server, stack))


# -- cancelling -------------------------------------------------------------------------------


def test_cancelled_recv_leaves_the_data(run, loop, pair):
    one, other = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(other, 100))
        await turns(2)
        task.cancel()
        one.send(b"data")
        with pytest.raises(asyncio.CancelledError):
            await task
        return await loop.sock_recv(other, 100)

    assert run(main()) == b"data"


@pytest.mark.our_loop("asyncio has read the data by then")
@pytest.mark.parametrize("count", range(5))
def test_no_data_lost_whenever_cancelled(run, loop, pair, count):
    one, other = pair

    async def main():
        for _ in range(20):
            task = asyncio.create_task(loop.sock_recv(other, 100))
            await turns(1)
            one.send(b"data")
            await turns(count)
            task.cancel()
            try:
                data = await task
            except asyncio.CancelledError:
                data = await loop.sock_recv(other, 100)
            assert data == b"data"

    run(main())


@pytest.mark.our_loop("asyncio may have accepted it by then")
@pytest.mark.parametrize("count", range(5))
def test_no_connection_lost_whenever_cancelled(run, loop, count):
    async def main(server):
        task = asyncio.create_task(loop.sock_accept(server))
        await turns(1)
        with socket.create_connection(server.getsockname()):
            await turns(count)
            task.cancel()
            try:
                conn, _ = await task
            except asyncio.CancelledError:
                conn, _ = await loop.sock_accept(server)
            conn.close()

    with listening() as server:
        server.setblocking(False)
        run(main(server))


def test_cancelled_connects_leave_nothing(run, loop):
    async def main(server):
        for _ in range(50):
            with socket.socket() as sock:
                sock.setblocking(False)
                task = asyncio.create_task(loop.sock_connect(sock, server.getsockname()))
                await turns(1)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server.getsockname())

    with listening() as server:
        run(main(server))


def test_time_limit(run, loop, pair):
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(pair[0], 10), 0.01)
        pair[1].send(b"x")
        return await asyncio.wait_for(loop.sock_recv(pair[0], 10), 30)

    assert run(main()) == b"x"


# -- a closed socket --------------------------------------------------------------------------


def test_closed_before(run, loop, pair):
    pair[0].close()

    async def main():
        for awaitable in (
            loop.sock_recv(pair[0], 10),
            loop.sock_recv_into(pair[0], bytearray(5)),
            loop.sock_sendall(pair[0], b"x"),
        ):
            with pytest.raises(OSError) as caught:
                await awaitable
            assert caught.value.errno == errno.EBADF

    run(main())


@pytest.mark.our_loop("asyncio waits for ever")
@pytest.mark.parametrize("how", ["close", "os.close", "detach"])
def test_closed_while_waiting(run, loop, pair, how):
    one, other = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(other, 100))
        await turns(2)
        if how == "close":
            other.close()
        else:
            number = other.detach()
            os.close(number)
        with pytest.raises(OSError) as caught:
            await task
        assert caught.value.errno == errno.EBADF

    run(main())


@pytest.mark.our_loop("asyncio waits for ever")
def test_closed_while_waiting_and_the_number_used_again(run, loop, pair):
    one, other = pair

    async def main():
        accepting = asyncio.create_task(loop.sock_recv(other, 100))
        await turns(2)
        number = other.fileno()
        other.close()
        new, peer = socket.socketpair()
        with new, peer:
            assert number in (new.fileno(), peer.fileno())
            new.setblocking(False)
            peer.setblocking(False)
            tasks = [asyncio.create_task(loop.sock_recv(end, 100)) for end in (new, peer)]
            await turns(2)
            new.send(b"to peer")
            peer.send(b"to new")
            assert await asyncio.gather(*tasks) == [b"to new", b"to peer"]
        with pytest.raises(OSError):
            await accepting

    run(main())


def test_closed_by_another_thread(run, loop, pair, thread):
    """Never an abort, whatever the moment."""

    async def main():
        for _ in range(100):
            one, other = socket.socketpair()
            with one, other:
                other.setblocking(False)
                task = asyncio.create_task(loop.sock_recv(other, 10))
                thread(other.close)
                await turns(3)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task

    run(main())


# -- sharing a descriptor ---------------------------------------------------------------------


def test_second_receiver_takes_the_place_of_the_first(run, loop, pair):
    one, other = pair

    async def main():
        first, second = [asyncio.create_task(loop.sock_recv(other, 2)) for _ in range(2)]
        await turns(2)
        one.send(b"abcd")
        assert await second == b"ab"
        await turns(5)
        assert not first.done()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await loop.sock_recv(other, 2)

    assert run(main()) == b"cd"


def test_both_directions_at_once(run, loop, pair):
    one, other = pair
    filled = fill(one)

    async def main():
        sending = asyncio.create_task(loop.sock_sendall(one, b"end"))
        receiving = asyncio.create_task(loop.sock_recv(one, 100))
        await turns(2)
        other.send(b"back")
        assert await receiving == b"back"
        drain(other, filled)
        await sending
        assert await loop.sock_recv(other, 100) == b"end"

    run(main())


def test_descriptor_of_a_transport(run, loop):
    async def main():
        one, other = tcp_pair()
        with other:
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_recv(one, 10)
            transport.close()
            await turns(3)

    run(main())


def test_beside_a_reader_of_the_other_end(run, loop, pair):
    one, other = pair
    seen = []

    async def main():
        loop.add_reader(one, lambda: seen.append(one.recv(10)))
        await loop.sock_sendall(other, b"x")
        await until(lambda: seen)
        assert loop.remove_reader(one)
        one.send(b"y")
        assert await loop.sock_recv(other, 10) == b"y"

    run(main())


# -- arguments and kinds of sockets -----------------------------------------------------------


def test_debug_mode_wants_non_blocking(run, loop, pair):
    loop.set_debug(True)
    pair[0].setblocking(True)

    async def main():
        for awaitable in (
            loop.sock_recv(pair[0], 10),
            loop.sock_recv_into(pair[0], bytearray(5)),
            loop.sock_recvfrom(pair[0], 10),
            loop.sock_recvfrom_into(pair[0], bytearray(5)),
            loop.sock_sendall(pair[0], b"x"),
            loop.sock_sendto(pair[0], b"x", ("127.0.0.1", 9)),
            loop.sock_connect(pair[0], ("127.0.0.1", 9)),
            loop.sock_accept(pair[0]),
        ):
            with pytest.raises(ValueError, match="must be non-blocking"):
                await awaitable

    run(main())


def test_tls_sockets_are_refused(run, loop, pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with context.wrap_socket(pair[0], do_handshake_on_connect=False) as wrapped:
        wrapped.setblocking(False)
        with pytest.raises(TypeError, match="SSLSocket"):
            run(loop.sock_recv(wrapped, 10))
        with pytest.raises(TypeError, match="SSLSocket"):
            run(loop.sock_sendall(wrapped, b"x"))


class Recorder(socket.socket):
    """A subclass whose methods have to be called."""

    calls = ()

    def recv(self, *args):
        self.calls += ("recv",)
        return super().recv(*args)

    def send(self, *args):
        self.calls += ("send",)
        return super().send(*args)


def test_subclass_methods_are_called(run, loop, pair):
    one, other = pair
    with Recorder(fileno=os.dup(one.fileno())) as sock:
        sock.setblocking(False)

        async def main():
            await loop.sock_sendall(sock, b"x")
            assert await loop.sock_recv(other, 10) == b"x"
            task = asyncio.create_task(loop.sock_recv(sock, 10))
            await turns(2)
            other.send(b"y")
            assert await task == b"y"
            filled = fill(other)
            sending = asyncio.create_task(loop.sock_sendall(sock, bytearray(1 << 20)))
            total = 0
            while total < 1 << 20:
                total += len(await loop.sock_recv(other, 1 << 20))
            await sending
            drain(sock, filled)

        run(main())
        assert set(sock.calls) == {"recv", "send"}


@pytest.mark.parametrize("answer", [PermissionError, "no number"])
def test_a_send_of_its_own_fails(run, loop, pair, answer):
    class Own(socket.socket):
        def send(self, data):
            if answer is PermissionError:
                raise answer
            return answer

    with Own(fileno=os.dup(pair[0].fileno())) as sock:
        sock.setblocking(False)
        expected = answer if answer is PermissionError else TypeError
        for data in (b"x", bytearray(b"x")):
            with pytest.raises(expected):
                run(loop.sock_sendall(sock, data))


def test_keyword_arguments(run, loop, pair):
    async def main():
        await loop.sock_sendall(sock=pair[0], data=b"x")
        return await loop.sock_recv(pair[1], n=10)

    assert run(main()) == b"x"


def test_wrong_number_of_arguments(loop, pair):
    for call in (
        lambda: loop.sock_recv(pair[0]),
        lambda: loop.sock_recv(pair[0], 1, 2),
        lambda: loop.sock_sendall(pair[0], b"", other=1),
    ):
        with pytest.raises(TypeError):
            call()


def test_descriptor_that_is_no_socket(run, loop):
    with open(os.devnull, "rb") as file:
        with pytest.raises((AttributeError, TypeError, OSError)):
            run(loop.sock_recv(file, 10))


@pytest.mark.skipif(
    "ASYNCLOOP_LONG_WAYS" in os.environ, reason="a recv() of a program's blocks as its socket does"
)
@pytest.mark.our_loop("asyncio would block")
def test_a_blocking_socket_does_not_block_the_loop(run, loop):
    loop.set_debug(False)  # debug mode refuses it
    one, other = socket.socketpair()
    with one, other, listening() as server:

        async def main():
            tasks = [
                asyncio.create_task(loop.sock_recv(other, 10)),
                asyncio.create_task(loop.sock_accept(server)),
            ]
            await turns(3)
            one.send(b"x")
            with socket.create_connection(server.getsockname()):
                data, (conn, _) = await asyncio.gather(*tasks)
                conn.close()
                assert data == b"x"

        run(main())


# -- as a coroutine ---------------------------------------------------------------------------


def test_is_a_coroutine(run, loop, pair):
    one, other = pair

    async def main():
        one.send(b"abc")
        made = loop.sock_recv(other, 1)
        assert asyncio.iscoroutine(made)
        assert await made == b"a"
        assert await asyncio.create_task(loop.sock_recv(other, 1)) == b"b"
        (last,) = await asyncio.gather(loop.sock_recv(other, 1))
        assert last == b"c"
        with pytest.raises(RuntimeError):
            await made

    run(main())


def test_named_after_the_method(run, loop, pair):
    async def main():
        task = asyncio.create_task(loop.sock_recv(pair[0], 1))
        await turns(1)
        assert "sock_recv" in repr(task)
        assert "sock_recv" in repr(type(loop).sock_recv)
        task.cancel()
        await asyncio.wait([task])

    run(main())


@pytest.mark.our_loop("our own object")
def test_driven_by_hand(loop, pair):
    one, other = pair
    made = loop.sock_recv(other, 10)
    with pytest.raises(TypeError):
        made.send(1)
    future = made.send(None)
    assert asyncio.isfuture(future)
    with pytest.raises(RuntimeError):
        made.send(None)
    with pytest.raises(KeyError):
        made.throw(KeyError("stop"))
    with pytest.raises(RuntimeError):
        made.send(None)
    made.close()
    one.send(b"x")
    with pytest.raises(StopIteration) as caught:
        loop.sock_recv(other, 10).send(None)
    assert caught.value.value == b"x"


@pytest.mark.our_loop("our own object")
def test_cancelling_the_future_stops_watching_at_once(loop, pair):
    one, other = pair
    made = loop.sock_recv(other, 10)
    future = made.send(None)
    future.cancel()
    one.send(b"x")
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    with pytest.raises(asyncio.CancelledError):
        made.send(None)
    assert other.recv(10) == b"x"


@pytest.mark.our_loop("our own object")
def test_waiting_operation_goes_with_its_loop(impl, pair):
    loop = impl.new_event_loop()

    async def main():
        asyncio.create_task(loop.sock_recv(pair[0], 10)).cancel()
        await turns(2)
        return loop.sock_recv(pair[0], 10)

    made = loop.run_until_complete(main())
    future = made.send(None)
    seen = weakref.ref(loop)
    loop.close()
    made.close()
    with pytest.raises(RuntimeError):
        loop.sock_recv(pair[0], 10).send(None)
    del loop, made, future
    gc.collect()
    assert seen() is None


@pytest.mark.our_loop("asyncio does not have them")
def test_messages_with_descriptors(run, loop, pair):
    one, other = pair
    read, write = os.pipe()

    async def main():
        task = asyncio.create_task(loop.sock_recvmsg(other, 100, 1024))
        await turns(2)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, read.to_bytes(4, "little"))]
        assert await loop.sock_sendmsg(one, [b"ab", b"c"], rights) == 3
        return await task

    try:
        data, ancillary, _, _ = run(main())
        assert data == b"abc"
        received = int.from_bytes(ancillary[0][2][:4], "little")
        os.close(received)
    finally:
        os.close(read)
        os.close(write)


def test_many_connections(run, loop):
    """Each gets its own bytes back."""

    async def serve(server, count):
        async def echo(conn):
            with conn:
                while data := await loop.sock_recv(conn, 1000):
                    await loop.sock_sendall(conn, data)

        tasks = []
        for _ in range(count):
            conn, _ = await loop.sock_accept(server)
            tasks.append(asyncio.create_task(echo(conn)))
        await asyncio.gather(*tasks)

    async def client(address, number):
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            for turn in range(20):
                message = f"{number}:{turn}".encode()
                await loop.sock_sendall(sock, message)
                assert await loop.sock_recv(sock, 100) == message

    async def main(server):
        serving = asyncio.create_task(serve(server, 50))
        await asyncio.gather(*(client(server.getsockname(), n) for n in range(50)))
        await serving

    with listening() as server:
        server.setblocking(False)
        run(main(server))


def test_in_another_thread(impl):
    def body():
        loop = impl.new_event_loop()
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.setblocking(False)

            async def main():
                task = asyncio.create_task(loop.sock_recv(other, 10))
                await turns(2)
                await loop.sock_sendall(one, b"x")
                results.append(await task)

            loop.run_until_complete(main())
        loop.close()

    results = []
    threads = [threading.Thread(target=body) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert results == [b"x"] * 4
