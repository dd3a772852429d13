"""Closed, closing, half-closed and detached things asked again: what asyncio gives or raises.

Each test runs a small program on the standard loop and on asyncloop, and compares what it was told.
"""

import asyncio
import inspect
import itertools
import os
import socket

import pytest

from tests.compare import same, shown, shown_error
from tests.support import PY, turns
from tests.transports import Tells, datagrams, stream, write_pipe


def pair():
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


# -- transports -------------------------------------------------------------------------------


async def tcp(log, loop):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        transport, protocol = await loop.create_connection(lambda: Tells(log), *address)
        other, _ = server.accept()
        other.setblocking(False)
    return transport, protocol, other


# A read pipe of asyncio has none of the methods of a write transport, and no abort().
MAKERS = [stream, tcp, datagrams, write_pipe]

STATES = {
    "open": lambda transport, other: None,
    "paused": lambda transport, other: transport.pause_reading(),
    "closing": lambda transport, other: transport.close(),
    "aborting": lambda transport, other: transport.abort(),
    "closed": lambda transport, other: transport.close(),
    "aborted": lambda transport, other: transport.abort(),
    "half closed": lambda transport, other: transport.write_eof(),
    "half closed, closing": lambda transport, other: (transport.write_eof(), transport.close()),
    "full": lambda transport, other: transport.write(b"x" * 900_000),
    "full, closing": lambda transport, other: (
        transport.write(b"x" * 900_000),
        transport.close(),
    ),
}

CALLS = [
    ("write", b""),
    ("write", b"abc"),
    ("write", bytearray(b"q")),
    ("write", memoryview(b"12")),
    ("write", "text"),
    ("write", None),
    ("write", 5),
    ("writelines", [b"a", b"b"]),
    ("writelines", []),
    ("write_eof",),
    ("can_write_eof",),
    ("pause_reading",),
    ("resume_reading",),
    ("is_reading",),
    ("close",),
    ("abort",),
    ("is_closing",),
    ("get_write_buffer_limits",),
    ("set_write_buffer_limits",),
    ("set_write_buffer_limits", 0),
    ("set_write_buffer_limits", 10, 5),
    ("get_protocol",),
    ("set_protocol", asyncio.Protocol()),
    ("set_protocol", asyncio.BufferedProtocol()),
    ("get_extra_info", "socket"),
    ("get_extra_info", "nothing", 7),
    ("get_extra_info", []),
    ("sendto", b"x"),
    ("sendto", b""),
    ("sendto", "text"),
    ("sendto", b"x" * 70_000),
    ("sendto", b"x", ("127.0.0.1", 9)),
]


async def ask_transport(log, loop, maker, state):
    for name, *args in CALLS:
        if maker is write_pipe and name == "write" and not isinstance(args[0], bytes):
            continue  # asyncio asserts what it is given, here a TypeError says it
        if name == "writelines" and state not in ("open", "paused", "full"):
            continue  # fails in asyncio's own code from 3.12 on
        if maker is write_pipe and name == "abort" and state not in ("open", "full"):
            continue  # asyncio's fails in its own code, now or in a callback
        log("--", name, args)
        transport, _, other = await maker(log, loop)
        await turns(3)
        try:
            STATES[state](transport, other)
        except (AttributeError, NotImplementedError):
            pass  # asyncio's has no such method, or no use for it
        else:
            if state in ("closed", "aborted"):
                await turns(4)
                await asyncio.sleep(0.001)
            method = getattr(transport, name, None)
            if method is not None:
                log.call(name, method, *args)
            log("closing", transport.is_closing())
            await turns(4)
        if not transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
        await turns(4)
        other.close()


def quiet(line):
    """Without what the collector says of what was left half made."""
    return not line.startswith("warned: ResourceWarning")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("maker", MAKERS)
def test_transport(maker, state):
    def told(line):
        # What is sent in one turn here takes some there, and then the protocol is told to pause.
        return quiet(line) and not ("full" in state and line in ("pause", "resume"))

    same(ask_transport, maker, state, only=told)


# -- methods of the loop ----------------------------------------------------------------------

SOCKET = object()  # stands for the socket in the arguments

METHODS = [
    ("call_soon", print),
    ("call_later", 1, print),
    ("call_at", 1, print),
    ("call_soon_threadsafe", print),
    ("is_running",),
    ("is_closed",),
    ("stop",),
    ("close",),
    ("add_reader", SOCKET, print),
    ("add_writer", SOCKET, print),
    ("remove_reader", SOCKET),
    ("remove_writer", SOCKET),
    ("add_reader", -1, print),
    ("remove_reader", -1),
    ("add_reader", "x", print),
    ("remove_reader", "x"),
    ("add_signal_handler", 10, print),
    ("remove_signal_handler", 10),
    ("run_in_executor", None, int),
    ("set_default_executor", 5),
    ("set_task_factory", 5),
    ("set_exception_handler", 5),
    ("run_until_complete", 5),
    ("shutdown_asyncgens",),
    ("sock_recv", SOCKET, 5),
    ("sock_recv_into", SOCKET, bytearray(3)),
    ("sock_recvfrom", SOCKET, 3),
    ("sock_recvfrom_into", SOCKET, bytearray(3)),
    ("sock_sendall", SOCKET, b"x"),
    ("sock_sendto", SOCKET, b"x", ("127.0.0.1", 1)),
    ("sock_accept", SOCKET),
    ("sock_connect", SOCKET, ("127.0.0.1", 1)),
    ("getaddrinfo", "127.0.0.1", 80),
    ("getaddrinfo", "localhost", 80),
    ("getnameinfo", ("127.0.0.1", 80)),
    ("create_connection", asyncio.Protocol, "127.0.0.1", 1),
    ("create_server", asyncio.Protocol, "127.0.0.1", 0),
    ("create_unix_server", asyncio.Protocol, "/nowhere/x"),
    ("create_unix_connection", asyncio.Protocol, "/nowhere/x"),
    ("_check_closed",),
    ("_ensure_fd_no_transport", SOCKET),
]


def with_socket(args, sock):
    return [sock if arg is SOCKET else arg for arg in args]


async def closed_loop(log, loop):
    for name, *args in METHODS:
        other = type(loop)()
        other.close()
        with socket.socket() as sock:
            sock.setblocking(False)
            try:
                result = getattr(other, name)(*with_socket(args, sock))
            except Exception as exc:
                log(name, "raised", shown_error(exc))
                continue
            if not inspect.isawaitable(result):
                log(name, shown(result))
                continue
            try:
                result.send(None)
            except Exception as exc:
                log(name, "awaited", shown_error(exc))
            result.close()


def test_closed_loop():
    same(closed_loop, only=quiet)


async def ask_with_socket(log, loop, state):
    for name, *args in METHODS:
        if SOCKET not in args:
            continue
        one, other = pair()
        number = None
        if state == "closed":
            one.close()
        elif state == "detached":
            number = one.detach()
        elif state == "half closed":
            one.shutdown(socket.SHUT_RDWR)
        elif state == "peer closed":
            other.close()
        method = getattr(loop, name)
        await log.wait(name, method, *with_socket(args, one), seconds=0.005)
        if name.startswith("add_") and one.fileno() >= 0:
            getattr(loop, name.replace("add", "remove"))(one)
        if number is not None:
            os.close(number)
        one.close()
        other.close()


@pytest.mark.parametrize("state", ["open", "closed", "detached", "half closed", "peer closed"])
def test_socket(state):
    same(ask_with_socket, state, only=quiet)


async def ask_with_socket_of_transport(log, loop):
    for name, *args in METHODS:
        if SOCKET not in args:
            continue
        one, other = pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
        method = getattr(loop, name)
        await log.wait(name, method, *with_socket(args, one), seconds=0.005)
        transport.close()
        if not name.startswith("add_"):
            await log.wait(name, method, *with_socket(args, one), seconds=0.005)
        await turns(2)
        other.close()


def test_socket_of_a_transport():
    same(ask_with_socket_of_transport, only=quiet)


# -- readers and writers ----------------------------------------------------------------------

STEPS = ["add_reader", "add_writer", "remove_reader", "remove_writer", "close", "turn", "receive"]


async def readers(log, loop, steps):
    one, other = pair()
    task = None
    for step in steps:
        if step == "close":
            one.close()
        elif step == "turn":
            await asyncio.sleep(0)
        elif step == "receive":
            if task is None:
                task = loop.create_task(loop.sock_recv(one, 5))
                await asyncio.sleep(0)
        elif step.startswith("add"):
            log.call(step, getattr(loop, step), one, int)
        else:
            log.call(step, getattr(loop, step), one)
    if task is not None:
        log("done", task.done())
        task.cancel()
        try:
            log(await task)
        except (asyncio.CancelledError, OSError) as exc:
            log(shown_error(exc))
    one.close()
    other.close()


@pytest.mark.parametrize("first", STEPS)
def test_readers_of_what_is_closed(first):
    def told(line):
        # A done callback of asyncio's own fails where it takes a closed descriptor back.
        return quiet(line) and not line.startswith("reported: Exception in callback OSError")

    for steps in itertools.product(STEPS, repeat=3):
        if "close" in steps and first == "receive":
            continue  # here the receiver is told, unless it was taken away before
        same(readers, (first, *steps), only=told, caught_by_collector=False)


async def second_receiver(log, loop):
    for name, *args in [("sock_recv", 5), ("sock_recv_into", bytearray(5)), ("sock_recvfrom", 5)]:
        one, other = pair()
        tasks = []
        for _ in range(2):
            tasks.append(loop.create_task(getattr(loop, name)(one, *args)))
            await turns(2)
        for byte in (b"x", b"y"):
            other.send(byte)
            await asyncio.sleep(0.001)
            log(name, [task.done() for task in tasks])
        tasks[0].cancel()
        await turns(2)
        log(one.recv(10))
        one.close()
        other.close()


def test_second_receiver():
    same(second_receiver)


async def reader_in_place_of_receiver(log, loop):
    one, other = pair()
    task = loop.create_task(loop.sock_recv(one, 5))
    await turns(2)
    log.call("add", loop.add_reader, one, lambda: log("reader", one.recv(3)))
    other.send(b"a")
    await asyncio.sleep(0.001)
    log("done", task.done())
    task.cancel()
    await turns(3)
    other.send(b"b")
    await asyncio.sleep(0.001)
    log.call("remove", loop.remove_reader, one)
    log.call("remove", loop.remove_reader, one)
    one.close()
    other.close()


def test_reader_in_place_of_receiver():
    same(reader_in_place_of_receiver)


class OwnReaders:
    """Methods of a program's in the place of those that watch."""

    def __init__(self, loop):
        for name in ("_add_reader", "_add_writer", "remove_reader", "remove_writer"):
            setattr(loop, name, self.of(getattr(loop, name)))

    @staticmethod
    def of(method):
        return lambda *args: method(*args)


async def reader_in_place_with_own_methods(log, loop):
    OwnReaders(loop)
    await reader_in_place_of_receiver(log, loop)


def test_reader_in_place_of_receiver_with_own_methods():
    same(reader_in_place_with_own_methods)


async def removing_raises(log, loop):
    def raises(fd):
        removed(fd)
        raise LookupError

    removed, loop.remove_reader = loop.remove_reader, raises
    one, other = pair()
    task = loop.create_task(loop.sock_recv(one, 5))
    await turns(2)
    other.send(b"a")
    log(await task)
    await turns(2)
    one.close()
    other.close()


def test_removing_raises():
    """Which is reported, as of any callback, and the receiver has what it got."""
    same(removing_raises)


async def watching_raises(log, loop, maker):
    def raises(*args):
        raise LookupError

    loop._add_reader = raises
    transport, _, other = await maker(log, loop)
    await turns(2)
    log("reading", not hasattr(transport, "is_reading") or transport.is_reading())
    transport.close()
    await turns(2)
    other.close()


@pytest.mark.parametrize("maker", [stream, tcp, datagrams])
def test_watching_raises(maker):
    """Which is reported, and the transport is there."""
    same(watching_raises, maker)


async def receiver_that_is_removed(log, loop):
    one, other = pair()
    task = loop.create_task(loop.sock_recv(one, 5))
    await turns(2)
    log.call("remove", loop.remove_reader, one)
    one.close()
    await asyncio.sleep(0.15)
    log("done", task.done())
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        log("cancelled")
    other.close()


@pytest.mark.skipif(
    "ASYNCLOOP_LONG_WAYS" in os.environ,
    reason="by _add_reader() it does not know who has its place, and hears of the closed socket",
)
def test_receiver_that_is_removed():
    same(receiver_that_is_removed)


async def reader_of_listener(log, loop):
    """The place is the server's; who takes it has the connections from then on."""
    made = []
    server = await loop.create_server(lambda: made.append(1) or asyncio.Protocol(), "127.0.0.1", 0)
    listener = server.sockets[0]
    log.call("remove", loop.remove_reader, listener.fileno())
    with socket.create_connection(listener.getsockname()):
        await asyncio.sleep(0.002)
        log(made)
        log.call("remove", loop.remove_reader, listener.fileno())
    server.close()


def test_reader_of_a_listening_socket():
    same(reader_of_listener)


# -- servers ----------------------------------------------------------------------------------

SERVER_CALLS = ["close", "is_serving", "start_serving", "wait_closed", "serve_forever", "sockets"]
if PY >= (3, 13):
    SERVER_CALLS += ["close_clients", "abort_clients"]


async def servers(log, loop):
    for calls in itertools.product(SERVER_CALLS, repeat=3):
        log("--", *calls)
        server = await loop.create_server(
            asyncio.Protocol, "127.0.0.1", 0, start_serving=False
        )
        for call in calls:
            if call == "sockets":
                log(len(server.sockets))
            else:
                await log.wait(call, getattr(server, call), seconds=0.002)
        server.close()


def test_servers():
    same(servers)


# -- start_tls() ------------------------------------------------------------------------------


async def start_tls(log, loop, how, context):
    one, other = pair()
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=one)
    if how == "closing":
        transport.close()
    elif how == "aborting":
        transport.abort()
    elif how == "closed":
        transport.close()
        await turns(3)
    elif how == "closed meanwhile":
        loop.call_later(0.002, transport.close)
    await log.wait(
        how,
        lambda: loop.start_tls(transport, protocol, context, server_hostname="localhost"),
        seconds=5,
    )
    transport.abort()
    await turns(3)
    other.close()


@pytest.mark.parametrize("how", ["closing", "aborting", "closed", "closed meanwhile"])
def test_start_tls(contexts, how):
    same(start_tls, how, contexts[1], only=quiet)
