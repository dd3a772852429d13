"""Whatever Python code can do to the core's objects: python -m tests.fuzz.misuse

Every type, method and attribute, with arguments that call back, raise, close, cancel, delete
attributes and run the collector from inside; half-made objects; a second __init__. Nothing is
compared: the process has to live, and to end. Each round has a number that repeats it.
"""

import argparse
import asyncio
import contextlib
import contextvars
import copy
import faulthandler
import gc
import os
import pathlib
import pickle
import random
import socket
import sys
import tempfile
import time
import warnings
import weakref

# In a debug build: after a second __init__(), or with private attributes that were set, the fields
# of an object need not agree with each other.
os.environ.setdefault("ASYNCLOOP_VERIFY", "0")

import asyncloop  # noqa: E402
from asyncloop import _core  # noqa: E402
from tests.certificates import make_contexts  # noqa: E402

STEPS = 60

# What runs a loop would wait for ever; what closes one ends a round too soon most of the time.
WAITING = {
    "__init__",
    "run_forever",
    "run_until_complete",
    "_run_once",
    "_run",
    "_stopping",
    "_run_forever_cleanup",  # from 3.13 on: forgets that stop() was called
    "__reduce__",
    "__reduce_ex__",
    "__subclasshook__",
    "__init_subclass__",
    "set_wakeup_fd",
    "shutdown_default_executor",
    "run_in_executor",
}


class Raised(Exception):
    pass


class Round:
    """The objects of one round, and the evil that is done to them."""

    def __init__(self, number, trace=None):
        self.random = random.Random(number)
        self.trace = trace
        self.depth = 0
        self.subjects = []
        self.types = [kind for kind in vars(_core).values() if isinstance(kind, type)]
        self.types += [asyncloop.Loop]
        self.left = STEPS * 6
        self.stack = contextlib.ExitStack()

    def say(self, *what):
        if self.trace is not None:
            os.write(self.trace, (" ".join(map(str, what)) + "\n").encode())

    # evil

    def act(self):
        """Something from inside a callback."""
        if self.depth > 3 or self.left <= 0 or not self.subjects:
            return
        self.depth += 1
        try:
            for _ in range(self.random.randrange(3)):
                self.step()
            if self.random.randrange(12) == 0:
                raise Raised("evil")
            if self.random.randrange(150) == 0:
                raise self.random.choice([KeyboardInterrupt, SystemExit, MemoryError])
        finally:
            self.depth -= 1

    def evil_class(self, base=object):
        act, source = self.act, self.random

        class Evil(base):
            def __eq__(self, other):
                act()
                return source.randrange(2) == 0

            def __lt__(self, other):
                act()
                return source.randrange(2) == 0

            def __hash__(self):
                act()
                return source.randrange(3)

            def __bool__(self):
                act()
                return source.randrange(2) == 0

            def __index__(self):
                act()
                return source.choice([0, 1, 5, 2**70, -1])

            __int__ = __index__

            def __float__(self):
                act()
                return source.choice([0.0, 0.001, float("nan"), float("inf"), -1e300])

            def __len__(self):
                act()
                return source.choice([0, 1, 3])

            def __iter__(self):
                act()
                return iter([self, b"x"])

            def __call__(self, *args, **kwargs):
                act()
                return source.choice([None, self, args])

            def __repr__(self):
                act()
                return "evil"

            __str__ = __repr__

            def __del__(self):
                act()

            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                act()
                return self

            def fileno(self):
                act()
                return source.choice([-1, 0, 10**6, 2**70, 7])

            def __await__(self):
                act()
                return self

            def __next__(self):
                act()
                if source.randrange(2):
                    raise StopIteration(self)

            def send(self, value):
                return self.__next__()

            def throw(self, *args):
                act()
                raise args[0]

            def close(self):
                act()

            def __buffer__(self, flags):
                act()
                return memoryview(bytearray(source.choice([0, 1, 5000])))

            def __enter__(self):
                act()
                return self

            def __exit__(self, *args):
                act()

            # as a protocol
            def connection_made(self, transport):
                act()

            connection_lost = data_received = buffer_updated = connection_made
            datagram_received = __call__
            error_received = eof_received = pause_writing = resume_writing = __call__

            def get_buffer(self, hint):
                act()
                return source.choice([bytearray(10), b"read only", self, bytearray()])

        return Evil

    def evil(self):
        base = self.random.choice(
            [object, object, asyncio.Protocol, asyncio.BufferedProtocol, asyncio.DatagramProtocol]
        )
        return self.evil_class(base)()

    def argument(self):
        pick = self.random.randrange(24)
        match pick:
            case 0 | 1 | 2 | 3:
                return self.evil()
            case 4:
                return self.evil_class(str)("evil") if self.random.randrange(2) else "text"
            case 5:
                return self.random.choice([-1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 10])
            case 6:
                return self.random.choice([0.0, float("nan"), float("inf"), -1.0, 1e308, 0.001])
            case 7:
                return self.random.choice([b"", b"bytes", b"x" * 70000])
            case 8:
                return bytearray(b"array")
            case 9:
                return memoryview(b"abcdef")[::2]
            case 10:
                return None
            case 11:
                return [self.evil(), b"part", bytearray(b"x")]
            case 12:
                return (self.argument(), self.argument()) if self.left > 0 else ()
            case 13:
                return {"key": self.evil()}
            case 14:
                return contextvars.copy_context()
            case 15:
                return self.random.choice([ValueError, ValueError("x"), StopIteration(1)])
            case 16:
                return lambda *args, **kwargs: self.act()
            case 17:
                return self.coroutine()
            case 18:
                return True
            case 19:
                return self.random.choice(["127.0.0.1", "peername", "socket", "\0", "\udc80"])
            case 20:
                return asyncio.CancelledError()
            case _:
                return self.subject()

    async def coroutine(self):
        for _ in range(self.random.randrange(4)):
            self.act()
            await asyncio.sleep(0)
        subject = self.subject()
        if isinstance(subject, asyncio.Future) and self.random.randrange(2):
            await subject

    # subjects

    def subject(self):
        return self.random.choice(self.subjects)

    def add(self, subject):
        if subject is not None and len(self.subjects) < 60:
            self.subjects.append(subject)

    def half_made(self):
        """__new__ without __init__, and what refuses to be made."""
        kind = self.random.choice(self.types)
        with contextlib.suppress(Exception):
            self.add(kind.__new__(kind))
        if issubclass(kind, asyncio.Future | _core.Loop):
            self.add(type("Sub", (kind,), {}).__new__(kind))

    def close_later(self, sock):
        def close():
            with contextlib.suppress(Exception):
                socket.socket.close(sock)

        self.stack.callback(close)

    def make(self, loop):
        self.loop = loop
        self.subjects += [loop, loop.create_future(), asyncloop.Future(loop=loop)]
        self.add(loop.create_task(self.coroutine()))
        self.add(asyncio.Task(self.coroutine(), loop=loop))
        self.add(loop.call_soon(self.evil(), self.evil()))
        self.add(loop.call_soon_threadsafe(self.evil(), 1, 2, 3, 4, 5))
        self.add(loop.call_later(0.001, self.evil()))
        self.add(loop.call_at(0, self.evil(), self.evil()))
        self.add(iter(loop.create_future()))
        self.add(loop.create_future().__await__())
        one, other = socket.socketpair()
        for sock in (one, other):
            sock.setblocking(False)
            self.close_later(sock)
        self.add(one)
        self.add(loop.sock_recv(one, 100))
        self.add(loop.sock_sendall(other, b"x" * 100))
        self.add(loop.getaddrinfo("127.0.0.1", 80))
        loop.add_reader(other, self.evil())

    async def connect(self):
        """Transports of all kinds, with protocols that are evil."""
        loop = self.loop
        evil = lambda: self.evil_class(asyncio.Protocol)()
        udp = lambda: self.evil_class(asyncio.DatagramProtocol)()
        one, other = socket.socketpair()
        self.close_later(one)
        self.close_later(other)
        transports = []
        for factory, sock in ((evil, one), (asyncio.Protocol, other)):
            transports.append(await loop.connect_accepted_socket(factory, sock))
        transports.append(
            await loop.create_datagram_endpoint(udp, local_addr=("127.0.0.1", 0))
        )
        reading, writing = os.pipe()
        transports.append(await loop.connect_read_pipe(evil, os.fdopen(reading, "rb", 0)))
        transports.append(await loop.connect_write_pipe(evil, os.fdopen(writing, "wb", 0)))
        server = await loop.create_server(evil, "127.0.0.1", 0)
        self.add(server)
        port = server.sockets[0].getsockname()[1]
        transports.append(await loop.create_connection(evil, "127.0.0.1", port))
        if self.random.randrange(4) == 0:
            server_context, client_context = tls_contexts()
            secure = await loop.create_server(
                evil, "127.0.0.1", 0, ssl=server_context, ssl_handshake_timeout=0.2
            )
            self.add(secure)
            port = secure.sockets[0].getsockname()[1]
            with contextlib.suppress(OSError):
                transports.append(
                    await loop.create_connection(
                        evil,
                        "127.0.0.1",
                        port,
                        ssl=client_context,
                        server_hostname="localhost",
                        ssl_shutdown_timeout=0.1,
                    )
                )
        for transport, protocol in transports:
            self.add(transport)
            self.add(protocol)
            self.add(transport.get_extra_info("socket"))
        reader, writer = asyncio.StreamReader(loop=loop), None
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self.add(reader)
        one, other = socket.socketpair()
        self.close_later(one)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, other)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self.add(writer)
        self.add(transport)
        one.send(b"line\n" * 10)

    # steps

    def step(self):
        self.left -= 1
        subject = self.subject()
        kind = type(subject)
        what = self.random.randrange(30)
        name = None
        try:
            if what == 0:
                self.half_made()
            elif what == 1 and subject is not self.loop and kind is not asyncio.Task:
                # (A loop's would forget that it was stopped, on the standard one as well. A stock
                # Task's drops the coroutine that may be running: CPython 3.11 does not survive it.)
                subject.__init__(*[self.argument() for _ in range(self.random.randrange(3))])
            elif what == 2:
                self.random.choice([copy.copy, pickle.dumps, repr, hash, iter, dir])(subject)
            elif what == 3:
                gc.get_referents(subject), gc.get_referrers(subject)
                weakref.ref(subject, lambda _: self.act())
            elif what == 4:
                gc.collect(self.random.randrange(3))
            elif what == 5 and len(self.subjects) > 4:
                del self.subjects[self.random.randrange(1, len(self.subjects))]
            elif what == 6:
                self.add(self.loop.create_task(self.coroutine()))
            elif what == 7 and self.random.randrange(6) == 0:
                self.add(kind(*[self.argument() for _ in range(self.random.randrange(3))]))
            else:
                names = [name for name in dir(kind) if name not in WAITING]
                if issubclass(kind, asyncloop.Loop):
                    # Its private ones run turns, wait, or take out what ends a run.
                    names = [name for name in names if name[0] != "_" or name[:2] == "__"]
                name = self.random.choice(names)
                if name == "close" and subject is self.loop and self.depth == 0:
                    return
                self.touch(subject, name, what)
        except Exception:
            pass
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit):
            pass

    def touch(self, subject, name, what):
        self.say("  " * self.depth, type(subject).__name__, name, what)
        if what < 10:
            setattr(subject, name, self.argument())
        elif what < 12 and not name.startswith("__"):
            delattr(subject, name)
        else:
            value = getattr(subject, name)
            if callable(value) and name not in ("__class__", "__del__"):
                count = self.random.choice([0, 0, 1, 1, 1, 2, 2, 3, 4])
                args = [self.argument() for _ in range(count)]
                options = {}
                if self.random.randrange(8) == 0:
                    keyword = self.random.choice(["context", "loop", "msg", "name", "foo"])
                    options[keyword] = self.argument()
                result = value(*args, **options)
                if asyncio.iscoroutine(result) and self.random.randrange(2):
                    result = self.loop.create_task(result)
                if isinstance(result, asyncio.Future | asyncio.Handle | asyncio.BaseTransport):
                    self.add(result)

    def spin(self, turns):
        # The methods of the class: evil may have put others into the instance.
        loop, kind = self.loop, asyncloop.Loop
        for _ in range(turns):
            try:
                kind.stop(loop)  # one turn; what waits in the loop for that could be taken out
                kind.run_forever(loop)
            except BaseException:
                pass

    def run(self):
        loop = asyncloop.new_event_loop()
        # Whatever evil does with the loop's own hooks, the end of the round needs its methods.
        self.make(loop)
        if self.random.randrange(3) == 0:
            loop.set_debug(True)
        loop.slow_callback_duration = 1e9
        handlers = [lambda loop, context: None, lambda loop, context: self.act()]
        loop.set_exception_handler(self.random.choice(handlers))
        if self.random.randrange(2):
            # By hand, and for a while only: evil may cancel it or what it waits for.
            connecting = loop.create_task(self.connect())
            limit = time.monotonic() + 0.5
            while not connecting.done() and time.monotonic() < limit:
                self.spin(1)
            connecting = None
        for _ in range(STEPS):
            self.step()
            if self.random.randrange(4) == 0:
                self.spin(1)
        self.spin(3)
        self.left = 0
        with contextlib.suppress(BaseException):
            self.stack.close()
        for method in (asyncloop.Loop.close, _core.Loop._close):
            try:
                method(loop)
            except BaseException as exc:
                self.say("close", repr(exc))
        self.subjects.clear()
        del self.loop


_contexts = []


def tls_contexts():
    if not _contexts:
        with tempfile.TemporaryDirectory() as folder:
            _contexts.extend(make_contexts(pathlib.Path(folder)))
    return _contexts


def run_rounds(first, count, seconds, trace=None):
    """How many rounds were run."""
    sys.unraisablehook = lambda info: None
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    limit = time.monotonic() + seconds
    done = 0
    for number in range(first, first + count):
        if time.monotonic() > limit:
            break
        if trace is not None:
            os.ftruncate(trace, 0)
            os.lseek(trace, 0, 0)
            os.write(trace, f"round {number}\n".encode())
        # A round that waits for ever ends the process, and tells where.
        faulthandler.dump_traceback_later(30, exit=True)
        Round(number, trace).run()
        asyncio._set_running_loop(None)
        done += 1
        if done % 8 == 0:
            gc.collect()
    faulthandler.cancel_dump_traceback_later()
    gc.collect()
    return done


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.misuse", description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--trace", help="a file for the steps of the last round")
    options = parser.parse_args()
    faulthandler.enable()
    trace = None
    if options.trace:
        trace = os.open(options.trace, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    done = run_rounds(options.first, options.rounds, options.seconds, trace)
    print(f"{done} rounds")


if __name__ == "__main__":
    main()
