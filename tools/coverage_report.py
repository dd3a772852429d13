"""What gcov has counted: a table of lines and branches by file, and a list of what never ran.

    python tools/coverage_report.py FOLDER LIST [--part]

FOLDER is a tree that was built with ASYNCLOOP_COVERAGE=1 and has run; LIST is written. Why lines
never run is in never_run.toml, beside this file. What only follows a call that failed
(it returns, or drops what there is) needs no entry: tests/programs/oom.py makes such calls fail.

Ends with 1 when an entry of never_run.toml explains nothing any more, but for a part of the tests,
or names what is not in the sources.
Lines without a reason are listed and counted.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import tomllib

REASONS = pathlib.Path(__file__).with_name("never_run.toml")
NO_REASON = "NO REASON GIVEN"
FOLLOWS = "what follows a call that failed"
FAILED = re.compile(r"== NULL|< 0|!= 0|PyErr_Occurred|^else|[(|&]!\w|UNLIKELY")
SURELY_FAILED = re.compile(r"\bif \(.*(== NULL|< 0|PyErr_Occurred\(\))")
"""All of the block below such a condition only follows a failed call, whatever stands there."""
CLEANUP = re.compile(
    r"(return( -1| NULL| false| \w*ERROR| ATTEMPT_FAILED| result| PyErr_NoMemory\(\))?;|"
    r"goto \w+;|break;|Py_X?DECREF\(|Py_X?SETREF\(|Py_CLEAR\(|PyErr_\w+\(|PyMem_Free\(|free\(|"
    r"\w+ = (NULL|-1|false);|timer_cancel\(|loop_report\(|loop_propagate\(|close\(|\}|\w+: *$)"
)


@dataclasses.dataclass
class Entry:
    """One name in never_run.toml: a whole file, a function, or lines of a function."""

    why: str
    file: str = ""
    function: str = ""
    text: str = ""
    """What the line contains; empty: any."""
    always: bool = True
    """Whether none of the lines runs in any whole run: such an entry has to explain something."""
    used: bool = False

    def __str__(self):
        return ": ".join(filter(None, (self.file, self.function, self.text)))

    def explains(self, file, function, line):
        return (
            self.file in ("", file)
            and self.function in ("", function)
            and (not self.text or self.text in line)
        )


def read_entries(path=REASONS):
    """The entries of never_run.toml."""
    found = []
    for reason in tomllib.loads(path.read_text())["reason"]:
        common = reason["why"], not reason.get("sometimes", False)
        for name in reason.get("files", ()):
            found.append(Entry(common[0], file=name, always=common[1]))
        for name in reason.get("functions", ()):
            found.append(Entry(common[0], function=name, always=common[1]))
        for name in reason.get("lines", ()):
            function, _, text = name.partition(":")
            found.append(Entry(common[0], "", function, text.strip(), common[1]))
    return found


def gone(folder, entries):
    """Entries that name a file, a function or a text that is nowhere in the sources."""
    paths = sorted(folder.glob("src/**/*.[ch]"))
    sources = "\n".join(f"{path.relative_to(folder)}\n{path.read_text()}" for path in paths)
    return [
        entry
        for entry in entries
        if not all(part in sources for part in (entry.file, entry.function, entry.text))
    ]


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


def indent(line):
    return len(line) - len(line.lstrip())


def never_run(files, folder):
    """(file, line, function, text, whether it only follows a call that failed)"""
    for name in sorted(files):
        counts, _, functions = files[name]
        text = (folder / name).read_text().splitlines()
        above = ""  # the last line that ran
        for number in sorted(counts):
            line = text[number - 1]
            if counts[number]:
                above = line
                continue
            inside = SURELY_FAILED.search(above) and indent(line) > indent(above)
            cleans = FAILED.search(above.strip()) and CLEANUP.match(line.strip())
            yield name, number, functions[number], line.strip(), bool(inside or cleans)


def explanations(lines, entries):
    """{why: [line]}; notes which entries have explained something."""
    found = collections.defaultdict(list)
    for name, number, function, text, follows in lines:
        why = FOLLOWS if follows else NO_REASON
        for entry in entries:
            if entry.explains(name, function, text):
                entry.used = True
                why = entry.why if why == NO_REASON else why
        found[why].append(f"{name}:{number}: {function}: {text}")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("list", type=pathlib.Path)
    parser.add_argument("--part", action="store_true", help="only a part of the tests has run")
    arguments = parser.parse_args()
    files = counted(arguments.folder.resolve())
    print("\n".join(table(files)))
    entries = read_entries()
    lines = explanations(never_run(files, arguments.folder), entries)
    with open(arguments.list, "w") as file:
        for why, found in sorted(lines.items(), key=lambda item: len(item[1])):
            print(f"{len(found):5} lines: {why}")
            file.write(f"{why}\n" + "".join(f"    {line}\n" for line in found))
    print(f"each line: {arguments.list}")
    stale = gone(arguments.folder, entries)
    if not arguments.part:
        stale += [entry for entry in entries if entry.always and not entry.used]
    if stale:
        print(f"{REASONS.name} explains lines that run, or that are gone:")
        print("".join(f"    {entry}\n" for entry in stale), end="")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
