"""``python -m serve_app CONFIG``: ``serve run CONFIG`` that stops gently and keeps to itself.

Left alone, Ctrl-C makes ``serve run`` stop its proxies first, and SIGTERM makes it kill its cluster; both
cut the requests in flight. Here either signal has the HTTP replicas refuse what is new and answer what they
have; then everything stops. Two services on one machine get ports of their own, and a port that is taken is
a complaint instead of a port that two programs share.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partialmethod
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from serve_app.apart import free_port, is_free, own_places, unset

_SHORT = "/tmp"  # a Unix socket goes below it, whose path has about a hundred bytes

# As in configs/serve.env, which explains it; for those who start without that file, the container among them.
EDGE = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.api.edge.middlewares"}
HEAD_TIMEOUT = {"RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "leastconn\n    timeout http-request 10s"}


def main(arguments: list[str]) -> None:
    """Starts a local Ray cluster (or joins ``RAY_ADDRESS``) and runs Serve's own command line on it."""
    with tempfile.TemporaryDirectory(prefix="retrieval-", dir=_SHORT, ignore_cleanup_errors=True) as folder:
        os.environ.update(unset(own_places(Path(folder)) | HEAD_TIMEOUT | EDGE, os.environ))
        _run(arguments)


def _run(arguments: list[str]) -> None:
    from ray.serve.scripts import cli  # now: Ray reads the environment when it is imported

    _use_free_agent_port()
    _start_ray(arguments)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)  # now: Ray sets a handler of its own
    cli(["run", *arguments], prog_name="serve")


def _start_ray(arguments: Sequence[str]) -> None:
    """Joins or starts a cluster; none is started if the port is taken, unless there is one to join.

    HAProxy would share the port with whoever has it, and each would get a part of the requests.
    """
    import ray
    from ray import serve
    from ray._private.services import canonicalize_bootstrap_address  # no public way exists in Ray 2.60

    port = _taken_port(arguments)
    # None is what Ray itself asks with, whatever its annotation says
    if port is not None and canonicalize_bootstrap_address(None) is None:  # type: ignore[arg-type]
        _refuse(port)
    ray.init(namespace="serve")
    if port is not None and not serve.status().proxies:  # one that serves already has its own port
        _ignore_signals()  # Ray takes seconds to end
        _refuse(port)


def _refuse(port: int) -> NoReturn:
    sys.exit(
        f"port {port} is used by another program, perhaps by another copy of this service: "
        "stop that, or choose another port in the config (http_options: {port: ...})"
    )


def _use_free_agent_port() -> None:
    """Ray's agent listens on one fixed port, and without it runs no jobs: a second cluster of a machine needs another.

    ``ray start`` has an option for it, ``ray.init`` (Ray 2.60) has none.
    """
    from ray._private.parameter import RayParams
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

    if not is_free(DEFAULT_DASHBOARD_AGENT_LISTEN_PORT):
        init = partialmethod(RayParams.__init__, dashboard_agent_listen_port=free_port())
        RayParams.__init__ = init  # type: ignore[method-assign,assignment]


def _taken_port(arguments: Sequence[str]) -> int | None:
    http = http_options(arguments)
    host, port = str(http.get("host") or "127.0.0.1"), int(http.get("port") or 8000)
    return port if ":" not in host and not is_free(port, "" if host == "0.0.0.0" else host) else None


def http_options(arguments: Sequence[str]) -> dict[str, Any]:
    """``http_options`` of the config among the arguments; empty where there is none: Serve says what is wrong."""
    import yaml

    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            try:
                config = yaml.safe_load(Path(argument).read_text())
            except (OSError, ValueError, yaml.YAMLError):
                continue
            options = config.get("http_options") if isinstance(config, dict) else None
            return options if isinstance(options, dict) else {}
    return {}


def _ignore_signals() -> None:
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    from serve_app.deployments.stopping import stop_gently

    _ignore_signals()  # once is enough: stopping is not to be interrupted
    print("stopping: requests in flight are answered first", flush=True)
    stop_gently("Ingress")
    raise KeyboardInterrupt  # what `serve run` takes as its end


if __name__ == "__main__":
    main(sys.argv[1:])
