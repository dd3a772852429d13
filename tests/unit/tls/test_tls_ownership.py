"""TLS: whose memory it is, whose bytes, and whose process.

Connections of one loop lie above and inside each other here: what comes out at the far end is
compared byte for byte with what went in, and each piece names its connection.
"""

import asyncio
import contextlib
import random
import ssl
import struct

import pytest

from tests.support import PY, check_script, turns, until

from .tls_below import InPython

pytestmark = pytest.mark.usefixtures("engine")

TIMEOUT = 20


class Tunnel(InPython):
    """A channel over another transport, with a frame around each piece, as multiplexers have."""

    def __init__(self, lower, split=False):
        super().__init__()
        self.lower, self.split = lower, split

    def write(self, data):
        header = struct.pack("!I", len(data))
        if not self.split:
            self.lower.write(header)
            self.lower.write(data)
            return
        for start in range(0, len(data), 1000):
            piece = data[start : start + 1000]
            self.lower.writelines([struct.pack("!I", len(piece)), piece])

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def close(self):
        self.finish(None)

    def abort(self):
        self.finish(None)

    def _force_close(self, exc):
        self.finish(exc)

    def finish(self, exc):
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)


class Frames(asyncio.Protocol):
    """Takes the frames apart for a Tunnel; what comes before is `greeting`."""

    def __init__(self):
        self.buffer = b""
        self.tunnel = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        while self.tunnel is not None and len(self.buffer) >= 4:
            (size,) = struct.unpack("!I", self.buffer[:4])
            if len(self.buffer) < 4 + size:
                return
            frame, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]
            self.tunnel.give(frame)

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(exc)


class Receiver(asyncio.Protocol):
    def __init__(self):
        self.data = bytearray()
        self.events = []

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.events.append(("lost", exc))


class BufferedReceiver(Receiver, asyncio.BufferedProtocol):
    size = 1000

    def get_buffer(self, hint):
        self.buffer = memoryview(bytearray(self.size))
        return self.buffer

    def buffer_updated(self, n):
        self.data += self.buffer[:n]


class StreamReceiver(asyncio.StreamReaderProtocol):
    """Into a StreamReader, from which a task takes it."""

    def __init__(self):
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self.data = bytearray()
        self.events = []
        self.task = asyncio.get_running_loop().create_task(self.take())

    async def take(self):
        with contextlib.suppress(OSError):
            while data := await self.reader.read(50_000):
                self.data += data


async def outer_pair(stack, contexts, secure=True):
    """Two ends of a connection in this loop: (transport, Frames) of each."""
    loop = asyncio.get_running_loop()
    made = []
    server_context, client_context = contexts
    server = await loop.create_server(
        lambda: made.append(Frames()) or made[-1],
        "127.0.0.1",
        0,
        ssl=server_context if secure else None,
    )
    stack.callback(server.close)
    client, frames = await loop.create_connection(
        Frames,
        *server.sockets[0].getsockname(),
        ssl=client_context if secure else None,
        server_hostname="localhost" if secure else None,
    )
    await until(lambda: made and hasattr(made[0], "transport"))
    stack.callback(client.abort)
    stack.callback(made[0].transport.abort)
    return (client, frames), (made[0].transport, made[0])


async def inside(ends, contexts, receiver, split):
    """TLS inside the connection: (transport, protocol) of each end."""
    loop = asyncio.get_running_loop()
    (client, client_frames), (server, server_frames) = ends
    client_frames.tunnel = Tunnel(client, split)
    server_frames.tunnel = Tunnel(server, split)
    protocols = receiver(), receiver()
    transports = await asyncio.wait_for(
        asyncio.gather(
            loop.start_tls(
                client_frames.tunnel, protocols[0], contexts[1], server_hostname="localhost"
            ),
            loop.start_tls(
                server_frames.tunnel, protocols[1], contexts[0], server_side=True
            ),
        ),
        TIMEOUT,
    )
    return list(zip(transports, protocols))


def pieces_of(name, count, size):
    return [(b"%s%d," % (name, i) * size)[:size] for i in range(count)]


RECEIVERS = [Receiver, BufferedReceiver, StreamReceiver]


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("split", [False, True])
def test_tls_in_a_tunnel_in_tls(run, contexts, receiver, split):
    """The tunnel writes a header and a piece into the outer connection for each inner output."""

    async def main():
        with contextlib.ExitStack() as stack:
            ends = await outer_pair(stack, contexts)
            (one, got_one), (two, got_two) = await inside(ends, contexts, receiver, split)
            there = pieces_of(b"there", 400, 1000)
            back = pieces_of(b"back", 50, 40_000)
            one.write(b"!")
            one.writelines(there)
            for piece in back:
                two.write(bytearray(piece))
            one.writelines(there)
            await until(lambda: len(got_two.data) >= 1 + 800_000)
            await until(lambda: len(got_one.data) >= 2_000_000)
            assert got_two.data == b"!" + b"".join(there) * 2
            assert got_one.data == b"".join(back)
            one.abort()
            two.abort()
            await turns(4)
            for protocol in (got_one, got_two):
                if hasattr(protocol, "task"):
                    await protocol.task

    run(main())


class Level:
    """A TLS connection directly over another one, both ends in this loop."""

    async def build(self, ends, contexts, make):
        loop = asyncio.get_running_loop()
        self.protocols = make(), make()
        self.transports = await asyncio.wait_for(
            asyncio.gather(
                loop.start_tls(
                    ends[0], self.protocols[0], contexts[1], server_hostname="localhost"
                ),
                loop.start_tls(ends[1], self.protocols[1], contexts[0], server_side=True),
            ),
            TIMEOUT,
        )
        return self


@pytest.mark.our_loop("asyncio has no _force_close() that can end TLS in TLS up to 3.12")
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_tls_in_tls_in_tls(run, contexts, receiver):
    async def main():
        with contextlib.ExitStack() as stack:
            (one, _), (two, _) = await outer_pair(stack, contexts)
            second = await Level().build((one, two), contexts, Receiver)
            third = await Level().build(second.transports, contexts, receiver)
            there = pieces_of(b"there", 300, 700)
            large = b"".join(pieces_of(b"large", 30, 30_000))
            for transport in third.transports:
                transport.writelines(there)
                transport.write(large)
                transport.writelines([bytearray(piece) for piece in there])
            wanted = b"".join(there) + large + b"".join(there)
            for protocol in third.protocols:
                await until(lambda p=protocol: len(p.data) >= len(wanted))
                assert protocol.data == wanted
            for transport in third.transports:
                transport.abort()
            await turns(6)
            for protocol in third.protocols:
                if hasattr(protocol, "task"):
                    await protocol.task

    run(main())


def test_close_inside_while_the_peer_sends(run, contexts):
    """The inner connection is closed in the middle of what the other end sends."""

    class Closing(Receiver):
        def data_received(self, data):
            super().data_received(data)
            if len(self.data) > 100_000 and not self.transport.is_closing():
                self.transport.close()

    async def main():
        with contextlib.ExitStack() as stack:
            ends = await outer_pair(stack, contexts)
            (one, got_one), (two, got_two) = await inside(ends, contexts, Closing, True)
            got_one.transport, got_two.transport = one, two
            data = b"".join(pieces_of(b"data", 300, 4000))
            two.write(data)
            await until(lambda: got_one.events and got_one.events[-1][0] == "lost")
            assert got_one.data == data[: len(got_one.data)]
            if len(got_one.data) < len(data):
                assert "eof" not in got_one.events
                assert isinstance(got_one.events[-1][1], ssl.SSLError)
            two.abort()
            await turns(4)

    run(main())


def test_a_run_of_the_loop_inside_a_callback(run, contexts, impl):
    """A loop inside the callback of another one, both with TLS: neither has the other's memory."""
    secret = b"".join(pieces_of(b"secret", 100, 3000))

    def other_loop():
        loop = impl.new_event_loop()

        async def main():
            with contextlib.ExitStack() as stack:
                ends = await outer_pair(stack, contexts)
                (one, _), (two, got) = await inside(ends, contexts, Receiver, False)
                one.write(secret)
                await until(lambda: len(got.data) >= len(secret))
                assert got.data == secret
                one.abort()
                two.abort()
                await turns(4)

        running = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            loop.run_until_complete(main())
        finally:
            asyncio._set_running_loop(running)
            loop.close()

    class Nesting(Receiver):
        ran = False

        def data_received(self, data):
            if not self.ran:
                self.ran = True
                other_loop()
            super().data_received(data)

    async def main():
        with contextlib.ExitStack() as stack:
            ends = await outer_pair(stack, contexts)
            (one, _), (two, got) = await inside(ends, contexts, Nesting, False)
            data = b"".join(pieces_of(b"data", 100, 3000))
            one.write(data)
            await until(lambda: len(got.data) >= len(data))
            assert got.data == data
            one.abort()
            two.abort()
            await turns(4)

    run(main())


def test_many_connections_that_write_in_each_others_callbacks(run, contexts):
    """What one connection receives is written to the next one at once, in small pieces."""

    async def main():
        links, ends = 6, []
        with contextlib.ExitStack() as stack:
            for _ in range(links):
                pair = await outer_pair(stack, contexts)
                ends.append(await inside(pair, contexts, Receiver, True))
            for index in range(links - 1):
                far, near = ends[index][1][1], ends[index + 1][0][0]

                def pass_on(data, far=far, near=near):
                    far.data += data
                    near.writelines([data[i : i + 100] for i in range(0, len(data), 100)])

                far.data_received = pass_on
                ends[index][1][0].set_protocol(far)
            data = b"".join(pieces_of(b"data", 30, 10_000))
            ends[0][0][0].writelines([data[i : i + 3000] for i in range(0, len(data), 3000)])
            last = ends[-1][1][1]
            await until(lambda: len(last.data) >= len(data))
            for pair in ends:
                assert pair[1][1].data == data
            for pair in ends:
                for transport, _ in pair:
                    transport.abort()
            await turns(6)

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_stacks_at_random(run, contexts, seed):
    """Levels of TLS and tunnels, writes of all sizes and types from everywhere."""
    rng = random.Random(seed)
    sizes = [1, 10, 1000, 16384, 16385, 70_000]

    async def main():
        with contextlib.ExitStack() as stack:
            (one, frames_one), (two, frames_two) = await outer_pair(
                stack, contexts, rng.random() < 0.7
            )
            frames_one.tunnel = Tunnel(one, rng.random() < 0.5)
            frames_two.tunnel = Tunnel(two, rng.random() < 0.5)
            ends = frames_one.tunnel, frames_two.tunnel
            levels = []
            for _ in range(rng.randrange(1, 4)):
                levels.append(await Level().build(ends, contexts, Receiver))
                ends = levels[-1].transports
            sent = [bytearray(), bytearray()]
            top = levels[-1]
            for number in range(60):
                side = rng.randrange(2)
                transport = top.transports[side]
                parts = [
                    (b"%d.%d." % (side, number) * size)[:size]
                    for size in rng.choices(sizes, k=rng.randrange(1, 6))
                ]
                sent[side] += b"".join(parts)
                if rng.random() < 0.5:
                    transport.writelines(rng.choice([bytes, bytearray])(part) for part in parts)
                else:
                    for part in parts:
                        transport.write(rng.choice([bytes, bytearray, memoryview])(part))
                if rng.random() < 0.2:
                    high = rng.choice([0, 1000, None])
                    for level in levels:
                        rng.choice(level.transports).set_write_buffer_limits(high)
                if rng.random() < 0.2:
                    top.transports[side].pause_reading()
                    asyncio.get_running_loop().call_soon(top.transports[side].resume_reading)
                await turns(rng.randrange(3))
            for side in range(2):
                other = top.protocols[1 - side]
                await until(lambda o=other, s=side: len(o.data) >= len(sent[s]))
                assert other.data == sent[side]
            for level in reversed(levels):
                for transport in level.transports:
                    if not transport.is_closing():
                        with contextlib.suppress(TypeError):  # asyncio's, up to 3.12
                            transport.abort()
            await turns(6)

    run(main())


# -- the process goes another way --------------------

CHILD = """
faulthandler.cancel_dump_traceback_later()
import asyncio, os, signal, socket, ssl
HOW, CERT, KEY = sys.argv[1:]
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(CERT, KEY)
client_context = ssl.create_default_context(cafile=CERT)
listener = socket.create_server(("127.0.0.1", 0))
signal.alarm(40)
warnings.simplefilter("ignore")

def peer(wanted):
    sock, _ = listener.accept()
    tls = server_context.wrap_socket(sock, server_side=True)
    tls.settimeout(20)
    got = bytearray()
    try:
        while len(got) < len(wanted):
            data = tls.recv(100_000)
            if not data:
                break
            got += data
    except OSError as exc:
        got += repr(exc).encode()
    print("same" if got == wanted else bytes(got[:200]))

def connect(loop):
    return loop.run_until_complete(loop.create_connection(
        asyncio.Protocol, *listener.getsockname(), ssl=client_context, server_hostname="localhost"))
"""

EXIT = (
    CHILD
    + """
pid = os.fork()
if pid == 0:
    loop = new_event_loop()
    transport, _ = connect(loop)
    loop.run_until_complete(asyncio.sleep(0.05))
    def last():
        transport.write(b"last ")
        transport.writelines([b"wo", bytearray(b"r"), memoryview(b"ds")])
        if HOW == "exit":
            os._exit(0)
        if HOW == "exec":
            os.execv(sys.executable, [sys.executable, "-c", ""])
        if HOW == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if HOW == "block":
            signal.pause()
    loop.call_soon(last)
    loop.run_forever()
peer(b"last words")
if HOW == "block":
    os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""
)


@pytest.fixture
def child_environment(engine, impl):
    return {"ASYNCLOOP_TLS": engine} if impl.ours else {}


@pytest.mark.parametrize("how", ["exit", "exec", "kill", "block"])
def test_what_was_written_arrives(impl, certificate, how, child_environment, monkeypatch):
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    check_script(impl, EXIT, expect="same", args=(how, *certificate))


FORK = (
    CHILD
    + """
pid = os.fork()
if pid == 0:
    loop = new_event_loop()
    transport, protocol = connect(loop)
    loop.run_until_complete(asyncio.sleep(0.05))
    async def main():
        transport.write(b"hello")
        if HOW == "pending":
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
            transport.write(bytes(12_000_000))       # more than the kernel takes
            transport.write(b"x" * 1000)
            assert transport.get_write_buffer_size() > 0
        child = os.fork()
        if child == 0:
            if HOW == "close":
                transport.abort()
            later = loop.create_future()     # asyncio's child has no running loop
            loop.call_later(0.2, later.set_result, None)
            await later
            size = transport.get_write_buffer_size()
            os._exit(0 if size == 0 else 1)
        await asyncio.sleep(0.4)
        transport.write(b" again")
        status = os.waitpid(child, 0)[1]
        below = transport._ssl_protocol._transport
        while transport.get_write_buffer_size() or below.get_write_buffer_size():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        os._exit(os.waitstatus_to_exitcode(status))
    loop.run_until_complete(main())
peer(b"hello" + (bytes(12_000_000) + b"x" * 1000 if HOW == "pending" else b"") + b" again")
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
)


@pytest.mark.parametrize("how", ["plain", "close", "pending"])
def test_a_child_of_fork_sends_nothing_of_its_parents(
    impl, certificate, how, child_environment, monkeypatch
):
    if how == "pending" and not impl.ours:
        pytest.skip("asyncio's child shares the parent's epoll set and sends it, too")
    if PY >= (3, 14):
        pytest.skip("there a child has no running loop, and no step of a task ends in it")
    for name, value in child_environment.items():
        monkeypatch.setenv(name, value)
    check_script(impl, FORK, expect="same\n0", args=(how, *certificate))
