"""What runs in a suite's own environment: notes the outcome of each test, a line of JSON each.

`pytest -p upstream_recorder ...`, or `python -m upstream_recorder MODULE [TEST ...]` for a suite
whose main() is unittest's. UPSTREAM_RESULTS names the file; UPSTREAM_REACTOR=asyncio installs
Twisted's reactor over asyncio first.
"""

import json
import os
import runpy
import sys
import unittest

if os.environ.get("UPSTREAM_REACTOR") == "asyncio":
    from twisted.internet import asyncioreactor

    asyncioreactor.install()


def note(test, outcome, text=""):
    with open(os.environ["UPSTREAM_RESULTS"], "a") as file:
        file.write(json.dumps([test, outcome, text[-3000:]]) + "\n")


# -- pytest --------------------------------------------------------------------------------------


def pytest_runtest_logstart(nodeid):
    if "PYTEST_XDIST_WORKER" not in os.environ:  # there the main process notes all of it
        note(nodeid, "started")


def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" in os.environ or hasattr(report, "context"):
        return  # the latter are parts of a test, which has a report of its own
    if report.when == "call" or report.outcome != "passed":
        note(report.nodeid, report.outcome, "" if report.passed else str(report.longrepr))


# -- unittest ------------------------------------------------------------------------------------


def record(name, outcome):
    original = getattr(unittest.TestResult, name)

    def wrapper(self, test, *args):
        text = self._exc_info_to_string(args[0], test) if outcome == "failed" else ""
        note(test.id(), outcome, text)
        original(self, test, *args)

    setattr(unittest.TestResult, name, wrapper)


def main():
    record("startTest", "started")
    record("addSuccess", "passed")
    record("addFailure", "failed")
    record("addError", "failed")
    record("addSkip", "skipped")
    record("addExpectedFailure", "skipped")
    record("addUnexpectedSuccess", "failed")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
