"""A send() of the program's that takes nothing at first, and raises when it is called again."""

import socket

import pytest

from tests.protocols import Recorder


@pytest.mark.parametrize("error", [ZeroDivisionError("own"), ConnectionResetError("gone")])
def test_the_connection_ends_with_it(run, loop, reports, error):
    class Own(socket.socket):
        calls = 0

        def send(self, data):
            Own.calls += 1
            raise BlockingIOError if Own.calls == 1 else type(error)(*error.args)

        def sendmsg(self, buffers):
            return self.send(b"".join(buffers))

    async def main():
        one, other = socket.socketpair()
        with other:
            own = Own(fileno=one.detach())
            transport, protocol = await loop.create_connection(Recorder, sock=own)
            transport.write(b"waits")
            assert transport.get_write_buffer_size() == 5
            assert repr(await protocol.closed) == repr(error)
            assert transport.get_write_buffer_size() == 0

    run(main())
    expected = [] if isinstance(error, OSError) else [error]
    assert [repr(report["exception"]) for report in reports] == [repr(each) for each in expected]
    assert Own.calls == 2
