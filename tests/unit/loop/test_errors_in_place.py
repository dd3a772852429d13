"""An error comes where asyncio raises it: from the call that is wrong, not from a later one."""

import asyncio
import gc
import os
import socket

import pytest

from tests.compare import same
from tests.support import PY


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
            gc.collect()  # asyncio's own, half made, whose descriptor may be taken again
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


# -- a Task given to the methods of Future ----------------------------------------------------

SETTLING = {
    "set_result": (1,),
    "set_exception": (ZeroDivisionError,),
    "cancel": ("why",),
    "add_done_callback": (len,),
    "remove_done_callback": (len,),
}
ATTRIBUTES = ["_state", "_result", "_exception", "_callbacks", "_log_traceback", "_cancel_message",
              "_source_traceback", "_asyncio_future_blocking"]  # fmt: skip
WITHOUT_ARGUMENTS = ["done", "cancelled", "result", "exception", "__repr__", "__del__",
                     "_make_cancelled_error", "__iter__"]  # fmt: skip


async def future_methods_of_tasks(log, loop, state):
    future_type = type(loop.create_future())
    keep = []

    async def body(blocker):
        try:
            return await blocker
        finally:
            log("body ends")

    for name in [*SETTLING, *ATTRIBUTES, *WITHOUT_ARGUMENTS]:
        log("--", name)
        blocker = loop.create_future()
        task = loop.create_task(body(blocker))
        keep += [task, task.get_coro(), blocker]
        if state != "new":
            await asyncio.sleep(0)
        if state == "ready":
            blocker.set_result(5)
        elif state == "done":
            blocker.set_result(5)
            await task
        elif state == "cancelling":
            task.cancel()
        log(isinstance(task, future_type), issubclass(type(task), future_type))
        method = getattr(future_type, name)
        if name in ATTRIBUTES:
            log(str(method.__get__(task, type(task))).partition(" at ")[0])
        else:
            result = log.call(name, method, task, *SETTLING.get(name, ()))
            keep.append(result)
        log(task.done(), task.cancelled(), task in asyncio.all_tasks(loop))
        await asyncio.sleep(0)
        if not blocker.done():
            blocker.set_result(6)
        for _ in range(3):
            await asyncio.sleep(0)
        await log.wait("task", asyncio.shield, task)
        log(task.cancelling(), task.done())
    keep.clear()


@pytest.mark.parametrize("state", ["new", "waiting", "ready", "done", "cancelling"])
def test_task_given_to_methods_of_future(state):
    def told(line):
        return "coroutine" not in line and not line.startswith(("__iter__", "warned"))

    same(future_methods_of_tasks, state, only=told)


async def made_again(log, loop):
    """Future.__init__() of a Task leaves one that fails or ends, but never the process."""
    for settle in (False, True):
        blocker = loop.create_future()
        task = loop.create_task(asyncio.wait_for(blocker, 1))
        await asyncio.sleep(0)
        try:
            type(blocker).__init__(task, loop=loop)
        except RuntimeError:
            pass  # from 3.15 on
        if settle:
            type(blocker).set_result(task, 3)
        blocker.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
        log(task.done())


def test_future_init_of_a_task():
    same(made_again, only=lambda line: not line.startswith("warned"))


async def subclass_of_both(log, loop):
    future_type, task_type = type(loop.create_future()), type(asyncio.current_task())

    class Both(task_type, future_type):
        def set_result(self, value):
            super(task_type, self).set_result(value)

    async def nothing():
        pass

    task = Both(nothing(), loop=loop)
    log.call("set_result", task.set_result, 7)
    log(task.done(), await task)
    log([kind.__name__ for kind in Both.__mro__])
    for _ in range(3):
        await asyncio.sleep(0)


def test_subclass_of_both():
    # Asyncio's have one class less.
    same(subclass_of_both, only=lambda line: "'Both'" not in line and "warned" not in line)


# -- smaller things ---------------------------------------------------------------------------


async def writelines_after_eof(log, loop):
    one, other = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
    for ended in (False, True):
        if ended:
            transport.write_eof()
        for parts in ([b"a", 5], ["a"], [None, b"a"], [b"a"], (), [], [bytearray(b"x")], "ab"):
            log.call(f"writelines {parts!r}", transport.writelines, parts)
    await asyncio.sleep(0)
    log(other.recv(100))
    transport.close()
    other.close()


def test_writelines_after_write_eof():
    def told(line):
        # From 3.12 on asyncio puts whatever it gets into its queue, and fails later.
        return PY < (3, 12) or "RuntimeError" in line

    same(writelines_after_eof, only=told)


METHODS_OF_TRANSPORTS = """abort can_write_eof close get_extra_info get_protocol
    get_write_buffer_limits get_write_buffer_size is_closing is_reading pause_reading
    resume_reading set_protocol
    set_write_buffer_limits write write_eof writelines _maybe_pause_protocol""".split()


async def methods_of_pipes(log, loop):
    reading, writing = os.pipe()
    one, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reading, "rb", 0))
    other, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(writing, "wb", 0))
    for name in METHODS_OF_TRANSPORTS:
        log(name, hasattr(one, name), hasattr(other, name))
    log.call("abort", lambda: one.abort())
    other.close()
    one.close()
    await asyncio.sleep(0.001)


def test_methods_of_pipes():
    same(methods_of_pipes)


class Received(asyncio.Protocol):
    def __init__(self, log):
        self.log = log

    def data_received(self, data):
        self.log(data)


async def reader_of_a_transport(log, loop):
    one, other = socket.socketpair()
    transport, _ = await loop.create_connection(lambda: Received(log), sock=one)
    fd = one.fileno()
    await asyncio.sleep(0.001)
    for _ in range(2):
        log.call("_remove_reader", loop._remove_reader, fd)
        log.call("_remove_writer", loop._remove_writer, fd)
    other.send(b"not told")
    await asyncio.sleep(0.002)
    transport.pause_reading()
    transport.resume_reading()
    await asyncio.sleep(0.002)
    transport.write(bytes(3_000_000))
    log.call("_remove_writer", loop._remove_writer, fd)
    log.call("_remove_reader", loop._remove_reader, fd)
    transport.abort()
    await asyncio.sleep(0.001)
    log.call("_remove_reader", loop._remove_reader, fd)
    other.close()


def test_reader_of_a_transport_is_taken_away():
    same(reader_of_a_transport)


async def add_callback_to_closed_loop(log, loop):
    closed = type(loop)()
    handle = closed.call_soon(int)
    closed.close()
    for item in (handle, 5, None):
        log.call(f"{type(item).__name__}", closed._add_callback, item)


def test_add_callback_to_a_closed_loop():
    same(add_callback_to_closed_loop)
