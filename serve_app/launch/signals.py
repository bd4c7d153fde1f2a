"""SIGTERM and SIGINT as a request to stop, at any moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest(KeyboardInterrupt):
    """A request to stop the service; not an ``Exception``, so that no handler of errors catches it."""


class StopSignals:
    """Raises ``StopRequest`` in the main thread at the first signal, and remembers it."""

    def __init__(self) -> None:
        """Installs the handlers."""
        self.received = False
        self._is_deferred = False
        self.listen()

    def listen(self) -> None:
        """Reinstalls the handlers after a library has set its own.

        Raises:
            StopRequest: A signal came before, and its exception was swallowed.
        """
        for name in STOP_SIGNALS:
            signal.signal(name, self._handle)
        if self.received:
            raise StopRequest

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that must not be interrupted: a signal within it raises ``StopRequest`` at its end."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.listen()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """A block in which a library sets its own handlers: signals are blocked and reach ours at the end.

        Threads and processes that start within keep the signals blocked unless they unblock them.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            yield
        finally:
            for name in STOP_SIGNALS:
                signal.signal(name, self._handle)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ignore(self) -> None:
        """Ignores further signals, so that the stop is not interrupted."""
        for name in STOP_SIGNALS:
            signal.signal(name, signal.SIG_IGN)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.received = True
        if not self._is_deferred:
            self.ignore()
            raise StopRequest
