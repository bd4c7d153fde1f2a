"""Reasons why replicas cannot start, passed from a replica to the command that started the service.

Serve retries a constructor that failed and reports only its traceback. The reason in one sentence is stored in the
key-value store of the cluster's control service, and the command prints it once for all replicas and attempts.
"""

from __future__ import annotations

import logging

from ray.experimental.internal_kv import (  # no public way exists in Ray 2.60
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

logger = logging.getLogger(__name__)

_PREFIX = b"retrieval-cannot-start:"


def report(what: str, reason: str) -> None:
    """Stores the reason why ``what`` cannot start; a later one replaces it."""
    try:
        _internal_kv_put(_PREFIX + what.encode(), reason.encode())
    except Exception as error:
        logger.warning("the reason could not be passed on: %r", error)


def withdraw(what: str) -> None:
    """Removes the reason of ``what``, which has started."""
    try:
        _internal_kv_del(_PREFIX + what.encode())
    except Exception as error:
        logger.warning("an earlier reason could not be removed: %r", error)


def reported() -> dict[str, str]:
    """The reason for each replica that cannot start."""
    return {
        key.removeprefix(_PREFIX).decode(): (_internal_kv_get(key) or b"").decode()
        for key in sorted(_internal_kv_list(_PREFIX))
    }


def clear() -> None:
    """Removes the reasons of an earlier start on the same cluster."""
    _internal_kv_del(_PREFIX, del_by_prefix=True)
