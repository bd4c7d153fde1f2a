"""Where this node's HTTP proxy listens, as a replica can know it."""

from __future__ import annotations

import ipaddress
from typing import Any

import ray
from ray.serve.context import _get_global_client  # no public way exists in Ray 2.60

_ALL = {"", "0.0.0.0", "::"}


def base_url() -> str:
    """The address at which this machine itself reaches its HTTP proxy."""
    return _url("127.0.0.1" if host() in _ALL else host())


def network_url() -> str | None:
    """The address at which other machines reach this node's HTTP proxy; None if only this machine does."""
    reachable = node_ip() if host() in _ALL else host()
    return None if is_loopback(reachable) else _url(reachable)


def node_ip() -> str:
    """The address that the other nodes of the cluster know this one by."""
    return str(ray.util.get_node_ip_address())


def _url(host: str) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{_http_options().port}"


def host() -> str:
    """The address that this node's HTTP proxy listens on; empty for all."""
    return _http_options().host or ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _http_options() -> Any:  # ray.serve.config.HTTPOptions
    client = _get_global_client()
    assert client is not None, "only a replica knows the address"
    return client.http_config
