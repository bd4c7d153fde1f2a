"""Logs and messages for the operator.

Ray Serve writes a replica's log to a file and not to the terminal. Our loggers write to that file (in its format, JSON
or text, with the request id), errors also go to the terminal of ``serve run``, and the file is flushed every second:
Serve's fast settings buffer a thousand lines.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.deployments.startup_failures import report, withdraw
from serve_app.domain.background import BackgroundTasks
from serve_app.domain.errors import ServiceError
from serve_app.domain.service_namespace import SERVICE_VARIABLE

_SERVE = logging.getLogger("ray.serve")
_FLUSH_S = 1.0


def print_to_terminal(text: str) -> None:
    """Prints to the terminal of ``serve run``; a replica's own ``print`` goes to its log file."""
    terminal = sys.__stdout__
    if terminal is not None:
        terminal.write(text + "\n")
        terminal.flush()


def join_serve_log() -> None:
    """Sends this package's log records to the replica's log, and errors also to the terminal."""
    ours = logging.getLogger("serve_app")
    if ours.parent is _SERVE:
        return
    ours.parent = _SERVE
    terminal = logging.StreamHandler(sys.__stderr__)
    terminal.setLevel(logging.ERROR)
    terminal.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    ours.addHandler(terminal)


def start_log_flush(tasks: BackgroundTasks) -> None:
    """Starts to flush the replica's log every second."""
    tasks.every("log", _FLUSH_S, _flush_log)


def _flush_log() -> None:
    for handler in _SERVE.handlers:
        handler.flush()


@contextmanager
def log_startup_failure(what: str, *, is_last: bool = False) -> Iterator[None]:
    """Reports in one line why ``what`` cannot start; Serve reports only a traceback.

    The line goes to the command that started the service, which prints it once for all attempts and replicas; without
    that command (``serve run``, KubeRay) to the terminal.

    Args:
        what: The replica, as in "the encoder of 'NAME'".
        is_last: Whether the replica has started when the block ends; that withdraws the reason of an earlier attempt.
    """
    join_serve_log()
    try:
        yield
    except Exception as error:
        reason = error.message if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
        report(what, reason)
        level = logging.WARNING if SERVICE_VARIABLE in os.environ else logging.ERROR
        logging.getLogger(__name__).log(level, "%s cannot start: %s", what, reason)
        raise
    if is_last:
        withdraw(what)
