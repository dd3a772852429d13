"""Dask distributed on asyncloop, as a cluster of processes: see dask_cluster.py.

By the launcher, and by Dask's own configuration. A worker is killed in the middle of the work, and
no result is lost.
"""

import importlib.util
import subprocess
import sys

import pytest

from . import table

if importlib.util.find_spec("distributed") is None:
    pytest.skip("in an environment of its own: make selection", allow_module_level=True)

SITE = table.CHECKOUT / "asyncloop" / "_site"

# What the worker processes of a nanny find, unless the nanny's own environment has it otherwise.
CONFIGURATION = f"""
distributed:
  nanny:
    pre-spawn-environ:
      ASYNCLOOP_RUN: "1"
      PYTHONPATH: {SITE}
"""


def run(folder, way, *arguments, **variables):
    env = table.environment()
    if way == ():
        del env["PYTHONPATH"]
    (folder / "dask.yaml").write_text(CONFIGURATION if way == () else "{}")
    done = subprocess.run(
        [*way, sys.executable, table.HERE / "dask_cluster.py", *arguments],
        cwd=folder,
        env={
            **env,
            "DASK_CONFIG": str(folder / "dask.yaml"),
            "DASK_LOGGING__DISTRIBUTED": "error",
            **variables,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    loops = [line for line in done.stdout.splitlines() if line.startswith("loop: ")]
    assert len(loops) == 4, done.stdout
    assert all(line.startswith(f"loop: {table.OURS}") for line in loops), done.stdout
    assert "killed with " in done.stdout


def test_the_launcher_and_a_worker_that_is_killed(tmp_path):
    run(tmp_path, table.WAYS["asyncloop-run"], "20000", "--kill")


def test_its_own_setting_that_names_uvloop(tmp_path):
    way = table.WAYS["asyncloop-run --as-uvloop"]
    run(tmp_path, way, "2000", "--kill", DASK_DISTRIBUTED__ADMIN__EVENT_LOOP="uvloop")


def test_its_own_configuration_without_the_launcher(tmp_path):
    run(tmp_path, (), "2000", "--kill", "--install")
