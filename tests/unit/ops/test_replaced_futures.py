"""create_future() of a subclass, or of one loop: what asyncio waits in is what it gives."""

import asyncio
import socket
import tempfile

import pytest

from tests.support import listening, turns


class Own(asyncio.Future):
    """Notes what it is given."""

    given = ()

    def set_result(self, result):
        self.given = (result,)
        super().set_result(result)


@pytest.fixture(params=["class", "instance"])
def own_loop(request, impl):
    """A loop and the futures that it has made."""
    made = []

    def create_future(self):
        made.append(Own(loop=self))
        return made[-1]

    if request.param == "class":
        loop = type("L", (impl.Loop,), {"create_future": create_future})()
    else:
        loop = impl.new_event_loop()
        loop.create_future = lambda: create_future(loop)
    yield loop, made
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def fill(sock):
    """Bytes that the socket has taken until it took no more."""
    count = 0
    try:
        while True:
            count += sock.send(b"f" * 65536)
    except BlockingIOError:
        return count


def drain(sock, count):
    while count:
        count -= len(sock.recv(count))


OPERATIONS = {
    "sock_recv": (lambda loop, sock: loop.sock_recv(sock, 9), b"data"),
    "sock_recv_into": (lambda loop, sock: loop.sock_recv_into(sock, bytearray(9)), 4),
    "sock_recvfrom": (lambda loop, sock: loop.sock_recvfrom(sock, 9), (b"data", None)),
    "sock_recvfrom_into": (
        lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(9)),
        (4, None),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_receiving_waits_in_it(own_loop, pair, name):
    loop, made = own_loop
    begin, answer = OPERATIONS[name]

    async def main():
        made.clear()
        task = asyncio.ensure_future(begin(loop, pair[0]))
        await turns(2)
        [waiter] = made
        assert task._fut_waiter is waiter
        pair[1].send(b"data")
        assert await task == answer
        assert waiter.given == (answer,)
        made.clear()
        pair[1].send(b"data")
        assert await begin(loop, pair[0]) == answer
        assert made == []  # nothing had to be waited for

    loop.run_until_complete(main())


def test_sending_waits_in_it(own_loop, pair):
    loop, made = own_loop

    async def main():
        filled = fill(pair[0])
        made.clear()
        task = asyncio.ensure_future(loop.sock_sendall(pair[0], b"more"))
        await turns(2)
        [waiter] = made
        assert task._fut_waiter is waiter
        drain(pair[1], filled)
        await task
        assert waiter.given == (None,)
        assert pair[1].recv(99) == b"more"

    loop.run_until_complete(main())


def test_cancelled(own_loop, pair):
    loop, made = own_loop

    async def main():
        made.clear()
        task = asyncio.ensure_future(loop.sock_recv(pair[0], 9))
        await turns(2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and made[0].cancelled()
        assert loop.remove_reader(pair[0].fileno()) is False
        pair[1].send(b"kept")
        assert await loop.sock_recv(pair[0], 9) == b"kept"

    loop.run_until_complete(main())


def test_connecting_and_accepting(own_loop):
    loop, made = own_loop

    async def main():
        with listening() as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            made.clear()
            task = asyncio.ensure_future(loop.sock_accept(listener))
            await turns(2)
            [accepting] = made
            await loop.sock_connect(client, listener.getsockname())
            assert made[1].given == (None,)
            conn, _ = await task
            conn.close()
            assert accepting.given[0][0] is conn

    loop.run_until_complete(main())


def test_sending_a_file_and_looking_up(own_loop, pair):
    loop, made = own_loop

    async def main():
        with tempfile.TemporaryFile() as file:
            file.write(b"content")
            file.seek(0)
            made.clear()
            assert await loop.sock_sendfile(pair[0], file) == 7
            assert [waiter.given for waiter in made] == [(7,)]
        made.clear()
        assert await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert len(made) == 1

    loop.run_until_complete(main())


def test_a_connection(own_loop):
    """As many as on asyncio: one for sock_connect(), one for each of the two transports."""
    loop, made = own_loop

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        made.clear()
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()
        )
        while len(made) < 3:
            await asyncio.sleep(0)
        await turns(3)
        assert [waiter.given for waiter in made] == [(None,)] * 3
        transport.abort()
        server.close()
        await turns(3)

    loop.run_until_complete(main())
