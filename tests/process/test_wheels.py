"""The parts of `make wheels` that need no other compiler."""

import ast
import email
import importlib.util
import inspect
import json
import re
import sys
import zipfile
from pathlib import Path

import asyncloop

ROOT = Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location("loaded_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contents = load(ROOT / "tools" / "wheels" / "contents.py")


def test_libev_is_configured_for_the_target_and_not_for_this_machine(monkeypatch):
    build = load(ROOT / "tools" / "build_core.py")
    monkeypatch.setattr(sys, "platform", "something else")
    assert build.libev_macros(linux=True)["EV_USE_EPOLL"] == "1"
    assert "EV_USE_KQUEUE" not in build.libev_macros(linux=True)
    assert build.libev_macros(linux=False)["EV_USE_KQUEUE"] == "1"
    assert "EV_USE_EPOLL" not in build.libev_macros(linux=False)


def test_sizes_of_another_interpreter():
    build = load(ROOT / "tools" / "build_core.py")
    sizes = {name: 40 for name in build.BASES["ASYNCIO_TRANSPORT_SIZE"]}
    sizes |= {"_asyncio.Future": 104, "_asyncio.Task": 145}
    assert build.base_sizes(sizes.__getitem__) == {
        "ASYNCIO_FUTURE_SIZE": 160,
        "ASYNCIO_TRANSPORT_SIZE": 48,
    }


def test_same_files_in_any_order_give_the_same_wheel(tmp_path):
    files = {"b/x.so": b"binary", "a.py": b"text\n", "n.dist-info/METADATA": b"Name: n\n"}
    contents.pack(tmp_path / "1.whl", files, "n.dist-info")
    contents.pack(tmp_path / "2.whl", dict(reversed(files.items())), "n.dist-info")
    assert (tmp_path / "1.whl").read_bytes() == (tmp_path / "2.whl").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.whl") as wheel:
        assert wheel.namelist()[-1] == "n.dist-info/RECORD"
        rows = wheel.read("n.dist-info/RECORD").decode().splitlines()
        modes = {one.filename: one.external_attr >> 16 & 0o777 for one in wheel.infolist()}
    assert rows == [
        "a.py,sha256=ueaOG-o-WxnKay-YtzpUtz2q-qJQSEkC4JmC4HoS5zM,5",
        "b/x.so,sha256=mjpF0BUxog6JrGrhCwsL6wSSrNchajaKoGLRpf7K-c0,6",
        "n.dist-info/METADATA,sha256=jIbgi4fG8TiESFvrOq1-zZ_th-BCkPY_N35TXAipDIQ,8",
        "n.dist-info/RECORD,,",
    ]
    assert modes["b/x.so"] == 0o755 and modes["a.py"] == 0o644


def test_metadata_and_bill_of_materials_name_libev(tmp_path):
    old = "Name: n\nLicense-Expression: MIT\nLicense-File: LICENSE\n\nText\n"
    metadata = email.message_from_string(contents.add_libev(old))
    assert metadata["License-Expression"] == "MIT AND BSD-2-Clause"
    assert metadata.get_all("License-File") == ["LICENSE", "libev/LICENSE"]
    (tmp_path / "Changes").write_text("Revision history\n\nTODO: more\n4.33 Wed Mar 18\n\t- x\n")
    (tmp_path / "ev.c").write_text("int x;\n")
    bill = contents.bill_of_materials("1.2", tmp_path, "0.1")
    (libev,) = bill["components"]
    assert (libev["name"], libev["version"]) == ("libev", "4.33")
    assert "serialNumber" not in json.dumps(bill) and "timestamp" not in json.dumps(bill)


def test_comments_are_left_out_and_nothing_else():
    for path in (ROOT / "asyncloop").rglob("*.py*"):
        if path.suffix not in (".py", ".pyi"):
            continue
        text = path.read_text()
        short = contents.without_comments(text)
        assert ast.dump(ast.parse(short), include_attributes=True) == ast.dump(
            ast.parse(text), include_attributes=True
        )
        assert len(short.splitlines()) == len(text.splitlines())


def test_one_space_for_each_level_and_the_same_program():
    for path in (ROOT / "asyncloop").rglob("*.py*"):
        if path.suffix in (".py", ".pyi"):
            text = path.read_text()
            short = contents.narrow(text)
            assert ast.dump(ast.parse(short)) == ast.dump(ast.parse(text))
            assert len(short.splitlines()) == len(text.splitlines())
    text = 'def f():\n    if 1:\n        """A\n        b"""\n'
    text += "        return (1,\n                2)\n"
    assert contents.narrow(text) == (
        'def f():\n if 1:\n  """A\n        b"""\n  return (1,\n    2)\n'
    )


def docstrings(text):
    """{first line: docstring} of what a module defines."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[first] = ast.get_docstring(node, clean=False)
    return found


def documented():
    """Functions and classes of Python that a user meets, by what the package exports."""
    for name in asyncloop.__all__:
        thing = getattr(asyncloop, name)
        yield thing
        if isinstance(thing, type):
            for attribute in dir(thing):
                if not attribute.startswith("_"):
                    value = inspect.getattr_static(thing, attribute)
                    yield getattr(value, "fget", value)


def left_out(shorten, kept_of):
    """Shortens every file of the package: what is documented keeps what `kept_of` finds, by line.

    Gives each file's text before and after.
    """
    public = contents.exported((ROOT / "asyncloop" / "__init__.py").read_text())
    assert public == set(asyncloop.__all__) | {"EventLoopPolicy", "install"}
    texts, written, kept = [], {}, {}
    for path in (ROOT / "asyncloop").rglob("*.py"):
        text = path.read_text()
        short = shorten(text, path.stem, public)
        assert len(short.splitlines()) == len(text.splitlines())
        compile(short, path, "exec")
        written[str(path)], kept[str(path)] = kept_of(text), kept_of(short)
        texts.append((text, short))
    looked_at = 0
    for thing in documented():
        code = getattr(thing, "__code__", None)
        if code is not None and code.co_filename in kept:
            looked_at += 1
            file, line = code.co_filename, code.co_firstlineno
            assert kept[file].get(line) == written[file].get(line), thing
    assert looked_at > 40
    assert kept != written
    return texts


def test_only_docstrings_of_private_names_are_left_out():
    left_out(contents.without_private_docstrings, docstrings)


def test_a_body_that_is_a_private_docstring_alone():
    text = 'class _Gone(Exception):\n    """Of no\n    interest."""\n\n\n'
    text += 'def public():\n    "Yes."\n'
    short = 'class _Gone(Exception):\n    pass\n\n\n\ndef public():\n    "Yes."\n'
    assert contents.without_private_docstrings(text, "module", set()) == short
    assert "Yes" not in contents.without_private_docstrings(text, "_module", set())
    assert "Yes" in contents.without_private_docstrings(text, "_module", {"public"})


def annotations(text):
    """Of each function, by the line that code objects have: the types of arguments and result."""
    return {
        min([node.lineno, *(one.lineno for one in node.decorator_list)]): [
            ast.unparse(found)
            for found in (
                *(one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg)),
                node.returns,
            )
            if found is not None
        ]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def without_types(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(tree)


def test_only_types_of_private_functions_are_left_out():
    for text, short in left_out(contents.without_private_annotations, annotations):
        assert without_types(short) == without_types(text)


def test_annotations_in_one_line_and_in_several():
    text = "def _f(é: 'ä', *a: int, b: str = 'x',\n    c: dict[\n  str, int]) -> None: pass\n"
    short = "def _f(é, *a, b = 'x',\n    c: dict[\n  str, int]): pass\n"
    assert contents.without_private_annotations(text, "module", set()) == short


def test_types_of_local_variables():
    text = "def f(é: int):\n    x: int\n    y: list[int] = [é]\n    self.z: 'T' = y\n    class A:\n"
    text += "        b: int = 0\n        def g(self):\n            c: int = 1\n"
    text += "d: int = 2\n_e: int = 3\n"
    short = "def f(é: int):\n    x: int\n    y = [é]\n    self.z = y\n    class A:\n"
    short += "        b: int = 0\n        def g(self):\n            c = 1\nd: int = 2\n_e = 3\n"
    assert contents.without_local_annotations(text) == short


def test_imports_of_types_that_are_used_nowhere():
    text = "import os\nfrom typing import Any, NoReturn\nfrom types import (\n    FrameType,\n)\n"
    text += "from collections.abc import Callable as C, Iterator\nfrom io import StringIO\n"
    text += "def f(a: Any, b: C): ...\n"
    short = "import os\nfrom typing import Any\n\n\n\nfrom collections.abc import Callable as C\n"
    short += "from io import StringIO\ndef f(a: Any, b: C): ...\n"
    assert contents.without_unused_types(text) == short


def test_what_only_checkers_look_at():
    text = "if TYPE_CHECKING:\n import ssl\n\n from ._core import _M as _B\nelse:\n _B = object\n"
    text += "if TYPE_CHECKING:\n import os\nif TYPE_CHECKING:\n import re\nclass A(_B): x: re\n"
    short = "\n\n\n\n\n_B = object\n\n\nif TYPE_CHECKING:\n import re\nclass A(_B): x: re\n"
    assert contents.without_ways_of_checkers(text, "_private") == short
    assert contents.without_ways_of_checkers(text, "public") == text


def test_a_stub_without_what_only_the_package_calls():
    text = (
        "x: int\n_y: int\nclass A:\n    def _a(self): ...\n    @property\n    def _b(self): ...\n"
    )
    text += "class B:\n    def __init__(self): ...\n    def _c(\n        self\n    ): ...\n"
    text += "    def d(self): ...\n"
    short = (
        "x: int\nclass A:\n    ...\nclass B:\n    def __init__(self): ...\n    def d(self): ...\n"
    )
    assert contents.without_private_types(text) == short
    stub = contents.without_private_types((ROOT / "asyncloop" / "_core.pyi").read_text())
    names = {
        node.name
        for node in ast.walk(ast.parse(stub))
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    assert names >= {"Loop", "Future", "Task", "call_soon", "set_result"}


def test_files_that_are_compiled_in_another_way_exist():
    tree = ast.parse((ROOT / "tools" / "wheels" / "build.py").read_text())
    lists = {
        node.targets[0].id: [
            one.value
            for one in ast.walk(node.value)
            if isinstance(one, ast.Constant) and str(one.value).endswith(".c")
        ]
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("HOT", "WARM", "COLD")
    }
    for names in lists.values():
        assert names and all((ROOT / "src" / name).is_file() for name in names), names
    everything = [name for names in lists.values() for name in names]
    assert len(set(everything)) == len(everything)


def test_of_libev_there_is_what_the_core_uses():
    build = load(ROOT / "tools" / "build_core.py")
    unused = [name for name, value in build.LIBEV_MACROS.items() if name.endswith("_ENABLE")]
    assert unused and {build.LIBEV_MACROS[name] for name in unused} == {"0"}
    text = "".join(path.read_text() for path in (ROOT / "src").rglob("*.[ch]"))
    for name in unused:
        kind = name.removeprefix("EV_").removesuffix("_ENABLE").lower()
        assert not re.search(rf"\bev_{kind}(_start|_init|_stop|_send)?\b *[(;*]", text), kind
