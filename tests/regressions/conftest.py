"""Regressions: what users have reported of other event loops, one test for each report.

The table in README.md says where each of them is proven. ASYNCLOOP_FULL=1 in the environment
runs them with the numbers of the reports.
"""

import os

import pytest

from ..certificates import make_contexts

FULL = os.environ.get("ASYNCLOOP_FULL") == "1"


@pytest.fixture
def size():
    """size(small, full): how large a test is."""
    return lambda small, full: full if FULL else small


@pytest.fixture(scope="session")
def contexts(tmp_path_factory):
    """(server's, client's) SSLContext."""
    return make_contexts(tmp_path_factory.mktemp("regressions"))


@pytest.fixture(params=["direct", "portable"])
def engine(request, impl):
    """Both TLS engines of asyncloop; the standard loop has one of its own."""
    if not impl.ours:
        if request.param != "direct":
            pytest.skip("the standard loop has no engines")
        yield None
        return
    from asyncloop import _core

    _core._tls_set_engine("portable" if request.param == "portable" else None)
    yield request.param
    _core._tls_set_engine(None)
