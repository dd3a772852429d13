"""What a user installs: `pip install .`, the source archive, and what the build says when it can't.

Builds with the setuptools of the environment that runs the tests, so without any download.
"""

import email
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT

# What asks these for a build decides about flags; nothing of that may leak into these tests.
SWITCHES = ("ASYNCLOOP_DEBUG", "ASYNCLOOP_HOSTILE", "ASYNCLOOP_SANITIZE", "ASYNCLOOP_WERROR",
            "LD_PRELOAD", "PYTHONPATH")

PROGRAM = """\
import asyncio, sys
import asyncloop
assert sys.argv[1] in asyncloop.__file__, asyncloop.__file__
async def handle(reader, writer):
    writer.write(await reader.readline())
    writer.close()
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        answer = await reader.read()
        writer.close()
        return answer
print(asyncloop.run(main()), asyncloop.build_info()["libev"])
"""


def run(*args, check=True, cwd=None, env=None, limit=110):
    environment = {k: v for k, v in os.environ.items() if k not in SWITCHES}
    environment.update(env or {})
    done = subprocess.run(
        [str(arg) for arg in args],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done


VERSION = re.search(r'__version__ = "(.*)"', (ROOT / "asyncloop" / "__init__.py").read_text())[1]

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
OFFLINE = ("--no-build-isolation", "--no-deps", "--no-index")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The unpacked source archive of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    # Made from a copy, so that nothing is written into the checkout.
    copy = folder / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for pattern in ("CHANGELOG.md", "Makefile", "src/**/*.[ch]", "asyncloop/*.py",
                    "asyncloop/*.pyi", "benchmarks/**/*.[ch]", "tools/build_core.py"):
        for path in ROOT.glob(pattern):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (copy / "asyncloop" / "py.typed").touch()
    run(sys.executable, "setup.py", "-q", "sdist", "-d", folder, cwd=copy)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    quick = {"CFLAGS": "-O0"}  # so that the compiler has little to do
    command = (sys.executable, *PIP, "wheel", "-q", *OFFLINE, "-w", folder, source)
    run(*command, env=quick, limit=900)
    (path,) = folder.glob("*.whl")
    return path


def test_source_archive_is_whole(source):
    assert source.name == f"asyncloop_libev-{VERSION}"
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "setup.py", "pyproject.toml"}
    wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob("src/**/*.[ch]")}
    wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob("benchmarks/**/*.[ch]")}
    wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob("asyncloop/*.py*")}
    assert wanted <= held
    assert not [name for name in held if name.endswith((".so", ".o", ".pyc", ".png", ".whl"))]


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(metadata_name))
    assert {name.split("/")[0] for name in names} == {
        "asyncloop",
        f"asyncloop_libev-{VERSION}.dist-info",
    }
    assert "asyncloop/_core" + sysconfig.get_config_var("EXT_SUFFIX") in names
    assert {"asyncloop/py.typed", "asyncloop/_core.pyi", "asyncloop/__main__.py"} <= names
    assert not [name for name in names if name.endswith((".c", ".h"))]
    assert metadata["Name"] == "asyncloop-libev"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    text = metadata.get_payload()
    assert not [link for link in re.findall(r"\]\((.*?)\)", text) if "://" not in link]
    urls = addresses()
    named = dict(one.split(", ", 1) for one in metadata.get_all("Project-URL", []))
    assert named == {name: url for name, url in urls.items() if url}
    required = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert required == []


def addresses():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["asyncloop"]["urls"]


@pytest.mark.parametrize("source", ["", "https://host.invalid/project"])
def test_links_of_the_readme_lead_somewhere_or_are_text(source, tmp_path, monkeypatch):
    """What setup.py tells setuptools, with and without an address of the repository."""
    text = (ROOT / "pyproject.toml").read_text()
    text = re.sub(r'^Source = ".*"$', f'Source = "{source}"', text, flags=re.M)
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "tools").mkdir()
    for name in ("setup.py", "README.md", "tools/build_core.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    told = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("setuptools.setup", lambda **arguments: told.update(arguments))
    runpy.run_path("setup.py")
    readme = told["long_description"]
    links = re.findall(r"(!?)\[([^]]*)\]\((.*?)\)", readme)
    assert links and all("://" in target for _, _, target in links)
    assert "docs/install.md" in readme
    ours = {target for _, _, target in links if target.startswith(source or "no address")}
    if source:
        assert told["project_urls"]["Source"] == source
        assert f"{source}/blob/main/docs/install.md" in ours
        assert any(one.startswith(f"{source}/raw/main/docs/") for one in ours)
    else:
        assert "Source" not in told["project_urls"]
        assert not any(picture for picture, _, _ in links)


@pytest.mark.parametrize(
    "url, fine",
    [
        ("", False),
        ("https://host.example/project", False),
        ("https://host.example", False),
        ("http://host.org/project", False),
        ("somewhere", False),
        ("https://host.org/project", True),
    ],
)
def test_what_a_release_takes_for_an_address(url, fine):
    path = ROOT / "tools" / "release_check.py"
    assert runpy.run_path(str(path))["is_address"](url) is fine


@pytest.mark.parametrize(
    "rows, last, status",
    [
        (["good"], "all of these passed; not run: bad", 0),
        (["good", "bad"], "failed: bad; logs in ", 1),
        ([], "failed: bad; logs in ", 1),
    ],
)
def test_table_of_a_release(rows, last, status, tmp_path):
    code = f"""if 1:
        import runpy, sys
        names = runpy.run_path({str(ROOT / "tools" / "release_check.py")!r})
        python = [sys.executable, "-c"]
        names["ROWS"].clear()
        names["ROWS"].update(good=[*python, "print(1); print('fine')"],
                             bad=[*python, "print('wrong'); print('make: Error'); sys.exit(3)"])
        names["main"].__globals__["LOGS"] = names["LOGS"].__class__({str(tmp_path / "logs")!r})
        sys.exit(names["main"]())
    """
    only = ["--only", *rows] if rows else []
    done = subprocess.run(
        [sys.executable, "-c", code, *only], capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert done.returncode == status and lines[-1].startswith(last), done.stdout + done.stderr
    assert [line.split()[:2] for line in lines[1:-1]] == [
        [name, "passed" if name == "good" else "FAILED"] for name in rows or ["good", "bad"]
    ]
    assert lines[1].endswith("fine")


def test_version_is_in_one_place():
    held = subprocess.run(
        ["git", "grep", "-lF", f'"{VERSION}"', "--", "*.py", "*.toml", "*.cfg", "*.c", "*.h"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )
    if held.returncode > 1 or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    assert [name for name in held.stdout.split() if not name.startswith("benchmarks/")] == [
        "asyncloop/__init__.py"
    ]


def test_installed_package_works_outside_the_checkout(wheel, tmp_path):
    env = tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env)
    python = env / "bin" / "python"
    run(sys.executable, *PIP, "--python", python, "install", "-q", *OFFLINE, wheel)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run(python, "-W", "error", program, tmp_path, cwd=tmp_path)
    assert done.stdout == "b'hello\\n' system\n" or done.stdout == "b'hello\\n' embedded\n"
    done = run(python, "-m", "asyncloop", "--version", cwd=tmp_path)
    assert done.stdout.startswith(f"asyncloop {VERSION} ")
    done = run(python, "-c", "import importlib.metadata as m; print(m.version('asyncloop-libev'))")
    assert done.stdout == f"{VERSION}\n"


def import_line(source, *flags):
    done = run(sys.executable, *flags, "-c", "import asyncloop", cwd=source, check=False)
    assert done.returncode == 1
    return done.stdout.splitlines()[-1]


def test_package_that_is_not_built_says_what_to_do(source):
    line = import_line(source, "-S")  # where nothing is installed
    assert line.startswith("ImportError: asyncloop's C core is not built for Python")
    assert "pip install ." in line and "make build" in line


def test_checkout_that_hides_an_installed_package_says_so(source):
    line = import_line(source)
    assert line.startswith("ImportError: the folder ") and "make build" in line


def refusing_compiler(folder, header):
    """A compiler that has everything but `header`."""
    compiler = folder / "cc-without-header"
    compiler.write_text(
        "#!/bin/sh\n"
        'for arg in "$@"; do\n'
        f"    case $arg in *.c) if grep -q 'include <{header}>' \"$arg\"; then\n"
        f"        echo 'fatal error: {header}: No such file or directory' >&2; exit 1\n"
        "    fi;; esac\n"
        "done\n"
        f"exec cc \"$@\"\n"
    )
    compiler.chmod(0o755)
    return str(compiler)


def last_line_of_build(source, **env):
    done = run(
        *(sys.executable, "setup.py", "-q", "build_ext", "--build-temp", source / "t"),
        *("--build-lib", source / "l", "--force"),
        cwd=source,
        env=env,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    lines = done.stdout.splitlines()
    assert "fatal error" not in done.stdout, "the compiler's noise hides the line that helps"
    return lines[-1]


def test_missing_libev_is_one_line_of_advice(source, tmp_path):
    line = last_line_of_build(source, CC=refusing_compiler(tmp_path, "ev.h"))
    for advice in (
        "apt-get install libev-dev",
        "dnf install libev-devel",
        "apk add libev-dev",
        "brew install libev",
    ):
        assert advice in line
    for system in ("Debian", "Ubuntu", "Fedora", "Alpine", "macOS"):
        assert system in line


def test_missing_libev_shows_through_pip(source, tmp_path):
    done = run(
        *(sys.executable, *PIP, "wheel", *OFFLINE, "-w", tmp_path, source),
        env={"CC": refusing_compiler(tmp_path, "ev.h")},
        check=False,
    )
    assert done.returncode != 0
    assert "apt-get install libev-dev" in done.stdout


def test_missing_python_headers(source, tmp_path):
    compiler = refusing_compiler(tmp_path, "Python.h")
    # ev.h is asked for first; it is missing here, too, as on a machine with nothing.
    Path(compiler).write_text(Path(compiler).read_text().replace("<Python.h>", "<[PEev]"))
    line = last_line_of_build(source, CC=compiler)
    version = "{}.{}".format(*sys.version_info)
    assert f"apt-get install python{version}-dev" in line


def test_missing_compiler(source):
    line = last_line_of_build(source, CC="no-such-compiler-anywhere")
    assert "apt-get install gcc" in line
    assert "xcode-select --install" in line


def test_libev_source_folder_without_libev(source, tmp_path):
    line = last_line_of_build(source, ASYNCLOOP_LIBEV_SOURCE=str(tmp_path))
    assert "there is no ev.c in" in line
