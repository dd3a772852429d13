"""The child process: maps the suite and runs one class, writing down what happens.

Started by ``runner.py`` with the path of a job file (JSON). Every event is one line of
JSON in the job's ``out`` file, written at once, so that whatever a crash or a hang cuts
off, the parent knows which test it was. Standard output and error are one file of the
parent's; an event names its length at that moment, by which the parent finds a test's
own output.
"""

import asyncio
import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
import unittest
import warnings


class Log:
    """The job's ``out`` file. Closed on exec, so that no child of a test holds it."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        self.pid = os.getpid()

    def event(self, kind, **fields):
        if os.getpid() != self.pid:     # a test forked and its child came back to us
            return
        sys.stdout.flush()
        sys.stderr.flush()
        fields.update(kind=kind, output=os.fstat(2).st_size)
        os.write(self.fd, json.dumps(fields).encode() + b"\n")


class Result(unittest.TestResult):
    """Reports each test as it starts and ends, and watches over its time limit."""

    def __init__(self, log, limit):
        super().__init__()
        self.log = log
        self.limit = limit
        self.unraisable = []
        self.running = False

    def startTest(self, test):
        super().startTest(test)
        from test import support
        support.environment_altered = False
        self.unraisable.clear()
        self.outcome, self.detail = "passed", ""
        self.running = True
        self.began = time.monotonic()
        self.log.event("start", test=test._testMethodName)
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def stopTest(self, test):
        if not self.running:
            return
        faulthandler.cancel_dump_traceback_later()
        from test import support
        if self.outcome == "passed" and support.environment_altered:
            self._bad("left something behind (a thread or a child process)")
        if self.outcome == "passed" and self.unraisable:
            self._bad("\n".join(self.unraisable))
        self.running = False
        self.log.event("end", test=test._testMethodName, outcome=self.outcome,
                       detail=self.detail, seconds=time.monotonic() - self.began)
        super().stopTest(test)

    def _bad(self, text):
        self.outcome = "failed"
        self.detail = (self.detail + "\n" + text).strip()

    def _failure(self, test, err):
        text = "".join(traceback.format_exception(*err))
        if isinstance(test, unittest.TestCase):
            self._bad(text)
        else:
            self.log.event("fixture", outcome="failed", detail=f"{test}\n{text}")

    def addError(self, test, err):
        self._failure(test, err)

    def addFailure(self, test, err):
        self._failure(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._bad(str(subtest))
            self._failure(test, err)

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            if not self.running:        # 3.12.1 does not start a test that it skips
                self.log.event("end", test=test._testMethodName, outcome="skipped",
                               detail=reason, seconds=0.0)
            elif self.outcome == "passed":
                self.outcome, self.detail = "skipped", reason
        else:
            self.log.event("fixture", outcome="skipped", detail=reason)

    def addExpectedFailure(self, test, err):
        self.outcome, self.detail = "skipped", "the suite expects it to fail"

    def addUnexpectedSuccess(self, test):
        self._bad("passed, but the suite expects it to fail")


def watch_hooks(result):
    """Count what nobody can catch as a failure of the running test."""
    def unraisable(args):
        text = "".join(traceback.format_exception(
            args.exc_type, args.exc_value, args.exc_traceback))
        result.unraisable.append(f"unraisable in {args.object!r}\n{text}")
        sys.__unraisablehook__(args)
    sys.unraisablehook = unraisable

    def in_thread(args):
        if args.exc_type is SystemExit:
            return
        text = "".join(traceback.format_exception(
            args.exc_type, args.exc_value, args.exc_traceback))
        result.unraisable.append(f"uncaught in {args.thread}\n{text}")
        threading.__excepthook__(args)
    threading.excepthook = in_thread


def run(job, log):
    from tests.support import lost_memory

    from . import suite
    types = suite.Types(job["loop"])
    types.install()
    module = suite.load(job["module"], types, job["package"])
    cls = getattr(module, job["class"])
    result = Result(log, job["limit"])
    watch_hooks(result)
    tests = unittest.TestSuite([cls(name) for name in job["tests"]])
    warnings.simplefilter("default")
    # A few tests count on an earlier class of their module having said so.
    asyncio.set_event_loop(None)
    log.event("ready")
    tests.run(result)
    gc.collect()
    log.event("done")
    # Under AddressSanitizer, which writes what it is. The parent counts the exit as a failure.
    if lost_memory():
        sys.exit("memory was lost")


def discover(job, log):
    from . import suite
    types = suite.Types(job["loop"])
    types.install()
    log.event("found", modules=suite.discover(types))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    faulthandler.enable()
    # A shell's background job ignores it, and so would the tests that raise it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = Log(job["out"])
    if job["class"] is None:
        discover(job, log)
    else:
        run(job, log)
