"""A few of the random programs of tests/fuzz; `make fuzz` runs as many as one likes."""

import gc

import pytest

from tests.fuzz import compare, layers

from .choices import program_bytes

KINDS = sorted(compare.KINDS)


@pytest.fixture(autouse=True, scope="module")
def small_heap():
    """Each program collects: not what all the tests before have left in this process."""
    gc.collect()
    gc.freeze()


@pytest.mark.parametrize("kind", KINDS)
def test_random_programs(kind):
    for seed in range(150):
        assert not (text := compare.check(kind, program_bytes(seed))), text


# Hypothesis asks the collector who holds its random numbers, and conftest.py's gc.freeze() may have
# hidden the holder. They are held all the same, and managed.
@pytest.mark.filterwarnings("ignore:It looks like `register_random` was passed")
@pytest.mark.parametrize("kind", KINDS)
def test_programs_from_hypothesis(kind):
    hypothesis = pytest.importorskip("hypothesis")

    @hypothesis.settings(
        max_examples=100,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hypothesis.strategies.binary(max_size=300))
    def check(data):
        assert not (text := compare.check(kind, data)), text

    check()


# What the programs over stacks have to notice.

PLAIN = ("plain", 0)
TWO = {
    "engines": ("direct", "portable"),
    "wild": False,
    "gentle": False,
    "stacks": (
        ("soon", (None, None), (("tls", 0),), (PLAIN, PLAIN)),
        ("soon", (None, None), (), (PLAIN, PLAIN)),
    ),
    "reactions": (),
    "steps": ((((0, 0), "write", 2, 0),), (((1, 0), "write", 2, 0),)),
    "turns": 0,
    "end": (0, 0),
}


def test_a_program_that_nothing_is_wrong_with():
    assert compare.explained("stacks", "asyncloop", TWO) == []


def lossy(data):
    return data[:-1]


def doubled(data):
    return data + data


def turned(data):
    return data[500:] + data[:500]


@pytest.mark.parametrize("damage", [lossy, doubled, turned])
def test_damaged_bytes_are_noticed(monkeypatch, damage):
    write = layers.Memory.write

    def wrong(self, data):
        write(self, damage(data) if len(data) == 1024 else data)

    monkeypatch.setattr(layers.Memory, "write", wrong)
    lines = compare.explained("stacks", "asyncloop", TWO)
    assert any("bytes" in line for line in lines)


def test_bytes_of_another_connection_are_noticed(monkeypatch):
    write = layers.Memory.write
    seen = []

    def wrong(self, data):
        if len(data) == 1024:
            seen.append(data)
            data = seen[0]
        write(self, data)

    monkeypatch.setattr(layers.Memory, "write", wrong)
    program = TWO | {"stacks": (TWO["stacks"][1], TWO["stacks"][1])}
    lines = compare.explained("stacks", "asyncloop", program)
    assert any("bytes of connection 0 from its end 0" in line for line in lines)


def test_an_event_that_is_missing_is_noticed(monkeypatch):
    """On one of the two implementations alone."""
    tell = layers.Memory._tell_lost

    def silent(self, exc):
        if type(self._loop).__module__.startswith("asyncloop"):
            self._protocol = layers.Feet(None)
            self._protocol.connection_lost = lambda exc: None
        tell(self, exc)

    monkeypatch.setattr(layers.Memory, "_tell_lost", silent)
    assert compare.explained("stacks", "asyncloop", TWO) != []
