"""Child processes that cannot outlive the run, cannot hang it, and tell why they failed."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from .loops import ROOT
from .machine import pin

_PR_SET_PDEATHSIG = 1


class ChildError(Exception):
    """A child died, hung or said something unexpected; the message is one line."""


def _prepare(core: int | None) -> None:
    """Set up the child between fork and exec: its core, and its death with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pin(core)


class Child:
    """A process that reports in lines of JSON on its standard output."""

    def __init__(self, command: Sequence[str], core: int | None = None) -> None:
        self._errors = tempfile.TemporaryFile()
        self._rest = b""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            preexec_fn=lambda: _prepare(core),
        )

    @classmethod
    def python(cls, module: str, *arguments: str, core: int | None = None) -> Child:
        """Start a module of this package with the same interpreter."""
        return cls([sys.executable, "-m", f"benchmarks.{module}", *arguments], core)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def line(self, timeout: float) -> bytes | None:
        """Return the next line of output, or None at its end. Raises ChildError when late."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise ChildError(f"no answer within {timeout:.0f} s")
            chunk = os.read(fd, 65536)
            if not chunk:
                line, self._rest = self._rest, b""
                return line or None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def report(self, timeout: float) -> dict[str, Any] | None:
        """Return the next line as a JSON object, or None when the child ended orderly.

        Lines that are not JSON are skipped. Raises ChildError when the child is late or
        ended badly, with the last line that it wrote to standard error.
        """
        while (line := self.line(timeout)) is not None:
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    return value
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ChildError("closed its output and did not end") from None
        if code != 0:
            raise ChildError(self.failure())
        return None

    def output(self, timeout: float) -> str:
        """Wait for the end and return all output. Raises ChildError."""
        lines = []
        while (line := self.line(timeout)) is not None:
            lines.append(line.decode(errors="replace"))
        if self._process.wait(timeout) != 0:
            raise ChildError(self.failure())
        return "\n".join(lines)

    def failure(self) -> str:
        """Say in one line how the child ended."""
        self.ends_within(0.5)
        code = self._process.poll()
        last = self.last_words()
        if code is None:
            return last or "still running"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{last} ({how})" if last else how

    def last_words(self) -> str:
        """Return the last line on standard error so far, or an empty string."""
        # Read without moving the position, which the child shares.
        size = os.fstat(self._errors.fileno()).st_size
        text = os.pread(self._errors.fileno(), 4096, max(0, size - 4096))
        lines = text.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Wait that long at most and return whether the process has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.alive()

    def stop(self) -> None:
        """End the process, by force if need be, and close everything. Never raises."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
