"""Where this node's HTTP proxy listens, as a replica can know it."""

from __future__ import annotations

import ipaddress
from typing import Any

from ray.serve.context import _get_global_client  # no public way exists in Ray 2.60


def base_url() -> str:
    """The address of this node's HTTP proxy, as Serve knows it."""
    near = "127.0.0.1" if host() in {"", "0.0.0.0", "::"} else host()
    return f"http://{near}:{_http_options().port}"


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
