"""Runs other projects' own test suites on the standard loop and on asyncloop (`make upstream`).

    python -m tests.upstream [--only TEST ...] [--show N] [SUITE ...]

Each suite of suites.toml has an environment of its own below build/upstream, with pinned packages.
Its tests come from the project's source distribution; where that has none, from the folder named
by an environment variable, and without that the suite is skipped, which is said. It runs on the
standard loop first, then with `asyncloop-run`. What passes on the standard loop alone is tried
again, at most twice; what still fails has to be among the suite's expected differences, and those
have to fail. Anything else, and a run that was cut short, makes the exit status 1.
"""

import argparse
import collections
import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PY = sys.version_info[:2]
KEYS = {"requirement", "install", "folder", "files", "kind", "args", "tests"}
KEYS |= {"environment", "limit", "expected", "path", "programs"}
LOOPS = "asyncio", "asyncloop"
RETRIES = 2


class Skipped(Exception):
    """The suite cannot run here; says why."""


class Suite:
    """One project's tests, and where they run."""

    def __init__(self, name, entry):
        unknown = entry.keys() - KEYS
        if unknown:
            raise ValueError(f"suites.toml: {name}: unknown keys {sorted(unknown)}")
        self.name = name
        self.entry = entry
        self.requirement = entry["requirement"]
        self.base = ROOT / "build" / "upstream" / f"{name}-{PY[0]}.{PY[1]}"
        self.python = self.base / "env" / "bin" / "python"
        self.expected = entry.get("expected", [])

    # -- set-up --

    def prepare(self):
        self.base.mkdir(parents=True, exist_ok=True)
        self._make_environment()
        source = self._source()
        for loop in LOOPS:
            run = self.base / f"run-{loop}"
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir()
            for name in self.entry.get("files", []):
                if (source / name).is_dir():
                    shutil.copytree(source / name, run / name)
                elif (source / name).exists():
                    shutil.copy(source / name, run / name)
        package = self.base / "package"
        shutil.rmtree(package, ignore_errors=True)
        # A copy: whoever builds meanwhile does not change what runs.
        shutil.copytree(
            ROOT / "asyncloop", package / "asyncloop", ignore=shutil.ignore_patterns("__pycache__")
        )

    def _make_environment(self):
        packages = [self.requirement, *self.entry["install"]]
        wanted = hashlib.sha256(repr((packages, sys.version)).encode()).hexdigest()
        stamp = self.base / "env" / ".packages"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"{self.name}: new environment", flush=True)
        venv.create(self.base / "env", with_pip=True, clear=True)
        self._pip("install", *packages)
        stamp.write_text(wanted)

    def _pip(self, *args):
        subprocess.run(
            [self.python, "-m", "pip", "--disable-pip-version-check", *args, "-qq"],
            check=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
        )

    def _source(self):
        """The folder of the project's sources."""
        variable = self.entry.get("folder")
        for program in self.entry.get("programs", []):
            if shutil.which(program) is None:
                raise Skipped(f"its tests need the program {program}")
        if variable is not None:
            folder = os.environ.get(variable)
            if not folder:
                raise Skipped(
                    f"the source distribution of {self.requirement} has no tests: {variable} may "
                    "name a folder with its sources"
                )
            return Path(folder)
        if not self.entry.get("files"):
            return self.base  # the tests are installed with the package
        project = re.match(r"[\w.-]+", self.requirement)[0]
        sources = self.base / "source"
        done = sources / self.requirement
        if not done.exists():
            shutil.rmtree(sources, ignore_errors=True)
            sources.mkdir()
            self._pip(
                *("download", "--no-deps", "--no-binary", project, "-d", sources),
                re.sub(r"\[.*\]", "", self.requirement),
            )
            [archive] = sources.glob("*.tar.gz")
            with tarfile.open(archive) as file:
                file.extractall(sources, filter="data")
            done.touch()
        [folder] = (each for each in sources.iterdir() if each.is_dir())
        return folder

    # -- a run --

    def _command(self, loop, tests):
        run = self.base / f"run-{loop}"
        if self.entry.get("kind") == "unittest":
            command = [self.python, "-m", "upstream_recorder", self.entry["tests"][0], *tests]
        else:
            site = self._site_packages()
            root = run if self.entry.get("files") else site
            chosen = [root / test for test in tests or self.entry["tests"]]
            command = [self.python, "-m", "pytest", "-p", "upstream_recorder", *chosen]
            command += ["-p", "no:cacheprovider", f"--rootdir={root}", *self.entry["args"]]
        if loop == "asyncloop":
            command = [self.python, "-m", "asyncloop._run", *command]
        return [str(word) for word in command]

    def _site_packages(self):
        return self.base / "env" / "lib" / f"python{PY[0]}.{PY[1]}" / "site-packages"

    def run(self, loop, tests=()):
        """{test: (outcome, text)}; a test that has begun and not ended is `cut short`."""
        run = self.base / f"run-{loop}"
        results = self.base / f"results-{loop}.jsonl"
        results.unlink(missing_ok=True)
        paths = [HERE / "child", run]
        if "path" in self.entry:
            paths.insert(0, HERE / "child" / self.entry["path"])
        if loop == "asyncloop":
            paths.insert(0, self.base / "package")
        env = {
            **os.environ,
            **self.entry.get("environment", {}),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "UPSTREAM_RESULTS": str(results),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        log = self.base / f"log-{loop}.txt"
        with open(log, "ab" if tests else "wb") as output, contextlib.ExitStack() as stack:
            process = subprocess.Popen(
                self._command(loop, tests),
                cwd=run,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(end_group, process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.entry.get("limit", 1200))
        return read_results(results)


def end_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_results(path):
    found = {}
    rank = {"cut short": 0, "passed": 1, "skipped": 2, "failed": 3}
    for line in path.read_text().splitlines() if path.exists() else []:
        test, outcome, text = json.loads(line)
        outcome = "cut short" if outcome == "started" else outcome
        if test not in found or rank[outcome] > rank[found[test][0]]:
            found[test] = outcome, text
    return found


# -- the comparison ------------------------------------------------------------------------------


def differences(before, after):
    """What is as good on the standard loop as a test can be, and not on ours."""
    wanted = [test for test, (outcome, _) in before.items() if outcome == "passed"]
    return [test for test in wanted if after.get(test, ("not run",))[0] != "passed"]


def expected_by(suite, test):
    for entry in suite.expected:
        for pattern in entry["tests"]:
            if fnmatch.fnmatchcase(test, pattern.replace("[", "[[]")):
                return pattern
    return None


def compare(suite, only, show):
    """Run one suite; whether everything is as expected."""
    before = suite.run("asyncio", only)
    after = suite.run("asyncloop", only)
    counts = collections.Counter(outcome for outcome, _ in before.values())
    if not counts["passed"]:
        print(f"{suite.name}: no test passes on the standard loop: {suite.base}/log-asyncio.txt")
        return False
    different = differences(before, after)
    unsteady = []
    for _ in range(RETRIES):
        fresh = [test for test in different if expected_by(suite, test) is None]
        if not fresh or len(fresh) > 100:
            break
        again = suite.run("asyncloop", fresh)
        standard = suite.run("asyncio", fresh)
        steady = set(differences(standard, again))
        unsteady += [test for test in fresh if test not in steady]
        different = [test for test in different if test not in fresh or test in steady]
        after.update(again)
    used = collections.Counter(expected_by(suite, test) for test in different)
    unexpected = [test for test in different if expected_by(suite, test) is None]
    passing = [
        (pattern, test)
        for test, (outcome, _) in after.items()
        if outcome == "passed" and before.get(test, ("",))[0] == "passed"
        if (pattern := expected_by(suite, test)) is not None
    ]
    better = [
        test
        for test, (outcome, _) in before.items()
        if outcome == "failed" and after.get(test, ("",))[0] == "passed"
    ]
    print(
        f"{suite.name}: {suite.requirement}: {counts['passed']} pass on the standard loop "
        f"({counts['failed']} fail, {counts['skipped']} skipped), of these on asyncloop "
        f"{len(unexpected)} fail, {sum(used.values()) - len(unexpected)} fail as expected, "
        f"{len(unsteady)} passed at another try; {len(better)} pass on asyncloop alone",
        flush=True,
    )
    for test in unsteady:
        print(f"  unsteady: {test}")
    for number, test in enumerate(unexpected):
        outcome, text = after.get(test, ("not run", ""))
        print(f"  {outcome}: {test}")
        if number < show:
            print("    " + "\n    ".join(text.strip().splitlines()[-25:]))
    for pattern, test in passing:
        print(f"  passes, though {pattern!r} of suites.toml expects a difference: {test}")
    return not unexpected and not passing


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description=__doc__.partition("\n")[0],
    )
    with open(HERE / "suites.toml", "rb") as file:
        entries = tomllib.load(file)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(entries))
    parser.add_argument("--only", nargs="+", metavar="TEST", default=[], help="names of tests")
    parser.add_argument(
        "--show", type=int, default=10, metavar="N", help="failures to print in full (default: 10)"
    )
    args = parser.parse_args()
    unknown = set(args.suites) - entries.keys()
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if args.only and len(args.suites) != 1:
        parser.error("--only goes with one suite")
    good = True
    for name in args.suites or entries:
        suite = Suite(name, entries[name])
        try:
            suite.prepare()
        except Skipped as reason:
            print(f"{name}: SKIPPED: {reason}", flush=True)
            continue
        good &= compare(suite, args.only, args.show)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
