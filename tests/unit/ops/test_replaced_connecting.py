"""What asyncio calls to make and connect a socket, replaced by a program."""

import asyncio
import contextlib
import socket
from asyncio import base_events

import pytest

from tests.support import turns, until


@contextlib.asynccontextmanager
async def listening():
    """The address of a server, and the transports of its connections."""
    accepted = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.append(transport)

    server = await asyncio.get_running_loop().create_server(Accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname(), accepted
    finally:
        for transport in accepted:
            transport.abort()
        server.close()
        await turns(5)


async def connect(address):
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    transport.abort()
    await turns(3)


def noting(log, name, function):
    def noted(*args, **kwargs):
        log.append(name)
        return function(*args, **kwargs)

    return noted


def replace_class_method(name):
    def replace(monkeypatch, loop, log):
        monkeypatch.setattr(socket.socket, name, noting(log, name, getattr(socket.socket, name)))

    return replace


def replace_new(monkeypatch, loop, log):
    def new(cls, *args, **kwargs):
        log.append("__new__")
        return original(cls, *args, **kwargs)

    original = socket.socket.__new__
    monkeypatch.setattr(socket.socket, "__new__", new)


def replace_global(module, name):
    def replace(monkeypatch, loop, log):
        monkeypatch.setattr(module, name, noting(log, name, getattr(module, name)))

    return replace


def replace_in_instance(name):
    def replace(monkeypatch, loop, log):
        monkeypatch.setattr(loop, name, noting(log, name, getattr(loop, name)), raising=False)

    return replace


def replace_in_base(name):
    def replace(monkeypatch, loop, log):
        base = asyncio.BaseEventLoop
        monkeypatch.setattr(base, name, noting(log, name, getattr(base, name)))

    return replace


def replace_in_class(name):
    def replace(monkeypatch, loop, log):
        class Own(type(loop)):
            pass

        setattr(Own, name, noting(log, name, getattr(Own, name)))
        loop.__class__ = Own

    return replace


CONNECTING = {
    "socket.__init__": replace_class_method("__init__"),
    "socket.__new__": replace_new,
    "socket.setblocking": replace_class_method("setblocking"),
    "socket.connect": replace_class_method("connect"),
    "socket.inet_pton": replace_global(socket, "inet_pton"),
    "_ipaddr_info": replace_global(base_events, "_ipaddr_info"),
    **{
        f"{name} of {where}": how(name)
        for name in ("_ensure_resolved", "_connect_sock", "create_connection", "sock_connect")
        for where, how in (
            ("instance", replace_in_instance),
            ("base", replace_in_base),
            ("class", replace_in_class),
        )
        # BaseEventLoop has no sock_connect(): its loops have
        if not (name == "sock_connect" and where == "base")
    },
}


@pytest.mark.parametrize("what", CONNECTING)
def test_what_connecting_calls_is_replaced(loop, monkeypatch, what):
    async def main():
        async with listening() as (address, _):
            await connect(address)
            log = []
            with monkeypatch.context() as patched:
                CONNECTING[what](patched, loop, log)
                await connect(address)
                assert log
            del log[:]
            if not what.endswith("of class"):
                await connect(address)
                assert not log

    before = type(loop)
    try:
        loop.run_until_complete(main())
    finally:
        loop.__class__ = before


@pytest.mark.parametrize("name", ["__init__", "setblocking", "_accept", "accept"])
def test_what_accepting_calls_is_replaced(loop, monkeypatch, name):
    async def main():
        async with listening() as (address, accepted):
            log = []
            with monkeypatch.context() as patched, socket.socket() as client:
                replace_class_method(name)(patched, loop, log)
                socket.socket.connect(client, address)
                del log[:]
                await until(lambda: accepted)
                assert log
            assert accepted[0].get_extra_info("socket").gettimeout() == 0

    loop.run_until_complete(main())


def test_type_and_timeout_of_the_sockets(loop):
    """Made with or without the flag of the kernel, they are the same to look at."""

    async def main():
        async with listening() as (address, accepted):
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            await until(lambda: accepted)
            for one in (transport, accepted[0]):
                sock = one.get_extra_info("socket")
                assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
                assert sock.proto in (0, socket.IPPROTO_TCP)
                assert sock.gettimeout() == 0
            assert transport.get_extra_info("socket").proto == socket.IPPROTO_TCP
            transport.abort()
            await turns(3)

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1"])
def test_the_peers_name_is_what_was_connected_to(loop, host):
    async def main():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, 0), family=family)
        except OSError:
            pytest.skip("no such address here")
        server = await loop.create_server(asyncio.Protocol, sock=listener)
        address = listener.getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, host, address[1])
        assert transport.get_extra_info("peername") == address
        transport.abort()
        server.close()
        await turns(3)

    loop.run_until_complete(main())


def test_a_refused_connection_leaves_no_socket(loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
        with pytest.raises(ConnectionRefusedError, match="Connect call failed") as caught:
            await loop.create_connection(asyncio.Protocol, *address)
        assert caught.value.__context__ is None

    loop.run_until_complete(main())
