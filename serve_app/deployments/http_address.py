"""The address of this node's HTTP proxy, as known in a replica."""

from __future__ import annotations

import ipaddress
from typing import Any

import ray
from ray.serve.context import _get_global_client  # no public way exists in Ray 2.60

_ALL = {"", "0.0.0.0", "::"}


def base_url() -> str:
    """The address of the HTTP proxy for this machine."""
    return _url("127.0.0.1" if host() in _ALL else host())


def network_url() -> str | None:
    """The address of the HTTP proxy for other machines; None if only this machine reaches it."""
    reachable = node_ip() if host() in _ALL else host()
    return None if is_loopback(reachable) else _url(reachable)


def node_ip() -> str:
    """The address of this node within the cluster."""
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
    assert client is not None, "the address is known in replicas only"
    return client.http_config
