"""SIGTERM and SIGINT as a request to stop, at any moment of a start or a service."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest(KeyboardInterrupt):
    """The service is to stop; no ``Exception``, so that nothing on the way takes it for an error."""


class StopSignals:
    """Raises ``StopRequest`` in the main thread at the first signal, and remembers it."""

    def __init__(self) -> None:
        """Begins to listen."""
        self.received = False
        self._is_deferred = False
        self.listen()

    def listen(self) -> None:
        """Takes the signals back from a library that has set handlers of its own.

        Raises:
            StopRequest: A signal came before, and what it raised was swallowed on its way.
        """
        for name in STOP_SIGNALS:
            signal.signal(name, self._handle)
        if self.received:
            raise StopRequest

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A part that must not be interrupted: a signal that comes in it raises ``StopRequest`` at its end."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.listen()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """A part in which a library sets handlers of its own: no signal reaches them, ours get it at the end.

        Threads and processes that start within never get one, unless they unblock it.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            yield
        finally:
            for name in STOP_SIGNALS:
                signal.signal(name, self._handle)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ignore(self) -> None:
        """Ends without being interrupted: one signal is enough."""
        for name in STOP_SIGNALS:
            signal.signal(name, signal.SIG_IGN)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.received = True
        if not self._is_deferred:
            self.ignore()
            raise StopRequest
