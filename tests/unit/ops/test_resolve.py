"""getaddrinfo and getnameinfo: the socket module's answers, numeric ones without a thread."""

import asyncio
import concurrent.futures
import logging
import os
import random
import socket
import threading

import pytest

from tests.support import in_thread

by_the_core = pytest.mark.skipif(
    "ASYNCLOOP_LONG_WAYS" in os.environ, reason="that the core looks names up is a short way"
)

HOSTS = [
    "127.0.0.1", "1.2.3.4", "255.255.255.255", "0.0.0.0", "::1", "::", "fe80::1",
    "::ffff:1.2.3.4", "2001:db8::1", None, "fe80::1%lo", "fe80::1%1", "::1%9999", "127.1",
    "0x7f.1", "010.0.0.1", "1.2.3", "", b"127.0.0.1", b"::1", "127.0.0.1\0", "\u0661.2.3.4",
    "1.2.3.4%lo", "[::1]", "::1%", 5,
]  # fmt: skip
PORTS = [
    80, 0, None, "80", 65535, 65536, 70000, -1, "http", "", " 80", "80 ", "0x50", b"80", True,
    1.5, 2**31, 2**70, "65536", "00080", "+80", "80\0", "no-such-service",
]  # fmt: skip
FAMILIES = [0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 77, -1, "x", 2.0]
TYPES = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, 99, -1]
PROTOCOLS = [0, 6, 17, 1, 132, 255, -1, 58, 2**31]
FLAGS = [
    socket.AI_PASSIVE, socket.AI_CANONNAME, socket.AI_NUMERICHOST, socket.AI_NUMERICSERV,
    socket.AI_V4MAPPED, socket.AI_ALL, socket.AI_ADDRCONFIG, 1 << 20,
]  # fmt: skip


def outcome_of(function, *args):
    try:
        return function(*args)
    except Exception as exc:
        return type(exc), exc.args


def questions(seed, count):
    """Mostly sensible ones."""
    chance = random.Random(seed)

    def choose(values, usual):
        return chance.choice(values[:usual] if chance.random() < 0.7 else values)

    for _ in range(count):
        flags = 0
        if chance.random() < 0.4:
            for flag in chance.sample(FLAGS, chance.randint(1, 3)):
                flags |= flag
        yield (
            choose(HOSTS, 9),
            choose(PORTS, 5),
            choose(FAMILIES, 3),
            choose(TYPES, 3),
            choose(PROTOCOLS, 3),
            flags,
        )


@pytest.mark.parametrize("seed", range(4))
def test_same_answers_as_the_socket_module(run, loop, seed):
    async def main():
        for host, port, family, kind, proto, flags in questions(seed, 500):
            expected = outcome_of(socket.getaddrinfo, host, port, family, kind, proto, flags)
            try:
                found = await loop.getaddrinfo(
                    host, port, family=family, type=kind, proto=proto, flags=flags
                )
            except Exception as exc:
                found = type(exc), exc.args
            question = (host, port, family, kind, proto, flags)
            assert (found, repr(found)) == (expected, repr(expected)), question

    run(main())


def test_name(run, loop):
    found = run(loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM))
    assert found == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


NAMES = [
    "localhost", "localhost.", "LocalHost", "name.invalid", "a..invalid", ".invalid", ".", "..",
    "a" * 63 + ".invalid", "a" * 64 + ".invalid", "invalid." + "a" * 64, "b\u00fccher.invalid",
    b"localhost", "local host", "localhost\0",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_as_the_socket_module(run, loop, name):
    async def main():
        for port, flags in (80, 0), ("http", 0), (None, socket.AI_CANONNAME), ("no-such", 0):
            expected = outcome_of(socket.getaddrinfo, name, port, 0, socket.SOCK_STREAM, 0, flags)
            try:
                found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
            except Exception as exc:
                found = type(exc), exc.args
            assert (found, repr(found)) == (expected, repr(expected)), (port, flags)

    run(main())


def test_unknown_name(run, loop):
    with pytest.raises(socket.gaierror):
        run(loop.getaddrinfo("name.invalid", 80))


@by_the_core
@pytest.mark.our_loop("asyncio uses a thread for each")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%1", None])
@pytest.mark.parametrize("port", [80, "80", None])
def test_numeric_needs_no_thread(run, loop, host, port):
    if host is None and port is None:
        pytest.skip("no question")
    before = threading.active_count()
    for kind in (0, socket.SOCK_STREAM, socket.SOCK_DGRAM):
        run(loop.getaddrinfo(host, port, type=kind))
    assert threading.active_count() == before


@by_the_core
@pytest.mark.our_loop("with asyncio names wait for the default executor")
def test_names_while_the_default_executor_is_full(run, loop):
    gate = threading.Event()

    async def main():
        jobs = [loop.run_in_executor(None, gate.wait) for _ in range(64)]
        found = await loop.getaddrinfo("localhost", 80)
        assert not any(job.done() for job in jobs)
        gate.set()
        await asyncio.gather(*jobs)
        return found

    try:
        assert run(main())
    finally:
        gate.set()


class Executor(concurrent.futures.ThreadPoolExecutor):
    """Notes what it is given."""

    def __init__(self):
        super().__init__(2)
        self.calls = []

    def submit(self, function, /, *args, **kwargs):
        self.calls.append((function, args))
        return super().submit(function, *args, **kwargs)


def test_default_executor_where_python_has_a_part(run, loop, monkeypatch, asyncio_log):
    """A replaced function, debug mode, getnameinfo(): there is no other pool of threads for it."""
    executor = Executor()
    loop.set_default_executor(executor)
    address = "127.0.0.1", 80
    run(loop.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))
    run(loop.getnameinfo(address))
    assert [args[0] for _, args in executor.calls] == [address] * 2
    executor.calls.clear()

    with pytest.raises(UnicodeError):
        run(loop.getaddrinfo("b\u00fccher..invalid", 80, type=socket.SOCK_STREAM, flags=3))
    question = "b\u00fccher..invalid", 80, 0, socket.SOCK_STREAM, 0, 3
    assert executor.calls == [(socket.getaddrinfo, question)]
    executor.calls.clear()

    def name(*args):
        return [threading.current_thread().name.rpartition("_")[0], *args]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", name)
        found = run(loop.getaddrinfo("name", 80, family=socket.AF_INET))
    assert found == [executor._thread_name_prefix, "name", 80, socket.AF_INET, 0, 0, 0]
    assert executor.calls == [(name, ("name", 80, socket.AF_INET, 0, 0, 0))]
    executor.calls.clear()

    loop.set_debug(True)
    assert run(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    assert executor.calls == [
        (loop._getaddrinfo_debug, ("127.0.0.1", 80, 0, socket.SOCK_STREAM, 0, 0))
    ]


@by_the_core
@pytest.mark.our_loop("asyncio encodes in the thread")
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_encoding_is_interrupted(run, loop, monkeypatch, end):
    def interrupted(label):
        raise end

    monkeypatch.setattr("encodings.idna.ToASCII", interrupted)
    coroutine = loop.getaddrinfo("b\u00fccher.invalid", 80)
    with pytest.raises(end):
        coroutine.send(None)


def test_cancelled(run, loop, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: gate.wait() and [])

    async def main():
        task = asyncio.create_task(loop.getaddrinfo("name", 80))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()

    try:
        run(main())
    finally:
        gate.set()


def test_replaced_function_is_asked(run, loop, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: list(args))
    found = run(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    assert found == ["127.0.0.1", 80, 0, socket.SOCK_STREAM, 0, 0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_debug_mode_logs(run, loop, asyncio_log, host):
    loop.set_debug(True)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    try:
        run(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
    finally:
        logging.getLogger("asyncio").setLevel(logging.NOTSET)
    messages = asyncio_log.take(logging.DEBUG)
    assert any(f"Getting address info {host}:80" in one for one in messages)


def test_arguments(loop):
    with pytest.raises(TypeError):
        loop.getaddrinfo("127.0.0.1").close()
    with pytest.raises(TypeError):
        loop.getaddrinfo("127.0.0.1", 80, 2).close()


def test_as_task(run, loop):
    async def main():
        return await asyncio.create_task(loop.getaddrinfo("127.0.0.1", 80))

    assert run(main()) == socket.getaddrinfo("127.0.0.1", 80)


@pytest.mark.parametrize("flags", [0, socket.NI_NUMERICHOST, socket.NI_NUMERICSERV, 3])
@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("127.0.0.1", 80, 0)])
def test_getnameinfo(run, loop, address, flags):
    try:
        expected = socket.getnameinfo(address, flags)
    except OSError as exc:
        with pytest.raises(type(exc)) as caught:
            run(loop.getnameinfo(address, flags))
        assert caught.value.args == exc.args
    else:
        assert run(loop.getnameinfo(address, flags)) == expected


def test_getnameinfo_bad_address(run, loop):
    with pytest.raises(TypeError):
        run(loop.getnameinfo("127.0.0.1", socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))
    with pytest.raises(socket.gaierror):
        run(loop.getnameinfo(("localhost", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))


def test_in_another_thread(impl):
    def body():
        loop = impl.new_event_loop()
        try:
            return loop.run_until_complete(loop.getaddrinfo("localhost", 80))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    assert in_thread(body) == socket.getaddrinfo("localhost", 80)
