"""Child processes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support import check_script, in_thread, open_descriptors, until

PY = sys.executable


def child(code, *args):
    """The command of a small Python program."""
    return PY, "-S", "-E", "-c", code, *args


CAT = child("import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)")
SLEEP = ("/bin/sleep", "100")


@pytest.fixture(autouse=True)
def no_zombies():
    yield
    assert not zombies()


def zombies():
    """Children of this process that nobody has waited for."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{int(name)}/stat") as stat:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state == "Z":
                found.append(int(name))
    return found


def pipe_run(*args, data=None, **kwargs):
    """A coroutine: (status, output, errors) of a command."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            *args,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **kwargs,
        )
        output, errors = await process.communicate(data)
        return process.returncode, output, errors

    return main()


# -- life of a child --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_status(run, status):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {status}")
        assert await process.wait() == status
        assert process.returncode == status
        assert await process.wait() == status

    run(main())


def test_shell(run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2; exit 3", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert await process.communicate() == (b"out\n", b"err\n")
        assert process.returncode == 3

    run(main())


@pytest.mark.parametrize("how", ["kill", "terminate", "send_signal"])
def test_signals(run, how):
    expected = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "send_signal": signal.SIGUSR1}

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        arguments = [signal.SIGUSR1] if how == "send_signal" else []
        getattr(process, how)(*arguments)
        assert await process.wait() == -expected[how]
        with pytest.raises(ProcessLookupError):
            getattr(process, how)(*arguments)

    run(main())


@pytest.mark.our_loop("a thread of asyncio's may have taken the status")
def test_signal_for_a_child_that_has_ended(run):
    """Whoever takes the status, it is the right one."""

    async def main():
        for _ in range(10):
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 5")
            while process.returncode is None and process.pid not in zombies():
                time.sleep(0.001)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            assert await process.wait() == 5

    run(main())


def test_many_at_once(run):
    async def one(number):
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"echo {number}; exit {number}", stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        return int(output), process.returncode

    async def main():
        return await asyncio.gather(*(one(n) for n in range(50)))

    assert run(main()) == [(n, n) for n in range(50)]


def test_no_output_is_lost(run):
    async def main():
        for number in range(200):
            process = await asyncio.create_subprocess_exec(
                "/bin/echo", str(number), stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert output == f"{number}\n".encode()

    run(main())


class Recorder(asyncio.SubprocessProtocol):
    def __init__(self):
        self.events = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def pipe_data_received(self, fd, data):
        self.events.append((fd, data))

    def pipe_connection_lost(self, fd, exc):
        self.events.append(("lost", fd))

    def process_exited(self):
        self.events.append("exited")

    def connection_lost(self, exc):
        self.events.append("end")
        self.done.set_result(exc)


def test_protocol(run, loop):
    async def main():
        transport, protocol = await loop.subprocess_exec(Recorder, "/bin/echo", "x")
        assert await protocol.done is None
        assert transport.get_returncode() == 0
        assert isinstance(transport.get_extra_info("subprocess"), subprocess.Popen)
        transport.close()
        events = protocol.events
        assert events[0] == "made"
        assert events[-1] == "end"
        assert (1, b"x\n") in events
        assert events.count("exited") == 1
        assert events.index(("lost", 1)) > events.index((1, b"x\n"))

    run(main())


def test_pipe_that_outlives_the_child(run):
    """A grandchild keeps the pipe: the status comes before the end of output."""

    async def main():
        process = await asyncio.create_subprocess_shell(
            "(sleep 0.1; echo late) & echo early", stdout=subprocess.PIPE
        )
        assert await process.wait() == 0
        assert await process.stdout.read() == b"early\nlate\n"

    run(main())


def test_pipe_closed_before_the_end(run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "exec 1>&-; sleep 0.1; exit 4", stdout=subprocess.PIPE
        )
        assert await process.stdout.read() == b""
        assert await process.wait() == 4

    run(main())


@pytest.mark.parametrize("output", [None, subprocess.PIPE])
@pytest.mark.parametrize("name", ["connection_made", "process_exited"])
def test_protocol_that_fails(run, loop, reports, output, name):
    """It is reported, and the rest goes on."""

    def fail(*args):
        getattr(Recorder, name)(*args)
        raise ZeroDivisionError

    async def main():
        transport, protocol = await loop.subprocess_exec(
            type("Failing", (Recorder,), {name: fail}),
            "/bin/true",
            stdin=None,
            stdout=output,
            stderr=None,
        )
        assert await protocol.done is None
        assert await transport._wait() == 0
        transport.close()
        return protocol.events

    begin, *middle, end = run(main())
    assert (begin, end) == ("made", "end")
    assert set(middle) == {"exited", ("lost", 1)} if output else middle == ["exited"]
    assert [type(context["exception"]) for context in reports] == [ZeroDivisionError]


# -- pipes ------------------------------------------------------------------------------------


def test_pipes_connected_by_somebody_else(run, loop):
    """Who puts other functions in the place of the loop's is asked."""
    seen = []

    def replace(name):
        connect = getattr(loop, name)

        async def other(factory, pipe):
            transport, protocol = await connect(factory, pipe)
            seen.append((name, type(transport)))
            return transport, protocol

        setattr(loop, name, other)

    replace("connect_read_pipe")
    replace("connect_write_pipe")
    assert run(pipe_run(*CAT, data=b"hello")) == (0, b"hello", b"")
    assert [name for name, _ in seen] == ["connect_write_pipe", *["connect_read_pipe"] * 2]


@pytest.mark.our_loop("asyncio waits for ever, or leaves descriptors open")
@pytest.mark.parametrize("works", [0, 1])
def test_pipes_that_cannot_be_connected(run, loop, works):
    make = loop._make_read_pipe_transport
    left = works

    def fail(*args):
        nonlocal left
        if not left:
            raise ZeroDivisionError
        left -= 1
        return make(*args)

    async def main():
        loop._make_read_pipe_transport = fail
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_subprocess_exec(
                *SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )

    run(main())


def test_a_mebibyte_both_ways(run):
    data = os.urandom(1 << 20)
    assert run(pipe_run(*CAT, data=data)) == (0, data, b"")


def test_input_is_a_pipe_that_can_be_opened(run):
    code = "import os; print(open('/dev/stdin').read(), end='')"
    assert run(pipe_run(*child(code), data=b"hello")) == (0, b"hello", b"")


def test_child_that_does_not_read(run):
    data = b"x" * (1 << 20)
    assert run(pipe_run("/bin/true", data=data)) == (0, b"", b"")


def test_stderr_into_stdout(run):
    async def main():
        process = await asyncio.create_subprocess_shell(
            "echo a; echo b >&2", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, errors = await process.communicate()
        assert output == b"a\nb\n"
        assert errors is None

    run(main())


def test_file_and_devnull(run, tmp_path):
    async def main():
        with (tmp_path / "out").open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                "/bin/echo", "x", stdin=subprocess.DEVNULL, stdout=file
            )
            await process.wait()

    run(main())
    assert (tmp_path / "out").read_bytes() == b"x\n"


def test_conversation(run):
    code = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"

    async def main():
        process = await asyncio.create_subprocess_exec(
            *child(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for number in range(20):
            process.stdin.write(f"line {number}\n".encode())
            await process.stdin.drain()
            assert await process.stdout.readline() == f"LINE {number}\n".encode()
        process.stdin.close()
        assert await process.wait() == 0

    run(main())


# -- ends before the end ----------------------------------------------------------------------


def test_cancelled_wait(run):
    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.01)
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(main())


def test_cancelled_communicate(run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            *SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        task = asyncio.create_task(process.communicate(b"x"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        process.kill()
        await process.wait()
        process._transport.close()

    run(main())


@pytest.mark.parametrize("turns", range(4))
def test_cancelled_start(run, turns):
    async def main():
        task = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            process = await task
        except asyncio.CancelledError:
            return
        process.kill()
        await process.wait()
        process._transport.close()

    run(main())


def test_closed_transport_kills(run, loop):
    async def main():
        transport, protocol = await loop.subprocess_exec(Recorder, *SLEEP)
        transport.close()
        await protocol.done
        assert transport.get_returncode() == -signal.SIGKILL

    run(main())


@pytest.mark.our_loop("asyncio leaves the descriptor of the child open")
def test_loop_closed_first(impl):
    loop = impl.new_event_loop()

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        return process._transport.get_extra_info("subprocess"), process._transport

    process, transport = loop.run_until_complete(main())
    loop.close()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    transport.close()


# -- bad input --------------------------------------------------------------------------------


def test_missing_program(run):
    async def main():
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/no/such/program")
        with pytest.raises(PermissionError):
            await asyncio.create_subprocess_exec("/")

    run(main())


def test_missing_programs_leave_nothing(run):
    async def main():
        for _ in range(20):
            with pytest.raises(FileNotFoundError):
                await pipe_run("/no/such/program")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            with pytest.raises(FileNotFoundError):
                await pipe_run("/no/such/program")
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())


@pytest.mark.parametrize(
    "cwd, error", [("/no/such/folder", FileNotFoundError), ("/dev/null", NotADirectoryError)]
)
def test_bad_working_folder(run, cwd, error):
    with pytest.raises(error):
        run(pipe_run("/bin/true", cwd=cwd))


@pytest.mark.parametrize(
    "kwargs",
    [{"universal_newlines": True}, {"text": True}, {"shell": True}, {"bufsize": 1},
     {"encoding": "utf-8"}, {"no_such_keyword": 1}],
)  # fmt: skip
def test_refused_keywords(run, kwargs):
    async def main():
        with pytest.raises((ValueError, TypeError)):
            await asyncio.create_subprocess_exec("/bin/true", **kwargs)

    run(main())


def test_shell_wants_a_string(run):
    async def main():
        with pytest.raises(ValueError):
            await asyncio.create_subprocess_shell(["echo"])

    run(main())


# -- what the child is given ------------------------------------------------------------------


def test_environment_folder_and_mask(run, tmp_path):
    code = "import os; print(os.environ['NAME'], os.getcwd(), oct(os.umask(0)))"
    status, output, _ = run(pipe_run(*child(code), env={"NAME": "value"}, cwd=tmp_path, umask=0o27))
    assert status == 0
    assert output.decode().split() == ["value", os.path.realpath(tmp_path), "0o27"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_user_and_group(run):
    command = ("/bin/sh", "-c", "id -u; id -g; id -G")
    _, output, errors = run(pipe_run(*command, cwd="/", user=65534, group=65534, extra_groups=[7]))
    assert output.decode().splitlines() == ["65534", "65534", "65534 7"], errors


def test_session_and_passed_descriptor(run):
    read, write = os.pipe()
    try:
        code = "import os, sys; os.write(int(sys.argv[1]), b'x'); print(os.getsid(0) - os.getpid())"
        _, output, _ = run(
            pipe_run(*child(code, str(write)), start_new_session=True, pass_fds=[write])
        )
        assert output == b"0\n"
        assert os.read(read, 10) == b"x"
    finally:
        os.close(read)
        os.close(write)


def test_only_standard_descriptors(run):
    code = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    _, output, _ = run(pipe_run(*child(code)))
    assert output == b"['0', '1', '2', '3']\n"  # 3: the folder itself


def test_default_dispositions(run, loop):
    """A handler of the loop is not the child's, and SIGPIPE ends it as ever."""

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        _, output, _ = await pipe_run("/bin/sh", "-c", "exec cat /proc/self/status")
        masks = {}
        for line in output.decode().splitlines():
            name, _, value = line.partition(":")
            if name in ("SigIgn", "SigCgt", "SigBlk"):
                masks[name] = int(value, 16)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD):
            for mask in masks.values():
                assert not mask & 1 << (number - 1)
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.remove_signal_handler(signal.SIGTERM)

    run(main())


# -- other people's children, other threads ---------------------------------------------------


def test_children_of_others_are_left_alone(run, thread):
    statuses = []

    def others():
        for _ in range(50):
            statuses.append(subprocess.run(["/bin/false"]).returncode)

    worker = thread(others)

    async def main():
        while worker.is_alive():
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
            assert await process.wait() == 3

    run(main())
    assert statuses == [1] * 50


def test_disposition_of_sigchld_stays(run):
    before = signal.getsignal(signal.SIGCHLD)
    run(pipe_run("/bin/true"))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_in_another_thread(impl):
    def body():
        loop = impl.new_event_loop()
        try:
            return loop.run_until_complete(pipe_run(*CAT, data=b"abc"))
        finally:
            loop.close()

    assert in_thread(body) == (0, b"abc", b"")


def test_several_loops_at_once(impl):
    results = []

    def body():
        loop = impl.new_event_loop()
        for number in range(10):
            results.append(
                loop.run_until_complete(pipe_run("/bin/sh", "-c", f"exit {number}"))[0] == number
            )
        loop.close()

    threads = [threading.Thread(target=body) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert results == [True] * 40


@pytest.mark.our_loop("how ours does without pidfd")
@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_without_pidfd(run, monkeypatch, error):
    if error is AttributeError:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    else:

        def refuse(pid, flags=0):
            raise OSError(38, "not there")

        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)

    async def main():
        assert await pipe_run(*CAT, data=b"abc") == (0, b"abc", b"")
        process = await asyncio.create_subprocess_exec(*SLEEP)
        name = f"asyncloop-waitpid-{process.pid}"
        assert name in {t.name for t in threading.enumerate()}
        process.kill()
        await until(lambda: all(t.name != name for t in threading.enumerate()))
        assert await process.wait() == -signal.SIGKILL

    run(main())


@pytest.mark.our_loop("how ours does without pidfd and waitid")
def test_without_waitid(run, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.delattr(os, "waitid", raising=False)
    assert run(pipe_run("/bin/sh", "-c", "exit 3")) == (3, b"", b"")


@pytest.mark.our_loop("asyncio runs into the descriptor limit")
def test_no_descriptor_left_for_watching(run, monkeypatch):
    def refuse(pid, flags=0):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    assert run(pipe_run("/bin/sh", "-c", "exit 3")) == (3, b"", b"")


@pytest.mark.our_loop("its threads are asyncio's own business")
def test_neither_descriptor_nor_thread(run, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for pipe in None, subprocess.PIPE:
                with pytest.raises(RuntimeError, match="new thread"):
                    await asyncio.create_subprocess_exec(*SLEEP, stdin=pipe, stdout=pipe)

    run(main())


@pytest.mark.our_loop("a thread of asyncio's may be faster, and it cannot ask the kernel")
@pytest.mark.parametrize("knows", [True, False], ids=["kernel-knows", "nobody-knows"])
def test_status_taken_by_somebody_else(run, asyncio_log, monkeypatch, knows):
    def refuse(*args):
        raise OSError(25, "Inappropriate ioctl for device")

    if not knows:
        monkeypatch.setattr("fcntl.ioctl", refuse)

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        process.kill()
        os.waitpid(process.pid, 0)
        return await process.wait()

    returncode = run(main())
    warned = any("255" in one for one in asyncio_log.take())
    # Linux 6.15 and later tell it all the same.
    assert (returncode, warned) in [(255, True)] + [(-signal.SIGKILL, False)] * knows


@pytest.mark.our_loop("other hooks there")
@pytest.mark.our_loop("asyncio keeps the descriptor before 3.15")
def test_status_cannot_be_had(run, loop, monkeypatch):
    """It is told as an error, and the child is not watched any more."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))

    def refuse(*args):
        raise error

    error = OSError("unexpected")

    async def main():
        await asyncio.sleep(0.001)  # with its timer the loop has all that it needs
        before = open_descriptors()
        process = await asyncio.create_subprocess_exec(*CAT, stdin=subprocess.PIPE)
        with monkeypatch.context() as patch:
            patch.setattr(os, "waitpid", refuse)
            process.stdin.close()
            await until(lambda: reports)
        assert reports == [error]
        os.waitpid(process.pid, 0)
        process._transport._process_exited(0)
        assert await process.wait() == 0
        assert open_descriptors() == before

    run(main())


@pytest.mark.our_loop("asyncio stops with an assertion")
@pytest.mark.parametrize("ends", ["before", "after"])
def test_end_told_by_somebody_else(run, loop, ends):
    """Before it was noticed here, in a run or by close()."""

    async def main():
        process = await asyncio.create_subprocess_exec(*SLEEP)
        process._transport._process_exited(0)
        assert await process.wait() == 0
        if ends == "before":
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: not loop._children)
        return process.pid

    pid = run(main())
    if ends == "after":
        loop.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_fork_hooks_do_not_run(impl):
    check_script(
        impl,
        """
os.register_at_fork(before=lambda: print("before"), after_in_child=lambda: print("child"))
async def main():
    process = await asyncio.create_subprocess_exec("/bin/true")
    print(await process.wait())
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
""",
        "0",
    )
