"""`asyncloop-run COMMAND ARGS`: any command, with asyncloop as asyncio's default loop.

The command may be a Python program or whatever starts some: every Python process below it finds
`_site/sitecustomize.py` first on its path, which does the rest (`_switch.py`).
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
import tempfile
from typing import NoReturn

from . import _switch

USAGE = """\
usage: asyncloop-run [--as-uvloop] [--check] COMMAND [ARGS ...]

Run a command, and the Python processes that it starts, with asyncloop as asyncio's default event
loop. A program that names another loop keeps it, and one line says so.

  --as-uvloop    `import uvloop` gives asyncloop: for programs that only know that word
  --check        say at the end which loops ran, in each process
  -h, --help     show this text
  -V, --version  show the versions of asyncloop, libev and Python
"""


def _say(*lines: str) -> None:
    """Where there is no standard error, or nobody reads it, the command is not to suffer."""
    with contextlib.suppress(Exception):
        sys.stderr.write("".join(f"asyncloop-run: {line}\n" for line in lines))


def _fail(message: str, status: int = 2) -> NoReturn:
    _say(message)
    raise SystemExit(status)


_SPLIT = ("-S", "--split-string")  # env's, in a first line of several words
# Python's: letters, of which the last may have a value, here or in the next word.
_SHORT_OPTIONS = re.compile("-([^cmWX]*)([cmWX]?)(.*)", re.DOTALL)


def _deaf_flags(command: list[str], executable: str) -> str:
    """The flags by which a Python is told not to look at PYTHONPATH or at sitecustomize."""
    words = command[1:] if _is_python(executable) else _shebang_words(executable)
    found = ""
    while words and words[0].startswith("-") and words[0] not in ("-", "--"):
        word = words.pop(0)
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                del words[:1]
            continue
        match = _SHORT_OPTIONS.fullmatch(word)
        assert match is not None
        letters, last, value = match.groups()
        found += "".join(letter for letter in letters if letter in "IES")
        if last in ("c", "m"):
            break
        if last and not value:
            del words[:1]
    return found


def _shebang_words(executable: str) -> list[str]:
    """What a script's first line gives to a Python; nothing if that names none."""
    try:
        with open(executable, "rb") as file:
            first = file.readline(4096)
    except OSError:
        return []
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word not in _SPLIT]
        while words and "=" in words[0]:
            del words[0]
    return words[1:] if words and _is_python(words[0]) else []


def _is_python(path: str) -> bool:
    return bool(re.fullmatch(r"(python|pypy)[\d.]*(-c|[tdw]{0,2})", os.path.basename(path)))


def _options(args: list[str]) -> set[str]:
    """Take the options before the command out of the arguments. Some end the program."""
    found = set()
    while args and args[0].startswith("-"):
        option = args.pop(0)
        if option == "--":
            break
        if option in ("-h", "--help"):
            print(USAGE, end="")
            raise SystemExit(0)
        if option in ("-V", "--version"):
            from .__main__ import version

            print(version())
            raise SystemExit(0)
        if option not in ("--as-uvloop", "--check"):
            _fail(f"unknown option {option}\n{USAGE[:-1]}")
        found.add(option)
    return found


def _found(command: str) -> str:
    """Where a command is, or the end of the program as of a shell that finds none."""
    executable = shutil.which(command)
    if executable is not None:
        return executable
    if os.sep in command and os.path.exists(command):
        wrong = errno.EISDIR if os.path.isdir(command) else errno.EACCES
        _fail(f"cannot run {command}: {os.strerror(wrong)}", 126)
    _fail(f"command not found: {command}", 127)


def main() -> None:
    """The command line of asyncloop-run: replaces this process by the command."""
    args = sys.argv[1:]
    options = _options(args)
    if not args:
        _fail(f"no command given\n{USAGE[:-1]}")
    if os.pathsep in _switch.SITE:
        _fail(f"cannot act from {_switch.SITE}: PYTHONPATH has no way to name it")
    executable = _found(args[0])
    flags = _deaf_flags(args, executable)
    if flags:
        _say(
            f"cannot act on {args[0]}: it starts Python with "
            f"-{' -'.join(dict.fromkeys(flags))}, which leaves out PYTHONPATH or sitecustomize"
        )
    env = _switch.environment(os.environ, args)
    if "--as-uvloop" in options:
        env["ASYNCLOOP_AS_UVLOOP"] = "1"
    if "--check" in options:
        env["ASYNCLOOP_CHECK"] = "1"
        raise SystemExit(_checked(args, executable, env))
    _become(args, executable, env)


def _become(args: list[str], executable: str, env: dict[str, str]) -> NoReturn:
    """Replace this process by the command."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, for itself
        signal.signal(number, signal.SIG_DFL)
    try:
        try:
            os.execve(executable, args, env)
        except OSError as error:
            if error.errno != errno.ENOEXEC or _is_binary(executable):
                raise
            os.execve("/bin/sh", ["sh", executable, *args[1:]], env)  # as execvp() does
    except OSError as error:
        _fail(f"cannot run {args[0]}: {error.strerror}", 126)


def _is_binary(path: str) -> bool:
    with open(path, "rb") as file:
        return b"\0" in file.read(100)


# -- --check -----------------------------------------------------------------------------


def _checked(args: list[str], executable: str, env: dict[str, str]) -> int:
    """Run the command as a child, and say at its end which loops ran."""
    try:
        folder = tempfile.mkdtemp(prefix="asyncloop-")
    except OSError as error:
        _fail(f"--check has no place for its notes: {error.strerror}")
    report = os.path.join(folder, "loops")
    outer = env.get("ASYNCLOOP_CHECK_FILE")
    env["ASYNCLOOP_CHECK_FILE"] = report
    status = _run_to_its_end(args, executable, env)
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError), open(report, "rb") as file:
        lines = file.read().decode(errors="replace").split("\n")[:-1]
    shutil.rmtree(folder, ignore_errors=True)
    if outer:
        _switch.append(outer, lines)
    _say(*_told(lines))
    if status < 0:
        _end_by(-status)
    return status


def _run_to_its_end(args: list[str], executable: str, env: dict[str, str]) -> int:
    """Run a command, and hand to it the signals that come for it, but those that are ignored."""
    names = ("TERM", "HUP", "USR1", "USR2", "INT", "QUIT", "TSTP")
    numbers = {signal.Signals[f"SIG{name}"] for name in names}
    numbers = {number for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    # What comes now waits until there is somebody to have it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    of_children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = str(os.getpid())
    child = os.fork()
    if not child:
        try:
            for number in numbers:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, of_children)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for name in ("LISTEN_PID", "WATCHDOG_PID"):  # systemd's: for whom the others are
                if env.get(name) == parent:
                    env[name] = str(os.getpid())
            _become(args, executable, env)
        finally:
            os._exit(126)

    def hand_on(number: int, frame: object) -> None:
        if number not in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP) or not _from_terminal():
            os.kill(child, number)
        if number == signal.SIGTSTP:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # stops here
            signal.signal(number, hand_on)
            os.kill(child, signal.SIGCONT)

    for number in numbers:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)  # the child's number may soon be another's
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _end_by(number: int) -> NoReturn:
    """As the command has ended, but without a core of this process."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # it was blocked


def _from_terminal() -> bool:
    """Then the command has got it as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _told(lines: list[str]) -> list[str]:
    loops = [fields for fields in (line.split("\t", 2) for line in lines) if len(fields) == 3]
    ran = [f"process {process}: {loop}: {command}" for process, loop, command in loops if loop]
    if ran:
        return ran
    if loops:
        return [f"no event loop ran in the Python processes reached ({len(loops)})"]
    return ["no event loop was seen: no Python process was reached"]


if __name__ == "__main__":
    main()
