"""What a program has replaced before asyncloop is imported is called as well."""

import asyncio
import os

import pytest

from tests.support import Impl, import_root, run_script

BEFORE = """
import asyncio, os, socket, sys, time
from asyncio import base_events, events, futures, streams, tasks
log = set()

def wrap(owner, name):
    function = getattr(owner, name)
    def noted(*args, **kwargs):
        log.add(name)
        return function(*args, **kwargs)
    setattr(owner, name, noted)

def derive(name, class_, *owners):
    class Own(class_):
        def __init__(self, *args, **kwargs):
            log.add(name)
            super().__init__(*args, **kwargs)
    for owner in owners:
        setattr(owner, name, Own)

"""

TOUR = """
import importlib
new_event_loop = importlib.import_module(sys.argv[1]).new_event_loop

async def tour():
    loop = asyncio.get_running_loop()
    def serve(reader, writer):
        async def answer():
            writer.write(await reader.read(10))
            await writer.drain()
            writer.close()
        return loop.create_task(answer())
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection("localhost", address[1])
    writer.write(b"data")
    await writer.drain()
    assert await reader.read(10) == b"data"
    writer.close()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, b"x")
        await loop.sock_recv(sock, 10)
    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    transport.abort()
    ends = os.pipe()
    reading, _ = await loop.connect_read_pipe(asyncio.Protocol, open(ends[0], "rb", 0))
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(ends[1], "wb", 0))
    writing.write(b"x")
    await asyncio.sleep(0.01)
    writing.close()
    reading.close()
    udp, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    udp.sendto(b"x", udp.get_extra_info("sockname"))
    await asyncio.sleep(0.01)
    udp.close()
    await loop.run_in_executor(None, int)
    loop.create_future()
    timer = loop.call_later(10, int)
    timer.cancel()
    loop.call_soon_threadsafe(int)
    server.close()
    await asyncio.sleep(0.01)

loop = new_event_loop()
try:
    loop.run_until_complete(tour())
finally:
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
print(*sorted(log))
"""

REPLACED = {
    **{
        f"socket.socket.{name}": f"wrap(socket.socket, {name!r})"
        for name in (
            *("connect", "recv", "send", "accept", "_accept", "setblocking", "recvfrom"),
            *("sendto", "getsockopt", "__init__"),
        )
    },
    "socket.getaddrinfo": "wrap(socket, 'getaddrinfo')",
    "socket.inet_pton": "wrap(socket, 'inet_pton')",
    "socket.socket": "derive('socket', socket.socket, socket)",
    "time.monotonic": "wrap(time, 'monotonic')",
    "os.read": "wrap(os, 'read')",
    "os.write": "wrap(os, 'write')",
    "Future": "derive('Future', asyncio.Future, asyncio, futures)",
    "Task": "derive('Task', asyncio.Task, asyncio, tasks)",
    "Handle": "derive('Handle', asyncio.Handle, asyncio, events)",
    "TimerHandle": "derive('TimerHandle', asyncio.TimerHandle, asyncio, events)",
    "TimerHandle.__init__": "wrap(asyncio.TimerHandle, '__init__')",
    "TimerHandle.cancel": "wrap(asyncio.TimerHandle, 'cancel')",
    "Handle._run": "wrap(asyncio.Handle, '_run')",
    "_ipaddr_info": "wrap(base_events, '_ipaddr_info')",
    **{
        f"StreamReader.{name}": f"wrap(asyncio.StreamReader, {name!r})"
        for name in ("feed_data", "read", "_wait_for_data", "_wakeup_waiter")
    },
    **{
        f"StreamWriter.{name}": f"wrap(asyncio.StreamWriter, {name!r})"
        for name in ("write", "drain", "close")
    },
    **{
        f"StreamReaderProtocol.{name}": f"wrap(asyncio.StreamReaderProtocol, {name!r})"
        for name in ("data_received", "_drain_helper", "connection_made")
    },
    **{
        f"BaseEventLoop.{name}": f"wrap(asyncio.BaseEventLoop, {name!r})"
        for name in (
            *("call_soon", "call_at", "call_later", "call_soon_threadsafe", "create_future"),
            *("create_task", "time", "run_in_executor", "getaddrinfo", "create_connection"),
            *("_ensure_resolved", "_connect_sock", "create_server", "create_datagram_endpoint"),
        )
    },
}


@pytest.mark.parametrize("what", REPLACED)
def test_what_was_replaced_before_the_import_is_called(impl, what):
    def called(of):
        # The scripts' preamble would import the loop first, so it is asyncio's for both.
        tour = TOUR.replace("sys.argv[1]", repr(of.loops))
        done = run_script(
            Impl.named("asyncio"), BEFORE + REPLACED[what] + "\n" + tour, env=paths(of), flags=()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert called(impl) == called(Impl.named("asyncio")) != []


def paths(of):
    """Where the child finds asyncloop."""
    root = import_root(of)
    rest = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": root + (os.pathsep + rest if rest else "")} if root else {}


@pytest.mark.parametrize("name", ["__init__", "cancel", "when"])
def test_method_of_timer_handle_is_replaced_later(loop, monkeypatch, name):
    """In the class alone: what Handle has is asyncio's still."""
    log = []
    loop.call_later(10, int).cancel()
    function = getattr(asyncio.TimerHandle, name)

    def noted(self, *args, **kwargs):
        log.append(name)
        return function(self, *args, **kwargs)

    monkeypatch.setattr(asyncio.TimerHandle, name, noted)
    for timer in (loop.call_later(10, int), loop.call_at(loop.time() + 10, int)):
        timer.when()
        timer.cancel()
    assert log.count(name) == 2
    monkeypatch.undo()
    loop.call_later(10, int).cancel()
    assert log.count(name) == 2
