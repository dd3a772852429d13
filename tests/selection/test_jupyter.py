"""`python -m asyncloop.jupyter`: a kernel that Jupyter offers, and whose cells run on asyncloop."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from .table import CHECKOUT, HERE, OURS

if importlib.util.find_spec("ipykernel") is None:
    pytest.skip("in an environment of its own: make selection", allow_module_level=True)

# Asks a kernel of that name for the loop of a cell, of a cell's child, and of nested runs.
ASK = """
import sys
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name=sys.argv[1])
CELL = '''
import asyncio, os, subprocess, sys
import selection_apps as s
print(await s.name())
print(subprocess.run([sys.executable, "-c", "import selection_apps as s; s.run_run()"],
                     capture_output=True, text=True).stdout)
print("variable:", os.environ.get("SEEN_BY_THE_KERNEL"))
await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(100)))
import asyncloop
asyncloop.allow_nested()
print("nested:", asyncio.get_running_loop().run_until_complete(asyncio.sleep(0, 42)))
'''
try:
    reply = client.execute_interactive(
        CELL,
        timeout=100,
        output_hook=lambda message: print(
            message["content"].get("text", ""), *message["content"].get("traceback", ()), end=""
        ),
    )
    print("\\nstatus:", reply["content"]["status"])
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def python(folder, *arguments):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(CHECKOUT)]),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_PATH": str(folder / "prefix" / "share" / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )


def jupyter(folder, *arguments):
    return python(folder, "-m", "asyncloop.jupyter", *arguments)


@pytest.mark.parametrize("where", [["--user"], ["--prefix", "PREFIX"]])
def test_a_kernel_on_asyncloop(tmp_path, where):
    where = [word.replace("PREFIX", str(tmp_path / "prefix")) for word in where]
    done = jupyter(
        tmp_path, "install", *where, "--name", "mine", "--env", "SEEN_BY_THE_KERNEL=yes=1"
    )
    assert done.returncode == 0, done.stderr
    place = tmp_path / ("data" if where == ["--user"] else "prefix/share/jupyter") / "kernels/mine"
    assert done.stdout == f"installed as {place}\n"
    spec = json.loads((place / "kernel.json").read_text())
    assert spec["display_name"].endswith(" on asyncloop") and spec["language"] == "python"
    assert (place / "logo-64x64.png").exists()

    asked = python(tmp_path, "-c", ASK, "mine")
    assert asked.stdout.count(f"loop: {OURS}") == 2, asked.stdout + asked.stderr
    for line in ("variable: yes=1", "nested: 42", "status: ok"):
        assert line in asked.stdout.splitlines(), asked.stdout + asked.stderr

    done = jupyter(tmp_path, "remove", "--name", "mine")
    assert done.returncode == 0 and done.stdout == f"removed {place}\n", done.stderr
    assert not place.exists()


@pytest.mark.parametrize(
    "arguments, line",
    [
        ([], "the following arguments are required"),
        (["install", "--env", "NAME"], "--env needs NAME=VALUE, not 'NAME'"),
        (["install", "--env", "=x"], "--env needs NAME=VALUE, not '=x'"),
        (["install", "--name", "a b"], "Invalid kernel name"),
        (["install", "--user", "--sys-prefix"], "not allowed with"),
        (["install", "--prefix", os.devnull], "Not a directory"),
        (["remove", "--name", "nobody"], "there is no kernel nobody"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, arguments, line):
    done = jupyter(tmp_path, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert line in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr
