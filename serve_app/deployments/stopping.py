"""How a service ends without a cut: its HTTP replicas close their doors and say when nobody is inside any more.

To delete the application first would not do: its route is gone at once, so that the proxy answers 404 to everybody for as
long as the last replies take, and what it had just passed on is lost. What has to be said goes through the key-value
store of the cluster's control service, which all processes know.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ray import serve
from ray.experimental.internal_kv import (  # no public way exists in Ray 2.60
    _internal_kv_del,
    _internal_kv_exists,
    _internal_kv_list,
    _internal_kv_put,
)
from ray.serve.schema import ReplicaState

from serve_app.api.door import Door
from serve_app.deployments.turns import look_up

logger = logging.getLogger(__name__)

_PREFIX = b"retrieval-stop:"
_STOP = _PREFIX + b"now"
_EMPTY = _PREFIX + b"empty:"
_LOOK_S = 0.5
_WAIT_S = 20.0  # as long as Serve is told to wait for replicas that stop
_LAST_BYTES_S = 0.5  # from a replica's last word to the client, through the proxy


def forget_earlier_stop() -> None:
    """A cluster may outlive its services; to be called before one starts."""
    _internal_kv_del(_PREFIX, del_by_prefix=True)


def stop_gently(deployment: str) -> None:
    """Has the replicas of the ingress refuse new requests, and waits until they have answered all others, or 20 s.

    Args:
        deployment: The ingress's name; applications without it are deleted, which answers what they have, too.
    """
    replicas = 0
    for name, application in serve.status().applications.items():
        if deployment in application.deployments:
            replicas += application.deployments[deployment].replica_states.get(ReplicaState.RUNNING, 0)
        else:
            serve.delete(name)
    _internal_kv_put(_STOP, b"")
    until = time.monotonic() + _WAIT_S
    while len(_internal_kv_list(_EMPTY)) < replicas and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(_LAST_BYTES_S)


async def watch(door: Door) -> None:
    """In a replica of the ingress: closes its door when the service stops, and tells when nobody is inside."""
    while not await look_up(_is_stopping):
        await asyncio.sleep(_LOOK_S)
    door.is_closed = True
    while door.inside:
        await asyncio.sleep(0.05)
    await look_up(_internal_kv_put, _EMPTY + serve.get_replica_context().replica_tag.encode(), b"")


def _is_stopping() -> bool:
    try:
        return bool(_internal_kv_exists(_STOP))
    except Exception as error:  # the control service is away; that alone is no reason to stop
        logger.warning("whether the service stops can not be asked: %r", error)
        return False
