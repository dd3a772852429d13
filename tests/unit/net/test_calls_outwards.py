"""Calls outwards that do what nobody expects, in the middle of what a transport or a loop does."""

import asyncio
import collections
import contextlib
import socket
import sys
import threading
import time

import pytest

from tests.support import FREE_THREADED, check_script, turns, until

# -- a dict that is emptied and filled again ------------------------------------------------------


@pytest.mark.parametrize("names", [("x",), ("x", "y", "z")], ids=len)
@pytest.mark.parametrize("buffered", [False, True], ids=["Protocol", "BufferedProtocol"])
def test_dict_of_a_protocol_is_emptied_and_filled(run, loop, names, buffered):
    """What comes into its place may be as long as what was there, and at the same address."""
    seen = []
    room = bytearray(100)
    method = "buffer_updated" if buffered else "data_received"

    class Base(asyncio.BufferedProtocol if buffered else asyncio.Protocol):
        def __init__(self):
            self.__dict__ = dict.fromkeys(names, 1)

        def get_buffer(self, hint):
            return room

    setattr(Base, method, lambda self, data: seen.append("class"))

    async def main():
        near, far = socket.socketpair()
        transport, protocol = await loop.create_connection(Base, sock=near)
        with contextlib.closing(transport), far:
            for _ in range(3):
                before = len(seen)
                far.send(b"a")
                await until(lambda before=before: len(seen) > before)
            attributes = protocol.__dict__
            attributes.clear()
            attributes[method] = lambda data: seen.append("instance")
            for name in names[1:]:
                attributes[name] = 1
            far.send(b"b")
            await until(lambda: len(seen) > 3)
            assert seen[3:] == ["instance"]
            del attributes[method]
            far.send(b"c")
            await until(lambda: len(seen) > 4)
            assert seen[4:] == ["class"]

    run(main())


# -- what a hook does while queued output is sent -------------------------------------------------

HOOKED = """
import asyncio, gc, socket, sys

def hook(event, args):
    global armed
    if event == "socket.sendmsg" and armed:
        armed = False
        WHAT
        gc.collect()
        others.append([bytes([i]) * 100000 for i in range(97, 123)] * 2)

armed, others = False, []
sys.addaudithook(hook)
written = b"".join(bytes([65 + i % 26]) * 100000 for i in range(50))

async def main():
    global armed, transport
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    far.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    if LINES:
        armed = True
        transport.writelines(written[i:i + 100000] for i in range(0, len(written), 100000))
    else:
        for i in range(0, len(written), 100000):
            transport.write(written[i:i + 100000])
        armed = True
    got = bytearray()
    while True:
        try:
            data = await asyncio.wait_for(loop.sock_recv(far, 1 << 16), 0.3)
        except (asyncio.TimeoutError, ConnectionError):
            break
        if not data:
            break
        got += data
    assert not armed or sys.version_info < (3, 12), "the event did not come"
    assert got == written[:len(got)], "what was never written was sent"
    transport.abort()
    far.close()

new_event_loop().run_until_complete(main())
print("fine")
"""


@pytest.mark.parametrize("lines", [False, True], ids=["write", "writelines"])
@pytest.mark.parametrize("what", ["transport.abort()", "raise ValueError('no')"])
def test_hook_ends_the_transport_whose_output_is_sent(impl, what, lines):
    source = HOOKED.replace("WHAT", what).replace("LINES", str(lines))
    check_script(impl, source, expect="fine", flags=())


# -- what eof_received() gives ------------------------------------------------------------------


def test_truth_of_the_answer_to_eof_raises(run, loop):
    """That is outside of what ends the transport: the next event asks again."""

    class Answer:
        def __bool__(self):
            raise KeyError("neither")

    told = []

    class Ends(asyncio.Protocol):
        def eof_received(self):
            told.append("eof")
            return Answer() if len(told) < 3 else None

        def connection_lost(self, exc):
            told.append(exc)

    async def main():
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
        near, far = socket.socketpair()
        await loop.create_connection(Ends, sock=near)
        far.shutdown(socket.SHUT_WR)
        await until(lambda: told[-1:] == [None])
        far.close()
        assert told == ["eof"] * 3 + [None]
        assert all("Exception in callback" in report for report in reports)
        assert len(reports) == 2

    run(main())


# -- what is put into _ready and _scheduled -------------------------------------------------------


@pytest.mark.parametrize(
    "item", [42, True, None, "a", b"", (), int, object()], ids=lambda item: repr(item)[:9]
)
def test_anything_in_ready_ends_the_run(loop, item):
    """Also what lies in the interpreter itself, and not in memory of its own."""
    ran = []
    loop.call_soon(ran.append, 1)
    loop._ready.append(item)
    loop.call_soon(ran.append, 2)
    loop.call_soon(loop.stop)
    assert list(loop._ready)[1] is item
    with pytest.raises(AttributeError, match="_cancelled"):
        loop.run_forever()
    assert ran == [1]
    loop.run_forever()
    assert ran == [1, 2]


def test_a_call_that_has_run_runs_again(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    waiting = loop.call_soon(ran.append, 2)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1, 2]
    loop._ready.append(handle)
    loop._ready.appendleft(waiting)
    loop._ready.extend([handle])
    cancelled = loop.call_soon(ran.append, 3)
    cancelled.cancel()
    loop._ready.append(cancelled)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1, 2, 2, 1, 1]


@pytest.mark.parametrize("scheduled", [False, True], ids=["_ready", "_scheduled"])
def test_what_a_handle_of_somebody_elses_raises_ends_the_run(loop, scheduled):
    class Raising(asyncio.TimerHandle):
        def _run(self):
            raise ValueError("out")

    handle = Raising(loop.time(), print, (), loop)
    (loop._scheduled if scheduled else loop._ready).append(handle)
    loop.call_later(0.02, loop.stop)
    with pytest.raises(ValueError, match="out"):
        loop.run_forever()
    loop.run_forever()


def test_handle_of_somebody_elses_is_cancelled_while_it_is_ready(loop, reports):
    ran = []
    handle = asyncio.Handle(ran.append, (1,), loop)
    loop._ready.append(handle)
    loop.call_soon(loop.stop)
    handle.cancel()
    loop.run_forever()
    assert ran == [] and reports == []


# -- close() in the middle ------------------------------------------------------------------------


def test_loop_is_closed_while_another_thread_polls_by_hand(impl):
    """Nothing is freed that the poll needs. asyncio's own goes on to poll what is closed."""
    check_script(
        impl,
        """
import threading, time, socket
for turn in ("_run_once", "select") * 3:
    loop = new_event_loop()
    near, far = socket.socketpair()
    loop.add_reader(near, print, "never")
    loop.call_later(0.3, print, "never")
    selector = loop._selector
    started = threading.Event()

    def poll():
        started.set()
        try:
            loop._run_once() if turn == "_run_once" else selector.select(0.3)
        except (RuntimeError, OSError, AttributeError, KeyError, IndexError):
            pass

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    started.wait()
    time.sleep(0.05)
    loop.close()
    assert loop.is_closed()
    for _ in range(20):
        other = new_event_loop()
        other.call_soon(other.stop)
        other.run_forever()
        other.close()
    thread.join(5)
    near.close()
    far.close()
    assert not thread.is_alive() or "asyncloop" not in type(loop).__module__
print("fine")
""",
        expect="fine",
        flags=(),
    )


# -- other threads that look ----------------------------------------------------------------------


@pytest.mark.skipif(FREE_THREADED, reason="only the loop's thread may look at its timers there")
@pytest.mark.parametrize("look", ["len", "held"])
def test_timers_are_counted_by_a_thread_that_is_slow(run, loop, look):
    """No timer is lost, wherever the thread is interrupted: a profiler may be on."""
    fired = collections.Counter()
    ended = threading.Event()
    held = loop._scheduled

    def slowly(frame, event, arg):
        if event == "c_return":
            time.sleep(0.0005)

    def spy():
        sys.setprofile(slowly)
        while not ended.is_set():
            len(held if look == "held" else loop._scheduled)
        sys.setprofile(None)

    async def main():
        spies = [threading.Thread(target=spy) for _ in range(4)]
        for each in spies:
            each.start()
        count = 0
        try:
            for _ in range(4000):
                for _ in range(2):
                    loop.call_later(0.2, fired.update, [count])
                    count += 1
                await asyncio.sleep(0)
            await until(lambda: len(fired) == count)
        finally:
            ended.set()
            for each in spies:
                each.join()
        assert set(fired.values()) == {1}

    run(main())


# -- the buffers of a BufferedProtocol ------------------------------------------------------------


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, size, act=None):
        self.calls, self.size, self.act = [], size, act

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        self.calls.append("get")
        if self.act is not None:
            self.act(self)
        return bytearray(self.size)

    def buffer_updated(self, count):
        self.calls.append(count)
        asyncio.get_running_loop().call_soon(self.calls.append, "soon")

    def connection_lost(self, exc):
        self.calls.append(repr(exc))


async def buffered(protocol, data):
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with far:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        far.send(data)
        await asyncio.sleep(0.05)
        transport.abort()
        await turns(3)


def test_each_event_asks_for_one_buffer(run):
    protocol = Buffered(2)
    run(buffered(protocol, b"abcde"))
    assert protocol.calls == ["get", 2, "soon", "get", 2, "soon", "get", 1, "soon", "None"]


@pytest.mark.parametrize("act", ["close", "abort", "pause_reading"])
def test_get_buffer_ends_or_pauses_reading(run, act):
    """What is there is still received, and told."""
    protocol = Buffered(9, lambda self: getattr(self.transport, act)())
    run(buffered(protocol, b"abc"))
    assert protocol.calls[:2] == ["get", 3] and protocol.calls.count("get") == 1
    assert protocol.calls[-1] == "None" or protocol.calls[-2:] == ["None", "soon"]


@pytest.mark.parametrize("kind", [asyncio.BufferedProtocol, asyncio.Protocol])
def test_get_buffer_sets_another_protocol(run, kind, reports):
    """It is told of a buffer that it did not give, if it takes that."""
    calls = []

    class Other(kind):
        def connection_lost(self, exc):
            calls.append(type(exc))

    if kind is asyncio.BufferedProtocol:
        Other.buffer_updated = lambda self, count: calls.append(count)
    protocol = Buffered(9, lambda self: self.transport.set_protocol(Other()))
    run(buffered(protocol, b"abc"))
    if kind is asyncio.BufferedProtocol:
        assert calls == [3, type(None)] and reports == []
    else:
        assert calls == [AttributeError]
        assert "buffer_updated() call failed" in reports[0]["message"]
    assert protocol.calls == ["get"]


# -- a server's books -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["class", "instance"])
def test_server_is_told_of_its_connections(run, monkeypatch, where):
    """By methods that were replaced after it was made."""
    calls = []

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        owner = asyncio.base_events.Server if where == "class" else server
        for name in ("_attach", "_detach"):
            inner = getattr(owner, name)

            def method(*args, name=name, inner=inner):
                calls.append(name)
                return inner(*args)

            monkeypatch.setattr(owner, name, method)
        address = server.sockets[0].getsockname()
        transports = [
            (await loop.create_connection(asyncio.Protocol, *address))[0] for _ in range(3)
        ]
        await until(lambda: calls == ["_attach"] * 3)
        for transport in transports:
            transport.abort()
        await until(lambda: calls[3:] == ["_detach"] * 3)
        server.close()
        await server.wait_closed()

    run(main())


HOOK_AND_QUEUE = """
import asyncio, socket, sys
from tests.support import *

class Full:
    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def sendto(self, *args):
        raise BlockingIOError

calls = []
transport = None

def hook(event, args):
    if event == "socket.sendto" and transport is not None:
        calls.append(args)
        if len(calls) == 5:
            HOW

sys.addaudithook(hook)

class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = []

    def datagram_received(self, data, addr):
        self.got.append(data)

async def main():
    global transport
    loop = asyncio.get_running_loop()
    there, receiver = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
    here, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
    addr = there.get_extra_info("sockname")
    sock = here._sock
    here._sock = Full(sock)
    for i in range(14):
        here.sendto(b"%02d" % i, addr)
    here._sock = sock
    transport = here
    for _ in range(20):
        await asyncio.sleep(0.005)
    transport = None
    print(len(calls), *sorted(set(map(bytes.decode, receiver.got))))
    here.abort()
    there.abort()
    await asyncio.sleep(0)

loop = new_event_loop()
loop.set_exception_handler(lambda loop, context: None)
loop.run_until_complete(main())
loop.close()
"""
QUEUED = [f"{i:02}" for i in range(14)]


def test_an_audit_hook_writes_while_queued_datagrams_leave(impl):
    how = "[transport.sendto(b'x%02d' % i, args[1]) for i in range(40)]"
    more = [f"x{i:02}" for i in range(40)]
    check_script(impl, HOOK_AND_QUEUE.replace("HOW", how), " ".join(["54", *QUEUED, *more]))


def test_an_audit_hook_ends_the_transport_while_queued_datagrams_leave(impl):
    how = "transport.abort()"
    check_script(impl, HOOK_AND_QUEUE.replace("HOW", how), " ".join(["5", *QUEUED[:5]]))


def test_an_audit_hook_closes_the_socket_before_it_connects(impl):
    check_script(
        impl,
        """
import asyncio, errno, os, socket, sys

def hook(event, args):
    if event == "socket.connect":
        number = args[0].fileno()
        args[0].close()
        os.dup2(other.fileno(), number)    # its number is another's now

with socket.socket() as listener, socket.socket() as other:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    other.setblocking(False)
    sock = socket.socket()
    sock.setblocking(False)
    number = sock.fileno()
    loop = new_event_loop()
    sys.addaudithook(hook)
    try:
        loop.run_until_complete(loop.sock_connect(sock, listener.getsockname()))
    except OSError as exc:
        print(errno.errorcode[exc.errno])
    listener.setblocking(False)
    try:
        listener.accept()
    except BlockingIOError:
        print("nobody")
    loop.close()
    os.close(number)
""",
        "EBADF\nnobody",
    )
