"""A few seconds of the secrets soak (tests/soak.py), and that it finds what it is there for."""

import os
import random

import pytest

from .soak import Stream, Tally, soak


@pytest.mark.skipif(
    not os.environ.get("ASYNCLOOP_SOAK"),
    reason="now and then reports a future whose ConnectionResetError nobody asked for; the cause "
    "is not found yet. ASYNCLOOP_SOAK=1 runs it, and so does `make soak`",
)
def test_soak(impl):
    if not impl.ours:
        pytest.skip("releases of the standard loop lose bytes of a bytearray written to TLS")
    seed = random.SystemRandom().randrange(1 << 32)
    tally = soak(impl.new_event_loop, seconds=5, seed=seed, workers=20)
    assert not tally.failures, f"seed {seed}: " + "\n".join(tally.failures)
    assert tally.counts["foreign bytes"] == 0
    assert tally.counts["connections made"] == tally.counts["connections lost"] > 0
    assert tally.counts["exchanges"] > tally.counts["honest connections"] > 0


def test_foreign_bytes_are_counted():
    tally = Tally(1)
    key, other = tally.issue(0), tally.issue(0)
    server = Stream(tally)
    server.feed(key[:5])
    server.feed(key[5:] + key)
    client = Stream(tally, key, turned=True)
    client.feed(server.expected(0, 0))
    client.feed(client.expected(0, 100))
    assert not tally.failures
    client.feed(client.expected(100, 50)[:-1] + b"?")
    assert tally.counts["foreign bytes"] == 1
    server.feed(other[:4])
    assert tally.counts["foreign bytes"] > 1
    Stream(tally).feed(key)
    Stream(tally).feed(bytes(16))
    assert len(tally.failures) == 4


def test_a_forgotten_connection_lost_is_reported(monkeypatch):
    from asyncloop import new_event_loop

    from . import soak as module

    lost = module.Watched.lost
    calls = iter(range(1 << 30))
    monkeypatch.setattr(
        module.Watched, "lost", lambda self: None if next(calls) == 10 else lost(self)
    )
    monkeypatch.setattr(module, "HANG", 1)
    tally = soak(new_event_loop, seconds=0.5, seed=1, workers=4)
    assert any("connections made" in failure for failure in tally.failures)
