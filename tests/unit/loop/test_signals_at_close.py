"""The signal handlers that are left when a loop is closed: they go last, as with asyncio."""

import signal

import pytest


@pytest.fixture(autouse=True)
def restored():
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    signal.set_wakeup_fd(-1)
    for sig, handler in before.items():
        signal.signal(sig, handler)


def test_overridden_removal_finds_a_closed_loop(impl):
    seen = []

    class Loop(impl.Loop):
        def remove_signal_handler(self, sig):
            seen.append((sig, self.is_closed()))
            return super().remove_signal_handler(sig)

    loop = Loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.close()
    assert seen == [(signal.SIGUSR1, True), (signal.SIGUSR2, True)]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_removal_that_raises_goes_on_with_the_next_close(impl):
    class Loop(impl.Loop):
        def remove_signal_handler(self, sig):
            super().remove_signal_handler(sig)
            raise KeyError(sig)

    loop = Loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGUSR2, print)
    for sig in (signal.SIGUSR1, signal.SIGUSR2):
        with pytest.raises(KeyError, match=str(sig.value)):
            loop.close()
        assert loop.is_closed()
    loop.close()
    assert signal.set_wakeup_fd(-1) == -1
