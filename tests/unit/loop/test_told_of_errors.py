"""What an error brings with it, a text or a traceback: as asyncio has it."""

import asyncio
import concurrent.futures
import dataclasses
import io
import signal
import socket
import sys
import threading
import traceback

import pytest

from tests.support import turns


@pytest.mark.parametrize("debug", [False, True])
def test_report_of_a_handle_that_has_cancelled_itself(loop, run, reports, debug):
    """It has no callback any more that could be named."""
    loop.set_debug(debug)
    handles = []

    def fail(name):
        handles.pop().cancel()
        raise ZeroDivisionError(name)

    def of_descriptor(remove):
        remove(near)
        raise ZeroDivisionError("descriptor")

    async def main():
        handles.append(loop.call_soon(fail, "soon"))
        await turns(2)
        handles.append(loop.call_later(0, fail, "later"))
        while handles:
            await asyncio.sleep(0.001)
        handles.append(loop.call_soon_threadsafe(fail, "threadsafe"))
        await turns(2)
        loop.add_writer(near, of_descriptor, loop.remove_writer)
        loop.add_reader(near, of_descriptor, loop.remove_reader)
        far.send(b"x")
        while len(reports) < 5:
            await asyncio.sleep(0.001)

    near, far = socket.socketpair()
    with near, far:
        run(main())
    assert [report["message"] for report in reports] == ["Exception in callback None()"] * 5
    assert all("cancelled" in repr(report["handle"]) for report in reports)


def test_report_names_the_callback_of_now(loop, run, reports):
    async def main():
        handle = None

        def fail():
            handle._callback = len
            raise ZeroDivisionError

        handle = loop.call_soon(fail)
        await turns(2)

    run(main())
    assert reports[0]["message"] == "Exception in callback len()"


def test_error_is_handled_while_error_received_runs(loop, run, reports):
    handled = []

    class Protocol(asyncio.DatagramProtocol):
        def error_received(self, exc):
            handled.append(sys.exc_info()[1] is exc)
            raise ZeroDivisionError

    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            Protocol, remote_addr=("127.0.0.1", free.getsockname()[1])
        )
        with pytest.raises(ZeroDivisionError) as info:
            transport.sendto(bytes(70_000))
        assert isinstance(info.value.__context__, OSError)
        assert sys.exc_info()[1] is None
        free.close()
        transport.sendto(b"x")
        while not reports:
            await asyncio.sleep(0.001)
        transport.abort()

    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        run(main())
    assert handled == [True, True]
    assert isinstance(reports[0]["exception"].__context__, ConnectionRefusedError)


def test_text_of_a_future_of_an_executor(loop, run):
    async def main():
        event = threading.Event()
        future = loop.run_in_executor(None, event.wait)
        waiter = asyncio.ensure_future(asyncio.wait([future]))
        await turns(2)
        text = repr(future)
        event.set()
        await waiter
        assert text.startswith(
            "<Future pending cb=[_chain_future.<locals>._call_check_cancel() at "
        )
        assert "futures.py:" in text

    run(main())


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    text: str


async def fail_frozen():
    raise Frozen("no attribute of it can be set")


def lines(error):
    """Where a traceback leads: the functions, and for those of the loop their files."""
    return [
        (frame.name, frame.filename if frame.filename != __file__ else "")
        for frame in traceback.extract_tb(error.__traceback__)
    ]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, asyncio.CancelledError])
def test_traceback_of_run_until_complete(loop, error):
    base = asyncio.base_events.__file__

    async def fail():
        raise error

    with pytest.raises(error) as info:
        loop.run_until_complete(fail())
    places = lines(info.value)
    assert places[1] == ("run_until_complete", base)
    assert places[-1] == ("fail", "")
    if error is not KeyboardInterrupt:  # which comes from where the step is taken
        assert len(places) == 3
    loop.run_until_complete(turns(1))
    with pytest.raises(Frozen) as info:
        loop.run_until_complete(fail_frozen())
    assert [name for name, _ in lines(info.value)][1:] == ["run_until_complete", "fail_frozen"]
    with pytest.raises(TypeError) as info:
        loop.run_until_complete(3)
    assert lines(info.value)[1] == ("run_until_complete", base)
    assert [name for name, _ in lines(info.value)].count("run_until_complete") == 1


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("outcome", [lambda: 3, lambda: 1 / 0])
def test_future_of_an_executor_that_is_settled_early(loop, run, reports, debug, sent, outcome):
    """What the thread gives comes too late: reported as the error of asyncio's callback."""

    async def main():
        loop.set_debug(debug)
        begin, end = threading.Event(), threading.Event()

        def work():
            begin.wait()
            return outcome()

        future = loop.run_in_executor(executor, work)
        executor.submit(end.set)
        if sent:  # the loop has been asked to take it
            begin.set()
            end.wait()
        future.set_result("mine")
        begin.set()
        while not reports:
            await asyncio.sleep(0.001)
        loop.set_debug(False)
        return await future

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert run(main()) == "mine"
    (report,) = reports
    assert report["message"].startswith("Exception in callback _chain_future.<locals>._set_state(")
    assert "_chain_future" in repr(report["handle"])
    assert lines(report["exception"])[-2][0] == "_set_state"
    assert ("source_traceback" in report) == debug


@pytest.mark.parametrize("debug", [False, True])
def test_outcome_of_an_executor_that_a_future_refuses(loop, run, reports, debug):
    async def main():
        loop.set_debug(debug)
        future = loop.run_in_executor(None, next, iter(()))
        while not (future.done() or reports):
            await asyncio.sleep(0.001)
        loop.set_debug(False)
        return future

    future = run(main())
    if reports:  # later releases make another error of it
        (report,) = reports
        assert report["message"].startswith(
            "Exception in callback _chain_future.<locals>._set_state("
        )
    else:
        assert type(future.exception()) is RuntimeError


def test_frames_of_a_run_that_failed_can_be_cleared(loop):
    async def never():
        pass

    async def main():
        loop.run_until_complete(never())

    with pytest.warns(RuntimeWarning, match="never awaited"):
        try:
            loop.run_until_complete(main())
        except RuntimeError as exc:
            traceback.clear_frames(exc.__traceback__)


def test_what_an_error_came_from(loop, run):
    async def main():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            with pytest.raises(asyncio.SendfileNotAvailableError) as info:
                await loop.sock_sendfile(ours, io.BytesIO(b"no file"), fallback=False)
        return info.value

    def add():
        with pytest.raises(RuntimeError) as info:
            loop.add_signal_handler(signal.SIGUSR1, print)
        errors.append((info.value, ValueError))

    errors = [(run(main()), io.UnsupportedOperation)]
    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError) as info:
        loop.add_signal_handler(signal.SIGKILL, print)
    errors.append((info.value, OSError))
    for error, before in errors:
        assert error.__cause__ is None and not error.__suppress_context__
        assert type(error.__context__) is before
