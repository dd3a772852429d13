"""Every name of asyncio's loop, transports, servers, handles, futures and tasks, of all Pythons.

A name of a new Python fails here until somebody has looked at it: it works on asyncloop, or it is
in ABSENT and in docs/differences.md.
"""

import asyncio
import os
import socket
import sys

import pytest

from tests.support import ROOT, turns

NAMES = {
    "loop": """
        __del__ _accept_connection _accept_connection2 _add_callback _add_callback_signalsafe
        _add_reader _add_writer _asyncgen_finalizer_hook _asyncgen_firstiter_hook _asyncgens
        _asyncgens_shutdown_called _call_soon _check_callback _check_closed
        _check_default_executor _check_running _check_sendfile_params _check_signal
        _check_thread _child_watcher_callback _clock_resolution _close_self_pipe _closed
        _connect_sock _coroutine_origin_tracking_enabled _coroutine_origin_tracking_saved_depth
        _create_connection_transport _create_server_getaddrinfo _csock _current_handle _debug
        _default_executor _do_shutdown _ensure_fd_no_transport _ensure_resolved
        _exception_handler _executor_shutdown_called _getaddrinfo_debug _handle_signal
        _internal_fds _log_subprocess _make_datagram_transport _make_read_pipe_transport
        _make_self_pipe _make_socket_transport _make_ssl_transport _make_subprocess_transport
        _make_write_pipe_transport _old_agen_hooks _process_events _process_self_data
        _read_from_self _ready _remove_reader _remove_writer _run_forever_cleanup
        _run_forever_setup _run_once _scheduled _selector _sendfile_fallback _sendfile_native
        _set_coroutine_origin_tracking _signal_handlers _sock_accept
        _sock_add_cancellation_callback _sock_connect _sock_connect_cb _sock_read_done
        _sock_recv _sock_recv_into _sock_recvfrom _sock_recvfrom_into _sock_sendall
        _sock_sendfile_fallback _sock_sendfile_native _sock_sendfile_native_impl
        _sock_sendfile_update_filepos _sock_sendto _sock_write_done _ssock _start_serving
        _stop_serving _stopping _task_factory _thread_id _timer_cancelled_count
        _timer_handle_cancelled _transports _unix_server_sockets _watcher _write_to_self
        add_reader add_signal_handler add_writer call_at call_exception_handler call_later
        call_soon call_soon_threadsafe close connect_accepted_socket connect_read_pipe
        connect_write_pipe create_connection create_datagram_endpoint create_future
        create_server create_task create_unix_connection create_unix_server
        default_exception_handler get_debug get_exception_handler get_task_factory getaddrinfo
        getnameinfo is_closed is_running remove_reader remove_signal_handler remove_writer
        run_forever run_in_executor run_until_complete sendfile set_debug set_default_executor
        set_exception_handler set_task_factory shutdown_asyncgens shutdown_default_executor
        slow_callback_duration sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom
        sock_recvfrom_into sock_sendall sock_sendfile sock_sendto start_tls stop
        subprocess_exec subprocess_shell time
    """,
    "server": """
        __aenter__ __aexit__ _active_count _attach _backlog _clients _context _detach _loop
        _protocol_factory _serving _serving_forever_fut _sockets _ssl_context
        _ssl_handshake_timeout _ssl_shutdown_timeout _start_serving _waiters _wakeup
        abort_clients close close_clients get_loop is_serving serve_forever sockets
        start_serving wait_closed
    """,
    "stream transport": """
        __del__ _add_reader _add_writer _adjust_leftover_buffer _buffer _buffer_factory
        _buffer_size _call_connection_lost _call_soon _closing _conn_lost _context
        _empty_waiter _eof _extra _fatal_error _force_close _get_sendmsg_buffer _high_water
        _loop _low_water _make_empty_waiter _maybe_pause_protocol _maybe_resume_protocol
        _paused _protocol _protocol_connected _protocol_paused _read_ready
        _read_ready__data_received _read_ready__get_buffer _read_ready__on_eof _read_ready_cb
        _reset_empty_waiter _sendfile_compatible _server _set_write_buffer_limits _sock
        _sock_fd _start_tls_compatible _write_ready _write_send _write_sendmsg abort
        can_write_eof close get_extra_info get_protocol get_write_buffer_limits
        get_write_buffer_size is_closing is_reading max_size pause_reading resume_reading
        set_protocol set_write_buffer_limits write write_eof writelines
    """,
    "datagram transport": """
        __del__ _add_reader _add_writer _address _buffer _buffer_factory _buffer_size
        _call_connection_lost _call_soon _closing _conn_lost _context _extra _fatal_error
        _force_close _header_size _high_water _loop _low_water _maybe_pause_protocol
        _maybe_resume_protocol _paused _protocol _protocol_connected _protocol_paused
        _read_ready _sendto_ready _server _set_write_buffer_limits _sock _sock_fd abort
        can_write_eof close get_extra_info get_protocol get_write_buffer_limits
        get_write_buffer_size is_closing is_reading max_size pause_reading resume_reading
        sendto set_protocol set_write_buffer_limits write write_eof writelines
    """,
    "read pipe": """
        __del__ _add_reader _call_connection_lost _close _closing _extra _fatal_error _fileno
        _loop _paused _pipe _protocol _read_ready close get_extra_info get_protocol is_closing
        is_reading max_size pause_reading resume_reading set_protocol
    """,
    "write pipe": """
        __del__ _buffer _call_connection_lost _close _closing _conn_lost _extra _fatal_error
        _fileno _high_water _loop _low_water _maybe_pause_protocol _maybe_resume_protocol _pipe
        _protocol _protocol_paused _read_ready _set_write_buffer_limits _write_ready abort
        can_write_eof close get_extra_info get_protocol get_write_buffer_limits
        get_write_buffer_size is_closing is_reading pause_reading resume_reading set_protocol
        set_write_buffer_limits write write_eof writelines
    """,
    "tls transport": """
        __del__ _extra _force_close _high_water _loop _low_water _maybe_pause_protocol
        _maybe_resume_protocol _protocol_paused _sendfile_compatible _set_write_buffer_limits
        _start_tls_compatible _test__append_write_backlog abort can_write_eof close
        get_extra_info get_protocol get_read_buffer_limits get_read_buffer_size
        get_write_buffer_limits get_write_buffer_size is_closing is_reading pause_reading
        resume_reading set_protocol set_read_buffer_limits set_write_buffer_limits write
        write_eof writelines
    """,
    "handle": """
        _args _callback _cancelled _context _loop _repr _repr_info _run _source_traceback
        cancel cancelled get_context
    """,
    "timer handle": """
        _args _callback _cancelled _context _loop _repr _repr_info _run _scheduled
        _source_traceback _when cancel cancelled get_context when
    """,
    "future": """
        __await__ __class_getitem__ __del__ __iter__ _asyncio_awaited_by
        _asyncio_future_blocking _callbacks _cancel_message _exception _log_traceback _loop
        _make_cancelled_error _result _source_traceback _state add_done_callback cancel
        cancelled done exception get_loop remove_done_callback result set_exception set_result
    """,
    "task": """
        __await__ __class_getitem__ __del__ __iter__ _asyncio_awaited_by
        _asyncio_future_blocking _callbacks _cancel_message _coro _exception _fut_waiter
        _log_destroy_pending _log_traceback _loop _make_cancelled_error _must_cancel _result
        _source_traceback _state add_done_callback cancel cancelled cancelling done exception
        get_context get_coro get_loop get_name get_stack print_stack remove_done_callback
        result set_exception set_name set_result uncancel
    """,
}

# Not there on asyncloop; named in docs/differences.md.
ABSENT = {
    "stream transport": """
        _adjust_leftover_buffer _buffer_factory _get_sendmsg_buffer
    """,
    "datagram transport": """
        _buffer_factory
    """,
}

COMMON = {*dir(object), "__annotations__", "__abstractmethods__", "__classcell__", "__dict__"}
COMMON |= {"__firstlineno__", "__annotate_func__", "__annotations_cache__"}
COMMON |= {"__module__", "__slots__", "__static_attributes__", "__weakref__", "_abc_impl"}

DOCUMENT = ROOT / "docs" / "differences.md"


def names_of(thing):
    # copy.copy() of one leaves the last on its class
    return {*dir(thing), *getattr(thing, "__dict__", ())} - COMMON - {"__slotnames__"}


def look_at(found, key, thing):
    found[key] = thing, {name for name in NAMES[key].split() if hasattr(thing, name)}


async def look_at_all(found):
    loop = asyncio.get_running_loop()
    look_at(found, "loop", loop)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    look_at(found, "server", server)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    look_at(found, "stream transport", writer.transport)
    datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    look_at(found, "datagram transport", datagrams)
    read_end, write_end = os.pipe()
    reading, _ = await loop.connect_read_pipe(asyncio.Protocol, open(read_end, "rb", 0))
    look_at(found, "read pipe", reading)
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(write_end, "wb", 0))
    look_at(found, "write pipe", writing)
    look_at(found, "handle", loop.call_soon(int))
    look_at(found, "timer handle", loop.call_later(0, int))
    look_at(found, "future", loop.create_future())
    look_at(found, "task", asyncio.current_task())
    for transport in writing, reading, datagrams, writer, server:
        transport.close()
    await server.wait_closed()
    await turns(5)
    await asyncio.sleep(0.001)


@pytest.fixture
def found(run):
    """By key: the object, and the names of the table that it has."""
    result = {}
    run(look_at_all(result))
    return result


def expected(key):
    return set(NAMES[key].split())


def test_no_name_is_new(impl, found):
    """Of asyncio's: each is in the table."""
    if impl.loops != "asyncio":
        pytest.skip("about the standard loop")
    for key, (thing, _) in found.items():
        new = names_of(thing) - expected(key)
        assert not new, f"{key}: does {sorted(new)} work on asyncloop? Then add it to NAMES"


def test_every_name_is_there(impl, found):
    """Or it is known to be missing: whatever asyncio's loop of this Python has."""
    if impl.loops != "asyncloop":
        pytest.skip("about asyncloop")
    standard = {}
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(look_at_all(standard))
    for key, (_, there) in found.items():
        missing = standard[key][1] - there
        assert missing == standard[key][1] & set(ABSENT.get(key, "").split()), key


def test_tls_transport(impl):
    if impl.loops != "asyncloop":
        pytest.skip("about asyncloop")
    from asyncio import sslproto

    import asyncloop._core

    standard = names_of(sslproto._SSLProtocolTransport)
    assert standard <= expected("tls transport")
    assert standard <= names_of(asyncloop._core.SSLTransport)


def test_what_is_missing_is_documented():
    text = DOCUMENT.read_text()
    for names in ABSENT.values():
        for name in names.split():
            assert f"`{name}" in text, name


@pytest.mark.parametrize("name", ["poll_events", "process_events", "process_ready"])
def test_parts_of_an_iteration(impl, loop, name):
    """Names that a later Python may bring: there where asyncio has them, and not before."""
    assert hasattr(loop, name) == hasattr(asyncio.SelectorEventLoop, name)


def test_attributes_of_a_loop_are_what_they_say(run, loop):
    async def main():
        assert loop._thread_id is not None and loop._exception_handler is None
        assert loop._clock_resolution > 0 and loop._timer_cancelled_count == 0
        assert loop._current_handle is None and loop._default_executor is None
        assert len(loop._asyncgens) == 0 and loop._signal_handlers == {}
        assert loop._internal_fds == 1 and not loop._stopping and not loop._closed
        loop.call_later(5, int).cancel()
        loop.stop()
        assert loop._stopping
        loop._stopping = False
        listener = socket.create_server(("127.0.0.1", 0))
        listener.close()

    run(main())
    assert loop._thread_id is None
    if sys.version_info >= (3, 13):
        assert loop._old_agen_hooks is None


def test_transports_of_a_loop(run, loop):
    async def main():
        assert dict(loop._transports) == {}
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        fd = writer.get_extra_info("socket").fileno()
        assert loop._transports[fd] is writer.transport and fd in loop._transports
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.001)
        assert fd not in loop._transports or loop._transports[fd].is_closing()

    run(main())
