"""For the tests of TLS: a transport in Python below it, and a peer that is the `ssl` module alone.

Both are the same on each loop, take no time and know no socket, so that what one loop tells a
protocol and the transport below can be compared with what another one tells, call by call.
"""

import asyncio
import ssl

from tests.support import turns

TIMEOUT = 10
PIECE = 100_000  # bytes of one delivery; asyncio's protocol takes up to 256 KiB


class Peer:
    """The other end: what it gets is decrypted at once, what it says goes into `say`."""

    def __init__(self, context, server_side=True, hostname=None):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=hostname
        )
        self.done = False
        self.got = bytearray()
        self.end = None  # "close_notify", or an exception

    def feed(self, data):
        self.incoming.write(data)
        try:
            if not self.done:
                self.object.do_handshake()
                self.done = True
            while True:
                data = self.object.read(1 << 18)
                if not data:
                    self.end = self.end or "close_notify"
                    break
                self.got += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self.end = self.end or exc

    def close_notify(self):
        try:
            self.object.unwrap()
        except ssl.SSLError:
            pass


class InPython(asyncio.Transport):
    """What transports in Python have in common."""

    _start_tls_compatible = True

    def __init__(self):
        super().__init__()
        self.protocol = None
        self.closing = False

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self.closing

    def get_extra_info(self, name, default=None):
        return default

    def give(self, data):
        """data_received(), or what a BufferedProtocol has for it."""
        protocol = self.protocol
        if hasattr(protocol, "data_received"):
            protocol.data_received(data)
            return
        while data:
            buffer = protocol.get_buffer(len(data))
            n = min(len(buffer), len(data))
            buffer[:n] = data[:n]
            protocol.buffer_updated(n)
            data = data[n:]


class Below(InPython):
    """A transport whose other end is a Peer.

    `now`: what the peer says in answer is delivered inside write(). Each call is noted in `log`.
    """

    def __init__(self, loop, peer, log, now=False):
        super().__init__()
        self.loop, self.peer, self.log, self.now = loop, peer, log, now
        self.paused = self.lost = False
        self.failures = []  # exceptions that the next calls of write() raise, or None
        self.waiting = bytearray()

    # -- asyncio's side --------------------

    def write(self, data):
        assert isinstance(data, bytes)
        if self.peer.done:
            self.log.append(("below.write", len(data)))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if self.lost:
            return
        self.peer.feed(data)
        if self.now:
            self.deliver()
        else:
            self.loop.call_soon(self.deliver)

    def pause_reading(self):
        self.log.append("below.pause_reading")
        self.paused = True

    def resume_reading(self):
        self.log.append("below.resume_reading")
        self.paused = False
        self.loop.call_soon(self.deliver)

    def close(self):
        self.end("below.close", None)

    def abort(self):
        self.end("below.abort", None)

    def _force_close(self, exc):
        self.end("below._force_close", exc)

    def end(self, name, exc):
        self.log.append((name, type(exc).__name__))
        self.closing = True
        if not self.lost:
            self.lost = True
            self.loop.call_soon(self.protocol.connection_lost, exc)

    # -- the peer's side --------------------

    def deliver(self):
        self.waiting += self.peer.outgoing.read()
        if self.paused or self.lost or not self.waiting:
            return
        try:
            while self.waiting and not self.paused and not self.lost:
                data = bytes(self.waiting[:PIECE])
                del self.waiting[:PIECE]
                self.give(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.log.append(("below.fatal", type(exc).__name__))
            self._force_close(exc)

    def eof(self):
        """The wire ends."""
        if self.lost:
            return
        try:
            keep_open = self.protocol.eof_received()
        except Exception as exc:
            self.log.append(("below.fatal", type(exc).__name__))
            self._force_close(exc)
            return
        if not keep_open:
            self.log.append("below ends itself")
            self.close()


class Above(asyncio.Protocol):
    """Notes in `log` what the TLS transport tells, beside what the transport below is told."""

    def __init__(self, log):
        self.log = log

    def data_received(self, data):
        self.log.append(("data", len(data)))

    def eof_received(self):
        self.log.append("eof")

    def connection_lost(self, exc):
        self.log.append(("lost", type(exc).__name__))
        self.reason = exc

    def pause_writing(self):
        self.log.append("pause")

    def resume_writing(self):
        self.log.append("resume")


class Connection:
    """A TLS transport over a Below whose handshake is complete; everything is in `log`."""

    def __init__(self, loop, contexts, now=False, below=Below, protocol=Above):
        self.loop, self.log = loop, []
        self.contexts = contexts
        self.peer = Peer(contexts[0])
        self.below = below(loop, self.peer, self.log, now)
        self.protocol = protocol(self.log)

    async def __aenter__(self):
        self.transport = await asyncio.wait_for(
            self.loop.start_tls(
                self.below, self.protocol, self.contexts[1], server_hostname="localhost"
            ),
            TIMEOUT,
        )
        self.protocol.transport = self.transport
        await turns(8)
        self.log.clear()
        return self

    async def __aexit__(self, *exc):
        self.below.failures.clear()
        if not self.transport.is_closing():
            self.transport.abort()
        elif not self.below.lost:
            self.below._force_close(None)
        await turns(4)
        return False

    def say(self, size):
        self.peer.object.write(b"s" * size)
        self.below.deliver()
