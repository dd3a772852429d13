"""A few of the random programs of tests/fuzz; `make fuzz` runs as many as one likes."""

import pytest

from .fuzz import compare
from .fuzz.choices import program_bytes

KINDS = sorted(compare.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_random_programs(kind):
    for seed in range(250):
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
