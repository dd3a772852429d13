"""Whether a release can be made of this tree: one table, and an exit status.

    python tools/release_check.py [--only ROW...] [--list]

Each row is a command whose output goes to build/release/ROW.log. All rows run, whatever comes of
the first. docs/releasing.md says what they are.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "release"

ROWS = {
    "tree": [sys.executable, "tools/release_check.py", "--tree"],
    "lint": ["make", "lint"],
    "tests": ["tools/check-all", "test"],
    "conformance": ["tools/check-all", "conformance"],
    "docs": ["make", "docs"],
    "sdist": ["make", "sdist-test"],
    "wheels": ["make", "wheels", "WHEELS_ARGS=--twice"],
    "wheels-test": ["make", "wheels-test"],
    "guard": ["make", "guard", "GUARD_ARGS="],
    "soak": ["make", "soak", "MINUTES=10"],
}


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def is_address(url):
    """Names that end in .example are reserved for examples."""
    return bool(re.match(r"https://[^/]+\.[^/]+", url)) and not re.search(r"\.example(/|$)", url)


def tree():
    """What is to be said against a release of the tree as it is."""
    version = re.search(
        r'^__version__ = "(.*)"', (ROOT / "asyncloop" / "__init__.py").read_text(), re.M
    )[1]
    with open(ROOT / "pyproject.toml", "rb") as file:
        urls = tomllib.load(file)["tool"]["asyncloop"]["urls"]
    problems = []
    if output("git", "status", "--porcelain"):
        problems.append("there is something that is not committed")
    if output("git", "tag", "--list", f"v{version}"):
        problems.append(f"there is a tag v{version} already: asyncloop/__init__.py has the version")
    if unset := [name for name, url in urls.items() if not is_address(url)]:
        problems.append(
            f"pyproject.toml, [tool.asyncloop.urls]: {', '.join(unset)} name no address; "
            "set Source to that of the published repository, under which /blob/main/FILE "
            "and /raw/main/FILE lead to files, and the others to pages that exist"
        )
    if fragments := list((ROOT / "changes").glob("*.*.md")):
        problems.append(f"make changelog has not been run: {len(fragments)} fragments in changes/")
    if f"## {version}" not in (ROOT / "CHANGELOG.md").read_text():
        problems.append(f"CHANGELOG.md has no section {version}")
    return problems


def run(name):
    """(whether it passed, seconds, the last line of its output)"""
    begin = time.monotonic()
    log = LOGS / f"{name}.log"
    with open(log, "w") as file:
        done = subprocess.run(
            ROWS[name], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    # make's own lines say nothing
    lines = [line for line in lines if not line.startswith("make")] or lines
    return done.returncode == 0, time.monotonic() - begin, lines[-1] if lines else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--list", action="store_true", help="the rows and their commands")
    parser.add_argument("--tree", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tree:
        problems = tree()
        print(*problems or ["fit for a release"], sep="; ")
        return bool(problems)
    if options.list:
        for name, command in ROWS.items():
            print(f"{name:12} {' '.join(command)}")
        return False
    LOGS.mkdir(parents=True, exist_ok=True)
    table = {}
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        table[name] = run(name)
    print(f"{'row':12} {'result':8} {'seconds':>8}  last line")
    for name, (passed, seconds, line) in table.items():
        result, width = ("passed", 120) if passed else ("FAILED", 1000)
        print(f"{name:12} {result:8} {seconds:8.0f}  {line[:width]}")
    failed = [name for name, (passed, _, _) in table.items() if not passed]
    absent = [name for name in ROWS if name not in table]
    if failed:
        print(f"failed: {', '.join(failed)}; logs in {LOGS}")
    elif absent:
        print(f"all of these passed; not run: {', '.join(absent)}")
    else:
        print("a release can be made")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
