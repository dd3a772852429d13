"""Programs over stacks of transports: several connections of one loop, each with layers below.

At the bottom is TCP, a Unix socket, a socket pair or a transport in Python that gives at once or
in the next iteration (layers.py); above it are up to three of TLS, a tunnel that frames and a
transport that hands on; on top a Protocol, a BufferedProtocol or streams. Both ends of all
connections live in one loop.

Each direction of a connection has bytes of its own: what an end has to see at a position is known,
and a byte of another connection, a lost, doubled or moved one shows at once. Besides, as long as
a program leaves it no choice, the standard loop tells each end the same in each phase (from one
operation until nothing happens any more). It has a choice, and from that phase on only the bytes
and the life of the protocols are compared, when

- what is under way is cut off, and is more than the kernel takes at once, or comes from the peer
  of who closes;
- pausing or resuming in the middle of a large transfer makes somebody do something;
- something is written to an end that closes over TLS: the standard loop breaks the connection
  off, ours drops what comes, and says so in the end (docs/tls.md);
- a stack over TCP is closed, with a limit of 0: asyncio then pauses and resumes by turns, at every
  piece that comes, and how many these are is up to what the kernel holds (docs/robustness.md);
- something is written over TCP to an end that is gone: the second piece may meet the answer to the
  first, if that has left already;
- two ends do something to the same connection in one phase, or the program does several things
  at a time ("wild").

STANDARD_FAILS lists where the standard loop itself goes wrong.
"""

import asyncio
import atexit
import contextlib
import functools
import pathlib
import random
import re
import shutil
import socket
import ssl
import sys
import tempfile
import traceback

from tests.certificates import make_certificate
from tests.support import tcp_pair

from . import layers
from .scheduling import Boom

BOTTOMS = ["tcp", "unix", "pair", "soon", "at once"]
PYTHON_BOTTOMS = ("soon", "at once")
LAYERS = ["tls", "frames", "pass", "tls", "frames"]
FRAMING = ["two", "join", "lines", "split", "cork"]
TOPS = ["plain", "buffered", "streams", "plain", "watched streams"]
SIZES = [16, 1, 1024, 0, 16_384, 16_383, 16_385, 65_536, 307_200, 100, 5000, 2_097_152]
TYPES = ["bytes", "bytearray", "memoryview", "mutated", "subclass"]
LIMITS = [{"high": 0}, {}, {"high": 1, "low": 1}, {"high": 20_000}, {"high": 10_000_000}]
EVENTS = ["data", "resume", "made", "pause", "resume", "eof", "lost", "data"]
BUFFERS = [65_536, 1000, 300, 20_000]
OPERATIONS = [
    "write", "burst", "writelines", "write", "control", "limits", "look", "pause_reading",
    "resume_reading", "close", "write_eof", "burst", "set_protocol", "drain", "abort",
    "lower_close", "lower_abort", "write", "raise", "fail", "later",
]  # fmt: skip

# The most that every kernel takes at once, whatever it has already.
SMALL = 8192
HANG = 5  # seconds
PERIOD = 65_521  # a prime: no size of a record or a buffer is a part of it
CONTROL = b"the tunnel's own secret %d"


class Text(bytes):
    """A subclass of bytes."""


# -- what asyncio itself does wrong -------------------------------------------------------


def _is_known(report):
    return any(text in report for text in STANDARD_FAILS.values())


# A program is not compared that makes one of these errors on the standard loop. Nor is one in which
# the bytes are wrong there: from 3.12 on it keeps views of what was written, and a bytearray that
# is changed afterwards is sent as it is then.
STANDARD_FAILS = {
    # _SSLProtocolTransport._force_close() calls SSLProtocol._abort() with an argument that it
    # does not take before 3.13: a TLS connection above another cannot be broken off.
    "force_close of TLS above TLS": "_abort() takes 1 positional argument",
    # A write in resume_writing() after close() leaves a writer that is None, from 3.12 on.
    "write while closing": "'NoneType' object is not callable",
}


# A TLS transport after close() twice, or one whose connection is lost, is without its other half,
# on each loop.
PARTED = "'NoneType' object has no attribute"


# -- programs -------------------------------------------------------------------------------


def make_program(choices):
    wild = choices.chance(40)
    stacks = tuple(_stack(choices) for _ in range(2 + choices.below(3)))
    count = len(stacks)
    return {
        "engines": tuple(choices.one_of(["direct", "portable"]) for _ in range(count)),
        "wild": wild,
        "gentle": choices.chance(50),
        "stacks": stacks,
        "reactions": tuple(_reaction(choices, count) for _ in range(choices.below(8))),
        "steps": tuple(
            tuple(_operation(choices, count) for _ in range(1 + (choices.below(4) if wild else 0)))
            for _ in range(2 + choices.below(8))
        ),
        "turns": choices.below(4),
        "end": tuple(choices.below(6) for _ in range(count)),
    }


def _stack(choices):
    made = []
    for _ in range(choices.below(4)):
        name = choices.one_of(LAYERS)
        if name == "tls":
            made.append((name, choices.below(4)))  # 1.2 or 1.3, which end is the server
        elif name == "frames":
            made.append((name, choices.one_of(FRAMING), choices.below(2)))
        else:
            made.append((name, choices.below(2)))
    bottom = choices.one_of(BOTTOMS)
    if bottom in PYTHON_BOTTOMS:
        options = (choices.one_of([None, 1000, 16_384]), choices.one_of([None, 0, 1 << 30]))
    else:
        # Small buffers, TLS from the start. Not with TCP: it lets a nearly full buffer wait.
        small = choices.chance(25) and bottom != "tcp"
        options = (small, choices.chance(50))
    tops = tuple((choices.one_of(TOPS), choices.below(4)) for _ in range(2))
    return bottom, options, tuple(made), tops


def _place(choices, count):
    return choices.below(count), choices.below(2)


def _reaction(choices, count):
    """(place, event, what happens then: mostly at the same end)"""
    place = _place(choices, count)
    other = _place(choices, count) if choices.chance(40) else place
    return place, choices.one_of(EVENTS), _operation(choices, count, other)


def _operation(choices, count, place=None, nested=False):
    place = place or _place(choices, count)
    name = choices.one_of(OPERATIONS[: -1 if nested else None])
    if name in ("write", "writelines"):
        size = choices.below(len(SIZES))
        if SIZES[size] > 1 << 20 and choices.below(4):
            size = 0
        return place, name, size, choices.below(len(TYPES))
    if name == "later":
        return place, name, choices.below(3), _operation(choices, count, None, True)
    return place, name, choices.below(256), 0


GENTLE = {"close", "abort", "write_eof", "lower_close", "lower_abort", "raise", "fail"}
"""What a gentle program leaves out: all that was written has to come."""


def smaller(program):
    """Programs with one thing less, the greatest first."""
    count = len(program["stacks"])
    for gone in range(count - 1, -1, -1):
        if count > 1:
            yield _without_stack(program, gone)
    for name in ("steps", "reactions"):
        for i in range(len(program[name])):
            yield program | {name: program[name][:i] + program[name][i + 1 :]}
    for i, step in enumerate(program["steps"]):
        for j in range(len(step) if len(step) > 1 else 0):
            steps = list(program["steps"])
            steps[i] = step[:j] + step[j + 1 :]
            yield program | {"steps": tuple(steps)}
    for i, (bottom, options, kinds, tops) in enumerate(program["stacks"]):
        for plan in (
            *((bottom, options, kinds[:j] + kinds[j + 1 :], tops) for j in range(len(kinds))),
            ("soon", (None, None), kinds, tops),
            (bottom, options, kinds, (("plain", 0), tops[1])),
            (bottom, options, kinds, (tops[0], ("plain", 0))),
        ):
            if plan != program["stacks"][i]:
                stacks = list(program["stacks"])
                stacks[i] = plan
                yield program | {"stacks": tuple(stacks)}


def _without_stack(program, gone):
    def moved(operation):
        (number, end), name, *rest = operation
        if name == "later":
            rest[1] = moved(rest[1])
            if rest[1] is None:
                return None
        return None if number == gone else ((number - (number > gone), end), name, *rest)

    steps = [[moved(operation) for operation in step] for step in program["steps"]]
    steps = [tuple(filter(None, step)) for step in steps]
    reactions = []
    for (number, end), event, operation in program["reactions"]:
        operation = moved(operation)
        if number != gone and operation is not None:
            reactions.append(((number - (number > gone), end), event, operation))
    result = program | {"steps": tuple(filter(None, steps)), "reactions": tuple(reactions)}
    for name in ("stacks", "engines", "end"):
        result[name] = program[name][:gone] + program[name][gone + 1 :]
    return result


# -- bytes that tell where they come from ------------------------------------------------------


@functools.cache
def pattern(number):
    return random.Random(number).randbytes(PERIOD) * (2 + SIZES[-1] // PERIOD)


def expected(number, offset, size):
    offset %= PERIOD
    data = pattern(number)[offset : offset + size]
    while len(data) < size:  # several writes that came as one
        rest = (offset + len(data)) % PERIOD
        data += pattern(number)[rest : rest + size - len(data)]
    return data


def origin(data, numbers):
    """Whose bytes they are, for a report."""
    for number in numbers:
        at = pattern(number).find(data[:8])
        if at >= 0 and data:
            return f"bytes of connection {number // 2} from its end {number % 2}, at {at}"
    return "bytes of nobody"


# -- contexts ---------------------------------------------------------------------------------


@functools.cache
def contexts():
    """Pairs of (server's, client's) contexts, TLS 1.3 and 1.2; made once in a process."""
    folder = tempfile.mkdtemp(prefix="fuzz")
    atexit.register(shutil.rmtree, folder, True)
    certificate, key = make_certificate(pathlib.Path(folder))
    pairs = []
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=certificate)
        for context in (server, client):
            context.minimum_version = context.maximum_version = version
        pairs.append((server, client))
    return pairs


# -- the ends -----------------------------------------------------------------------------------


def name_of(exc):
    if exc is None:
        return None
    if isinstance(exc, BrokenPipeError | ConnectionResetError):
        return "gone"
    return type(exc).__name__


class End:
    """One end of a connection: its top transport, and what it has been told."""

    def __init__(self, machine, stack, number):
        self.machine, self.stack, self.number = machine, stack, number
        self.peer = None
        self.log, self.phase_log = [], []
        self.written = self.received = self.phase_received = 0
        self.kind, self.option = stack.plan[3][number]
        self.transport = self.reader = self.writer = self.protocol = None
        self.layers = []
        self.state = "new"
        self.ended = self.resumed = False
        self.paused = self.closed = self.broken = self.pause_told = False
        self.failing = False
        self.tasks = []
        self.place = (stack.number, number)
        self.reactions = [
            (event, operation)
            for place, event, operation in machine.program["reactions"]
            if place == self.place
        ]

    @property
    def pattern(self):
        """The number of what this end writes."""
        return 2 * self.stack.number + self.number

    def wrong(self, text):
        self.machine.wrong(f"end {self.place}: {text}")

    def note(self, *what):
        self.phase_log.append(what)
        self.machine.active = True

    def event(self, name, *what):
        self.machine.active = True
        if name == "data":
            if self.phase_received == 0:
                self.note("data")
        elif name == "pause":
            self.pause_told = self.is_certain()
            if self.pause_told:
                self.note(name)
        elif name == "resume":
            if self.pause_told:
                self.note(name)
        else:
            self.note(name, *what)
        if name == "made" and not self.stack.complete and not self.stack.alone:
            return  # its peer is not there yet: Stack.build() comes back
        self.react(name)

    def react(self, name):
        for i, (event, operation) in enumerate(self.reactions):
            if event == name:
                del self.reactions[i]
                if name in ("pause", "resume") and not self.is_certain():
                    self.machine.free(self.stack.number)
                self.machine.reacted(self, operation)
                break

    def is_certain(self):
        """Whether it is sure how much of what this end wrote the transport below has taken."""
        if self.stack.in_python:
            return True
        # The standard TLS transport looks at its limits at each piece that comes, too.
        came = self.phase_received + self.peer.written - self.received
        return max(self.written - self.peer.received, came) <= self.stack.small

    def took(self, data, later=False):
        if self.state != "made" and not later:
            self.wrong(f"data when {self.state}")
        if self.ended and not later:
            self.wrong("data after the end")
        data = bytes(data)
        if not data:
            self.wrong("empty data")
        wanted = expected(self.peer.pattern, self.received, len(data))
        if self.received + len(data) > self.peer.written:
            self.wrong(f"{self.received + len(data)} bytes came, {self.peer.written} were written")
        elif data != wanted and not self.broken:
            self.broken = True
            at = next(i for i in range(len(data)) if data[i] != wanted[i])
            numbers = range(2 * len(self.machine.stacks))
            self.wrong(
                f"wrong bytes at {self.received + at} of {self.peer.written} "
                f"({len(data)} came): {origin(data[at:], numbers)}"
            )
        self.received += len(data)
        if not later:
            self.event("data")
        self.phase_received += len(data)

    def speaks(self):
        """It is about to send something, to a peer that may be gone."""
        gone = self.peer.closed or self.peer.ended or self.peer.state == "lost"
        if gone and (self.stack.tls or self.stack.bottom == "tcp"):
            self.machine.free(self.stack.number)

    def payload(self, size):
        """What comes next of this end's bytes."""
        self.speaks()
        self.written += size
        return expected(self.pattern, self.written - size, size)

    def made(self, transport):
        if self.state != "new":
            self.wrong(f"connection_made when {self.state}")
        self.state = "made"
        self.transport = transport
        self.event("made")

    def eof(self):
        if self.state != "made" or (self.ended and not self.resumed):
            self.wrong(f"eof_received when {self.state}, {self.ended}")
        self.ended, self.resumed = True, False
        self.event("eof")
        return self.option == 3  # keep open

    def lost(self, exc):
        if self.state != "made":
            self.wrong(f"connection_lost when {self.state}")
        self.state = "lost"
        self.event("lost", name_of(exc))

    def pausing(self, paused):
        if self.paused == paused:
            self.wrong("pause_writing twice" if paused else "resume_writing twice")
        if self.state != "made":
            self.wrong(f"pause_writing or resume_writing when {self.state}")
        self.paused = paused
        self.event("pause" if paused else "resume")


class Plain(asyncio.Protocol):
    def __init__(self, end):
        self.end = end

    def connection_made(self, transport):
        self.end.made(transport)

    def data_received(self, data):
        self.end.took(data)

    def eof_received(self):
        return self.end.eof()

    def connection_lost(self, exc):
        self.end.lost(exc)

    def pause_writing(self):
        self.end.pausing(True)

    def resume_writing(self):
        self.end.pausing(False)


class Buffered(Plain, asyncio.BufferedProtocol):
    kept = None

    def get_buffer(self, hint):
        # Each time another one, or the same one for ever. Not a bytearray itself: the standard
        # TLS transport would put what comes into slices of it, and so lose it.
        if self.kept is None or self.end.option % 2:
            self.kept = memoryview(bytearray(BUFFERS[self.end.option]))
        return self.kept

    def buffer_updated(self, count):
        self.end.took(self.kept[:count])


class WatchedStreams(asyncio.StreamReaderProtocol):
    end = None

    def pause_writing(self):
        super().pause_writing()
        self.end.pausing(True)

    def resume_writing(self):
        super().resume_writing()
        self.end.pausing(False)


class StreamEnd(End):
    """An end with a reader, which a task reads, and a writer."""

    def make_protocol(self):
        loop = self.machine.loop
        self.reader = asyncio.StreamReader(limit=[65_536, 1000][self.option // 2], loop=loop)
        watched = self.kind == "watched streams"
        kind = WatchedStreams if watched else asyncio.StreamReaderProtocol
        self.protocol = kind(self.reader, self.begin, loop=loop)
        if watched:
            self.protocol.end = self
        return self.protocol

    def begin(self, reader, writer):
        self.writer = writer
        for coroutine in (self.read(), self.watch_end()):
            self.tasks.append(self.machine.loop.create_task(coroutine))
        self.made(writer.transport)

    async def read(self):
        try:
            while True:
                if self.option == 1:
                    data = await self.reader.readexactly(500)
                else:
                    data = await self.reader.read([65_536, 0, 1000, 100_000][self.option])
                if not data:
                    break
                self.took(data, self.state == "lost")
            self.eof_of_reader()
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                self.took(exc.partial, True)
            self.eof_of_reader()
        except Boom:
            raise
        except Exception as exc:
            self.ended = True
            self.note("reader", name_of(exc))

    def eof_of_reader(self):
        self.ended = True
        self.event("eof")

    async def watch_end(self):
        exc = None
        try:
            await self.protocol._get_close_waiter(self.writer)
        except Exception as error:
            exc = error
        self.lost(exc)


class ProtocolEnd(End):
    def make_protocol(self):
        self.protocol = {"plain": Plain, "buffered": Buffered}[self.kind](self)
        return self.protocol


# -- a connection --------------------------------------------------------------------------------


class Stack:
    def __init__(self, machine, number, plan):
        self.machine, self.number, self.plan = machine, number, plan
        self.bottom, options, self.kinds, tops = plan
        self.in_python = self.bottom in PYTHON_BOTTOMS
        self.options = options
        self.small = 1000 if not self.in_python and options[0] else SMALL
        self.tls = sum(kind[0] == "tls" for kind in self.kinds)
        self.complete = False
        self.ends = [
            (StreamEnd if "streams" in kind else ProtocolEnd)(machine, self, i)
            for i, (kind, _) in enumerate(tops)
        ]
        for end in self.ends:
            end.peer = self.ends[1 - end.number]
        self.tls_at_once = (
            not self.in_python and options[1] and bool(self.kinds) and self.kinds[0][0] == "tls"
        )
        # connection_made() comes from the loop itself, and data cannot come before the peer's.
        self.alone = not self.in_python and len(self.kinds) == (1 if self.tls_at_once else 0)

    def layer(self, end, level):
        """The protocol that lies on `level` layers."""
        if level == len(self.kinds):
            return end.make_protocol()
        kind, *options = self.kinds[level]
        if kind == "tls":
            return asyncio.Protocol()
        above = self.layer(end, level + 1)
        if kind == "pass":
            made = layers.Pass(self.machine.loop, above, self.machine.busy, options[0])
        else:
            made = layers.Frames(
                self.machine.loop,
                above,
                self.machine.busy,
                options[1],
                how=options[0],
                mark=16 * self.number + level + 1,
                secret=CONTROL % self.number,
                report=end.wrong,
            )
        end.layers.append(made)
        return made.feet

    def secured(self, level, end):
        """The arguments of the layer of TLS there: (context, further ones)."""
        option = self.kinds[level][1]
        server, client = contexts()[option // 2]
        if end.number == option % 2:
            return server, {"server_side": True}
        return client, {"server_hostname": "localhost"}

    async def open_bottom(self, end, protocol, sock):
        loop = self.machine.loop
        if not self.tls_at_once:
            if end.number:
                return await loop.connect_accepted_socket(lambda: protocol, sock)
            return await loop.create_connection(lambda: protocol, sock=sock)
        context, extra = self.secured(0, end)
        if "server_side" in extra:
            return await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
        return await loop.create_connection(lambda: protocol, sock=sock, ssl=context, **extra)

    def sockets(self):
        if self.bottom == "tcp":
            pair = tcp_pair()
            for sock in pair:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return pair
        if self.bottom == "unix":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind("")  # a name that the system chooses
                listener.listen()
                one = socket.socket(socket.AF_UNIX)
                one.connect(listener.getsockname())
                return one, listener.accept()[0]
        return socket.socketpair()

    async def build(self):
        loop = self.machine.loop
        level = 1 if self.tls_at_once else 0
        protocols = [self.layer(end, level) for end in self.ends]
        if self.in_python:
            portion, high = self.options
            made = layers.Memory.pair(loop, protocols, self.bottom == "at once", portion, high)
        else:
            pair = self.sockets()
            for sock in pair:
                self.machine.stack.callback(sock.close)
                if self.options[0]:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            made = await asyncio.gather(*map(self.open_bottom, self.ends, protocols, pair))
            made = [transport for transport, _ in made]
        bottoms = made
        for at in range(level, len(self.kinds)):
            if self.kinds[at][0] != "tls":
                made = [protocol.layer for protocol in protocols]
                protocols = [transport.above for transport in made]
                continue
            protocols = [self.layer(end, at + 1) for end in self.ends]
            made = await asyncio.gather(
                *(
                    self.machine.start_tls(transport, protocol, *self.secured(at, end))
                    for transport, protocol, end in zip(made, protocols, self.ends, strict=True)
                )
            )
            for transport, protocol in zip(made, protocols, strict=True):
                protocol.connection_made(transport)
        for end, bottom in zip(self.ends, bottoms, strict=True):
            end.bottom = bottom
        self.complete = True
        if not self.alone:
            for end in self.ends:
                loop.call_soon(end.react, "made")


class Machine:
    def __init__(self, impl, program):
        self.program = program
        self.ours = impl.ours
        self.loop = impl.new_event_loop()
        self.loop.slow_callback_duration = 1e9
        self.loop.set_exception_handler(self.report)
        self.active = self.building = False
        self.depth = self.timers = 0
        self.violations, self.known = [], []
        self.reports, self.phases = [], []
        # The first phase in which a connection's program leaves a choice, None: not yet.
        self.free_from = {}
        self.toggling = set()  # stacks with a limit of 0: each step of the flow control is told
        self.touched = {}
        self.stack = contextlib.ExitStack()
        self.stacks = [Stack(self, i, plan) for i, plan in enumerate(program["stacks"])]
        self.ends = [end for stack in self.stacks for end in stack.ends]
        if program["wild"]:
            for stack in self.stacks:
                self.free(stack.number)

    def busy(self):
        self.active = True

    def wrong(self, text):
        if len(self.violations) < 10:
            self.violations.append(text)

    def free(self, number):
        """From here on only the bytes count."""
        self.free_from.setdefault(number, len(self.phases))

    def report(self, loop, context):
        self.active = True
        exc = context.get("exception")
        text = f"{type(exc).__name__}: {exc}" if exc else context["message"]
        if _is_known(text) and not self.ours:
            self.known.append(text)
            return
        if not isinstance(exc, OSError | Boom) and PARTED not in text:
            trace = "".join(traceback.format_exception(exc)[-4:]) if exc else ""
            self.wrong(f"reported: {context['message']}: {text}\n{trace}")
        self.reports.append(name_of(exc) or text)

    async def start_tls(self, transport, protocol, context, extra):
        return await self.loop.start_tls(transport, protocol, context, **extra)

    # what the ends do

    def reacted(self, end, operation):
        """An end does something, when something has happened to it."""
        if operation[1] == "raise":
            operation = (end.place, *operation[1:])
        target = operation[0][0]
        if self.touched.setdefault(target, end.place) != end.place:
            self.free(target)
            self.free(end.stack.number)
        if end.stack.number in self.free_from:
            self.free(target)
        self.perform(operation)

    def end_at(self, place):
        return self.stacks[place[0]].ends[place[1]]

    def perform(self, operation):
        place, name, *arguments = operation
        end = self.end_at(place)
        if name in GENTLE and (self.program["gentle"] or self.building):
            return
        if name == "pause_reading" and self.building:
            return  # in connection_made() the standard loop would keep the handshake's last words
        if name == "raise":
            self.cut(end, False)
            end.note("raises")
            raise Boom("raised in a callback")
        if end.transport is None or self.depth > 3:
            return
        self.depth += 1
        try:
            result = getattr(self, "do_" + name)(end, *arguments)
        except Exception as exc:
            text = f"{type(exc).__name__}: {exc}"
            if _is_known(text) and not self.ours:
                self.known.append(text)
                self.free(end.stack.number)
            else:
                end.note(name, name_of(exc))
                expected = OSError | NotImplementedError | RuntimeError | Boom
                if not isinstance(exc, expected) and PARTED not in text:
                    self.wrong(f"{name}: {''.join(traceback.format_exception(exc)[-4:])}")
        else:
            end.note(name, result)
        finally:
            self.depth -= 1

    def cut(self, end, orderly):
        """Somebody ends the connection: what is under way may come or not."""
        leaving = end.written - end.peer.received
        if end.peer.written > end.received or (not orderly and leaving > end.stack.small):
            self.free(end.stack.number)
        end.closed = True

    def data_of(self, end, size, kind):
        """(what to write, what to do to it afterwards)"""
        data = end.payload(size)
        kind = TYPES[kind]
        if kind in ("bytearray", "mutated"):
            data = bytearray(data)
        if kind == "mutated":
            spoilt = data

            def spoil():
                spoilt[:] = b"\xee" * len(spoilt)

            return (data if size % 2 else memoryview(data)), spoil
        if kind == "memoryview":
            data = memoryview(data)
        elif kind == "subclass":
            data = Text(data)
        return data, lambda: None

    def may_write(self, end):
        """Whether a write is taken. Else its bytes must not count, as others come after it."""
        return not end.closed and end.state == "made"

    def do_write(self, end, size, kind):
        if not self.may_write(end):
            # Taken or dropped, but never seen: it would have to be the last.
            return (end.writer or end.transport).write(b"") if end.stack.in_python else None
        return self.write_parts(end, [(SIZES[size], kind)])

    def do_writelines(self, end, size, kind):
        if not self.may_write(end):
            return None
        # No empty part: the standard transport keeps it, and finds a peer gone when it sends it.
        sizes = [16, SIZES[size] or 1, 100][: 1 + kind % 3]
        return self.write_parts(
            end, [(n, (kind + i) % len(TYPES)) for i, n in enumerate(sizes)], True
        )

    def write_parts(self, end, parts, together=False):
        target = end.writer or end.transport
        before = end.written
        made = [self.data_of(end, *part) for part in parts]
        try:
            if together or len(parts) > 1:
                return target.writelines([data for data, _ in made])
            return target.write(made[0][0])
        except RuntimeError:
            end.written = before  # after write_eof()
            raise
        finally:
            for _, spoil in made:
                spoil()

    def do_burst(self, end, i, _):
        """Many small writes in one callback, or many parts in one call."""
        count, size = [(20, 100), (60, 300), (400, 1000), (5, 5000)][i % 4]
        if not self.may_write(end):
            return
        if i & 4:
            return self.write_parts(end, [(size, (i // 8 + j) % 3) for j in range(count)])
        for j in range(count):
            if self.may_write(end):
                self.write_parts(end, [(size, (i // 8 + j) % 3)])

    def do_control(self, end, i, _):
        """A tunnel below says something of its own."""
        end.speaks()
        for layer in end.layers:
            if isinstance(layer, layers.Frames) and end.state == "made":
                layer.control()

    def do_limits(self, end, i, _):
        limits = LIMITS[i % len(LIMITS)]
        if limits == {"high": 0}:
            self.toggling.add(end.stack.number)
        return end.transport.set_write_buffer_limits(**limits)

    def do_look(self, end, i, _):
        empty = end.transport.get_write_buffer_size() == 0
        if not end.is_certain():
            empty = None
        return end.transport.is_closing(), empty

    def do_pause_reading(self, end, i, _):
        if end.reader is None:
            end.transport.pause_reading()

    def do_resume_reading(self, end, i, _):
        if end.reader is None:
            end.resumed = True  # what has ended tells so again, on each loop
            end.transport.resume_reading()

    def do_close(self, end, i, _):
        self.cut(end, True)
        return (end.writer or end.transport).close()

    def do_abort(self, end, i, _):
        self.cut(end, False)
        return end.transport.abort()

    def do_write_eof(self, end, i, _):
        end.speaks()
        if end.transport.can_write_eof() and not end.transport.is_closing():
            end.transport.write_eof()

    def do_lower_close(self, end, i, _):
        self.cut(end, False)
        if end.layers:
            end.layers[i % len(end.layers)].close()
        else:
            end.bottom.close()

    def do_lower_abort(self, end, i, _):
        self.cut(end, False)
        if end.layers:
            end.layers[i % len(end.layers)].abort()
        else:
            end.bottom.abort()

    def do_fail(self, end, i, _):
        """The next write() of a transport in Python raises."""
        # Below TLS, which gives up then: a tunnel would go on behind a hole.
        if end.stack.in_python and end.stack.kinds and end.stack.kinds[0][0] == "tls":
            end.failing = True
            end.bottom.failure = [ConnectionResetError("broken"), Boom("broken")][i % 2]

    def do_set_protocol(self, end, i, _):
        if end.reader is None and end.state == "made":
            end.transport.set_protocol([Plain, Buffered][i % 2](end))

    def do_drain(self, end, i, _):
        async def drain():
            try:
                await end.writer.drain()
            except Exception as exc:
                if end.is_certain():
                    end.note("drain", name_of(exc))
            else:
                if end.is_certain():
                    end.note("drained")

        if end.writer is not None:
            end.tasks.append(self.loop.create_task(drain()))

    def do_later(self, end, i, operation):
        self.timers += 1

        def run():
            self.timers -= 1
            self.active = True
            self.perform(operation)

        if self.touched.setdefault(operation[0][0], "later") != "later":
            self.free(operation[0][0])
        if i == 0:
            self.loop.call_soon(run)
        else:
            self.loop.call_later([0, 0.0002][i - 1], run)

    # phases

    def turn(self):
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def settle(self):
        """Until nothing has happened for some iterations, each of which looks at the kernel."""
        quiet = 0
        enough = 6 + 3 * max(len(stack.kinds) for stack in self.stacks)
        for _ in range(20_000):
            self.active = False
            self.turn()
            quiet = 0 if self.active else quiet + 1
            if quiet >= enough:
                if not self.timers:
                    break
                quiet = 0
                self.loop.run_until_complete(asyncio.sleep(0.001))
        else:
            self.wrong("it never ends")

    def end_phase(self, name):
        self.settle()
        found = []
        for end in self.ends:
            found.append([*end.phase_log, ("total", end.received)])
            end.phase_log, end.phase_received = [], 0
        self.phases.append((name, found, sorted(self.reports)))
        self.reports = []
        self.touched.clear()

    def step(self, operations):
        for operation in operations:
            if operation[1] != "raise":
                self.touched[operation[0][0]] = "step"
                self.loop.call_soon(self.perform, operation)
        if self.program["wild"] and self.program["turns"]:
            for _ in range(self.program["turns"]):
                self.turn()
        else:
            self.end_phase(operations)

    def build(self):
        try:
            for stack, engine in zip(self.stacks, self.program["engines"], strict=True):
                if self.ours:
                    choose_engine(engine)
                self.building = True
                self.loop.run_until_complete(asyncio.wait_for(stack.build(), HANG))
                self.building = False
                self.settle()
        finally:
            if self.ours:
                choose_engine("direct")

    def run(self):
        with self.stack:
            self.stack.callback(self.loop.close)
            try:
                self.build()
            except (OSError, TimeoutError) as exc:
                self.wrong(f"not built: {exc!r}")
                return
            self.end_phase("made")
            for operations in self.program["steps"]:
                self.step(operations)
            self.finish()
        self.check_lives()

    def finish(self):
        """All that was written comes, then every connection comes to its end."""
        for end in self.ends:
            end.reactions.clear()
        self.end_phase("steps")
        for end in self.ends:
            self.loop.call_soon(self.perform, (end.place, "resume_reading", 0, 0))
        self.end_phase("resumed")
        for end in self.ends:
            if end.reader is not None and end.reader._buffer:
                end.took(end.reader._buffer, True)
                end.reader._buffer.clear()
        for stack in self.stacks:
            if not any(
                end.closed or end.failing or end.ended or end.state != "made" for end in stack.ends
            ):
                for end in stack.ends:
                    if end.received != end.peer.written:
                        end.wrong(f"{end.received} of {end.peer.written} bytes came")
        for stack, choice in zip(self.stacks, self.program["end"], strict=True):
            self.loop.call_soon(self.close_stack, stack, choice)
        self.end_phase("close")
        for end in self.ends:
            self.loop.call_soon(self.abort, end)
        self.end_phase("abort")
        for end in self.ends:
            for task in end.tasks:
                task.cancel()
        self.settle()

    def close_stack(self, stack, choice):
        ends = stack.ends if choice < 2 else [stack.ends[choice % 2]]
        if len(ends) == 2:
            self.free(stack.number)  # who is the first of two is left open
        if stack.bottom == "tcp" and stack.number in self.toggling:
            self.free(stack.number)  # what the kernel holds for a moment comes apart or together
        for end in ends:
            name = "abort" if choice == 5 else "close"
            with contextlib.suppress(AttributeError):
                getattr(end.transport, name)()

    def abort(self, end):
        with contextlib.suppress(AttributeError):
            end.transport.abort()
        # The standard TLS transport does nothing after its end: nor may what is below it be open.
        end.bottom.abort()

    def check_lives(self):
        for end in self.ends:
            if end.state != "lost":
                end.wrong(f"{end.state} at the end")


def choose_engine(name):
    from asyncloop import _core

    _core._tls_set_engine("portable" if name == "portable" else None)


def execute(impl, program):
    machine = Machine(impl, program)
    machine.run()
    return {
        "violations": machine.violations,
        "known": machine.known,
        "free from": machine.free_from,
        "phases": machine.phases,
    }


def explain(program, theirs, ours):
    """Lines that say what is wrong, the first without numbers; none: nothing is."""
    if ours["violations"]:
        first = ours["violations"][0].partition("\n")[0]
        alike = ["(asyncio does the same)"] if ours["violations"] == theirs["violations"] else []
        return [re.sub("[0-9]+", "N", first), *ours["violations"], *alike]
    if theirs["violations"] or theirs["known"] or program["wild"]:
        return []
    for number in range(len(program["stacks"])):
        last = min(log["free from"].get(number, 1 << 30) for log in (theirs, ours))
        pairs = zip(theirs["phases"][:last], ours["phases"][:last], strict=False)
        for phase, ((name, one, reports), (_, other, our_reports)) in enumerate(pairs):
            for end in (2 * number, 2 * number + 1):
                if one[end] != other[end]:
                    names, our_names = (
                        {entry[0] for entry in log} for log in (one[end], other[end])
                    )
                    return [
                        f"not told {sorted(names - our_names)}, but {sorted(our_names - names)}",
                        f"phase {phase}, {name}: end {divmod(end, 2)}",
                        f"  asyncio   {one[end]}",
                        f"  asyncloop {other[end]}",
                        f"  its peer  {one[end ^ 1]}",
                        f"            {other[end ^ 1]}",
                    ]
            if not any(log["free from"] for log in (theirs, ours)) and reports != our_reports:
                return ["reports", f"phase {phase}, {name}: reports {reports}, ours {our_reports}"]
    return []


if sys.version_info >= (3, 13):
    del STANDARD_FAILS["force_close of TLS above TLS"]
