"""What a program leaves open when it closes the loop, and when each of it goes.

Whatever the loop itself has held is let go of by close(): transports, servers, callbacks, pending
operations. A program that holds something of it has it longer. Everything is warned of.
"""

import asyncio
import gc
import os
import signal
import socket
import warnings
from contextlib import suppress

import pytest

from tests.support import PY, check_script, open_descriptors, without_collector

CASES = {}
KINDS = "<socket.socket", "transport", "<StreamWriter"  # as warnings of what was not closed say


def case(*left):
    """A coroutine function(loop, other): what it leaves open is of these kinds.

    `other` closes, in the end, what the test itself has to do with it.
    """

    def register(function):
        CASES[function.__name__] = function, left
        return function

    return register


def pair(other, blocking=False):
    """One end of a pair of sockets; the other one is the test's."""
    one, far = socket.socketpair()
    one.setblocking(blocking)
    other.append(far)
    return one


def pipe(other, mode):
    reader, writer = os.pipe()
    other.append(os.fdopen(*((writer, "wb", 0) if mode == "rb" else (reader, "rb", 0))))
    return os.fdopen(reader if mode == "rb" else writer, mode, 0)


@case("<socket.socket")
async def server(loop, other):
    await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)


@case("<socket.socket")
async def server_not_started(loop, other):
    await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)


@case("<socket.socket", "transport")
async def server_and_connection(loop, other):
    made = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            made.set_result(None)

    listener = await loop.create_server(Server, "127.0.0.1", 0)
    other.append(socket.create_connection(listener.sockets[0].getsockname()))
    await made


@case("<socket.socket", "transport")
async def stream_server(loop, other):
    made = loop.create_future()

    async def serve(reader, writer):
        made.set_result(None)
        await reader.read()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    other.append(socket.create_connection(listener.sockets[0].getsockname()))
    await made


@case("transport")
async def connection(loop, other):
    await loop.create_connection(asyncio.Protocol, sock=pair(other))


@case("transport")
async def connection_with_output(loop, other):
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair(other))
    transport.write(bytes(10_000_000))


@case("transport")
async def connection_that_closes(loop, other):
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair(other))
    transport.write(bytes(10_000_000))
    transport.close()


@case("transport")
async def connection_that_pauses(loop, other):
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair(other))
    transport.pause_reading()


@case("transport")
async def connection_aborted_last(loop, other):
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair(other))
    transport.abort()
    loop.stop()


@case("<StreamWriter")
async def stream_connection(loop, other):
    _, writer = await asyncio.open_connection(sock=pair(other))
    writer.write(b"text")


@case("transport")
async def datagrams(loop, other):
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))


@case("transport")
async def datagrams_closed_last(loop, other):
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    transport.close()
    loop.stop()


@case("transport")
async def read_pipe(loop, other):
    await loop.connect_read_pipe(asyncio.Protocol, pipe(other, "rb"))


@case("transport")
async def write_pipe(loop, other):
    await loop.connect_write_pipe(asyncio.BaseProtocol, pipe(other, "wb"))


@case("transport")
async def write_pipe_with_output(loop, other):
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, pipe(other, "wb"))
    transport.write(bytes(1_000_000))


@case("transport")
async def read_pipe_closed_last(loop, other):
    transport, _ = await loop.connect_read_pipe(asyncio.Protocol, pipe(other, "rb"))
    transport.close()
    loop.stop()


@case("<socket.socket")
async def sock_recv(loop, other):
    async def receive(sock):
        await loop.sock_recv(sock, 10)

    loop.create_task(receive(pair(other)))
    await asyncio.sleep(0)


@case("<socket.socket")
async def sock_sendall(loop, other):
    async def send(sock):
        await loop.sock_sendall(sock, bytes(10_000_000))

    loop.create_task(send(pair(other)))
    await asyncio.sleep(0)


@case("<socket.socket")
async def sock_accept(loop, other):
    async def accept():
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        await loop.sock_accept(sock)

    loop.create_task(accept())
    await asyncio.sleep(0)


@case("<socket.socket")
async def reader_and_writer(loop, other):
    sock = pair(other)
    loop.add_reader(sock, id, sock)
    loop.add_writer(sock.fileno(), id, sock)


@case("<socket.socket")
async def soon(loop, other):
    loop.call_soon(id, pair(other))
    loop.stop()


@case("<socket.socket")
async def later(loop, other):
    loop.call_later(1000, id, pair(other))


@case("<socket.socket")
async def from_a_thread(loop, other):
    loop.call_soon_threadsafe(id, pair(other))
    loop.stop()


@case("<socket.socket")
async def signal_handler(loop, other):
    loop.add_signal_handler(signal.SIGUSR1, id, pair(other))


@case("<socket.socket")
async def executor(loop, other):
    await loop.run_in_executor(None, id, pair(other))


@case("<socket.socket")
async def asynchronous_generator(loop, other):
    async def values(sock):
        yield sock

    generator = values(pair(other))
    await anext(generator)
    other.append(generator)  # until the loop is closed


@case("transport")
async def tls_handshake(loop, other):
    import ssl

    loop.create_task(
        loop.create_connection(
            asyncio.Protocol,
            sock=pair(other),
            ssl=ssl.create_default_context(),
            server_hostname="localhost",
        )
    )
    await asyncio.sleep(0.01)


def leave_open(loop, function, other):
    with suppress(RuntimeError):  # stopped before the coroutine is done
        loop.run_until_complete(function(loop, other))
    loop.close()


def new_descriptors(before, other):
    mine = {end.fileno() for end in other}
    return {
        fd: what
        for fd, what in open_descriptors().items()
        if before.get(fd) != what and fd not in mine
    }


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("held", [True, False], ids=["loop-held", "loop-dropped"])
def test_nothing_outlives_close(impl, asyncio_log, unraisable, name, held):
    """After close() and a collection nothing is open, whether or not somebody has the loop."""
    function, left = CASES[name]
    other = []
    gc.collect()
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = impl.new_event_loop()
        leave_open(loop, function, other)
        other = [end for end in other if hasattr(end, "fileno")]
        if not held:
            del loop
        gc.collect()
        opened = new_descriptors(before, other)
    for end in other:
        end.close()
    asyncio_log.take()  # of tasks that were pending
    assert not opened
    told = {kind for kind in KINDS if any(f"unclosed {kind}" in str(w.message) for w in caught)}
    # A transport that the collector finds on the standard loop has its socket tell of it as well.
    assert told >= set(left)
    assert told - {"<socket.socket"} == set(left) - {"<socket.socket"}


@pytest.mark.parametrize("name", ["server", "server_not_started", "unix_server", "server_failed"])
def test_listening_socket_goes_with_close(impl, tmp_path, name):
    """At once, without the collector: the next loop can have the same port or path."""

    class Failure(Exception):
        pass

    def factory():
        raise Failure

    async def serve(loop, address):
        if name == "unix_server":
            await loop.create_unix_server(asyncio.Protocol, address)
            return
        server = await loop.create_server(
            factory if name == "server_failed" else asyncio.Protocol,
            *address,
            start_serving=name != "server_not_started",
        )
        if name == "server_failed":
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                sock.setblocking(False)
                assert await loop.sock_recv(sock, 1) == b""

    address = str(tmp_path / "socket")
    if name != "unix_server":
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = sock.getsockname()
    loops = []
    with without_collector(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        before = open_descriptors()
        for _ in range(3):
            loop = impl.new_event_loop()
            loops.append(loop)
            loop.run_until_complete(serve(loop, address))
            loop.close()
            # The standard loop has a table of Unix sockets from 3.13 on, which it does not empty.
            if impl.ours or name != "unix_server" or PY < (3, 13):
                assert open_descriptors() == before
        loops.clear()
        del loop
        gc.collect()


@pytest.mark.skipif(PY < (3, 13), reason="the path of a Unix server stays")
def test_path_goes_with_a_server_closed_after_its_loop(impl, tmp_path):
    path = tmp_path / "socket"
    loop = impl.new_event_loop()
    server = loop.run_until_complete(loop.create_unix_server(asyncio.Protocol, path))
    loop.close()
    assert path.exists()
    server.close()
    assert not path.exists()


def test_server_used_after_the_loop_was_closed(impl):
    """Somebody holds the Server: it has its sockets as long as he wants, and can be closed."""
    loop = impl.new_event_loop()
    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    loop.close()
    [sock] = server.sockets
    assert sock.fileno() >= 0 and server.is_serving()
    server.close()
    server.close()
    assert server.sockets == () and not server.is_serving()
    assert sock.fileno() == -1


def test_loop_closed_from_the_end_of_what_it_held(impl):
    """What close() drops may ask the loop for things while it goes."""
    told = []

    class Asks:
        def __init__(self, loop):
            self.loop = loop

        def __call__(self, *args):
            return asyncio.Protocol()

        def __del__(self):
            told.append(self.loop.is_closed())
            self.loop.close()
            try:
                self.loop.call_soon(id)
            except RuntimeError as error:
                told.append(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = impl.new_event_loop()
        loop.run_until_complete(loop.create_server(Asks(loop), "127.0.0.1", 0))
        loop.close()
        gc.collect()
    assert told == [True, "Event loop is closed"]


CHILD = """
import subprocess
async def main(loop):
    pipe = subprocess.PIPE if "pipes" in sys.argv else None
    transport, _ = await loop.subprocess_exec(
        asyncio.SubprocessProtocol, sys.executable, "-c", "input()",
        stdin=subprocess.PIPE, stdout=pipe, stderr=pipe)
    return transport.get_pid()
def count():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
before = count()
loop = new_event_loop()
pid = loop.run_until_complete(main(loop))
loop.close()
assert count() == before, os.listdir("/proc/self/fd")
os.waitpid(pid, 0)    # its input ends
print("ended")
"""


@pytest.mark.our_loop("a child watcher keeps a transport of the standard loop until the child ends")
@pytest.mark.parametrize("pipes", ["pipes", "input"])
def test_child_process(impl, pipes):
    """A process goes on when the loop is closed, but nothing here is left of it."""
    check_script(impl, CHILD, "ended", args=[pipes], flags=("-W", "ignore"))
