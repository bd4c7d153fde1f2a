"""How a service ends without a cut: its HTTP replicas close their doors and say when nobody is inside any more.

To delete the application first would not do: its route is gone at once, so that the proxy answers 404 to everybody for
as long as the last replies take, and what it had just passed on is lost. What has to be said goes through the
key-value store of the cluster's control service, which all processes know.
"""

from __future__ import annotations

import asyncio
import logging
import time

import ray
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
_LOOK_S = 0.5
_ALL_KNOW_S = 3 * _LOOK_S
_WAIT_S = 20.0  # in all; as long as Serve is told to wait for replicas that stop
_LAST_BYTES_S = 0.5  # from a replica's last word to the client, through the proxy


def stop_gently(deployment: str) -> None:
    """Has the replicas of the ingress refuse new requests, and waits until they have answered all others, or 20 s.

    Args:
        deployment: The ingress's name; applications without it are deleted, which answers what they have, too.
    """
    began = time.monotonic()
    _internal_kv_put(_STOP, str(time.time()).encode())
    others = {name for name, app in serve.status().applications.items() if deployment not in app.deployments}
    for name in others:
        serve.delete(name, _blocking=False)
    time.sleep(_ALL_KNOW_S)
    while _internal_kv_list(_BUSY) or others & serve.status().applications.keys():
        if time.monotonic() > began + _WAIT_S:
            break
        time.sleep(0.1)
    time.sleep(_LAST_BYTES_S)
    for key in (_STOP, _BUSY):  # the cluster may outlive the service
        _internal_kv_del(key, del_by_prefix=True)
    if _cluster_ends_with_us():
        release_jobs()


def _cluster_ends_with_us() -> bool:
    """Whether this process has started the cluster, and not joined it."""
    node = ray._private.worker._global_node  # no public way exists in Ray 2.60
    return node is not None and bool(node.is_head())


async def watch(door: DrainState) -> None:
    """In a replica of the ingress: closes its door when the service stops, and tells until nobody is inside."""
    known = said = await run_io(_word)
    while said in (known, None):
        await asyncio.sleep(_LOOK_S)
        said = await run_io(_word)
    me = _BUSY + serve.get_replica_context().replica_tag.encode()
    await run_io(_internal_kv_put, me, b"")
    await door.close()
    await run_io(_internal_kv_del, me)


def _word() -> bytes | None:
    """What was said about the end, if anything was; each end has a word of its own."""
    try:
        word: bytes | None = _internal_kv_get(_STOP)
    except Exception as error:  # the control service is away; that alone is no reason to stop
        logger.warning("whether the service stops can not be asked: %r", error)
        return None
    return word
