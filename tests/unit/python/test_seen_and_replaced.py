"""What test doubles, spies and monitors of asyncio look at and replace, in the places where asyncio
has it: methods on a transport, its loggers, hooks of the loop, signatures, texts."""

import asyncio
import gc
import inspect
import os
import socket
import ssl
import sys
import warnings
from unittest import mock

import pytest

from tests.protocols import Log, connected
from tests.support import turns, until

SOCK = ("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall",
        "sock_sendto", "sock_connect", "sock_accept")  # fmt: skip


# -- coroutine functions, signatures, keywords -----------------------------------------------------


@pytest.mark.parametrize("name", [*SOCK, "getaddrinfo"])
def test_coroutine_functions(loop, name):
    method = getattr(loop, name)
    assert inspect.iscoroutinefunction(method)
    assert inspect.iscoroutinefunction(getattr(type(loop), name))
    expected = inspect.signature(getattr(asyncio.SelectorEventLoop, name))
    assert inspect.signature(getattr(type(loop), name)) == expected
    assert method.__name__ == name
    assert method.__self__ is loop
    assert method == getattr(loop, name)
    with pytest.raises(TypeError):
        getattr(type(loop), name)()
    with pytest.raises(TypeError):
        getattr(type(loop), name)(*range(20))


def test_signatures_of_the_loop(loop):
    """Of what is Python's on both; what is C's on asyncloop has no annotations either."""
    for name in dir(asyncio.AbstractEventLoop):
        ours = getattr(type(loop), name)
        theirs = getattr(asyncio.SelectorEventLoop, name)
        if name.startswith("_") or not inspect.isfunction(ours):
            continue
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert ours.__qualname__ == theirs.__qualname__


def test_doubles_of_a_loop(loop):
    double = mock.Mock(spec=loop)
    assert isinstance(double, asyncio.AbstractEventLoop)
    for name in (*SOCK, "getaddrinfo", "create_connection", "shutdown_asyncgens"):
        assert isinstance(getattr(double, name), mock.AsyncMock), name
    for name in ("call_soon", "create_task", "run_in_executor", "time"):
        assert not isinstance(getattr(double, name), mock.AsyncMock), name
    checked = mock.create_autospec(loop, instance=True)
    with pytest.raises(TypeError):
        checked.sock_recv()


def test_never_awaited(loop):
    for name, args in (("sock_recv", (None, 5)), ("getaddrinfo", ("host", 1))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(loop, name)(*args)
            gc.collect()
        (warning,) = caught
        assert warning.category is RuntimeWarning
        owner = "BaseEventLoop" if name == "getaddrinfo" else "BaseSelectorEventLoop"
        assert str(warning.message) == f"coroutine '{owner}.{name}' was never awaited"
        assert warning.filename == __file__


def test_arguments_by_name(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        transport.write(b"x")
        transport.writelines(list_of_data=[b"y", b"z"])
        transport.set_protocol(protocol=protocol)
        await turns(2)
        assert theirs.recv(10) == b"xyz"
        for wrong in ((), ([], [])):
            with pytest.raises(TypeError):
                transport.writelines(*wrong)
        with pytest.raises(TypeError):
            transport.writelines(other=[])
        transport.close()
        await turns(2)
        theirs.close()
        read_end, write_end = os.pipe()
        writing, _ = await loop.connect_write_pipe(Log, os.fdopen(write_end, "wb", 0))
        writing.write(data=b"pipe")
        assert os.read(read_end, 10) == b"pipe"
        with pytest.raises(AssertionError):
            writing.write("text")
        writing.close()
        os.close(read_end)
        await turns(2)

    run(main())


# -- methods put on a transport --------------------------------------------------------------------


def test_close_on_the_transport_is_called_at_the_end(run):
    async def main():
        transport, protocol, theirs = await connected(asyncio.get_running_loop())
        with mock.patch.object(transport, "close") as close:
            theirs.close()
            await until(lambda: close.called)
        assert not transport.is_closing()
        assert protocol.log[:2] == ["made", "eof"]
        transport.abort()
        await turns(2)

    run(main())


def test_fatal_error_on_the_transport(run):
    class Failing(Log):
        def data_received(self, data):
            raise ValueError(data)

    async def main():
        transport, protocol, theirs = await connected(asyncio.get_running_loop(), Failing)
        with mock.patch.object(transport, "_fatal_error") as fatal:
            theirs.send(b"x")
            await until(lambda: fatal.called)
            ((exc, message), _) = fatal.call_args
            assert (type(exc), exc.args) == (ValueError, (b"x",))
            assert message == "Fatal error: protocol.data_received() call failed."
        assert not transport.is_closing()
        with mock.patch.object(transport, "_force_close", wraps=transport._force_close) as force:
            transport.abort()
            force.assert_called_once_with(None)
        await turns(2)
        assert protocol.log == ["made", "lost None"]
        theirs.close()

    run(main())


def test_flow_control_on_the_transport(run):
    async def main():
        transport, protocol, theirs = await connected(asyncio.get_running_loop())
        pause = mock.Mock(wraps=transport._maybe_pause_protocol)
        resume = mock.Mock(wraps=transport._maybe_resume_protocol)
        transport._maybe_pause_protocol = pause
        transport._maybe_resume_protocol = resume
        size = 4_000_000
        transport.write(b"x" * size)
        pause.assert_called_once_with()
        while size > 0:
            try:
                size -= len(theirs.recv(1_000_000))
            except BlockingIOError:
                await asyncio.sleep(0)
        await until(lambda: resume.called)
        transport.close()
        await turns(2)
        theirs.close()

    run(main())


def test_patched_attributes_are_put_back(run):
    async def main():
        transport, protocol, theirs = await connected(asyncio.get_running_loop())
        real = transport._sock
        double = mock.Mock(wraps=real)
        with mock.patch.object(transport, "_sock", double), mock.patch.object(
            transport, "_paused", True
        ):
            assert not transport.is_reading()
            transport.write(b"x")
            double.send.assert_called_once_with(b"x")
        assert transport._sock is real
        assert transport.is_reading()
        transport.close()
        await turns(2)
        assert real.fileno() == -1
        theirs.close()

    run(main())


# -- where errors and logs go ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
def test_report_of_a_failing_protocol(run, reports, method):
    def failing(self, argument):
        raise ZeroDivisionError

    async def main():
        factory = type("Failing", (Log,), {method: failing})
        transport, protocol, theirs = await connected(asyncio.get_running_loop(), factory)
        transport.close()
        await turns(3)
        (report,) = reports
        assert set(report) == {"message", "exception", "handle"}
        assert type(report["exception"]) is ZeroDivisionError
        assert report["message"].startswith("Exception in callback ")
        expected = "_call_connection_lost(" if method == "connection_lost" else "failing("
        assert expected in report["message"]
        assert isinstance(report["handle"], asyncio.Handle)
        theirs.close()

    run(main())


def test_report_of_a_failing_pipe(run, reports):
    class Failing(Log):
        def data_received(self, data):
            raise ZeroDivisionError

        def eof_received(self):
            raise ZeroDivisionError

    async def main():
        read_end, write_end = os.pipe()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_read_pipe(Failing, os.fdopen(read_end, "rb", 0))
        os.write(write_end, b"x")
        await until(lambda: reports)
        assert set(reports[0]) == {"message", "exception", "handle"}
        assert reports[0]["message"].endswith("._read_ready()")
        os.close(write_end)
        await until(lambda: "lost None" in protocol.log)
        assert set(reports[1]) == {"message", "exception", "handle"}
        assert reports[1]["message"].endswith("eof_received()")

    run(main())


def test_patched_logger(run):
    async def main():
        transport, protocol, theirs = await connected(asyncio.get_running_loop())
        with mock.patch("asyncio.selector_events.logger") as logger:
            transport.abort()
            for _ in range(8):
                transport.write(b"x")
        assert logger.warning.call_args_list == 4 * [mock.call("socket.send() raised exception.")]
        await turns(2)
        theirs.close()

    run(main())


def test_text_of_the_end_of_input(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(loop)
        loop.set_debug(True)
        texts = []
        with mock.patch("asyncio.selector_events.logger") as logger:
            logger.debug = lambda text, *args: texts.append(text % args)
            theirs.close()
            await until(lambda: "lost None" in protocol.log)
        loop.set_debug(False)
        (text,) = [text for text in texts if "received EOF" in text]
        assert "read=polling" in text

    run(main())


def test_texts_of_wrong_times(loop):
    with pytest.raises(TypeError, match=r"^when cannot be None$"):
        loop.call_at(None, print)
    with pytest.raises(TypeError, match=r"^delay must not be None$"):
        loop.call_later(None, print)
    loop.set_debug(True)
    with pytest.raises(TypeError, match=r"used with call_at\(\)"):
        loop.call_later(1, asyncio.sleep)
    loop.set_debug(False)


def test_task_that_yields_itself(run):
    class Itself:
        def __await__(self):
            yield asyncio.current_task()

    async def wait():
        await Itself()

    async def main():
        task = asyncio.ensure_future(wait())
        with pytest.raises(RuntimeError, match="Task cannot await on itself"):
            await task

    run(main())


# -- hooks of the loop -----------------------------------------------------------------------------


def test_write_to_self_is_called(run):
    async def main():
        loop = asyncio.get_running_loop()
        calls = []
        wake = loop._write_to_self
        loop._write_to_self = lambda: (calls.append(1), wake())
        loop.call_soon_threadsafe(int)
        assert calls == [1]
        del loop._write_to_self
        loop.call_soon_threadsafe(int)
        assert calls == [1]

    run(main())


def test_clock_resolution(loop):
    """A timer is due as soon as its time is nearer than that."""
    loop._clock_resolution = 1000
    assert loop._clock_resolution == 1000
    called = []
    loop.call_later(500, called.append, 1)
    loop.call_later(5000, called.append, 2).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert called == [1]


def test_a_clock_of_integers_stays_one(impl):
    class Clock(impl.Loop):
        def __init__(self):
            super().__init__()
            self.now = 0
            select = self._selector.select

            def advance(timeout):
                if timeout:
                    self.now += timeout
                return select(0)

            self._selector.select = advance

        def time(self):
            return self.now

    async def main(loop):
        await asyncio.sleep(3600)
        assert (type(loop.time()), loop.time()) == (int, 3600)
        await asyncio.sleep(0.5)
        assert loop.time() == 3600.5
        for delay in (0.1, 0.7, 1e-3, 1e6, 3.3):
            start = loop.time()
            await asyncio.sleep(delay)
            assert loop.time() == pytest.approx(start + delay)

    loop = Clock()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.close()


def test_hooks_of_accepting(impl):
    calls = []

    def noting(name):
        method = getattr(impl.Loop, name)
        if inspect.iscoroutinefunction(method):

            async def hook(self, *args, **kwargs):
                calls.append(name)
                return await method(self, *args, **kwargs)
        else:

            def hook(self, *args, **kwargs):
                calls.append(name)
                return method(self, *args, **kwargs)

        return hook

    async def serve(loop):
        made = []
        server = await loop.create_server(
            lambda: made.append(Log()) or made[-1], "127.0.0.1", 0
        )
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.send(b"x")
            await until(lambda: made and b"x" in made[0].log)
        await until(lambda: "lost None" in made[0].log)
        server.close()
        await turns(2)

    for name in ("_accept_connection", "_accept_connection2", "_make_socket_transport"):
        loop = type("Loop", (impl.Loop,), {name: noting(name)})()
        try:
            loop.run_until_complete(serve(loop))
        finally:
            loop.close()
        assert calls == [name]
        calls.clear()


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="the hooks know a context from 3.15 on")
def test_hooks_without_a_context(impl):
    """Overridden with the arguments that asyncio's have."""

    class Loop(impl.Loop):
        def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
            made.append("socket")
            return super()._make_socket_transport(
                sock, protocol, waiter, extra=extra, server=server
            )

        def _make_ssl_transport(
            self, rawsock, protocol, sslcontext, waiter=None, *, server_side=False,
            server_hostname=None, extra=None, server=None, ssl_handshake_timeout=None,
            ssl_shutdown_timeout=None,
        ):  # fmt: skip
            made.append("ssl")
            return super()._make_ssl_transport(
                rawsock, protocol, sslcontext, waiter, server_side=server_side, extra=extra,
                server=server, ssl_handshake_timeout=ssl_handshake_timeout,
            )  # fmt: skip

    made = []
    loop = Loop()
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        server = await loop.create_server(Log, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(Log, *server.sockets[0].getsockname())
        await until(lambda: len(made) == 2)
        transport.close()
        server.close()
        made.clear()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = await loop.create_server(Log, "127.0.0.1", 0, ssl=context)
        with socket.create_connection(server.sockets[0].getsockname()):
            await until(lambda: "ssl" in made)
        server.close()
        await asyncio.sleep(0.05)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_code_of_a_function_is_assigned(run):
    """In place of another function, as tools that load code anew do it."""

    def answering(host, port, family=0, type=0, proto=0, flags=0):
        return [(AF_INET, type, proto, "", ("192.0.2.1", port))]  # noqa: F821

    async def main():
        loop = asyncio.get_running_loop()
        usual = await loop.getaddrinfo("127.0.0.1", 80)
        own = socket.getaddrinfo.__code__
        socket.getaddrinfo.__code__ = answering.__code__
        try:
            assert (await loop.getaddrinfo("127.0.0.1", 80))[0][4] == ("192.0.2.1", 80)
        finally:
            socket.getaddrinfo.__code__ = own
        assert await loop.getaddrinfo("127.0.0.1", 80) == usual

    run(main())
