"""The runner's own tests: one bad test costs one result, and no exclusion goes stale."""

import signal

import pytest

from . import exclusions, report, runner, suite


def outcomes(cls, tests, limit=3):
    found = runner.run_class("asyncio", "fake_suite", cls, tests, limit,
                             package="tests.conformance")
    return {one.test.removeprefix(f"fake_suite.{cls}."): one for one in found}


def test_each_test_has_its_own_result():
    names = ["test_1_pass", "test_2_crash", "test_3_skip", "test_4_hang", "test_5_fail",
             "test_6_subtests", "test_7_unraisable", "test_8_thread", "test_9_exit"]
    found = outcomes("Mixed", names)
    assert list(found) == names
    assert [found[name].outcome for name in names] == [
        "passed", "crash", "skipped", "hang", "failed", "failed", "failed", "failed",
        "crash"]
    assert "SIGSEGV" in found["test_2_crash"].detail
    assert "on the way down" in found["test_2_crash"].output
    assert found["test_3_skip"].detail == "not today"
    assert "time.sleep(600)" in found["test_4_hang"].output or \
        "test_4_hang" in found["test_4_hang"].output
    assert "1 != 2" in found["test_5_fail"].detail
    assert "(i=1)" in found["test_6_subtests"].detail
    assert "from a finalizer" in found["test_7_unraisable"].detail
    assert "ZeroDivisionError" in found["test_8_thread"].detail
    assert "status 7" in found["test_9_exit"].detail


def test_interrupts_reach_the_tests_of_a_background_job():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        found = outcomes("Interrupted", ["test_a"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert found["test_a"].outcome == "passed"


def test_a_broken_fixture_fails_every_test_of_the_class():
    found = outcomes("BadFixture", ["test_a", "test_b"])
    assert {one.outcome for one in found.values()} == {"failed"}
    assert "no fixture" in found["test_b"].detail


def test_a_class_that_is_skipped():
    found = outcomes("Skipped", ["test_a"])
    assert (found["test_a"].outcome, found["test_a"].detail) == ("skipped", "all of it")


def test_a_bad_exit_is_a_result_of_its_own():
    found = outcomes("BadExit", ["test_a"])
    assert found["test_a"].outcome == "passed"
    assert found["(exit)"].outcome == "crash"


@pytest.mark.parametrize("spec, version, expected", [
    ("", (3, 13), True),
    ("<3.14", (3, 13), True),
    ("<3.14", (3, 14), False),
    (">=3.12,<3.14", (3, 11), False),
    (">=3.12,<3.14", (3, 13), True),
    (">=3.9", (3, 10), True),
    ("==3.11", (3, 11), True),
])
def test_version_ranges(spec, version, expected):
    assert exclusions.version_matches(spec, version) is expected


def test_version_range_with_a_slip():
    with pytest.raises(ValueError, match="not a version range"):
        exclusions.version_matches("=>3.12", (3, 13))


def test_exclusions(tmp_path):
    path = tmp_path / "exclusions.toml"
    path.write_text("""
[[exclude]]
tests = ["test_a.*", "test_gone.*"]
reason = "first"
[[exclude]]
tests = ["test_b.Class.test_*_x"]
python = "<3.0"
reason = "not on this version"
[[exclude]]
tests = ["test_c.*"]
where_present = true
reason = "in some bug-fix releases"
""")
    found = exclusions.Exclusions(path)
    assert found.reason("test_a.Class.test") == "first"
    assert found.reason("test_b.Class.test_1_x") is None
    assert found.stale() == ["test_gone.*"]


def test_every_exclusion_has_a_reason():
    for _, _, reason in exclusions.Exclusions().patterns:
        assert len(reason) > 20


@pytest.mark.parametrize("test_id, feature", [
    ("test_events.EPollEventLoopTests.test_create_connection", "core"),
    ("test_events.EPollEventLoopTests.test_create_ssl_connection", "tls"),
    ("test_sendfile.EPollEventLoopTests.test_sendfile_ssl", "sendfile"),
    ("test_subprocess.SubprocessPidfdWatcherTests.test_kill", "subprocess"),
    ("test_events.EPollEventLoopTests.test_read_pty_output", "pipes"),
    ("test_events.EPollEventLoopTests.test_add_signal_handler", "signals"),
])
def test_features(test_id, feature):
    assert suite.feature_of(test_id) == feature


def make_run(python, passed=3, loop="asyncloop", quick=False):
    run = report.Run(loop=loop, python=python, quick=quick)
    run.outcomes = [runner.Outcome(f"m.C.test_{i}", "passed") for i in range(passed)]
    run.outcomes.append(runner.Outcome("m.C.test_s", "skipped", "not today"))
    run.excluded = {"m.D.test_x": "insides"}
    return run


def test_markdown_keeps_the_other_versions(tmp_path):
    path = tmp_path / "conformance.md"
    path.write_text("# By hand\n\n" + report.EMPTY.split("\n", 2)[2] + "\nThe end.\n")
    report.write_markdown(make_run("3.13.0"), path)
    report.write_markdown(make_run("3.11.7", quick=True), path)
    report.write_markdown(make_run("3.13.0", quick=True), path)
    report.write_markdown(make_run("3.13.5", passed=5), path)
    report.write_markdown(make_run("3.13.5", passed=1, loop="uvloop"), path)
    text = path.read_text()
    assert text.startswith("# By hand") and text.endswith("The end.\n")
    rows = [line for line in text.splitlines() if line.startswith("| 3.")]
    assert rows == [
        "| 3.11.7 | asyncloop | quick | 4 | 3 | 1 | 1 | 0 | 0 |",
        "| 3.13.5 | asyncloop | all | 6 | 5 | 1 | 1 | 0 | 0 |",
        "| 3.13.5 | uvloop | all | 2 | 1 | 1 | 1 | 0 | 0 |",
    ]
    assert text.count("### CPython") == 2
    assert text.index("### CPython 3.11.7") < text.index("### CPython 3.13.5")
    report.write_markdown(make_run("3.13.5", passed=5), path)
    report.write_markdown(make_run("3.13.5", passed=1, loop="uvloop"), path)
    assert path.read_text() == text


def test_a_failure_makes_the_run_bad():
    run = make_run("3.13.0")
    assert run.good
    run.outcomes.append(runner.Outcome("m.C.test_bad", "failed", "ValueError: no"))
    assert not run.good
    run.outcomes[-1].stock_too = True
    assert run.good
    run.stale = ["m.Gone.*"]
    assert not run.good
