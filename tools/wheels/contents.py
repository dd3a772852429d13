"""The parts of a wheel that are not compiled: metadata, the list of contents, the archive."""

import ast
import base64
import hashlib
import io
import re
import struct
import tokenize
import zlib

_MODULES_OF_TYPES = {"collections.abc", "types", "typing"}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def bill_of_materials(version, libev, zig_version):
    """What is inside, as CycloneDX: the name and the place are what PEP 770 asks for."""
    libev_version = next(
        line.split()[0]
        for line in (libev / "Changes").read_text().splitlines()
        if line[:1].isdigit()
    )
    sources = b"".join(path.read_bytes() for path in sorted(libev.glob("ev*.[ch]")))
    package = {
        "type": "library",
        "bom-ref": "asyncloop-libev",
        "name": "asyncloop-libev",
        "version": version,
        "purl": f"pkg:pypi/asyncloop-libev@{version}",
        "licenses": [{"license": {"id": "MIT"}}],
    }
    compiled_in = {
        "type": "library",
        "bom-ref": "libev",
        "name": "libev",
        "version": libev_version,
        "purl": f"pkg:generic/libev@{libev_version}",
        "licenses": [{"license": {"id": "BSD-2-Clause"}}],
        "properties": [
            {"name": "sha256 of ev*.c and ev*.h, in order of name", "value": sha256(sources)}
        ],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": package,
            "tools": {
                "components": [{"type": "application", "name": "zig cc", "version": zig_version}]
            },
        },
        "components": [compiled_in],
        "dependencies": [
            {"ref": "asyncloop-libev", "dependsOn": ["libev"]},
            {"ref": "libev", "dependsOn": []},
        ],
    }


def add_libev(metadata):
    """METADATA of a wheel that holds libev."""
    lines = []
    for line in metadata.splitlines():
        if line.startswith("License-Expression:"):
            line += " AND BSD-2-Clause"
        lines.append(line)
        if line == "License-File: LICENSE":
            lines.append("License-File: libev/LICENSE")
    return "\n".join(lines) + "\n"


def without_comments(text):
    """A Python file for a wheel: a twentieth of it is comments. Its lines keep their numbers."""
    lines = text.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    return "".join(lines)


def narrow(text):
    """A Python file for a wheel, indented by one space: a fiftieth. Strings stay as they are."""
    lines = text.splitlines(keepends=True)
    in_string = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (tokenize.NEWLINE, tokenize.NL):
            in_string.update(range(token.start[0] + 1, token.end[0] + 1))
    for number, line in enumerate(lines, 1):
        code = line.lstrip(" ")
        if number not in in_string:
            levels, rest = divmod(len(line) - len(code), 4)
            lines[number - 1] = " " * (levels + rest) + code
    narrowed = "".join(lines)
    if ast.dump(ast.parse(narrowed)) != ast.dump(ast.parse(text)):
        raise ValueError("one space is not enough here")
    return narrowed


def exported(text):
    """The names in the `__all__` of a module, however it is put together."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets):
            found = (one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant))
            names.update(found)
    return names


def _is_private(name):
    return name.startswith("_") and not name.endswith("__")


def _private_functions(node, module, public, hidden=False):
    """The functions and classes that nobody is shown.

    module: its name; of one that begins with "_" only what is in `public`, and methods
    hidden: all that is in the node
    """
    outermost = isinstance(node, ast.Module)
    private_module = _is_private(module) or module == "__main__"
    for each in node.body:
        if not isinstance(each, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        private = hidden or _is_private(each.name)
        if private or (outermost and private_module and each.name not in public):
            yield each
        inner = private or not isinstance(each, ast.ClassDef)
        yield from _private_functions(each, module, public, inner)


def without_private_docstrings(text, module, public):
    """A Python file for a wheel: what `help()` shows stays. Lines keep their numbers."""
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    silent = list(_private_functions(tree, module, public))
    if _is_private(module) or module == "__main__":
        silent.append(tree)
    for of in silent:
        if ast.get_docstring(of) is None:
            continue
        string = of.body[0]
        indent = lines[string.lineno - 1][: string.col_offset]
        for row in range(string.lineno - 1, string.end_lineno):
            lines[row] = "\n"
        if len(of.body) == 1:
            lines[string.lineno - 1] = f"{indent}pass\n"
    return "".join(lines)


def _private_annotations(tree, module, public):
    """Of each annotation in the head of a private function: where it begins and ends (rows from 1,
    columns in bytes), and whether it is of the result."""
    for of in _private_functions(tree, module, public):
        if isinstance(of, ast.ClassDef):
            continue
        every = of.args
        for one in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg):
            if one is not None and one.annotation is not None:
                begin = (one.lineno, one.col_offset + len(one.arg.encode()))
                yield begin, (one.annotation.end_lineno, one.annotation.end_col_offset), False
        if of.returns is not None:
            begin = (of.returns.lineno, of.returns.col_offset)
            yield begin, (of.returns.end_lineno, of.returns.end_col_offset), True


def without_private_annotations(text, module, public):
    """A Python file for a wheel: types of what is public stay. Lines keep their numbers."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    found = list(_private_annotations(ast.parse(text), module, public))
    for (row, column), (last_row, last_column), returned in sorted(found, reverse=True):
        if row != last_row:
            continue  # its lines keep their numbers
        line = lines[row - 1]
        before = line[:column]
        if returned:
            before = before.rstrip().removesuffix(b"->").rstrip()
        lines[row - 1] = before + line[last_column:]
    shorter = b"".join(lines).decode()
    ast.parse(shorter)
    return shorter


def _local_annotations(node, inside=False):
    """The variables with a value and a type in functions, and private ones of modules, in order.

    Not in a class, whose types can be asked for. Without a value it says that the name is local.
    """
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.AnnAssign) and each.value is not None:
            in_module = isinstance(node, ast.Module) and isinstance(each.target, ast.Name)
            if inside or (in_module and _is_private(each.target.id)):
                yield each
        is_function = isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
        is_class = isinstance(each, ast.ClassDef)
        yield from _local_annotations(each, is_function or (inside and not is_class))


def without_local_annotations(text):
    """A Python file for a wheel: nobody sees what its own variables are said to be."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for node in reversed(list(_local_annotations(ast.parse(text)))):
        row, column = node.target.end_lineno, node.target.end_col_offset
        if node.annotation.end_lineno == row:  # its lines keep their numbers
            line = lines[row - 1]
            lines[row - 1] = line[:column] + line[node.annotation.end_col_offset :]
    shorter = b"".join(lines).decode()
    ast.parse(shorter)
    return shorter


def _used_once(name, text):
    return len(re.findall(rf"\b{name.split()[-1]}\b", text)) == 1


def without_ways_of_checkers(text, module):
    """A Python file for a wheel: of a private module, what it does when it runs.

    What only the package's own check by types looks at (`if TYPE_CHECKING:`) is left out where
    there is another way, or nothing is left that uses it. Lines keep their numbers.
    """
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body if _is_private(module) else ():
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            continue
        names = [ast.unparse(one) for each in node.body for one in getattr(each, "names", [None])]
        if not node.orelse and not all(name and _used_once(name, text) for name in names):
            continue
        kept = lines[node.orelse[0].lineno - 1 : node.end_lineno] if node.orelse else []
        kept = [line.removeprefix(" " * node.orelse[0].col_offset) for line in kept]
        dropped = node.end_lineno - node.lineno + 1 - len(kept)
        lines[node.lineno - 1 : node.end_lineno] = ["\n"] * dropped + kept
    shorter = "".join(lines)
    ast.parse(shorter)
    return shorter


def without_unused_types(text):
    """A Python file for a wheel, without imports of what only types need that are left out.

    Lines keep their numbers.
    """
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if not (isinstance(node, ast.ImportFrom) and node.module in _MODULES_OF_TYPES):
            continue
        names = [ast.unparse(one) for one in node.names]
        used = [name for name in names if not _used_once(name, text)]
        if used != names:
            short = f"from {node.module} import {', '.join(used)}" if used else ""
            left_out = ["\n"] * (node.end_lineno - node.lineno)
            lines[node.lineno - 1 : node.end_lineno] = [f"{short}\n", *left_out]
    shorter = "".join(lines)
    ast.parse(shorter)
    return shorter


def _declared(node):
    """The name that a statement of a stub is about, or None."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name
    if isinstance(node, ast.ClassDef):
        for_checks = "type_check_only" in map(ast.unparse, node.decorator_list)
        return node.name if for_checks else None
    is_variable = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    return node.target.id if is_variable else None


def without_private_types(text):
    """A stub for a wheel, without what only the package itself calls."""
    lines = text.splitlines(keepends=True)
    module = ast.parse(text)
    for of in (module, *(node for node in module.body if isinstance(node, ast.ClassDef))):
        dropped = [node for node in of.body if _is_private(_declared(node) or "")]
        for node in dropped:
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            lines[first - 1 : node.end_lineno] = [""] * (node.end_lineno - first + 1)
        if len(dropped) == len(of.body):
            lines[of.body[0].lineno - 1] = " " * of.body[0].col_offset + "...\n"
    shorter = "".join(lines)
    ast.parse(shorter)
    return shorter


def deflate(data):
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def archive(files, compress=deflate):
    """A zip archive with nothing in it that the next run would write otherwise.

    Written by hand, for the sake of compressors that zipfile does not know.
    """
    body, directory = b"", b""
    for name, data in files.items():
        packed = compress(data)
        mode = 0o100755 if name.endswith(".so") else 0o100644
        midnight, first_of_1980 = 0, 1 << 5 | 1
        common = struct.pack(
            *("<HHHHHIIIHH", 20, 0, 8, midnight, first_of_1980, zlib.crc32(data)),
            *(len(packed), len(data), len(name.encode()), 0),
        )
        by_unix = 3 << 8 | 20
        directory += b"PK\1\2" + struct.pack("<H", by_unix) + common
        directory += struct.pack("<HHHII", 0, 0, 0, mode << 16, len(body)) + name.encode()
        body += b"PK\3\4" + common + name.encode() + packed
    count = len(files)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def pack(path, files, info, compress=deflate):
    """The wheel at `path`: `files` by their names in it, and the list of them."""
    record = f"{info}/RECORD"
    rows = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    files = {**dict(sorted(files.items())), record: "".join([*rows, f"{record},,\n"]).encode()}
    path.write_bytes(archive(files, compress))
