"""What gcov has counted: a table of lines and branches by file, and a list of what never ran.

    python tools/coverage_report.py FOLDER LIST

FOLDER is a tree that was built with ASYNCLOOP_COVERAGE=1 and has run; LIST is written.
"""

import collections
import json
import pathlib
import subprocess
import sys


def counted(folder):
    """{file: ({line: how often}, {(line, branch): how often}, {line: function})}"""
    files = collections.defaultdict(
        lambda: (collections.Counter(), collections.Counter(), {})
    )
    notes = sorted(folder.glob("build/temp*/src/**/*.gcno"))
    command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", *map(str, notes)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    for document in done.stdout.splitlines():
        for file in json.loads(document)["files"]:
            if not file["file"].startswith("src/"):
                continue
            lines, branches, functions = files[file["file"]]
            for line in file["lines"]:
                number = line["line_number"]
                lines[number] += line["count"]
                functions[number] = line.get("function_name", "")
                for index, branch in enumerate(line["branches"]):
                    branches[number, index] += branch["count"]
    return files


def share(counts):
    ran = sum(1 for count in counts.values() if count)
    return f"{ran:6} of {len(counts):6}  {100 * ran / max(len(counts), 1):6.2f} %"


def table(files):
    every_line, every_branch = {}, {}
    for name in sorted(files):
        lines, branches, _ = files[name]
        every_line.update({(name, key): count for key, count in lines.items()})
        every_branch.update({(name, key): count for key, count in branches.items()})
        yield f"{name:32} lines {share(lines)}   branches {share(branches)}"
    yield f"{'all':32} lines {share(every_line)}   branches {share(every_branch)}"


def never_run(files, folder):
    for name in sorted(files):
        lines, _, functions = files[name]
        text = (folder / name).read_text().splitlines()
        for number in sorted(lines):
            if not lines[number]:
                yield f"{name}:{number}: {functions[number]}: {text[number - 1].strip()}"


def main():
    folder, target = (pathlib.Path(name).resolve() for name in sys.argv[1:])
    files = counted(folder)
    print("\n".join(table(files)))
    missing = list(never_run(files, folder))
    target.write_text("\n".join(missing) + "\n")
    print(f"{len(missing)} lines never ran: {target}")


main()
