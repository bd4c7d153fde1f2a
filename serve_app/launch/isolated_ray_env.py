"""Keeps two services of one machine apart: ports and files that Ray Serve has fixed, each service gets of its own.

Left alone, every cluster counts the ports of its ingress replicas from 30,000, has its fallback proxy on 8500 and its
HAProxy's files in one folder. The ports may be shared (``SO_REUSEPORT``), so each of two services would answer a part
of the other's requests. Knows no Ray: its modules read these variables when they are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serve_app.launch.ports import PortBlock

_INGRESS_PORTS = 200  # of the HTTP replicas on this machine; one that is restarted takes another port


def isolated_ray_env(folder: Path, ports: PortBlock) -> dict[str, str]:
    """Variables that give a service ports and files of its own; whoever starts Ray needs them.

    Args:
        folder: Where its files go; short, because the path of a Unix socket has about a hundred bytes.
        ports: Where its ports come from; the process that holds the block must live as long as the service.
    """
    first = ports.take(_INGRESS_PORTS)
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.take()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.take()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.take()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.take()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _INGRESS_PORTS - 1),
    }


def without_overrides(places: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that an environment does not have yet: what an operator has set stays."""
    return {name: value for name, value in places.items() if name not in environment}
