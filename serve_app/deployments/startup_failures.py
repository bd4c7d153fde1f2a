"""Why a replica cannot start, from the replica to the command line that started the service.

Serve retries a constructor that failed and knows its traceback only. The reason in one sentence goes through the
key-value store of the cluster's control service, and the command line prints it once for all replicas and tries.
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
    """Keeps the reason why ``what`` cannot start; a later one replaces it."""
    try:
        _internal_kv_put(_PREFIX + what.encode(), reason.encode())
    except Exception as error:
        logger.warning("the reason could not be passed on: %r", error)


def withdraw(what: str) -> None:
    """Removes the reason of ``what``, which has started after all."""
    try:
        _internal_kv_del(_PREFIX + what.encode())
    except Exception as error:
        logger.warning("an earlier reason could not be removed: %r", error)


def reported() -> dict[str, str]:
    """What cannot start, and why."""
    return {
        key.removeprefix(_PREFIX).decode(): (_internal_kv_get(key) or b"").decode()
        for key in sorted(_internal_kv_list(_PREFIX))
    }


def clear() -> None:
    """Forgets reasons of an earlier start on the same cluster."""
    _internal_kv_del(_PREFIX, del_by_prefix=True)
