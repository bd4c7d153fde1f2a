"""The graceful stop of a service: HTTP replicas refuse new requests and report when those in flight are answered.

Deleting the application first would remove its route at once: the proxy would answer 404 while the last replies are
written, and requests that it had just passed on would be lost. The launcher and the replicas exchange messages through
the key-value store of the cluster's control service, which every process can reach.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ray import serve
from ray.experimental.internal_kv import (  # no public way exists in Ray 2.60
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from serve_app.api.middleware.drain import DrainState
from serve_app.domain.executors import run_io
from serve_app.jobs.tracker import release_jobs

logger = logging.getLogger(__name__)

_STOP = b"retrieval-stop"
_BUSY = b"retrieval-busy:"
_POLL_S = 0.5
_ALL_INFORMED_S = 3 * _POLL_S
_WAIT_S = 20.0  # in all; equal to graceful_shutdown_timeout_s of the deployments
_LAST_BYTES_S = 0.5  # until the last bytes of a reply have passed the proxy


def stop_gracefully(ingress: str, *, owns_cluster: bool) -> None:
    """Makes the ingress refuse new requests, and waits at most 20 s until those in flight are answered.

    Args:
        ingress: Name of the deployment. Applications without it are deleted, which also answers requests in flight.
        owns_cluster: Whether this process has started the cluster, so that the service's jobs end with it.
    """
    began = time.monotonic()
    _internal_kv_put(_STOP, str(time.time()).encode())
    others = {name for name, app in serve.status().applications.items() if ingress not in app.deployments}
    for name in others:
        serve.delete(name, _blocking=False)
    time.sleep(_ALL_INFORMED_S)
    while _internal_kv_list(_BUSY) or others & serve.status().applications.keys():
        if time.monotonic() > began + _WAIT_S:
            break
        time.sleep(0.1)
    time.sleep(_LAST_BYTES_S)
    for key in (_STOP, _BUSY):  # the cluster may outlive the service
        _internal_kv_del(key, del_by_prefix=True)
    if owns_cluster:
        release_jobs()


async def drain_on_stop(drain: DrainState) -> None:
    """In a replica of the ingress: waits for the stop, then drains, and is listed as busy meanwhile."""
    before = current = await run_io(_stop_message)
    while current in (before, None):
        await asyncio.sleep(_POLL_S)
        current = await run_io(_stop_message)
    me = _BUSY + serve.get_replica_context().replica_tag.encode()
    await run_io(_internal_kv_put, me, b"")
    await drain.close()
    await run_io(_internal_kv_del, me)


def _stop_message() -> bytes | None:
    """The message of the current stop, if there is one; each stop has its own."""
    try:
        message: bytes | None = _internal_kv_get(_STOP)
    except Exception as error:  # the control service is unreachable; that alone is not a reason to stop
        logger.warning("cannot check whether the service stops: %r", error)
        return None
    return message
