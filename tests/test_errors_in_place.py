"""An error comes where asyncio raises it: from the call that is wrong, not from a later one."""

import asyncio
import gc
import os
import socket

import pytest

from .compare import same


async def no_protocol():
    return asyncio.Protocol()


FACTORIES = {
    "None": lambda: None,
    "a coroutine": no_protocol,
    "an object": object,
    "a class": lambda: asyncio.Protocol,
    "raises": lambda: 1 / 0,
    "no callable": None,
}


async def connection(log, loop, factory):
    keep = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        await log.wait("connect", loop.create_connection, factory, *server.getsockname())
        for name, call in [
            ("connect", lambda sock: loop.create_connection(factory, sock=sock)),
            ("accepted", lambda sock: loop.connect_accepted_socket(factory, sock)),
        ]:
            one, other = socket.socketpair()
            await log.wait(name, call, one)
            keep.append(other)


async def datagrams(log, loop, factory):
    await log.wait("local", loop.create_datagram_endpoint, factory, local_addr=("127.0.0.1", 0))


async def connected_datagrams(log, loop, factory):
    await log.wait("remote", loop.create_datagram_endpoint, factory, remote_addr=("127.0.0.1", 9))


async def pipes(log, loop, factory):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as one, os.fdopen(writing, "wb", 0) as other:
        await log.wait("read", loop.connect_read_pipe, factory, one)
        await log.wait("write", loop.connect_write_pipe, factory, other)


async def server(log, loop, factory):
    made = await loop.create_server(factory, "127.0.0.1", 0)
    with socket.create_connection(made.sockets[0].getsockname()) as peer:
        peer.setblocking(False)
        await asyncio.sleep(0.01)
        gc.collect()
        try:
            log(peer.recv(10))
        except OSError as exc:
            log(type(exc).__name__)
    made.close()


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("program", [connection, datagrams, connected_datagrams, pipes, server])
def test_factory_that_gives_no_protocol(program, name):
    def quiet(line):
        # Asyncio leaves what was half made to the collector, which complains of it.
        return not line.startswith("warned: ")

    same(program, FACTORIES[name], only=quiet)
