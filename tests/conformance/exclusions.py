"""The tests that cannot apply to another loop, read from ``exclusions.toml``.

An entry has ``tests`` (patterns of ``module.Class.test`` with ``*``), ``reason``, and
perhaps ``python``, the versions in which the tests exist (``"<3.14"``,
``">=3.12,<3.14"``). A pattern that matches nothing in a version of its range is stale:
it hides a mistake, and the run fails. Only ``where_present = true`` allows it, for tests
that came or went with a bug-fix release.
"""

import fnmatch
import operator
import pathlib
import re
import sys
import tomllib

PATH = pathlib.Path(__file__).with_name("exclusions.toml")

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
            "==": operator.eq}


def version_matches(spec, version=sys.version_info[:2]):
    """True if `version` (major, minor) lies in `spec`, e.g. ``">=3.12,<3.14"``."""
    for part in filter(None, (part.strip() for part in spec.split(","))):
        match = re.fullmatch(r"(<=|>=|==|<|>)\s*(\d+)\.(\d+)", part)
        if match is None:
            raise ValueError(f"not a version range: {spec!r}")
        sign, major, minor = match.groups()
        if not _COMPARE[sign](version, (int(major), int(minor))):
            return False
    return True


class Exclusions:
    """The entries that hold for the running version."""

    def __init__(self, path=PATH):
        with open(path, "rb") as file:
            entries = tomllib.load(file)["exclude"]
        self.patterns = []              # (pattern, compiled, reason)
        self.hits = {}                  # pattern -> number of tests
        self.may_lack = set()
        for entry in entries:
            unknown = set(entry) - {"tests", "reason", "python", "where_present"}
            if unknown:
                raise ValueError(f"exclusions.toml: unknown key {unknown}")
            if not version_matches(entry.get("python", "")):
                continue
            reason = " ".join(entry["reason"].split())
            for pattern in entry["tests"]:
                if pattern in self.hits:
                    raise ValueError(f"exclusions.toml: {pattern} is there twice")
                compiled = re.compile(fnmatch.translate(pattern))
                self.patterns.append((pattern, compiled, reason))
                self.hits[pattern] = 0
                if entry.get("where_present", False):
                    self.may_lack.add(pattern)

    def reason(self, test_id):
        """Why `test_id` (``module.Class.test``) is not run, or None if it is."""
        found = None
        for pattern, compiled, reason in self.patterns:
            if compiled.match(test_id):
                self.hits[pattern] += 1
                found = found or reason
        return found

    def stale(self):
        """Patterns that matched none of the tests asked for so far."""
        return [pattern for pattern, hits in self.hits.items()
                if hits == 0 and pattern not in self.may_lack]
