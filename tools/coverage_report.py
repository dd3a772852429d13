"""What gcov has counted: a table of lines and branches by file, and a list of what never ran.

    python tools/coverage_report.py FOLDER LIST

FOLDER is a tree that was built with ASYNCLOOP_COVERAGE=1 and has run; LIST is written. Why lines
never run is in never_run.toml, beside this file, by function. What only follows a call that failed
(it returns, or drops what there is) needs no entry: tests/programs/oom.py makes such calls fail.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib

REASONS = pathlib.Path(__file__).with_name("never_run.toml")
FAILED = re.compile(r"== NULL|< 0|!= 0|PyErr_Occurred|^else|[(|&]!\w|UNLIKELY")
CLEANUP = re.compile(
    r"(return( -1| NULL| false| \w*ERROR| ATTEMPT_FAILED| result| PyErr_NoMemory\(\))?;|"
    r"goto \w+;|break;|Py_X?DECREF\(|Py_X?SETREF\(|Py_CLEAR\(|PyErr_\w+\(|PyMem_Free\(|free\(|"
    r"\w+ = (NULL|-1|false);|loop_report\(|loop_propagate\(|close\(|\}|\w+: *$)"
)


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
    """(file, line, function, text, whether it only follows a call that failed)"""
    for name in sorted(files):
        counts, _, functions = files[name]
        text = (folder / name).read_text().splitlines()
        above = ""  # the last line that ran
        for number in sorted(counts):
            line = text[number - 1].strip()
            if counts[number]:
                above = line
            else:
                follows = bool(FAILED.search(above) and CLEANUP.match(line))
                yield name, number, functions[number], line, follows


def explained(reasons, name, function):
    """The reason that is given for a function, or for a whole file."""
    for reason in reasons:
        if name in reason.get("files", ()) or function in reason.get("functions", ()):
            return reason["why"]
    return None


def main():
    folder, target = (pathlib.Path(name).resolve() for name in sys.argv[1:])
    files = counted(folder)
    print("\n".join(table(files)))
    reasons = tomllib.loads(REASONS.read_text())["reason"]
    lines = collections.defaultdict(list)
    for name, number, function, text, follows in never_run(files, folder):
        why = "what follows a call that failed" if follows else explained(reasons, name, function)
        lines[why or "NO REASON GIVEN"].append(f"{name}:{number}: {function}: {text}")
    with open(target, "w") as file:
        for why, found in sorted(lines.items(), key=lambda item: len(item[1])):
            print(f"{len(found):5} lines: {why}")
            file.write(f"{why}\n" + "".join(f"    {line}\n" for line in found))
    print(f"each line: {target}")


main()
