"""Command line of the conformance run; see the package's text."""

import argparse
import os
import platform
import re
import sys
import time

from . import report, runner, suite
from .exclusions import Exclusions


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="CPython's own asyncio tests against asyncloop.")
    parser.add_argument("--loop", default="asyncloop",
                        choices=("asyncloop", "asyncio", "uvloop"))
    parser.add_argument("--quick", action="store_true",
                        help="only the core: no TLS, datagrams, pipes, subprocesses, "
                             "sendfile")
    parser.add_argument("--only", metavar="REGEX", type=re.compile,
                        help="only tests whose module.Class.test matches")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1,
                        help="children at a time (default: one for each core)")
    parser.add_argument("--limit", type=int, default=None, metavar="SECONDS",
                        help="for one test (default: 60, with --quick 30)")
    parser.add_argument("--verbose", action="store_true",
                        help="name each test, and print all of a failure")
    parser.add_argument("--excluded", action="store_true",
                        help="run only what exclusions.toml excludes, to see whether "
                             "the reasons hold; exits with 0")
    parser.add_argument("--json", metavar="FILE", help="write all results")
    parser.add_argument("--markdown", metavar="FILE",
                        help="put this version's figures into the tables of FILE")
    args = parser.parse_args(argv)
    if args.limit is None:
        args.limit = 30 if args.quick else 60
    return args


def make_plan(args, found, exclusions, run):
    """Sort every test of the suite: to be run, excluded, or not asked for."""
    plan = {}
    for module, content in found.items():
        if "skip" in content:
            run.modules_skipped[module] = content["skip"]
            continue
        for cls, tests in content["classes"].items():
            for test in tests:
                test_id = f"{module}.{cls}.{test}"
                reason = exclusions.reason(test_id)
                if args.only and not args.only.search(test_id):
                    continue
                if args.quick and (module not in suite.QUICK or
                                   suite.feature_of(test_id) in suite.NOT_QUICK):
                    continue
                if reason is not None:
                    run.excluded[test_id] = reason
                if (reason is not None) == args.excluded:
                    plan.setdefault((module, cls), []).append(test)
    return plan


def check_on_stock(args, run):
    """Run what went wrong on the standard loop too, to know whose fault it is."""
    again = {}
    for outcome in run.outcomes:
        module, cls, test = outcome.test.split(".", 2)
        if outcome.bad and not test.startswith("("):
            again.setdefault((module, cls), []).append(test)
    if not again:
        return
    stock = {}
    runner.run_all("asyncio", again, args.limit, args.jobs,
                   lambda outcome: stock.update({outcome.test: outcome}))
    for outcome in run.outcomes:
        if outcome.bad and outcome.test in stock:
            outcome.stock_too = stock[outcome.test].bad


def main(argv=None):
    args = parse(argv)
    if not suite.suite_available():
        print(suite.install_hint(), file=sys.stderr)
        return 2
    exclusions = Exclusions()
    began = time.monotonic()
    try:
        found = runner.discover(args.loop)
    except RuntimeError as exc:
        print(exc, file=sys.stderr)
        return 2
    run = report.Run(loop=args.loop, python=platform.python_version(),
                     quick=args.quick)
    plan = make_plan(args, found, exclusions, run)
    run.stale = exclusions.stale()
    total = sum(map(len, plan.values()))
    print(f"CPython {run.python}, loop {args.loop}: {total} tests in {len(plan)} "
          f"classes, {len(run.excluded)} excluded", flush=True)

    def on_outcome(outcome):
        run.outcomes.append(outcome)
        if args.verbose or outcome.bad:
            print(f"{outcome.outcome:8}{outcome.test}  {outcome.seconds:.1f} s",
                  flush=True)

    runner.run_all(args.loop, plan, args.limit, args.jobs, on_outcome)
    if args.loop != "asyncio" and not args.excluded:
        check_on_stock(args, run)
    run.seconds = time.monotonic() - began
    report.print_summary(run, verbose=args.verbose)
    if args.json:
        report.write_json(run, args.json)
    if args.markdown:
        report.write_markdown(run, args.markdown)
    return 0 if args.excluded or run.good else 1


if __name__ == "__main__":
    sys.exit(main())
