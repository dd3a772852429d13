"""What a run found, as text, as JSON and as the tables of docs/conformance.md."""

import collections
import dataclasses
import json
import os
import re

from .suite import feature_of


@dataclasses.dataclass
class Run:
    """All results of one run: one version, one loop."""

    loop: str
    python: str
    quick: bool
    outcomes: list = dataclasses.field(default_factory=list)
    excluded: dict = dataclasses.field(default_factory=dict)        # test -> reason
    modules_skipped: dict = dataclasses.field(default_factory=dict)  # module -> reason
    stale: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def having(self, *outcomes):
        return [one for one in self.outcomes if one.outcome in outcomes]

    @property
    def failed(self):
        """Bad here, and good on the standard loop."""
        return [one for one in self.outcomes if one.bad and not one.stock_too]

    @property
    def failed_on_both(self):
        return [one for one in self.outcomes if one.bad and one.stock_too]

    @property
    def good(self):
        return not self.failed and not self.stale


def _grouped(pairs):
    """{reason: [test]} of (test, reason) pairs, the largest group first."""
    groups = collections.defaultdict(list)
    for test, reason in pairs:
        groups[reason].append(test)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _last_line(outcome):
    lines = [line for line in outcome.detail.splitlines() if line.strip()]
    return lines[-1].strip()[:160] if lines else ""


def print_summary(run, verbose=False):
    for outcome in run.outcomes:
        if outcome.bad and verbose:
            print("=" * 78, f"{outcome.outcome}: {outcome.test}", sep="\n")
            print(outcome.detail.rstrip())
            if outcome.output.strip():
                print("-" * 30, "printed meanwhile", "-" * 29)
                print(outcome.output.rstrip())
    skipped = _grouped((one.test, one.detail) for one in run.having("skipped"))
    if skipped:
        print("\nSkipped by the suite itself:")
        for reason, tests in skipped.items():
            print(f"  {len(tests):4}  {reason}")
    for title, bad in (("Fails on the standard loop too", run.failed_on_both),
                       ("Failed", run.failed)):
        features = collections.defaultdict(list)
        for outcome in bad:
            features[feature_of(outcome.test)].append(outcome)
        for feature, outcomes in sorted(features.items()):
            print(f"\n{title} ({feature}, {len(outcomes)}):")
            causes = _grouped((one.test, f"{one.outcome}: {_last_line(one)}")
                              for one in outcomes)
            for cause, tests in causes.items():
                print(f"  {cause}")
                for test in sorted(tests):
                    print(f"      {test}")
    for pattern in run.stale:
        print(f"\nStale exclusion, matches no test: {pattern}")
    counts = collections.Counter(one.outcome for one in run.outcomes)
    print(f"\nCPython {run.python}, {run.loop}{', quick' if run.quick else ''}: "
          f"{counts['passed']} passed, {counts['skipped']} skipped, "
          f"{len(run.excluded)} excluded, {len(run.failed)} failed"
          f" ({sum(one.outcome == 'hang' for one in run.failed)} hung, "
          f"{sum(one.outcome == 'crash' for one in run.failed)} crashed), "
          f"{len(run.failed_on_both)} fail on the standard loop too; "
          f"{run.seconds:.0f} s")


def write_json(run, path):
    data = {"python": run.python, "loop": run.loop, "quick": run.quick,
            "seconds": round(run.seconds, 1), "stale": run.stale,
            "excluded": run.excluded, "modules_skipped": run.modules_skipped,
            "outcomes": [dataclasses.asdict(one) for one in run.outcomes]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")


# --- docs/conformance.md ----------------------------------------------------------------
#
# The file is written by hand but for what stands between two marks. A run replaces its
# own version's part there and leaves the other versions' alone.

HEAD = ("| Python | loop | part | run | passed | skipped | excluded | failed | "
        "fail on the standard loop too |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
_TABLE = re.compile(r"(<!-- begin table -->\n).*?(<!-- end table -->)", re.S)
_DETAILS = re.compile(r"(<!-- begin details -->\n).*?(<!-- end details -->)", re.S)
_DETAIL = re.compile(r"^### (CPython .*?)\n(.*?)(?=^### |\Z)", re.S | re.M)
EMPTY = ("# Conformance\n\n<!-- begin table -->\n<!-- end table -->\n\n"
         "<!-- begin details -->\n<!-- end details -->\n")


def _version_key(text):
    return [int(part) for part in re.findall(r"\d+", text)]


def _part(run):
    return "quick" if run.quick else "all"


def _row(run):
    run_count = len(run.outcomes)
    cells = [run.python, run.loop, _part(run), run_count, len(run.having("passed")),
             len(run.having("skipped")), len(run.excluded), len(run.failed),
             len(run.failed_on_both)]
    return "| " + " | ".join(map(str, cells)) + " |"


def _bullets(groups):
    return [f"- {len(tests)}: {reason}" for reason, tests in groups.items()]


def _details(run):
    lines = [""]
    if run.failed:
        lines += ["Failed:", ""]
        lines += [f"- `{one.test}`" for one in sorted(run.failed, key=lambda o: o.test)]
        lines.append("")
    if run.failed_on_both:
        lines += ["Fail on the standard loop too, on the machine of this run:", ""]
        lines += [f"- `{one.test}`: {_last_line(one)}" for one in run.failed_on_both]
        lines.append("")
    skipped = _grouped((one.test, one.detail) for one in run.having("skipped"))
    if skipped:
        lines += ["Skipped by the suite itself:", "", *_bullets(skipped), ""]
    lines += ["Excluded:", "", *_bullets(_grouped(run.excluded.items())), ""]
    return "\n".join(lines) + "\n"


def write_markdown(run, path):
    """Replace the row and the details of this version and loop in the file.

    A whole run replaces a quick one too, because it says more.
    """
    text = EMPTY
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
    if not _TABLE.search(text) or not _DETAILS.search(text):
        raise ValueError(f"{path} lacks the marks of its tables")

    series = ".".join(run.python.split(".")[:2])
    parts = "quick" if run.quick else "(?:quick|all)"
    rows = [line for line in _TABLE.search(text).group(0).splitlines()
            if re.match(r"\| \d", line)]
    rows = [row for row in rows
            if not re.match(rf"\| {re.escape(series)}\.\S+ \| {run.loop} \| {parts} \|", row)]
    rows = sorted([*rows, _row(run)], key=lambda row: (
        row.split("|")[2].strip() != "asyncloop", row.split("|")[2],
        _version_key(row.split("|")[1])))
    table = HEAD + "\n" + "\n".join(rows) + "\n"
    text = _TABLE.sub(lambda match: match.group(1) + table + match.group(2), text)

    if run.loop == "asyncloop":
        inside = _DETAILS.search(text).group(0).split("\n", 1)[1]
        inside = inside.rsplit("<!-- end details -->", 1)[0]
        gone = re.compile(rf"CPython {re.escape(series)}\.\S+ \({parts}\)")
        details = {title: body for title, body in _DETAIL.findall(inside)
                   if not gone.fullmatch(title)}
        details[f"CPython {run.python} ({_part(run)})"] = _details(run)
        body = "\n".join(f"### {title}\n{details[title].rstrip()}\n"
                         for title in sorted(details, key=_version_key))
        text = _DETAILS.sub(lambda match: match.group(1) + body + match.group(2), text)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
