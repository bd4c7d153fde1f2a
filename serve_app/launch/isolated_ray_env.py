"""Environment variables that give a service its own ports and files instead of the fixed ones of Ray Serve.

By default every cluster counts the ports of its ingress replicas from 30,000, has its fallback proxy on 8500 and
HAProxy's files in one folder. The ports may be shared (``SO_REUSEPORT``), so each of two services would answer a part
of the other's requests. Ray's modules read these variables when they are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serve_app.launch.ports import PortBlock

_INGRESS_PORTS = 200  # for the HTTP replicas on this machine; a restarted replica takes another port


def isolated_ray_env(folder: Path, ports: PortBlock) -> dict[str, str]:
    """Variables that isolate a service; the process that starts Ray must have them.

    Args:
        folder: Folder of HAProxy's files, with a short path: that of a Unix socket has at most about a hundred bytes.
        ports: Block of ports; the process that reserved it must live as long as the service.
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


def without_overrides(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that an environment does not define yet; the operator's values stay."""
    return {name: value for name, value in variables.items() if name not in environment}
