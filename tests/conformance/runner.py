"""Runs test classes in child processes and collects one result for each test.

A child runs one class. When it dies, or when a test outlives its limit, the test that
was running gets the blame and a new child takes the class's remaining tests.
"""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from ..support import ROOT

# The child watches its tests' limit itself and tells where a hung test stood. If it
# cannot even do that, the parent ends it this much later.
GRACE = 15
STARTUP_LIMIT = 120
OUTPUT_KEPT = 6000

_CHILD = ("import sys; sys.path.insert(0, {root!r}); "
          "from tests.conformance import child; child.main()")


@dataclasses.dataclass
class Outcome:
    """What became of one test. `outcome` is passed, skipped, failed, hang or crash."""

    test: str                   # module.Class.test
    outcome: str
    detail: str = ""            # a reason to skip, or the traceback
    seconds: float = 0.0
    output: str = ""            # what was printed meanwhile; kept for bad ones only
    stock_too: bool = False     # bad on the standard loop as well

    @property
    def bad(self):
        return self.outcome not in ("passed", "skipped")


class _Child:
    """One child process with its own folder, and the events that it has written."""

    def __init__(self, job):
        self.folder = tempfile.mkdtemp(prefix="conformance-")
        self.out = os.path.join(self.folder, "events")
        work = os.path.join(self.folder, "work")
        os.mkdir(work)
        open(self.out, "w").close()
        path = os.path.join(self.folder, "job.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(dict(job, out=self.out), file)
        env = dict(os.environ, TMPDIR=work)
        # Any of these would change what the tests see.
        for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"):
            env.pop(name, None)
        self.printed = open(os.path.join(self.folder, "printed"), "w+b")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(root=str(ROOT)), path],
            cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=self.printed,
            stderr=self.printed, start_new_session=True)

    def wait(self, limit):
        """Wait for the end; kill it when it writes no event for `limit` seconds."""
        size, quiet_since, allowed = 0, time.monotonic(), STARTUP_LIMIT
        while True:
            try:
                return self.process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                pass
            now, new = time.monotonic(), os.path.getsize(self.out)
            if new != size:
                size, quiet_since, allowed = new, now, limit + GRACE
            elif now - quiet_since > allowed:
                self.kill()
                return self.process.wait()

    def kill(self):
        """End the child and whatever its tests have left running."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def events(self):
        found = []
        with open(self.out, encoding="utf-8") as file:
            for line in file:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    break               # cut off in the middle of a line
        return found

    def printed_since(self, start, end=None):
        self.printed.seek(0, os.SEEK_END)
        end = self.printed.tell() if end is None else end
        start = max(start, end - OUTPUT_KEPT)
        self.printed.seek(start)
        return self.printed.read(max(0, end - start)).decode("utf-8", "replace")

    def close(self):
        self.kill()
        self.printed.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def discover(loop):
    """{module: {"classes": {class: [test]}} or {"skip": reason}} of this interpreter."""
    child = _Child({"loop": loop, "class": None})
    try:
        child.wait(60)
        for event in child.events():
            if event["kind"] == "found":
                return event["modules"]
        raise RuntimeError("the suite could not be listed:\n" + child.printed_since(0))
    finally:
        child.close()


def _how_it_died(code, seconds, limit):
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL" and seconds >= limit:
            return "hang", f"no end within {limit} s, ended by force"
        return "crash", f"the process died with {name}"
    if seconds >= limit:
        return "hang", f"no end within {limit} s"
    return "crash", f"the process left with status {code}"


def run_class(loop, module, cls, tests, limit, stop=lambda: False,
              package="test.test_asyncio"):
    """Run `tests` of one class; yields an Outcome for each, and for a bad exit one more."""
    prefix = f"{module}.{cls}."
    left = list(tests)
    while left and not stop():
        child = _Child({"loop": loop, "module": module, "class": cls, "tests": left,
                        "limit": limit, "package": package})
        try:
            code = child.wait(limit)
            ended = time.monotonic()
            running, fixture, done = None, None, False
            for event in child.events():
                kind = event["kind"]
                if kind == "start":
                    running = event
                elif kind == "fixture":
                    fixture = fixture or event
                elif kind == "done":
                    done = True
                elif kind == "end":
                    result = Outcome(prefix + event["test"], event["outcome"],
                                     event["detail"], event["seconds"])
                    if result.bad:
                        result.output = child.printed_since(
                            running["output"], event["output"])
                    if event["test"] in left:
                        left.remove(event["test"])
                        yield result
                    running = None
            if running is not None:
                seconds = ended - child.began
                # The limit is the test's, but only the whole child's time is known
                # for certain; the watchdog's own words settle it.
                printed = child.printed_since(running["output"])
                if "Timeout (" in printed or code == -signal.SIGKILL:
                    seconds = max(seconds, limit)
                else:
                    seconds = min(seconds, limit - 1)
                outcome, detail = _how_it_died(code, seconds, limit)
                if running["test"] in left:
                    left.remove(running["test"])
                yield Outcome(prefix + running["test"], outcome, detail, seconds, printed)
                continue
            if fixture is not None:
                for test in left:
                    yield Outcome(prefix + test, fixture["outcome"], fixture["detail"])
                left = []
            elif not done and left:
                for test in left:
                    yield Outcome(prefix + test, "crash",
                                  f"the process left with status {code} before this test",
                                  output=child.printed_since(0))
                left = []
            if done and code != 0:
                yield Outcome(prefix + "(exit)", "crash",
                              f"the process ended with status {code} after its tests",
                              output=child.printed_since(0))
        finally:
            child.close()


def run_all(loop, plan, limit, jobs, on_outcome):
    """Run ``plan`` ({(module, class): [test]}) with `jobs` children at a time.

    Calls `on_outcome` with each Outcome as it comes, from one thread at a time.
    """
    # The longest first, or the last child runs alone at the end.
    order = sorted(plan, key=lambda key: -_weight(key, plan[key]))
    stopped = False
    lock = threading.Lock()

    def work(key):
        for outcome in run_class(loop, *key, plan[key], limit, stop=lambda: stopped):
            with lock:
                on_outcome(outcome)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, key) for key in order]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            stopped = True
            for future in futures:
                future.cancel()
            raise


# Seconds for a test, roughly, where it is far from the others.
_SLOW = {"test_ssl": 1.0, "test_sslproto": 0.5, "test_subprocess": 0.5,
         "test_events": 0.3, "test_sock_lowlevel": 0.3, "test_sendfile": 0.3}


def _weight(key, tests):
    return len(tests) * _SLOW.get(key[0], 0.05)
