"""KeyboardInterrupt and SystemExit leave the loop from wherever it calls out; it can go on then."""

import asyncio
import concurrent.futures
import gc
import os
import signal
import socket
import tempfile

import pytest

from tests.support import turns

LARGE = b"x" * (8 << 20)


class Calls:
    """A protocol of any kind that raises in one of its methods."""

    def __init__(self, place, fail):
        self.place = place
        self.fail = fail
        self.transport = None

    def called(self, place):
        if place == self.place:
            self.fail()

    def connection_made(self, transport):
        self.transport = transport
        self.called("connection_made")

    def connection_lost(self, exc):
        self.called("connection_lost")

    def pause_writing(self):
        self.called("pause_writing")

    def resume_writing(self):
        self.called("resume_writing")

    def data_received(self, data):
        self.called("data_received")

    def eof_received(self):
        self.called("eof_received")

    def datagram_received(self, data, address):
        self.called("datagram_received")

    def error_received(self, exc):
        self.called("error_received")


class Stream(Calls, asyncio.Protocol):
    pass


class Buffered(Calls, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.called("get_buffer")
        return bytearray(100)

    def buffer_updated(self, count):
        self.called("buffer_updated")


class Datagram(Calls, asyncio.DatagramProtocol):
    pass


class World:
    """What a scenario may use, and what is closed behind it."""

    def __init__(self, loop, fail):
        self.loop = loop
        self.fail = fail
        self.ends = []

    def keep(self, *things):
        self.ends += things
        return things[0] if len(things) == 1 else things

    async def stream(self, place, cls=Stream):
        one, two = self.keep(*socket.socketpair())
        one.setblocking(False)
        two.setblocking(False)
        protocol = cls(place, self.fail)
        await self.loop.create_connection(lambda: protocol, sock=one)
        return self.keep(protocol), two

    async def datagram(self, place, **kwargs):
        protocol = Datagram(place, self.fail)
        await self.loop.create_datagram_endpoint(lambda: protocol, **kwargs)
        return self.keep(protocol)

    def callback(self, function, *args):
        """Call it from the loop itself, and not from a task."""
        self.loop.call_soon(function, *args)

    async def end(self):
        for thing in self.ends:
            if isinstance(thing, Calls):
                thing.place = None
                if thing.transport is not None and not thing.transport.is_closing():
                    thing.transport.abort()
        await turns(3)
        for thing in self.ends:
            if not isinstance(thing, Calls):
                thing.close()
        await turns(3)


SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


@scenario
async def connection_made(world):
    await world.stream("connection_made")


@scenario
async def data_received(world):
    _, peer = await world.stream("data_received")
    peer.send(b"x")


@scenario
async def get_buffer(world):
    _, peer = await world.stream("get_buffer", Buffered)
    peer.send(b"x")


@scenario
async def buffer_updated(world):
    _, peer = await world.stream("buffer_updated", Buffered)
    peer.send(b"x")


@scenario
async def eof_received(world):
    _, peer = await world.stream("eof_received")
    peer.shutdown(socket.SHUT_WR)


@scenario
async def pause_writing(world):
    protocol, _ = await world.stream("pause_writing")
    world.callback(protocol.transport.write, LARGE)


@scenario
async def pause_writing_of_memory(world):
    protocol, _ = await world.stream("pause_writing")
    world.callback(protocol.transport.write, memoryview(LARGE))


@scenario
async def pause_writing_by_limits(world):
    protocol, _ = await world.stream("pause_writing")
    protocol.transport.set_write_buffer_limits(1 << 30)
    protocol.transport.write(LARGE)
    world.callback(protocol.transport.set_write_buffer_limits, 0)


@scenario
async def resume_writing(world):
    protocol, peer = await world.stream("resume_writing")
    protocol.transport.write(LARGE)
    left = len(LARGE)
    while left:
        left -= len(await world.loop.sock_recv(peer, 1 << 20))


@scenario
async def connection_lost_by_close(world):
    protocol, _ = await world.stream("connection_lost")
    protocol.transport.close()


@scenario
async def connection_lost_by_abort(world):
    protocol, _ = await world.stream("connection_lost")
    protocol.transport.abort()


@scenario
async def connection_lost_after_the_output(world):
    protocol, peer = await world.stream("connection_lost")
    protocol.transport.write(LARGE)
    protocol.transport.close()
    left = len(LARGE)
    while left:
        left -= len(await world.loop.sock_recv(peer, 1 << 20))


@scenario
async def connection_lost_by_the_peer(world):
    _, peer = await world.stream("connection_lost")
    peer.close()


@scenario
async def connection_lost_by_a_failed_write(world):
    protocol, peer = await world.stream("connection_lost")
    protocol.transport.pause_reading()
    peer.close()
    protocol.transport.write(b"x")
    protocol.transport.write(b"x")


@scenario
async def datagram_connection_made(world):
    await world.datagram("connection_made", local_addr=("127.0.0.1", 0))


@scenario
async def datagram_received(world):
    protocol = await world.datagram("datagram_received", local_addr=("127.0.0.1", 0))
    protocol.transport.sendto(b"x", protocol.transport.get_extra_info("sockname"))


@scenario
async def error_received_by_sending(world):
    protocol = await world.datagram("error_received", local_addr=("127.0.0.1", 0))
    world.callback(protocol.transport.sendto, b"x" * 70_000, ("127.0.0.1", 9))


@scenario
async def error_received_by_receiving(world):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
    protocol = await world.datagram("error_received", remote_addr=address)
    protocol.transport.sendto(b"x")


@scenario
async def datagram_connection_lost(world):
    protocol = await world.datagram("connection_lost", local_addr=("127.0.0.1", 0))
    protocol.transport.close()


async def datagrams_that_wait(world, place):
    one, two = (world.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(2))
    one.setblocking(False)
    two.setblocking(False)
    with tempfile.TemporaryDirectory() as directory:
        two.bind(directory + "/peer")
        one.connect(directory + "/peer")
    protocol = await world.datagram(place, sock=one)

    def fill():
        for _ in range(2000):
            protocol.transport.sendto(b"x" * 1000)

    # 3.13.0 counts what has gone in part
    protocol.transport.set_write_buffer_limits(40_000, 30_000)
    return protocol, two, fill


@scenario
async def datagram_pause_writing(world):
    _, _, fill = await datagrams_that_wait(world, "pause_writing")
    world.callback(fill)


@scenario
async def datagram_resume_writing(world):
    _, peer, fill = await datagrams_that_wait(world, "resume_writing")
    fill()
    for _ in range(2000):
        await world.loop.sock_recv(peer, 2000)


async def pipe(world, place, reading):
    ends = os.pipe()
    files = os.fdopen(ends[0], "rb", 0), os.fdopen(ends[1], "wb", 0)
    other = world.keep(files[1] if reading else files[0])
    protocol = Stream(place, world.fail)
    if reading:
        await world.loop.connect_read_pipe(lambda: protocol, files[0])
    else:
        await world.loop.connect_write_pipe(lambda: protocol, files[1])
    return protocol, other


@scenario
async def read_pipe_data_received(world):
    protocol, other = await pipe(world, "data_received", True)
    world.keep(protocol.transport)
    other.write(b"x")


@scenario
async def read_pipe_eof_received(world):
    protocol, other = await pipe(world, "eof_received", True)
    world.keep(protocol.transport)
    other.close()


@scenario
async def read_pipe_connection_lost(world):
    protocol, _ = await pipe(world, "connection_lost", True)
    protocol.transport.close()


@scenario
async def write_pipe_pause_writing(world):
    protocol, _ = await pipe(world, "pause_writing", False)
    world.keep(protocol)
    world.callback(protocol.transport.write, LARGE)


@scenario
async def write_pipe_resume_writing(world):
    protocol, other = await pipe(world, "resume_writing", False)
    world.keep(protocol)
    protocol.transport.write(LARGE)
    os.set_blocking(other.fileno(), False)
    left = len(LARGE)
    while left:
        left -= len(other.read(1 << 16) or b"")
        await asyncio.sleep(0)


@scenario
async def write_pipe_connection_lost(world):
    protocol, other = await pipe(world, "connection_lost", False)
    other.close()
    world.keep(protocol)


async def serve(world, factory):
    server = world.keep(await world.loop.create_server(factory, "127.0.0.1", 0))
    world.keep(socket.create_connection(server.sockets[0].getsockname()))


@scenario
async def factory_of_a_server(world):
    await serve(world, world.fail)


@scenario
async def connection_made_of_a_server(world):
    protocol = Stream("connection_made", world.fail)
    world.keep(protocol)
    await serve(world, lambda: protocol)


@scenario
async def callback_of_a_stream_server(world):
    def connected(reader, writer):
        writer.transport.abort()
        world.fail()

    server = world.keep(await asyncio.start_server(connected, "127.0.0.1", 0))
    world.keep(socket.create_connection(server.sockets[0].getsockname()))


@scenario
async def factory_of_a_client(world):
    with socket.create_server(("127.0.0.1", 0)) as server:
        await world.loop.create_connection(world.fail, *server.getsockname())


@scenario
async def factory_of_an_endpoint(world):
    await world.loop.create_datagram_endpoint(world.fail, local_addr=("127.0.0.1", 0))


@scenario
async def factory_of_a_pipe(world):
    reading, writing = os.pipe()
    world.keep(os.fdopen(writing, "wb", 0))
    await world.loop.connect_read_pipe(world.fail, world.keep(os.fdopen(reading, "rb", 0)))


@scenario
async def function_of_an_executor(world):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        await world.loop.run_in_executor(executor, world.fail)


@scenario
async def after_an_executor(world):
    future = world.loop.run_in_executor(None, int)
    future.add_done_callback(lambda future: world.fail())
    await future
    await turns(2)


@scenario
async def exception_handler(world):
    world.loop.set_exception_handler(lambda loop, context: world.fail())
    protocol, peer = await world.stream("data_received")
    protocol.fail = lambda: 1 // 0
    peer.send(b"x")


@scenario
async def exception_handler_of_a_callback(world):
    world.loop.set_exception_handler(lambda loop, context: world.fail())
    world.loop.call_soon(lambda: 1 // 0)


@scenario
async def reader(world):
    one, two = world.keep(*socket.socketpair())

    def readable():
        world.loop.remove_reader(one)
        world.fail()

    world.loop.add_reader(one, readable)
    two.send(b"x")


@scenario
async def writer(world):
    one, _ = world.keep(*socket.socketpair())

    def writable():
        world.loop.remove_writer(one)
        world.fail()

    world.loop.add_writer(one, writable)


@scenario
async def signal_handler(world):
    def handler():
        world.loop.remove_signal_handler(signal.SIGUSR1)
        world.fail()

    world.loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)


@scenario
async def from_another_thread(world):
    await asyncio.to_thread(world.loop.call_soon_threadsafe, world.fail)


@scenario
async def timer(world):
    world.loop.call_later(0.001, world.fail)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
@pytest.mark.filterwarnings("ignore")
def test_it_leaves_the_loop(loop, name, kind, asyncio_log):
    raised = []

    def fail(*args):
        if not raised:  # asyncio tells of the same end of file once more
            raised.append(name)
            raise kind

    world = World(loop, fail)

    async def main():
        await SCENARIOS[name](world)
        await asyncio.sleep(10)

    task = loop.create_task(main())
    with pytest.raises(kind):
        loop.run_until_complete(task)
    assert raised == [name]
    loop.set_exception_handler(None)
    if task.done():  # which run_until_complete() would wait for
        assert type(task.exception()) is kind
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.run_until_complete(world.end())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.run_until_complete(asyncio.sleep(0))
    if name == "factory_of_a_server":
        gc.collect()
        asyncio_log.take()  # asyncio calls it in a task
