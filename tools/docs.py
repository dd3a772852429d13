"""Builds the documentation site: python tools/docs.py [--pages-only [FOLDER]]

The pages are docs/*.md, some files that live elsewhere in the tree (ELSEWHERE), and an API
reference that is made from the docstrings. All are gathered below build/docs, where `zensical build
--strict` makes the site of them, without a network. A link to a file that is no page leads to the
repository, if that has an address (pyproject.toml, tool.asyncloop.urls), and is plain text else;
one to a file that does not exist is an error.
"""

import inspect
import os
import pathlib
import posixpath
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "docs"
ELSEWHERE = {
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "src/README.md": "architecture.md",
    "src/short_ways.md": "short-ways.md",
}
FENCE = re.compile(r"^( *)```(\w+)[^\n]*$", re.M)
LINK = re.compile(r"(!?\[[^]]*\])\(([^)\s]+)\)")


def source_url():
    """The repository's address; empty until there is one."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["tool"]["asyncloop"]["urls"]["Source"]


def pages():
    """{file in the repository: its name on the site}"""
    found = {}
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".md", ".png"):
            found[path.relative_to(ROOT).as_posix()] = path.relative_to(ROOT / "docs").as_posix()
    return found | ELSEWHERE


def outside_code(text, change):
    """`text` with `change` applied to what is in no code block."""
    parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.M | re.S)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def with_links(text, file, site):
    """The text of `file` with links that lead from its place on the site to where they led."""
    here, problems = posixpath.dirname(file), []

    def lead(match):
        label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, anchor, fragment = target.partition("#")
        full = posixpath.normpath(posixpath.join(here, path))
        if full in site:
            at = posixpath.dirname(site[file]) or "."
            return f"{label}({posixpath.relpath(site[full], at)}{anchor}{fragment})"
        if full == "docs/reference.md":
            return match[0]
        left_out = full.endswith(".png") and not (ROOT / ".git").exists()  # of a source archive
        if not (ROOT / full).exists() and not left_out:
            problems.append(f"{file}: there is no {target}")
        if not source_url():
            return label.strip("![]")
        return f"{label}({source_url()}/blob/main/{full}{anchor}{fragment})"

    return outside_code(text, lambda part: LINK.sub(lead, part)), problems


def signature(value):
    try:
        return str(inspect.signature(value)).replace("NoneType", "None")
    except (TypeError, ValueError):
        return ""


def described(value, name, level):
    doc = inspect.getdoc(value) or ""
    return f"{'#' * level} `{name}`\n\n{doc}\n\n"


def reference():
    """The public names, by their docstrings."""
    import asyncio

    import asyncloop

    text = "# API\n\nWhat `import asyncloop` has. All that is not here is asyncio's.\n\n"
    for name in sorted(asyncloop.__all__, key=str.lower):
        value = getattr(asyncloop, name)
        if not inspect.isclass(value):
            text += described(value, f"asyncloop.{name}{signature(value)}", 2)
            continue
        text += described(value, f"class asyncloop.{name}", 2)
        for method, own in inspect.getmembers(value):
            theirs = (asyncio.AbstractEventLoop, getattr(asyncio, name, object), Exception, tuple)
            if method.startswith("_") or any(hasattr(base, method) for base in theirs):
                continue
            if not inspect.getdoc(own):
                continue
            call = signature(own) if callable(own) else ""
            text += described(own, f"{name}.{method}{call}", 3)
    return text


def gather(folder):
    """Fill `folder` with the pages; what is wrong with them."""
    shutil.rmtree(folder, ignore_errors=True)
    site, problems = pages(), []
    for file, name in site.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith(".md"):
            shutil.copy(ROOT / file, target)
            continue
        text, wrong = with_links((ROOT / file).read_text(), file, site)
        problems += wrong
        # What the tests are told about a block is not for readers.
        target.write_text(FENCE.sub(r"\1```\2", text))
    (folder / "reference.md").write_text(reference())
    return problems


def settings():
    """zensical.toml, with the pages that it does not name at the end."""
    text = (ROOT / "docs" / "zensical.toml").read_text()
    rest = [name for name in pages().values() if name.endswith(".md") and f'"{name}"' not in text]
    items = "".join(
        f'    {{ "{name.removesuffix(".md").capitalize()}" = "{name}" }},\n' for name in rest
    )
    more = f'  {{ "More" = [\n{items}  ] }},\n' if rest else ""
    return text.replace("\n]\n", f"\n{more}]\n", 1)


def main():
    begin = time.monotonic()
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else BUILD / "pages"
    problems = gather(folder)
    print(*problems, sep="\n", end="\n" if problems else "")
    if "--pages-only" in sys.argv:
        return bool(problems)
    (BUILD / "zensical.toml").write_text(settings())
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    command = [
        os.path.join(os.path.dirname(sys.executable), "zensical"),
        "build",
        "--strict",
        "--clean",
    ]
    done = subprocess.run(command, cwd=BUILD)
    count = len(list((BUILD / "site").rglob("*.html"))) if (BUILD / "site").exists() else 0
    print(f"{count} pages in {BUILD / 'site'}, {time.monotonic() - begin:.1f} s")
    return bool(problems) or done.returncode


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
