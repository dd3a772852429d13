"""Programs over stream transports: two ends of a socket pair, and what is done to them.

After each operation the loop runs until nothing happens any more, so what each end sees is known:
except how much the kernel takes at once. So writes are small (all of it fits) or large (it never
fits), pieces of data are counted together, and a program that cuts off a large transfer is
compared without the amounts. When such a transfer resumes hangs on the amounts too: if a program
does something then, its order is not compared, nor whether the other end saw the end of the data
or a reset (the kernel sends one where somebody closes who has not read all).
"""

import asyncio
import contextlib
import gc
import hashlib
import socket
import traceback

from .scheduling import Boom, scrub

SIZES = [1, 0, 10, 300, 1000, 1_000_000]
LARGE = 1_000_000
OPERATIONS = [
    "write", "look", "close", "write_eof", "abort", "pause_reading", "resume_reading", "limits",
    "writelines", "set_protocol", "other_type", "read", "readline", "readexactly", "drain",
    "bad", "extra", "readuntil", "raise", "write",
]  # fmt: skip
EVENTS = ["made", "data", "eof", "lost", "pause", "resume"]
KINDS = ["plain", "plain", "buffered", "streams"]


def make_program(choices):
    return {
        "debug": choices.chance(6),
        "kinds": (choices.one_of(KINDS), choices.one_of(KINDS)),
        "keep_open": (choices.chance(30), choices.chance(30)),
        "reactions": tuple(
            (choices.below(2), choices.one_of(EVENTS), _operation(choices))
            for _ in range(choices.below(5))
        ),
        "steps": tuple(
            (choices.below(2), _operation(choices)) for _ in range(2 + choices.below(12))
        ),
    }


def _operation(choices):
    name = choices.one_of(OPERATIONS)
    return name, choices.below(len(SIZES)) if name != "limits" else choices.below(5)


def is_lossy(program):
    """Whether a large transfer may be cut off, so that nobody knows how much came through."""
    operations = [op for _, op in program["steps"]] + [op for _, _, op in program["reactions"]]
    return any(
        name in ("write", "other_type") and SIZES[size] == LARGE
        for name, size in operations
    )


def has_free_order(program):
    """Whether what happens when writing resumes may come before or after the next step."""
    return is_lossy(program) and any(event == "resume" for _, event, _ in program["reactions"])


def name_of(exc):
    """The type; a reader and a writer notice in turn that the peer is gone."""
    if isinstance(exc, BrokenPipeError | ConnectionResetError):
        return "gone"
    return type(exc).__name__


class End:
    """One end: a transport with its protocol, or with a reader and a writer."""

    def __init__(self, machine, number):
        self.machine, self.number = machine, number
        self.log = []
        self.received = 0
        self.digest = hashlib.blake2b()
        self.transport = self.reader = self.writer = None
        self.tasks = []
        self.reactions = [
            (event, op) for end, event, op in machine.program["reactions"] if end == number
        ]
        self.at_eof = False
        self.keep_open = machine.program["keep_open"][number]

    def note(self, *what):
        self.log.append(what)
        self.machine.active = True

    def event(self, name, *what):
        if name == "data":
            self.machine.active = True
            if not self.log or self.log[-1][0] != "data":
                self.log.append(("data",))
        else:
            self.note(name, *what)
        for i, (event, operation) in enumerate(self.reactions):
            if event == name:
                del self.reactions[i]
                self.machine.perform(self, operation)
                break

    def took(self, data):
        self.received += len(data)
        self.digest.update(data)
        self.event("data")


class Plain(asyncio.Protocol):
    def __init__(self, end):
        self.end = end

    def connection_made(self, transport):
        self.end.transport = transport
        self.end.event("made")

    def data_received(self, data):
        self.end.took(data)

    def eof_received(self):
        # Once: the standard transport tells again after a pause_reading() and resume_reading().
        if not self.end.at_eof:
            self.end.at_eof = True
            self.end.event("eof")
        return self.end.keep_open

    def connection_lost(self, exc):
        self.end.event("lost", name_of(exc))

    def pause_writing(self):
        self.end.event("pause")

    def resume_writing(self):
        self.end.event("resume")


class Buffered(asyncio.BufferedProtocol):
    __init__ = Plain.__init__
    connection_made, connection_lost = Plain.connection_made, Plain.connection_lost
    eof_received = Plain.eof_received
    pause_writing, resume_writing = Plain.pause_writing, Plain.resume_writing

    def get_buffer(self, hint):
        self.buffer = bytearray(100_000)
        return self.buffer

    def buffer_updated(self, count):
        self.end.took(bytes(self.buffer[:count]))


class Machine:
    def __init__(self, impl, program):
        self.program = program
        self.loop = impl.new_event_loop()
        self.loop.slow_callback_duration = 1e9
        self.loop.set_debug(program["debug"])
        self.loop.set_exception_handler(self.report)
        self.active = False
        self.depth = 0
        self.reports = []
        self.ends = [End(self, 0), End(self, 1)]

    def report(self, loop, context):
        self.active = True
        frames = traceback.extract_tb(getattr(context.get("exception"), "__traceback__", None))
        if frames and frames[-1].filename.endswith("selector_events.py"):
            return  # an error of the standard loop's own, as after abort() in resume_writing()
        if str(context.get("exception")) == "'NoneType' object is not callable":
            return  # another: a write in resume_writing() after close() leaves a writer of None
        # Not the message: it names a method of the standard transport.
        self.reports.append(name_of(context.get("exception")))

    def perform(self, end, operation):
        """One operation of an end, with what it gave. Exceptions of a protocol's own go on."""
        name, i = operation
        if name == "raise":
            end.note("raises")
            raise Boom("raised in a callback")
        if end.transport is None or self.depth > 2:
            return
        self.depth += 1
        try:
            result = getattr(self, "do_" + name)(end, i)
        except Exception as exc:
            if isinstance(exc, AttributeError) and "NoneType" in str(exc):
                # The standard transport asks the loop that it has no more: by accident.
                end.note(name, None)
            else:
                end.note(name, type(exc).__name__, scrub(str(exc)))
        else:
            end.note(name, result)
        finally:
            self.depth -= 1

    # operations

    def payload(self, i):
        return (b"%d\n" % i) * max(1, SIZES[i] // 2) if SIZES[i] else b""

    def do_write(self, end, i):
        return (end.writer or end.transport).write(self.payload(i))

    def do_writelines(self, end, i):
        if end.transport.is_closing():
            return None  # the standard one writes on, and fails by accident
        # No empty part: the standard one keeps it, and finds a peer gone when it sends nothing.
        parts = [b"part", bytearray(b"array"), memoryview(b"view")]
        if SIZES[i] not in (0, LARGE):  # the standard one does not pause here
            parts.append(self.payload(i))
        return (end.writer or end.transport).writelines(parts)

    def do_other_type(self, end, i):
        kind = [bytearray, memoryview][i % 2]
        return end.transport.write(kind(self.payload(i)))

    def do_bad(self, end, i):
        return end.transport.write(["text", 5, None, 1.5, {}, object][i])

    def do_write_eof(self, end, i):
        # A peer that is gone: the standard loop raises what shutdown() does, ours says nothing.
        with contextlib.suppress(OSError):
            end.transport.write_eof()

    def do_close(self, end, i):
        return (end.writer or end.transport).close()

    def do_abort(self, end, i):
        return end.transport.abort()

    def do_pause_reading(self, end, i):
        return end.transport.pause_reading()

    def do_resume_reading(self, end, i):
        return end.transport.resume_reading()

    def do_limits(self, end, i):
        limits = [{}, {"high": 0}, {"high": 10_000_000}, {"high": 1, "low": 1}]
        limits.append({"low": 5, "high": 4})
        return end.transport.set_write_buffer_limits(**limits[i])

    def do_look(self, end, i):
        transport = end.transport
        empty = transport.get_write_buffer_size() == 0
        return transport.is_closing(), transport.is_reading(), empty

    def do_extra(self, end, i):
        sock = end.transport.get_extra_info("socket")
        return sock is not None and sock.type, end.transport.get_extra_info("peername", 5)

    def do_set_protocol(self, end, i):
        if end.reader is None:
            end.transport.set_protocol([Plain, Buffered][i % 2](end))
            return type(end.transport.get_protocol()).__name__

    def spawn(self, end, name, make):
        async def body():
            try:
                end.note(name, "gave", await make())
            except BaseException as exc:
                end.note(name, "raised", name_of(exc), "" if name_of(exc) == "gone" else str(exc))

        if end.reader is None:
            return
        if end.reader._buffer and any(not task.done() for task in end.tasks):
            # It would take bytes that a readline() has searched already, which goes on from where
            # it was: the standard one then gives more than a line, ours a line.
            return
        end.tasks.append(self.loop.create_task(body()))

    def do_read(self, end, i):
        self.spawn(end, "read", lambda: end.reader.read([1, 10, 3, 0, 100, 2][i]))

    def do_readline(self, end, i):
        self.spawn(end, "readline", lambda: end.reader.readline())

    def do_readexactly(self, end, i):
        self.spawn(end, "readexactly", lambda: end.reader.readexactly(i * 3))

    def do_readuntil(self, end, i):
        self.spawn(end, "readuntil", lambda: end.reader.readuntil(b"4\n"))

    def do_drain(self, end, i):
        self.spawn(end, "drain", lambda: end.writer.drain())

    # phases

    def settle(self):
        """Until nothing has happened for some iterations, each of which looks at the kernel."""
        quiet = 0
        for _ in range(400):
            self.active = False
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            quiet = 0 if self.active else quiet + 1
            if quiet == 5:
                break

    async def connect(self, end, sock):
        kind = self.program["kinds"][end.number]
        if kind == "streams":
            end.reader, end.writer = await asyncio.open_connection(sock=sock)
            end.transport = end.writer.transport
        else:
            protocol = {"plain": Plain, "buffered": Buffered}[kind]
            await self.loop.connect_accepted_socket(lambda: protocol(end), sock)

    def run(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self.loop.close)
            for end, sock in zip(self.ends, socket.socketpair(), strict=True):
                stack.callback(sock.close)
                self.loop.run_until_complete(self.connect(end, sock))
            self.settle()
            for number, operation in self.program["steps"]:
                if operation[0] != "raise":
                    self.loop.call_soon(self.perform, self.ends[number], operation)
                self.settle()
            for end in self.ends:
                end.note("end")
                with contextlib.suppress(AttributeError):
                    end.transport.abort()
                self.settle()
            for end in self.ends:
                for task in end.tasks:
                    task.cancel()
            self.settle()
        return self.result()

    def result(self):
        lossy = is_lossy(self.program)
        found = []
        for end in self.ends:
            if lossy:
                amounts = ("data", "pause", "resume", "look")
                log = [entry for entry in end.log if entry[0] not in amounts]
            else:
                log = [*end.log, (end.received, end.digest.hexdigest()[:12])]
            if has_free_order(self.program):
                log = [entry[:1] if entry[0] == "lost" else entry for entry in log]
                log = sorted((entry for entry in log if entry[0] != "eof"), key=repr)
            found += [(end.number, *entry) for entry in log]
        return [*found, ("reports", sorted(self.reports))]


def execute(impl, program):
    result = Machine(impl, program).run()
    gc.collect()
    return result
