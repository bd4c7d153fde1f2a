"""A signal is a request to stop, at any moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from serve_app.launch.signals import StopRequest, StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    yield StopSignals()
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_does_not_interrupt_the_stop(signals: StopSignals, name: int) -> None:
    with pytest.raises(StopRequest):
        os.kill(os.getpid(), name)
    for again in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), again)
    assert signals.received


def test_a_deferred_block_ends_before_the_signal_acts(signals: StopSignals) -> None:
    reached = []
    with pytest.raises(StopRequest), signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("the end")
    assert reached == ["the end"]


def test_a_signal_that_a_library_swallowed_acts_at_the_next_step(signals: StopSignals) -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a library does
    with pytest.raises(StopRequest):
        signals.listen()


def test_handlers_that_a_library_sets_meanwhile_get_no_signal(signals: StopSignals) -> None:
    reached = []
    with pytest.raises(StopRequest), signals.held_back():
        signal.signal(signal.SIGTERM, lambda *_: reached.append("the library"))
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # other tests have threads that would get it
        reached.append("the end")
    assert reached == ["the end"]
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_error_is_not_hidden_by_a_request(signals: StopSignals) -> None:
    with pytest.raises(ValueError, match="broken"), signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("broken")
