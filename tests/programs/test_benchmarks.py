"""The benchmarks survive what they measure, and count what they say. Nothing here is timed."""

import ast
import graphlib
import json
import os
import re
import select
import shutil
import subprocess
import sys

import pytest

from benchmarks import (
    bodies,
    compare,
    helpers,
    inprocess,
    loops,
    markdown,
    report,
    table,
    traffic,
    tuning,
)
from benchmarks.child import Child, ChildError
from benchmarks.compare import Metric, Options, Outcome, Result, Row, run_rows
from benchmarks.guard import paths as guard_paths
from benchmarks.guard.__main__ import comparable, grown
from benchmarks.guard.callgrind import Count, read
from benchmarks.load import parse_wrk
from benchmarks.rows import all_rows, chosen
from tests.support import ROOT

FAST = Options(rounds=2, sample_seconds=0.001, load_rounds=1, load_seconds=0.1, connections=4)

LOOPS = """\
import asyncio, os, time

def dies():
    os._exit(3)

def raises():
    raise RuntimeError("no such luck")

class Hangs(asyncio.SelectorEventLoop):
    def _run_once(self):
        time.sleep(600)

class DiesLate(asyncio.SelectorEventLoop):
    turns = 0
    def _run_once(self):
        DiesLate.turns += 1
        if DiesLate.turns > 100:
            os._exit(4)
        super()._run_once()
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Loops that break, for child processes, as module:factory."""
    (tmp_path / "broken_loops.py").write_text(LOOPS)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    return "broken_loops:{}".format


def needs_compiler():
    if not shutil.which("cc"):
        pytest.skip("no C compiler for the load generator")


def test_rows_have_names_of_their_own():
    rows = all_rows(Options(sizes=(16, 1024)))
    assert len({row.key for row in rows}) == len(rows)
    groups = "tasks floor timers echo tls write connect process http apps suites memory growth"
    assert {row.group for row in rows} == set(groups.split())
    assert {row.group for row in rows} <= table.HEADINGS.keys()
    assert [row.key for row in chosen(Options(), "^sleep-one$")] == ["sleep-one"]


def test_a_loop_that_dies_is_a_failed_cell(broken):
    loops = [broken("dies"), "asyncio", broken("raises"), broken("DiesLate")]
    outcome = inprocess.sample_rows(bodies.find("call-soon"), FAST, loops)
    assert list(outcome.samples) == ["asyncio"]
    assert len(outcome.samples["asyncio"]["cpu"]) == FAST.rounds
    assert outcome.errors == {
        broken("dies"): "exit status 3",
        broken("raises"): "RuntimeError: no such luck",
        broken("DiesLate"): "exit status 4",
    }


def test_a_loop_that_hangs_is_a_failed_cell(broken, monkeypatch):
    monkeypatch.setattr(inprocess, "PATIENCE", 5)
    outcome = inprocess.sample_rows(bodies.find("call-soon"), FAST, [broken("Hangs")])
    assert outcome.errors == {broken("Hangs"): "no answer within 5 s"}


@pytest.mark.parametrize("key", ["echo-protocol-1024", "echo-buffered-1024", "echo-streams-1024"])
def test_servers_are_loaded_and_broken_ones_fail(broken, key):
    needs_compiler()
    [row] = chosen(FAST, f"^{key}$")
    outcome = row.run(FAST, ["asyncio", broken("dies"), broken("DiesLate")])
    assert outcome.samples["asyncio"]["requests"][0] > 0
    assert outcome.errors[broken("dies")] == "exit status 3"
    assert outcome.errors[broken("DiesLate")] == "server: exit status 4"


def test_a_server_that_hangs_is_a_failed_cell(broken, monkeypatch):
    needs_compiler()
    monkeypatch.setattr(traffic, "START", 2)
    [row] = chosen(FAST, "^echo-protocol-1024$")
    outcome = row.run(FAST, [broken("Hangs")])
    assert outcome.errors[broken("Hangs")] == "no answer within 2 s"


def test_the_load_generator_finds_wrong_bytes():
    needs_compiler()
    program = (
        "import socket, json\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print(json.dumps({'port': s.getsockname()[1]}), flush=True)\n"
        "c, _ = s.accept()\n"
        "data = c.recv(100)\n"
        "c.sendall(data[:-1] + bytes([data[-1] ^ 1]))\n"
        "c.recv(100)\n"
    )
    from benchmarks import build

    with Child([sys.executable, "-c", program]) as server:
        port = server.report(20)["port"]
        command = [str(build.load_generator()), "--port", str(port), "--connections", "1"]
        with Child([*command, "--size", "10", "--seconds", "1"]) as load:
            assert json.loads(load.line(20)) == {"error": "wrong bytes came back"}
            with pytest.raises(ChildError, match="exit status 1"):
                load.report(20)


def test_no_child_outlives_its_parent():
    if sys.platform != "linux":
        pytest.skip("Linux only")
    program = (
        "import os, sys\n"
        "from benchmarks.child import Child\n"
        "child = Child([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    pid = int(done.stdout)
    try:
        # Readable when the process has ended, though it is no child of ours.
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 30)[0], "the child is still there"
    finally:
        os.close(fd)


METRIC = Metric("cpu", "CPU", "ns")
RATE = Metric("rate", "rate", "1/s", better="higher")
USER = Metric("user", "user CPU", "µs", digits=2, weight="requests")


def result():
    outcome = Outcome()
    for n in (200, 100, 90):
        outcome.add("asyncio", {"cpu": n, "rate": n, "user": 2, "requests": 1})
        outcome.add("uvloop", {"cpu": n / 2, "rate": n / 2, "user": n, "requests": n})
    outcome.fail("rloop", "broke")
    row = Row("row", "tasks", "a row", (METRIC, RATE, USER), lambda o, n: outcome)
    return Result(row, outcome)


def test_ratios_say_how_many_times_better():
    made = result()
    assert made.cell(METRIC, "uvloop").value == 50
    assert made.ratio(METRIC, "uvloop") == 2
    assert made.ratio(RATE, "uvloop") == 0.5
    assert made.cell(METRIC, "rloop") is None
    weighted = (200**2 + 100**2 + 90**2) / 390
    assert made.cell(USER, "uvloop").value == pytest.approx(weighted)


def test_table_and_json_show_every_cell():
    text = table.text([result()])
    assert "50 (2.00x)" in text and "failed" in text and "rloop failed: broke" in text
    row = report.as_json([result()], {})["rows"][0]
    assert row["samples"]["uvloop"]["cpu"] == [100, 50, 45]
    assert row["errors"] == {"rloop": "broke"}


ABOUT = {
    "date": "2026-01-02T03:04:05",
    "commit": "abc",
    "command": "python -m benchmarks --json x",
    "openssl": "OpenSSL 3",
    "machine": {
        "python": "3.13.0",
        "processor": "a processor",
        "cores": 2,
        "distribution": "Debian",
        "system": "Linux 6",
    },
    "loops": {"asyncio": "CPython", "uvloop": "1"},
    "missing_loops": {},
    "seconds": 60,
}


def test_json_is_read_back(tmp_path):
    file = tmp_path / "bench.json"
    written = [result()]
    report.write(file, report.as_json(written, ABOUT))
    about, read_back = report.read(file)
    assert table.text(read_back) == table.text(written)
    text = markdown.text(read_back, about)
    assert "| a row | 100 | **50** | failed |" in text
    assert "OpenSSL 3" in text and "a processor" in text and "--json x" in text
    file.write_text("{}")
    with pytest.raises(ValueError):
        report.read(file)


def test_early_timers_do_not_win():
    metric = Metric("median", "median", "µs", digits=1)
    early = Metric("early", "early", "timers", total=True)
    outcome = Outcome()
    for _ in range(2):
        outcome.add("asyncio", {"median": 50, "early": 0})
        outcome.add("uvloop", {"median": -200, "early": 400})
    made = Result(Row("late", "timers", "late", (metric, early), lambda o, n: outcome), outcome)
    assert made.ratio(metric, "uvloop") is None
    assert made.cell(early, "uvloop").value == 800
    text = markdown.text([made], {**ABOUT, "command": "x"})
    assert "| late | **50.0** | early by 200.0 |" in text


def test_results_are_kept_after_each_row():
    def run(options, loops):
        return Outcome({name: {"cpu": [1.0]} for name in loops})

    rows = [Row(key, "tasks", key, (METRIC,), run) for key in "ab"]
    seen = []
    run_rows(rows, FAST, ["asyncio"], lambda results: seen.append([r.row.key for r in results]))
    assert seen == [["a"], ["a", "b"]]


def test_a_row_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(compare, "ROW_SECONDS", 1)

    def run(options, loops):
        try:
            select.select([], [], [], 60)
        except Exception:
            pytest.fail("a row must not take its end for an error of a cell")

    [made] = run_rows([Row("row", "tasks", "a row", (METRIC,), run)], FAST, ["asyncio"])
    assert "longer than 1 s" in made.outcome.errors["asyncio"]


def test_contestants_take_part_where_they_make_a_difference():
    seen = []

    def run(options, loops):
        seen.append(loops)
        return Outcome()

    names = ["asyncio", "asyncloop-portable", "aiofastnet"]
    traits = [frozenset(), frozenset({"network"}), frozenset({"tls"})]
    run_rows([Row("r", "tasks", "r", (), run, traits=t) for t in traits], FAST, names)
    assert seen == [["asyncio"], ["asyncio", "aiofastnet"], names]


def test_a_missing_helper_leaves_a_row_out(monkeypatch):
    def missing(name, options):
        raise helpers.Missing("there is no such server")

    monkeypatch.setattr(helpers, "address", missing)
    outcome = inprocess.sample_rows(bodies.find("redis"), FAST, ["asyncio"])
    assert (outcome.samples, outcome.errors) == ({}, {})
    assert outcome.notes == ["left out: there is no such server"]


@pytest.mark.parametrize(
    "key", ["write-1024", "write-burst", "writelines-64", "connect-protocol", "connect-streams"]
)
def test_rows_with_a_helper(key):
    needs_compiler()
    try:
        outcome = inprocess.sample_rows(bodies.find(key), FAST, ["asyncio", "asyncloop"])
    finally:
        helpers.close()
    if outcome.notes:
        pytest.skip(outcome.notes[0])
    assert outcome.errors == {}
    assert set(outcome.samples) == {"asyncio", "asyncloop"}


@pytest.mark.parametrize("key", ["accept-protocol", "accept-streams"])
def test_connections_are_accepted_and_end(key):
    needs_compiler()
    [row] = chosen(FAST, f"^{key}$")
    outcome = row.run(FAST, ["asyncio", "asyncloop"])
    assert outcome.samples["asyncio"]["requests"][0] > 0
    assert outcome.samples["asyncloop"]["requests"][0] > 0


def test_a_row_that_raises_is_a_failed_row(capsys):
    def run(options, loops):
        raise OSError("nothing works")

    [made] = run_rows([Row("row", "tasks", "a row", (METRIC,), run)], FAST, ["asyncio"])
    assert made.outcome.errors == {"asyncio": "OSError: nothing works"}


WRK = """\
  Latency Distribution
     50%    1.20ms
     75%    1.28ms
     90%    1.50ms
     99%  900.00us
  30000 requests in 1.00s, 4.00MB read
{problem}Requests/sec:  29876.50
"""


def test_wrk_output():
    load = parse_wrk(WRK.format(problem=""))
    assert (load.requests, load.rate, load.p50_us, load.p99_us) == (30000, 29876.5, 1200, 900)
    late = "  Socket errors: connect 0, read 0, write 0, timeout 7\n"
    assert parse_wrk(WRK.format(problem=late)).requests == 30000
    for problem in (
        "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 4\n",
    ):
        with pytest.raises(ChildError, match=problem.split(":")[0].strip()):
            parse_wrk(WRK.format(problem=problem))
    with pytest.raises(ChildError, match="no requests"):
        parse_wrk("unable to connect")


CALLGRIND = """\
version: 1
desc: Trigger: Client Request: future 2
events: Ir
ob=(1) /lib/libc.so.6
fn=(1) memcpy
10 5
+2 7
cob=(2) /x/asyncloop/_core.cpython-313-x86_64-linux-gnu.so
cfn=(2) step
calls=3 20
* 1000
ob=(2)
fn=(2)
20 300
- 1
ob=(1)
fn=(1)
11 10
totals: 323
"""


def test_callgrind_file(tmp_path):
    file = tmp_path / "out"
    file.write_text(CALLGRIND)
    assert read(file) == ("future 2", Count(323, 301))


def test_guard_tolerance():
    kept = {"total": 1000, "own": 100}
    assert not grown(Count(1060, 104), kept)
    assert grown(Count(1080, 100), kept)
    assert grown(Count(1000, 106), kept)
    assert not grown(Count(980, 106), kept)
    assert grown(Count(980, 106), kept, total=False)
    assert not grown(Count(1080, 100), kept, total=False)
    assert not grown(Count(1000, 106), kept, own=False)


def test_guard_judges_what_is_comparable():
    then = {"python": "3.13.0", "core": "gcc 12", "machine": "x86_64", "libev": "4.33", "libc": "1"}
    assert comparable(then, then) == (True, True, "")
    total, own, reason = comparable({**then, "libc": "2"}, then)
    assert (total, own) == (False, True) and "libc is 2, was 1" in reason
    total, own, reason = comparable({**then, "core": "clang"}, then)
    assert (total, own) == (False, False) and reason.startswith("reported, not judged")
    assert comparable(then, {})[:2] == (False, False)


def imported(path):
    """Modules of the benchmarks that this one imports, as paths."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for found in folder, *(folder / alias.name for alias in node.names):
                yield found.with_suffix(".py")


def test_imports_make_no_circle():
    modules = set((ROOT / "benchmarks").rglob("*.py"))
    graph = {path: modules.intersection(imported(path)) for path in modules}
    assert sum(map(len, graph.values())) > 50
    graphlib.TopologicalSorter(graph).prepare()


def test_each_tuned_constant_has_a_row_or_a_bound():
    """And what tuning.py changes in the sources is there."""
    by_name = {variation.name for variation in tuning.VARIATIONS if variation.lines is None}
    assert by_name | set(tuning.BOUNDS) == tuning.tuned()
    assert not by_name & set(tuning.BOUNDS)
    hostile = (loops.ROOT / "src/base/tuning.h").read_text()
    assert set(re.findall(r"HOSTILE_([A-Z]\w*)", hostile)) == tuning.tuned()
    keys = {row.key for row in all_rows(Options())}
    for variation in tuning.VARIATIONS:
        assert variation.rows or variation.paths, variation
        assert set(variation.paths) <= {path.key for path in guard_paths.PATHS}
        for row in variation.rows:
            key, *options = row.split()
            assert key in keys or "--sizes" in options, row
        assert variation.changed(loops.ROOT)
