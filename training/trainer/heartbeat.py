"""Signs of life: what is slow must not be taken for dead, nor what hangs for slow."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from training.reporting import Reporter
from training.training_errors import OwnershipLostError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_BEATS = 60.0


@contextmanager
def heartbeat(reporter: Reporter, *, every_s: float = SECONDS_BETWEEN_BEATS) -> Iterator[None]:
    """Has the reporter say at once and then now and then that the work moves, if it does.

    Steps of a large batch on a CPU, or the measuring of a large base, take longer than the service listens to
    silence. That a thread of this process lives shows nothing: the one that works may wait for a device, another worker
    or a disk that never answers.

    Args:
        reporter: Says it, unless it is that of a worker that says nothing; whoever works tells it.
        every_s: Seconds between two signs.
    """
    if not reporter.enabled:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while True:
            try:
                reporter.keep_alive()
            except OwnershipLostError as error:  # the work finds that out itself, if it ever moves again
                logger.warning("%s", error)
                return
            except OSError:  # a full disk stops the training itself, if it lasts
                logger.warning("no sign of life could be written", exc_info=True)
            if over.wait(every_s):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
