"""add_reader, add_writer and their removal."""

import asyncio
import errno
import os
import pty
import socket
import weakref

import pytest

from tests.support import collect, plain_repr, spin


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield one, other


def spin_until(loop, predicate):
    while not predicate():
        spin(loop)


def test_reader(loop, pair):
    one, other = pair
    seen = []

    def readable(*args):
        seen.append((args, one.recv(10)))

    loop.add_reader(one.fileno(), readable, 1, 2)
    spin(loop, 3)
    assert seen == []
    other.send(b"hello")
    spin_until(loop, lambda: seen)
    assert seen == [((1, 2), b"hello")]
    assert loop.remove_reader(one.fileno()) is True
    other.send(b"more")
    spin(loop, 3)
    assert len(seen) == 1


def test_writer(loop, pair):
    one, other = pair
    seen = []
    loop.add_writer(one.fileno(), seen.append, 1)
    spin_until(loop, lambda: len(seen) >= 3)
    assert loop.remove_writer(one.fileno()) is True
    count = len(seen)
    spin(loop, 3)
    assert len(seen) == count


def test_level_triggered(loop, pair):
    one, other = pair
    seen = []
    other.send(b"abc")
    loop.add_reader(one, lambda: seen.append(one.recv(1)))
    spin_until(loop, lambda: len(seen) == 3)
    assert b"".join(seen) == b"abc"
    loop.remove_reader(one)


def test_remove_tells(loop, pair):
    one, _ = pair
    assert not loop.remove_reader(one)
    assert not loop.remove_writer(one)
    loop.add_reader(one, print)
    assert not loop.remove_writer(one)
    assert loop.remove_reader(one) is True
    assert not loop.remove_reader(one)
    loop.add_writer(one, print)
    assert not loop.remove_reader(one)
    assert loop.remove_writer(one) is True
    assert not loop.remove_writer(one)


def test_replace(loop, pair):
    one, other = pair
    seen = []

    class Thing:
        def method(self):
            seen.append("old")

    thing = Thing()
    ref = weakref.ref(thing)
    loop.add_reader(one, thing.method)
    del thing
    loop.add_reader(one, seen.append, "new")
    assert ref() is None
    other.send(b"x")
    spin_until(loop, lambda: seen)
    assert set(seen) == {"new"}
    loop.remove_reader(one)


def test_remove_drops_callback(loop, pair):
    one, _ = pair

    class Thing:
        def method(self):
            pass

    thing = Thing()
    ref = weakref.ref(thing)
    loop.add_reader(one, thing.method)
    loop.add_writer(one, thing.method)
    del thing
    loop.remove_reader(one)
    assert ref() is not None
    loop.remove_writer(one)
    collect()
    assert ref() is None


def test_both_directions(loop, pair):
    one, other = pair
    seen = set()
    loop.add_reader(one, seen.add, "read")
    loop.add_writer(one, seen.add, "write")
    spin_until(loop, lambda: seen)
    assert seen == {"write"}
    other.send(b"x")
    spin_until(loop, lambda: len(seen) == 2)
    loop.remove_writer(one)
    seen.clear()
    spin_until(loop, lambda: seen)
    assert seen == {"read"}
    loop.remove_reader(one)
    seen.clear()
    spin(loop, 3)
    assert not seen


@pytest.mark.parametrize("form", ["number", "socket", "fileno method"])
def test_descriptor_like_objects(loop, pair, form):
    one, other = pair

    class HasFileno:
        def fileno(self):
            return one.fileno()

    what = {"number": one.fileno(), "socket": one, "fileno method": HasFileno()}[form]
    seen = []
    loop.add_reader(what, lambda: seen.append(one.recv(10)))
    other.send(b"x")
    spin_until(loop, lambda: seen)
    assert loop.remove_reader(one.fileno()) is True
    loop.add_writer(what, seen.append, "w")
    assert loop.remove_writer(what) is True


def test_file_object(loop):
    read, write = os.pipe()
    with open(read, "rb", 0) as reader, open(write, "wb", 0) as writer:
        seen = []
        loop.add_reader(reader, lambda: seen.append(reader.read(10)))
        writer.write(b"x")
        spin_until(loop, lambda: seen)
        assert seen == [b"x"]
        loop.remove_reader(reader)


BAD = [-1, -100, 1 << 31, 1 << 70, None, "x", 1.5, object(), b"1"]


@pytest.mark.parametrize("bad", BAD, ids=plain_repr)
@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_bad_descriptors(loop, bad, method):
    with pytest.raises((ValueError, TypeError, OverflowError, OSError)):
        getattr(loop, method)(bad, print)
    spin(loop, 2)


@pytest.mark.parametrize("bad", [-1, None, "x", object()], ids=plain_repr)
@pytest.mark.parametrize("method", ["remove_reader", "remove_writer"])
def test_bad_descriptors_on_removal(loop, bad, method):
    with pytest.raises((ValueError, TypeError)):
        getattr(loop, method)(bad)


def unused_number():
    fd = os.dup(0)
    os.close(fd)
    return fd + 100


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_number_that_is_not_open(loop, method):
    with pytest.raises(OSError) as info:
        getattr(loop, method)(unused_number(), print)
    assert info.value.errno == errno.EBADF
    spin(loop, 2)


def test_remove_of_unknown_number(loop):
    assert not loop.remove_reader(unused_number())
    assert not loop.remove_writer(unused_number())


def test_closed_socket_object(loop):
    one, other = socket.socketpair()
    one.close()
    other.close()
    with pytest.raises(ValueError):
        loop.add_reader(one, print)


def test_bad_callback(loop, pair):
    one, _ = pair
    with pytest.raises(TypeError):
        loop.add_reader(one)

    async def coroutine():
        pass

    loop.set_debug(True)
    for call in (loop.add_reader, loop.add_writer):
        try:
            call(one, coroutine)
        except TypeError:
            pass
    loop.remove_reader(one)
    loop.remove_writer(one)


def test_context(loop, pair):
    import contextvars

    var = contextvars.ContextVar("var", default=0)
    one, _ = pair
    seen = []
    var.set(1)
    loop.add_writer(one, lambda: seen.append(var.get()))
    var.set(2)
    spin_until(loop, lambda: seen)
    loop.remove_writer(one)
    assert seen[0] == 1


def test_remove_from_its_own_callback(loop, pair):
    one, other = pair
    seen = []

    def readable():
        seen.append(loop.remove_reader(one))

    loop.add_reader(one, readable)
    other.send(b"x")
    spin_until(loop, lambda: seen)
    spin(loop, 3)
    assert seen == [True]


def test_remove_of_another_ready_one(loop, pair):
    """Both are ready; the first that runs removes both."""
    one, other = pair
    seen = []

    def remove_both(name):
        seen.append(name)
        loop.remove_reader(one)
        loop.remove_reader(other)

    one.send(b"x")
    other.send(b"x")
    loop.add_reader(one, remove_both, "one")
    loop.add_reader(other, remove_both, "other")
    spin(loop, 4)
    assert len(seen) == 1


def test_exception_in_callback(loop, pair, reports):
    one, other = pair
    loop.add_reader(one, lambda: (one.recv(1), 1 / 0))
    other.send(b"x")
    spin_until(loop, lambda: reports)
    assert isinstance(reports.pop()["exception"], ZeroDivisionError)
    assert loop.remove_reader(one) is True


@pytest.mark.parametrize("blocking", [True, False])
def test_blocking_flag_untouched(loop, blocking):
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(blocking)
        for add, remove in (
            (loop.add_reader, loop.remove_reader),
            (loop.add_writer, loop.remove_writer),
        ):
            add(one, lambda: None)
            spin(loop)
            assert os.get_blocking(one.fileno()) is blocking
            remove(one)
            assert os.get_blocking(one.fileno()) is blocking


def test_closed_under_reader_then_removed(loop, pair):
    one, other = pair
    dup = one.dup()
    fd = dup.fileno()
    loop.add_reader(fd, lambda: None)
    spin(loop)
    dup.close()
    spin(loop, 2)
    loop.remove_reader(fd)
    spin(loop, 2)


def test_closed_before_the_first_poll(loop, reports):
    """The most dangerous moment for libev: known to it, never polled, closed."""
    one, other = socket.socketpair()
    loop.add_reader(one.fileno(), lambda: None)
    loop.add_writer(other.fileno(), lambda: None)
    fds = one.fileno(), other.fileno()
    one.close()
    other.close()
    spin(loop, 3)
    loop.remove_reader(fds[0])
    loop.remove_writer(fds[1])
    spin(loop, 2)
    for report in reports:
        assert isinstance(report["exception"], OSError)


def test_closed_after_polls_and_modified(loop, reports):
    one, other = socket.socketpair()
    fd = one.fileno()
    loop.add_reader(fd, lambda: None)
    spin(loop, 2)
    one.close()
    try:
        loop.add_writer(fd, lambda: None)
    except OSError as exc:
        assert exc.errno == errno.EBADF
    spin(loop, 2)
    loop.remove_reader(fd)
    loop.remove_writer(fd)
    spin(loop, 2)
    other.close()


def test_number_reused_after_removal(loop):
    """A new file under an old number works."""
    old, old_other = socket.socketpair()
    fd = old.fileno()
    loop.add_reader(fd, lambda: None)
    spin(loop, 2)
    loop.remove_reader(fd)
    old.close()
    new, new_other = socket.socketpair()
    try:
        assert fd in (new.fileno(), new_other.fileno())
        if new_other.fileno() == fd:
            new, new_other = new_other, new
        seen = []
        loop.add_reader(fd, lambda: seen.append(new.recv(10)))
        new_other.send(b"x")
        spin_until(loop, lambda: seen)
        assert seen == [b"x"]
        loop.remove_reader(fd)
    finally:
        for sock in (old_other, new, new_other):
            sock.close()


def test_number_reused_without_removal(loop, impl):
    """The descriptor was closed under its reader and its number came again.

    The standard loop on 3.11 to 3.13 re-registers in some cases and not in
    others; what must hold is that after an honest remove and add it works.
    """
    old, old_other = socket.socketpair()
    fd = old.fileno()
    loop.add_reader(fd, lambda: None)
    spin(loop, 2)
    old.close()
    new, new_other = socket.socketpair()
    try:
        if new_other.fileno() == fd:
            new, new_other = new_other, new
        assert new.fileno() == fd
        seen = []
        loop.remove_reader(fd)
        loop.add_reader(fd, lambda: seen.append(new.recv(10)))
        new_other.send(b"x")
        spin_until(loop, lambda: seen)
        assert seen == [b"x"]
        loop.remove_reader(fd)
    finally:
        for sock in (old_other, new, new_other):
            sock.close()


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
@pytest.mark.parametrize("what", ["file", "folder", "/dev/null"])
def test_what_is_never_waited_for_is_refused(loop, tmp_path, method, what):
    path = {"file": tmp_path / "file", "folder": tmp_path, "/dev/null": what}[what]
    if what == "file":
        path.write_bytes(b"x")
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(PermissionError):
            getattr(loop, method)(fd, print)
        spin(loop)
        assert loop.remove_reader(fd) is False
    finally:
        os.close(fd)


def test_terminal(loop):
    master, slave = pty.openpty()
    try:
        os.set_blocking(master, False)
        seen = []
        loop.add_reader(master, lambda: seen.append(os.read(master, 100)))
        os.write(slave, b"x\n")
        spin_until(loop, lambda: seen)
        assert b"x" in seen[0]
        loop.remove_reader(master)
    finally:
        os.close(master)
        os.close(slave)


def test_hang_up_is_readable(loop, pair):
    one, other = pair
    seen = []
    loop.add_reader(one, lambda: seen.append(one.recv(10)))
    other.close()
    spin_until(loop, lambda: seen)
    assert seen[0] == b""
    loop.remove_reader(one)


def test_broken_pipe_is_writable(loop):
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        pass
    seen = []
    loop.add_writer(write, seen.append, 1)
    spin(loop, 2)
    assert not seen
    os.close(read)
    spin_until(loop, lambda: seen)
    loop.remove_writer(write)
    os.close(write)


def test_descriptor_of_a_transport_is_refused(loop, pair):
    one, other = pair

    async def main():
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, other.dup())
        sock = transport.get_extra_info("socket")
        fd = sock.fileno()
        for what in (fd, sock):
            for call in (
                lambda: loop.add_reader(what, print),
                lambda: loop.add_writer(what, print),
                lambda: loop.remove_reader(what),
                lambda: loop.remove_writer(what),
            ):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    call()
        transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_many_descriptors(loop):
    pairs = [socket.socketpair() for _ in range(100)]
    try:
        seen = set()
        for number, (one, other) in enumerate(pairs):
            loop.add_reader(one, seen.add, number)
            other.send(b"x")
        spin_until(loop, lambda: len(seen) == 100)
        for one, _ in pairs:
            assert loop.remove_reader(one) is True
    finally:
        for one, other in pairs:
            one.close()
            other.close()


def test_close_with_readers_left(loop, pair):
    """The loop closes with them; the descriptors stay open, they are the user's."""
    one, other = pair
    loop.add_reader(one, print)
    loop.add_writer(other, print)
    spin(loop)
    loop.remove_writer(other)
    loop.close()
    one.send(b"x")
    assert other.recv(1) == b"x"


def test_two_loops_one_descriptor(loop_factory, pair):
    one, other = pair
    first, second = loop_factory(), loop_factory()
    seen = []
    first.add_reader(one, seen.append, "first")
    second.add_reader(one, seen.append, "second")
    other.send(b"x")
    spin_until(first, lambda: "first" in seen)
    spin_until(second, lambda: "second" in seen)
    first.remove_reader(one)
    second.remove_reader(one)


def test_stdin_redirected_from_a_file(impl):
    from tests.support import check_script

    check_script(
        impl,
        """
import tempfile
loop = new_event_loop()
with tempfile.TemporaryFile() as file:
    os.dup2(file.fileno(), 0)
try:
    loop.add_reader(0, print)
except PermissionError:
    print("ok")
assert os.get_blocking(0)
loop.close()
""",
        "ok",
    )


@pytest.mark.parametrize("how", ["in the callback", "later", "replaced", "closed"])
def test_kept_report_of_a_reader_keeps_no_loop(impl, pair, how):
    """The loop has its exception handler, that the report, and that the handle."""
    one, other = pair

    def life():
        reports = []

        def fail():
            one.recv(10)
            if how == "in the callback":
                loop.remove_reader(one)
            raise ZeroDivisionError

        loop = impl.new_event_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        loop.add_reader(one, fail)
        other.send(b"x")
        spin_until(loop, lambda: reports)
        if how == "later":
            loop.remove_reader(one)
        elif how == "replaced":
            loop.add_reader(one, int)
        loop.close()
        assert "handle" in reports[0]
        return weakref.ref(loop)

    gone = life()
    collect()
    assert gone() is None
