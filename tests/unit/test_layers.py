"""The layers of src/: who includes and calls whom, read from the sources alone.

A file may include, call and name what lies in its own folder or in a lower one. Functions in
different files should not call each other in a circle: who calls is above who is called.
"""

import collections
import pathlib
import re

import pytest

from tests.support import ROOT

SRC = ROOT / "src"

# From the ground up; "src" is the folder itself.
FOLDERS = ["base", "loop", "tasks", "net", "tls", "ops", "streams", "src"]

# Files whose functions call each other in circles, and why.
CIRCLES = {
    frozenset({"task", "task_step"}): "to cancel is to go on, and a step may cancel",
    frozenset(
        {"tls", "tls_handshake", "tls_read", "tls_write"}
    ): "what is read may be answered, and end all",
    frozenset({"tls_direct", "tls_engine", "tls_object", "tls_portable"}): "engines give way",
}

pytestmark = pytest.mark.skipif(not SRC.exists(), reason="no source tree")

COMMENT_OR_STRING = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL
)
CONTINUED = r"(?:\\\n|[^\n])*"
DEFINE = re.compile(rf"^[ \t]*#[ \t]*define\b{CONTINUED}", re.MULTILINE)
DIRECTIVE = re.compile(rf"^[ \t]*#[ \t]*(?!define\b){CONTINUED}", re.MULTILINE)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
TOKEN = re.compile(r"[A-Za-z_]\w*|->|\.\.\.|\d[\w.]*|[^\s\w]")
NAME = re.compile(r"[A-Za-z_]\w*\Z")
# What a name after these is, is no function and no variable of a file.
NOT_A_USE = {"->", ".", "struct", "enum", "union"}
NO_FUNCTION = {"__attribute__", "_Static_assert"}


def blank(match):
    """Spaces of the same length, and the same lines."""
    return re.sub(r"[^\n]", " ", match.group())


class Source:
    """What one file defines, declares, names and includes, each with its line."""

    def __init__(self, path, text):
        self.path = path
        self.includes = [
            (text.count("\n", 0, match.start()) + 1, match.group(1))
            for match in INCLUDE.finditer(text)
            if match.group(1)
        ]
        self.all_includes = INCLUDE.findall(text)
        self.text = DIRECTIVE.sub(blank, COMMENT_OR_STRING.sub(blank, text))
        self.defined = {}
        self.functions = []    # (name, first line, lines) of each that is defined
        self.static = set()
        self.declared = set()    # (name, line) of declarations, which are no calls
        self.read_outline(DEFINE.sub(blank, self.text))
        self.uses = []
        before = ""
        for match in TOKEN.finditer(self.text):
            if NAME.match(match.group()) and before not in NOT_A_USE:
                self.uses.append((match.group(), self.line(match.start())))
            before = match.group()

    def line(self, position):
        return self.text.count("\n", 0, position) + 1

    def read_outline(self, text):
        """Functions and variables that are defined outside of any braces."""
        depth = 0
        statement = []
        for match in TOKEN.finditer(text):
            token = match.group()
            if token in ("{", "(", "["):
                if token == "{" and depth == 0:
                    self.note_definition(statement, is_body=True)
                depth += 1
            elif token in ("}", ")", "]"):
                depth -= 1
                assert depth >= 0, f"{self.path}:{self.line(match.start())}: one {token} too many"
                if token == "}" and depth == 0 and self.is_function(statement):
                    self.note_function(statement, self.line(match.start()))
                    statement = []
                    continue
            if depth == 0 and token == ";":
                self.note_definition(statement, is_body=False)
                statement = []
            elif depth == 0 or (depth == 1 and token == "("):
                statement.append((token, match.start()))
        assert depth == 0, f"{self.path}: the braces do not match"

    @staticmethod
    def is_function(statement):
        words = [token for token, _ in statement]
        return "(" in words and "=" not in words[: words.index("(")]

    @staticmethod
    def name_of_function(words):
        """Where in a statement the name of its function is, or None: it is a macro's."""
        opened = [i for i, word in enumerate(words) if word == "(" and i > 0]
        return next((i - 1 for i in opened if words[i - 1] not in NO_FUNCTION), None)

    def note_function(self, statement, last):
        words = [token for token, _ in statement]
        at = self.name_of_function(words)
        if at is not None:
            first = self.line(statement[0][1])
            self.functions.append((words[at], first, last - first + 1))

    def note_definition(self, statement, is_body):
        words = [token for token, _ in statement]
        if not words or words[0] == "typedef" or "=" in words and is_body:
            return
        if words[0] == "extern":
            self.declared.update((word, self.line(at)) for word, at in statement)
            return
        if self.is_function(statement):
            at = self.name_of_function(words)
            if at is None:
                return
            if not is_body:
                self.declared.add((words[at], self.line(statement[at][1])))
                return
        else:
            end = words.index("=") if "=" in words else len(words)
            names = [i for i in range(end) if NAME.match(words[i])]
            # "struct name" or "enum" alone defines no variable
            if is_body or len(names) < 2 or (len(names) == 2 and words[0] in NOT_A_USE):
                return
            at = names[-1]
        self.defined[words[at]] = self.line(statement[at][1])
        if "static" in words:
            self.static.add(words[at])


class Tree:
    """All files of a folder, and where each name is defined that others may use."""

    def __init__(self, root, texts=None):
        if texts is None:
            texts = {path.relative_to(root).as_posix(): path.read_text()
                     for path in sorted(root.rglob("*.[ch]"))}
        self.sources = {name: Source(name, text) for name, text in texts.items()}
        self.home = {}
        for name, source in self.sources.items():
            for defined in source.defined:
                # What a macro like DEFINE_X(name) defines is not seen.
                if not defined.isupper() and (name.endswith(".h") or defined not in source.static):
                    self.home[defined] = name

    def arrows(self):
        """(file, line, file that is used, by what) of each include and each use of a name: a call,
        a pointer, or a declaration, which is a use, too, of what a higher folder has."""
        for name, source in self.sources.items():
            for line, included in source.includes:
                yield name, line, included, "include"
            for used, line in source.uses:
                home = self.home.get(used)
                if home is not None and home != name and used not in source.defined:
                    yield name, line, home, used

    def included(self, name, seen):
        """The headers of the system that a file gets, in the order in which it gets them."""
        for ours, others in self.sources[name].all_includes:
            if others:
                yield others
            elif ours in self.sources and ours not in seen:
                seen.add(ours)
                yield from self.included(ours, seen)

    def python_too_late(self):
        """C files that get another header before Python.h, with that header.

        Python.h says which parts of the C library's headers are seen: it has to come first.
        """
        for name in self.sources:
            if name.endswith(".c"):
                headers = list(self.included(name, set()))
                if "Python.h" in headers and headers[0] != "Python.h":
                    yield f"src/{name}: <{headers[0]}>"

    def climbs(self):
        """{(file, file in a higher folder): [where]}"""
        found = collections.defaultdict(list)
        for name, line, home, what in self.arrows():
            if rank(home) > rank(name):
                found[name, home].append(f"src/{name}:{line}: {what} of src/{home}")
        return found

    def circles(self):
        """{units that call each other in circles: the calls between them}"""
        calls = collections.defaultdict(dict)
        for name, line, home, what in self.arrows():
            declares = (what, line) in self.sources[name].declared
            if what != "include" and not declares:
                calls[name].setdefault(home, f"src/{name}:{line}: {what} of src/{home}")
        found = {}
        for circle in strongly_connected(calls):
            units = frozenset(map(unit, circle))
            if len(units) > 1:
                found[units] = [calls[one][other] for one in sorted(circle)
                                for other in sorted(circle.intersection(calls[one]))
                                if unit(one) != unit(other)]
        return found


def folder(name):
    return name.split("/")[0] if "/" in name else "src"


def rank(name):
    return FOLDERS.index(folder(name))


def unit(name):
    """A file and its headers are one."""
    return pathlib.PurePosixPath(name).stem.removesuffix("_inside")


def strongly_connected(graph):
    """The sets of more than one node from each of which all others are reached."""
    def reached(start, edges):
        seen, waiting = set(), [start]
        while waiting:
            for other in edges.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    back = collections.defaultdict(set)
    for one, others in graph.items():
        for other in others:
            back[other].add(one)
    left = set(graph)
    while left:
        one = left.pop()
        circle = reached(one, graph) & reached(one, back)
        left -= circle
        if len(circle) > 1:
            yield circle


@pytest.fixture(scope="module")
def tree():
    return Tree(SRC)


def test_folders_are_known(tree):
    assert {folder(name) for name in tree.sources} == set(FOLDERS)


def test_names_of_files_are_unique(tree):
    count = collections.Counter(pathlib.PurePosixPath(name).name for name in tree.sources)
    assert [name for name, times in count.items() if times > 1] == []


def test_includes_are_written_from_src(tree):
    wrong = [f"src/{name}:{line}: {included}" for name, source in tree.sources.items()
             for line, included in source.includes if included not in tree.sources]
    assert wrong == []


def test_nothing_climbs(tree):
    climbs = [where for places in tree.climbs().values() for where in places]
    assert climbs == [], "these are about what lies in a higher folder:\n" + "\n".join(climbs)


def test_python_comes_first(tree):
    assert list(tree.python_too_late()) == []


def test_circles_of_calls(tree):
    circles = tree.circles()
    new = ["\n".join([" ".join(sorted(circle)), *calls])
           for circle, calls in circles.items() if circle not in CIRCLES]
    assert new == [], "the functions of these files call each other in circles:\n" + "\n".join(new)
    gone = [sorted(circle) for circle in CIRCLES if circle not in circles]
    assert gone == [], "these are no circle any more; take them out of CIRCLES"


# -- the test's own eyes ----------------------------------------------------------------------


def test_what_is_seen():
    tree = Tree(None, {
        "base/low.h": "struct low;\nint low_do(struct low *low);\nextern const int low_table[2];\n"
                      "#define LOW(x) net_do(x)    /* climbs */\n",
        "base/low.c": '#include "base/low.h"\n#include "net/net.h"\n'
                      "const int low_table[2] = {1, 2};\n\n"
                      "static int\nhelp(void)\n{\n    return 0;\n}\n\n"
                      "/* net_do() in a comment */\n"
                      'int\nlow_do(struct low *low)\n{\n    call("net_do(1)", low->net_do, help);\n'
                      "    return net_table[0];\n}\n",
        "net/net.h": "static inline int\nnet_do(int x)\n{\n    return x + low_do(NULL);\n}\n"
                     "extern const int net_table[];\n",
        "net/net.c": '#include "net/net.h"\n#include "base/low.h"\n'
                     "static int\nhelp(void)\n{\n    return low_table[1];\n}\n"
                     "const int net_table[] = {1, 2};\n",
    })
    assert dict(tree.climbs()) == {
        ("base/low.h", "net/net.h"): ["src/base/low.h:4: net_do of src/net/net.h"],
        ("base/low.c", "net/net.h"): ["src/base/low.c:2: include of src/net/net.h"],
        ("base/low.c", "net/net.c"): ["src/base/low.c:16: net_table of src/net/net.c"],
    }
    assert list(tree.circles()) == [frozenset({"low", "net"})]


def test_python_that_comes_late_is_seen():
    tree = Tree(None, {
        "base/python.h": "#include <Python.h>\n#include <time.h>\n",
        "base/plain.h": "#include <stddef.h>\n",
        "base/good.c": '#include "base/python.h"\n#include "base/plain.h"\n#include <Python.h>\n',
        "base/late.c": '#include "base/plain.h"\n#include "base/python.h"\n',
        "base/none.c": '#include <stdint.h>\n#include "base/plain.h"\n',
    })
    assert list(tree.python_too_late()) == ["src/base/late.c: <stddef.h>"]
