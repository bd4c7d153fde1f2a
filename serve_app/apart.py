"""Keeps two services of one machine apart: ports and files that Ray Serve has fixed, each service gets of its own.

Left alone, every cluster counts the ports of its ingress replicas from 30,000, has its fallback proxy on 8500 and its
HAProxy's files in one folder. The ports may be shared (``SO_REUSEPORT``), so each of two services would answer a part
of the other's requests. Knows no Ray: its modules read these variables when they are imported.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

_INGRESS_PORTS = 200  # of the HTTP replicas on this machine; one that is restarted takes another port
_DRAWN_FROM = range(10_000, 30_000)  # below the ports that Linux gives to clients


def own_places(folder: Path) -> dict[str, str]:
    """Variables that give a service ports and files of its own; whoever starts Ray needs them.

    Args:
        folder: Where its files go; short, because the path of a Unix socket has about a hundred bytes.
    """
    first = free_ports(_INGRESS_PORTS)
    http, grpc, metrics, stats = (str(free_port()) for _ in range(4))
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": grpc,
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _INGRESS_PORTS - 1),
    }


def unset(places: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that an environment does not have yet: what an operator has set stays."""
    return {name: value for name, value in places.items() if name not in environment}


def is_free(port: int, host: str = "") -> bool:
    """Whether nobody listens on a port, not even somebody who would share it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody listens on; drawn, so that two who ask at once differ."""
    return next(first for first in _draws(count) if all(map(is_free, range(first, first + count))))


def _draws(count: int) -> Iterator[int]:
    while True:
        yield random.randrange(_DRAWN_FROM.start, _DRAWN_FROM.stop - count)
