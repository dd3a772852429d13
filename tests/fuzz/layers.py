"""Transports written in Python, as tunnels, multiplexers and test doubles have them.

Memory: two ends in one process, which give at once or in the next iteration. Pass: hands on what
comes, both ways. Frames: a tunnel that puts a header before each piece, and checks it at the
other end. All of them do the same on any loop, so that a difference is one of what lies above
or below.
"""

import asyncio
import collections
import struct
from asyncio import transports

HEADER = struct.Struct("!BBHI")
DATA, CONTROL, END = range(3)


def feed(protocol, queue):
    """What a transport does with received bytes: the first of the queue, or a part of it.

    Nothing is half done when the protocol is called, which may make more come.
    """
    if not isinstance(protocol, asyncio.BufferedProtocol):
        protocol.data_received(queue.popleft())
        return
    buffer = protocol.get_buffer(len(queue[0]))
    data = queue.popleft()
    n = min(len(buffer), len(data))
    buffer[:n] = data[:n]
    if n < len(data):
        queue.appendleft(data[n:])
    protocol.buffer_updated(n)


class Memory(transports._FlowControlMixin, asyncio.Transport):
    """One end of a connection that never leaves the process.

    `at_once`: what is written reaches the peer's protocol inside of write(), else in the next
    iteration of the loop. `portion`: so many bytes at once, None: as they were written.
    """

    _start_tls_compatible = True

    def __init__(self, loop, at_once, portion, high):
        super().__init__({"peername": "memory"}, loop)
        self._at_once, self._portion = at_once, portion
        self._queue = collections.deque()
        self._protocol = self._peer = None
        self._scheduled = self._paused = self._closing = self._lost = False
        # The end of what this end writes: asked for, and told to the peer.
        self._end_wanted = self._end_told = self._broken = False
        # What the next write() raises, None: nothing.
        self.failure = None
        if high is not None:
            self.set_write_buffer_limits(high)

    @classmethod
    def pair(cls, loop, protocols, *options):
        one, other = (cls(loop, *options) for _ in range(2))
        one._peer, other._peer = other, one
        one._protocol, other._protocol = protocols
        for end in (one, other):
            end._protocol.connection_made(end)
        return one, other

    def set_protocol(self, protocol):
        self._protocol = protocol

    def get_protocol(self):
        return self._protocol

    def is_closing(self):
        return self._closing

    def get_write_buffer_size(self):
        return sum(map(len, self._queue))

    def write(self, data):
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"bytes, please, not {type(data).__name__}")
        if self._closing or not data:
            return
        if self._end_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        data = bytes(data)
        step = self._portion or len(data)
        self._queue.extend(data[i : i + step] for i in range(0, len(data), step))
        if self._at_once:
            self._move()
        else:
            self._move_soon()
        self._maybe_pause_protocol()

    def can_write_eof(self):
        return True

    def write_eof(self):
        if not self._closing and not self._end_wanted:
            self._end_wanted = True
            self._move_soon()

    def _move_soon(self):
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._move_scheduled)

    def _move_scheduled(self):
        self._scheduled = False
        self._move()

    def _move(self):
        """Give the peer what is queued, as far as it reads, then the end."""
        peer = self._peer
        while self._queue and not peer._paused and not peer._closing:
            try:
                feed(peer._protocol, self._queue)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                peer._fatal_error(exc)
        if peer._closing:
            self._queue.clear()
        if not self._lost:
            self._maybe_resume_protocol()
        if self._queue:
            return
        if self._end_wanted and not self._end_told and not peer._paused:
            self._end_told = True
            if not peer._closing:
                peer._end_came()
        if self._closing and not self._lost and not self._scheduled:
            self._lose(None)

    def _end_came(self):
        try:
            keep_open = self._protocol.eof_received()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._fatal_error(exc)
        else:
            if not keep_open:
                self.close()

    def _fatal_error(self, exc):
        if not isinstance(exc, OSError):
            self._loop.call_exception_handler(
                {"message": "Fatal error", "exception": exc, "transport": self}
            )
        self._force_close(exc)

    def is_reading(self):
        return not self._paused and not self._closing

    def pause_reading(self):
        self._paused = True

    def resume_reading(self):
        if self._paused and not self._closing:
            self._paused = False
            self._peer._move_soon()

    def close(self):
        if not self._closing:
            self._closing, self._paused = True, False
            self._move_soon()
            self._peer._move_soon()

    def abort(self):
        self._force_close(None)

    def _force_close(self, exc):
        if not self._lost:
            self._queue.clear()
            self._closing, self._paused = True, False
            self._broken = True
            self._lose(exc)
            self._peer._move_soon()

    def _lose(self, exc):
        self._lost = True
        self._loop.call_soon(self._tell_lost, exc)

    def _tell_lost(self, exc):
        protocol, peer = self._protocol, self._peer
        protocol.connection_lost(exc)
        if self._broken:
            peer._force_close(ConnectionResetError("the peer is gone"))
        elif not self._end_told:
            self._end_wanted = True
            self._move_soon()


class Feet(asyncio.Protocol):
    """What a layer is for the transport below it."""

    def __init__(self, layer):
        self.layer = layer

    def connection_made(self, transport):
        self.layer.lower = transport
        self.layer.above.connection_made(self.layer)

    def data_received(self, data):
        self.layer.busy()
        self.layer.came(data)

    def eof_received(self):
        return self.layer.end_came()

    def connection_lost(self, exc):
        self.layer.gone(exc)

    def pause_writing(self):
        self.layer.above.pause_writing()

    def resume_writing(self):
        self.layer.above.resume_writing()


class BufferedFeet(Feet, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.buffer = memoryview(bytearray(5000))
        return self.buffer

    def buffer_updated(self, count):
        self.layer.busy()
        self.layer.came(bytes(self.buffer[:count]))


class Pass(asyncio.Transport):
    """Hands on what comes, both ways. `above` is the protocol on it; `busy` hears of each piece."""

    _start_tls_compatible = True

    def __init__(self, loop, above, busy, buffered=False):
        super().__init__()
        self.busy = busy
        self.loop, self.above, self.lower = loop, above, None
        self.feet = (BufferedFeet if buffered else Feet)(self)
        self.closing = self.paused = self.ended = self.stays_open = False
        self.inbox = collections.deque()
        # What connection_lost() will be told, as soon as all data before it is told.
        self.loss = ()

    # from above

    def write(self, data):
        self.lower.write(data)

    def writelines(self, parts):
        self.lower.writelines(parts)

    def can_write_eof(self):
        return self.lower.can_write_eof()

    def write_eof(self):
        self.lower.write_eof()

    def get_extra_info(self, name, default=None):
        return self.lower.get_extra_info(name, default)

    def set_protocol(self, protocol):
        self.above = protocol

    def get_protocol(self):
        return self.above

    def is_closing(self):
        return self.closing or self.lower.is_closing()

    def close(self):
        self.stop()
        self.lower.close()

    def abort(self):
        self.stop()
        self.lower.abort()

    def _force_close(self, exc):
        self.stop()
        self.lower._force_close(exc)

    def stop(self):
        """Nothing is told any more but the end."""
        self.closing = True
        if self.loss:
            self.loop.call_soon(self.deliver)

    def set_write_buffer_limits(self, high=None, low=None):
        self.lower.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self):
        return self.lower.get_write_buffer_size()

    def get_write_buffer_limits(self):
        return self.lower.get_write_buffer_limits()

    def is_reading(self):
        return not self.paused and not self.closing

    def pause_reading(self):
        self.paused = True
        self.lower.pause_reading()

    def resume_reading(self):
        if self.paused:
            self.paused = False
            self.loop.call_soon(self.deliver)
            self.lower.resume_reading()

    # from below; None in the inbox is the end

    def came(self, data):
        self.inbox.append(data)
        self.deliver()

    def deliver(self):
        while self.inbox and not self.paused and not self.closing:
            if self.inbox[0] is not None:
                try:
                    feed(self.above, self.inbox)
                except BaseException:
                    self.stop()  # as a transport does, or what comes next would follow a hole
                    raise
                continue
            self.inbox.popleft()
            if not self.ended:
                self.ended = True
                self.stays_open = self.above.eof_received()
                if not self.stays_open:
                    self.close()
        if self.loss and (self.closing or not self.inbox):
            (exc,), self.loss = self.loss, ()
            self.above.connection_lost(exc)

    def end_came(self):
        # Once: the standard transport tells again after a pause_reading() and resume_reading().
        if self.ended:
            return self.stays_open
        if self.inbox:
            self.inbox.append(None)
            return True
        self.ended = True
        self.stays_open = self.above.eof_received()
        return self.stays_open

    def gone(self, exc):
        self.loss = (exc,)
        self.deliver()


class Frames(Pass):
    """A tunnel: each piece has a header with the tunnel's mark, a kind, a number and a length.

    `how` pieces go out: "two" calls of write(), "join"ed, "lines" by writelines(), "split" into
    small frames, "cork"ed until the next iteration. `mark` is a byte that nobody else has,
    `secret` what control() sends beside the data; `report` is told of anything else that comes.
    """

    def __init__(
        self, loop, above, busy, buffered=False, how="two", mark=0, secret=b"", report=None
    ):
        super().__init__(loop, above, busy, buffered)
        self.how, self.mark, self.secret, self.report = how, mark, secret, report
        self.sent = self.seen = 0
        self.unread = bytearray()
        self.corked = []
        self.outbox = collections.deque()
        self.sending = self.end_sent = False
        # Called when the other end's control() comes.
        self.heard = lambda: None

    def header(self, kind, size):
        self.sent = (self.sent + 1) & 0xFFFF
        return HEADER.pack(self.mark, kind, self.sent, size)

    def send(self, kind, data):
        head = self.header(kind, len(data))
        if self.how == "cork":
            if not self.corked:
                self.loop.call_soon(self.uncork)
            # No empty part: the standard transport keeps it, and finds a peer gone with it.
            self.corked += [head, bytes(data)] if len(data) else [head]
            return
        self.outbox.append((head, bytes(data) if self.sending else data))

    def empty_outbox(self):
        if self.sending:
            return  # inside of a write() of the transport below: whoever it is goes on with it
        self.sending = True
        try:
            while self.outbox:
                self.put(*self.outbox.popleft())
        finally:
            self.sending = False

    def put(self, head, data):
        if self.how == "lines":
            self.lower.writelines([head, data] if len(data) else [head])
        elif self.how == "join":
            self.lower.write(head + bytes(data))
        else:
            self.lower.write(head)
            self.lower.write(data)

    def uncork(self):
        parts, self.corked = self.corked, []
        # One that was closed twice in between has nothing to write to any more, as with asyncio.
        if parts and not self.lower.is_closing():
            self.lower.writelines(parts)

    def write(self, data):
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"bytes, please, not {type(data).__name__}")
        if self.end_sent:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.closing or not data:
            return
        if self.how == "split":
            data = memoryview(data)
            for i in range(0, len(data), 5000):
                self.send(DATA, data[i : i + 5000])
        else:
            self.send(DATA, data)
        self.empty_outbox()

    def writelines(self, parts):
        self.write(b"".join(parts))

    def control(self):
        """Something of the tunnel's own, beside what it carries."""
        if not self.closing and not self.end_sent:
            self.send(CONTROL, self.secret)
            self.empty_outbox()

    def can_write_eof(self):
        return True

    def write_eof(self):
        if not self.closing and not self.end_sent:
            self.end_sent = True
            self.send(END, b"")
            self.empty_outbox()

    def get_write_buffer_size(self):
        return self.lower.get_write_buffer_size() + sum(map(len, self.corked))

    def close(self):
        if not self.closing:
            self.uncork()
        super().close()

    def came(self, data):
        self.unread += data
        while len(self.unread) >= HEADER.size:
            mark, kind, number, size = HEADER.unpack_from(self.unread)
            if (mark, number) != (self.mark, (self.seen + 1) & 0xFFFF) or kind > END:
                self.report(f"a tunnel read {bytes(self.unread[:40])!r} where a header should be")
                self.abort()
                return
            if len(self.unread) < HEADER.size + size:
                break
            self.seen = number
            body = bytes(self.unread[HEADER.size : HEADER.size + size])
            del self.unread[: HEADER.size + size]
            if kind == CONTROL:
                if body != self.secret:
                    self.report(f"a tunnel read {body[:40]!r} in place of its own words")
                self.heard()
            else:
                self.inbox.append(body if kind == DATA else None)
        self.deliver()
