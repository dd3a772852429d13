"""Hooks of accepting, a transport's size and os.sendfile are replaced while they are in use."""

import asyncio
import concurrent.futures
import functools
import os
import socket
import sys

import pytest

from tests.support import until

# -- what is called for each connection -----------------------------------------------------------


class OwnAccept(socket.socket):
    def accept(self):
        return super().accept()


@pytest.mark.parametrize("kind", [socket.socket, OwnAccept])
@pytest.mark.parametrize("hook", ["_accept_connection2", "_make_socket_transport"])
def test_hook_of_accepting_is_replaced_while_it_serves(run, loop, hook, kind):
    calls, served = [], []

    class Served(asyncio.Protocol):
        def connection_made(self, transport):
            served.append(transport)

    async def connect(server, count):
        with socket.create_connection(server.sockets[0].getsockname()):
            await until(lambda: len(served) == count)

    async def main():
        listening = kind()
        listening.bind(("127.0.0.1", 0))
        server = await loop.create_server(Served, sock=listening)
        await connect(server, 1)
        own = getattr(loop, hook)

        @functools.wraps(own)
        def counted(*args, **kwargs):
            calls.append(args)
            return own(*args, **kwargs)

        setattr(loop, hook, counted)
        await connect(server, 2)
        assert len(calls) == 1
        delattr(loop, hook)
        await connect(server, 3)
        assert len(calls) == 1
        assert served[1].get_extra_info("peername")[0] == "127.0.0.1"
        for transport in served:
            transport.abort()
        server.close()

    run(main())


@pytest.mark.parametrize("by", ["create_task", "factory"])
def test_task_of_accepting_is_seen(run, loop, by):
    made, served = [], []

    class Served(asyncio.Protocol):
        def connection_made(self, transport):
            served.append(transport)

    def factory(loop, coro, **kwargs):
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **kwargs)

    def create_task(coro, **kwargs):
        made.append(coro.__name__)
        return own(coro, **kwargs)

    async def main():
        server = await loop.create_server(Served, "127.0.0.1", 0)
        if by == "factory":
            loop.set_task_factory(factory)
        else:
            loop.create_task = create_task
        with socket.create_connection(server.sockets[0].getsockname()):
            await until(lambda: served)
        served[0].abort()
        server.close()

    own = loop.create_task
    run(main())
    assert made == ["_accept_connection2"]


def test_names_go_to_the_programs_executor(run, loop):
    submitted = []

    class Executor(concurrent.futures.ThreadPoolExecutor):
        def submit(self, function, *args, **kwargs):
            submitted.append(args)
            return super().submit(function, *args, **kwargs)

    async def main():
        with Executor() as executor:
            loop.set_default_executor(executor)
            await loop.getaddrinfo("localhost", 80)
            await loop.getaddrinfo("127.0.0.1", 80)
            assert len(submitted) == 2

    run(main())


def test_accept_of_a_listening_socket_is_asked_until_there_is_nobody(run, loop):
    class Listening(socket.socket):
        calls = 0

        def accept(self):
            self.calls += 1
            return super().accept()

    async def main():
        listening = Listening()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        peers = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        made = []

        class Served(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        server = await loop.create_server(Served, sock=listening)
        await until(lambda: len(made) == 3)
        assert listening.calls == 4
        server.close()
        for end in *peers, *made:
            end.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers remove their paths from 3.13 on")
def test_end_of_a_unix_server_is_asyncios_own(run, loop, tmp_path, monkeypatch):
    """Tools that look for calls that block know which function may ask for the path."""
    path = str(tmp_path / "socket")
    files = []
    own = os.stat

    def stat(*args, **kwargs):
        code = sys._getframe(1).f_code
        files.append((os.path.basename(code.co_filename), code.co_name))
        return own(*args, **kwargs)

    async def main():
        server = await loop.create_unix_server(asyncio.Protocol, path)
        monkeypatch.setattr(os, "stat", stat)
        server.close()
        monkeypatch.undo()
        assert not os.path.exists(path)

    run(main())
    assert ("unix_events.py", "_stop_serving") in files


def test_sendfile_that_is_replaced_is_called_by_asyncio(run, loop, tmp_path, monkeypatch):
    source = tmp_path / "file"
    source.write_bytes(b"contents")
    callers = []
    own = os.sendfile

    def sendfile(*args):
        callers.append(sys._getframe(1).f_code.co_name)
        return own(*args)

    async def main():
        monkeypatch.setattr(os, "sendfile", sendfile)
        here, there = socket.socketpair()
        with source.open("rb") as file, here, there:
            here.setblocking(False)
            assert await loop.sock_sendfile(here, file) == 8
            assert there.recv(100) == b"contents"

    run(main())
    assert callers and set(callers) == {"_sock_sendfile_native_impl"}


# -- how much is buffered -------------------------------------------------------------------------


def test_size_of_the_buffer_is_what_the_program_says(run, loop):
    log = []

    class Told(asyncio.Protocol):
        def pause_writing(self):
            log.append("pause")

        def resume_writing(self):
            log.append("resume")

    async def main():
        here, there = socket.socketpair()
        with there:
            transport, _ = await loop.create_connection(Told, sock=here)

            answer = 0
            transport.get_write_buffer_size = lambda: answer
            transport.write(b"x" * 4_000_000)
            assert log == []
            answer = 1 << 30
            transport.write(b"x")
            assert log == ["pause"]
            answer = 0
            transport.set_write_buffer_limits()
            transport._maybe_resume_protocol()
            assert log == ["pause", "resume"]
            transport.abort()

    run(main())
