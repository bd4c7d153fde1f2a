"""The heartbeat of a training: it continues through slow steps and stops when the work hangs."""

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
    """Reports at once, and then periodically, that the work progresses, if it does.

    Steps of a large batch on a CPU, or the measuring of a large base, take longer than the service waits for a report.
    A thread of this process that is alive shows nothing: the working thread may wait forever for a device, another
    worker or a disk. So the working thread calls ``reporter.heartbeat``, and this one reports only if it did.

    Args:
        reporter: Of the job; if it is disabled there is no heartbeat.
        every_s: Seconds between two reports.
    """
    if not reporter.enabled:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while True:
            try:
                reporter.keep_alive()
            except OwnershipLostError as error:  # the working thread finds that out itself, if it ever progresses again
                logger.warning("%s", error)
                return
            except OSError:  # a full disk stops the training itself, if it lasts
                logger.warning("the heartbeat could not be written", exc_info=True)
            if over.wait(every_s):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
