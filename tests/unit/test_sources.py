"""What is promised of the sources of the core, counted in them.

Short files, short functions, and nothing that changes and belongs to the whole process.
"""

import re

import pytest

from tests.unit.test_layers import DEFINE, NAME, SRC, TOKEN, Source, Tree, blank

MOST_LINES = 700
MOST_LINES_OF_A_FUNCTION = 62

# {(file, function): why it is longer}
LONG = {}

# What CPython takes without const, and does not change.
CPYTHON_TABLES = {
    "PyMethodDef", "PyGetSetDef", "PyMemberDef", "PyType_Slot", "PyType_Spec",
    "PyModuleDef", "PyModuleDef_Slot",
}
# A declaration by one of these is a function's.
FUNCTION_TYPES = {"sockop_method"}
KEYWORDS = "keyword names for PyArg_ParseTupleAndKeywords(), which takes them without const"

# {(file, variable): why it may change though it is no interpreter's own}
SHARED = {
    ("base/checked.c", "long_ways"): "of debug builds alone: read from the environment",
    ("base/checked.c", "verifies_turns"): "of debug builds alone: read from the environment",
    ("base/freelist.c", "kept_here"): "a thread's own",
    ("base/standard.c", "standard_changes"): "a counter that all look at",
    ("base/state.c", "module_definition"): "where the module's definition is",
    ("loop/brief.c", "brief_loop"): "a thread's own",
    ("loop/reserve.c", "this_call"): "a thread's own: libev's allocator has no argument for it",
    ("loop/reserve.c", "system_fails"): "a switch of tests",
    ("loop/reserve.c", "blocks_fail"): "a switch of tests",
    ("net/io.c", "flaky_seed"): "a switch of tests",
    ("ops/thread_queue.c", "names"): KEYWORDS,
    ("tasks/future_type.c", "names"): KEYWORDS,
    ("tasks/task_type.c", "names"): KEYWORDS,
    ("tasks/unbound.c", "originals"): "what asyncio's methods were: its types are the process's",
    ("tls/tls_direct.c", "bio_method"): "libssl has it, once for a process",
    ("tls/tls_libssl.c", "libssl"): "libssl's functions, found once",
    ("tls/tls_libssl.c", "load_lock"): "while they are looked for",
}

pytestmark = pytest.mark.skipif(not SRC.exists(), reason="no source tree")


def variables(source):
    """(name, line, words before it) of each variable that outlives a call."""
    tokens = [(match.group(), match.start())
              for match in TOKEN.finditer(DEFINE.sub(blank, source.text))]
    depth = 0
    begins = True
    for i, (token, at) in enumerate(tokens):
        if token in ("{", "}", ";"):
            depth += {"{": 1, "}": -1, ";": 0}[token]
            begins = True
        elif begins:
            begins = False
            words = []
            for word, _ in tokens[i:]:
                if word in ("=", ";", "(", "{", "["):
                    break
                words.append(word)
            names = [word for word in words if NAME.match(word)]
            outlives = "static" in words or (depth == 0 and not {"typedef", "extern"} & set(words))
            forward = len(names) == 2 and words[0] in ("struct", "enum", "union")
            outlives = outlives and not forward and not FUNCTION_TYPES.intersection(words)
            if outlives and word in ("=", ";", "[") and len(names) > 1:
                if re.fullmatch(r"[A-Z_]+", names[-1]):
                    del words[words.index(names[-1]):]    # THREAD_STORAGE, a macro
                for j in [*(j for j, one in enumerate(words) if one == ","), len(words)]:
                    yield words[j - 1], source.line(at), words


def changes(words):
    """May a variable that is declared so be written to?"""
    behind = words[len(words) - words[::-1].index("*"):] if "*" in words else words
    is_table = behind is words and CPYTHON_TABLES.intersection(words)
    return "const" not in behind and not is_table


@pytest.fixture(scope="module")
def tree():
    return Tree(SRC)


def test_files_are_short():
    long = [f"src/{path.relative_to(SRC).as_posix()} has {lines} lines"
            for path in sorted(SRC.rglob("*.[ch]"))
            if (lines := len(path.read_text().splitlines())) > MOST_LINES]
    assert long == [], f"what is longer than {MOST_LINES} lines holds two things"


def test_functions_are_short(tree):
    long = {(name, function): f"src/{name}:{line}: {function}() has {lines} lines"
            for name, source in tree.sources.items()
            for function, line, lines in source.functions if lines > MOST_LINES_OF_A_FUNCTION}
    new = [where for key, where in long.items() if key not in LONG]
    assert new == [], f"at most {MOST_LINES_OF_A_FUNCTION} lines, or a reason in LONG"
    assert [key for key in LONG if key not in long] == [], "short now; take them out of LONG"


def test_nothing_that_changes_is_the_whole_process(tree):
    """An interpreter has its own of everything: a struct state, which its objects point to."""
    found = {(name, variable): f"src/{name}:{line}: {variable}"
             for name, source in tree.sources.items()
             for variable, line, words in variables(source) if changes(words)}
    new = [where for key, where in found.items() if key not in SHARED]
    assert new == [], "into the module's state, or, with a reason, into SHARED:\n" + "\n".join(new)
    assert [key for key in SHARED if key not in found] == [], "gone; take them out of SHARED"


# -- the test's own eyes ----------------------------------------------------------------------


def test_what_is_seen():
    source = Source("a.c", (
        "typedef int number;\n"
        "struct box {\n    int static_field;\n};\n"
        "extern int elsewhere;\n"
        "static const char *text = \"static int no;\";\n"
        "static const char *const texts[] = {\"a\", \"b\"};\n"
        "static PyMethodDef methods[] = {{0}};\n"
        "struct box;\n__thread struct box *mine STORAGE;\n"
        "struct box counter, other;\n"
        "static int declared(int a);\n"
        "static struct box boxes[3];\n"
        "__attribute__((noinline)) static int\nwork(int a)\n{\n"
        "    static bool done;\n    static const int two = 2;\n    int local = two;\n"
        "    for (int i = 0; i < a; i++) {\n        local += i;\n    }\n"
        "    return local + done;\n}\n"
        "int\nmore(void)\n{\n    return 1;\n}\n"
    ))
    seen = {(name, line): changes(words) for name, line, words in variables(source)}
    assert [key for key, may in seen.items() if may] == [
        ("text", 6), ("mine", 10), ("counter", 11), ("other", 11), ("boxes", 13), ("done", 17),
    ]
    assert [key for key, may in seen.items() if not may] == [
        ("texts", 7), ("methods", 8), ("two", 18),
    ]
    assert source.functions == [("work", 14, 11), ("more", 25, 5)]
