"""``python -m serve_app CONFIG``: ``serve run CONFIG`` that stops gently.

Left alone, Ctrl-C makes ``serve run`` stop its proxies first, and SIGTERM makes it kill its cluster; both
cut the requests in flight. Here either signal removes the applications first: their replicas answer what
they have, then everything stops.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partialmethod
from types import FrameType

# As in configs/serve.env, which explains it; for those who start without that file, the container among them.
HEAD_TIMEOUT = ("RAY_SERVE_HAPROXY_BALANCE_ALGORITHM", "leastconn\n    timeout http-request 10s")


def main(arguments: list[str]) -> None:
    """Starts a local Ray cluster (or joins ``RAY_ADDRESS``) and runs Serve's own command line on it."""
    os.environ.setdefault(*HEAD_TIMEOUT)  # first: Ray's processes inherit it
    import ray
    from ray.serve.scripts import cli

    _use_free_agent_port()
    ray.init(namespace="serve")  # first: it sets a SIGTERM handler of its own
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)
    cli(["run", *arguments], prog_name="serve")


def _use_free_agent_port() -> None:
    """Ray's agent listens on one fixed port, and without it runs no jobs: a second cluster of a machine needs another.

    ``ray start`` has an option for it, ``ray.init`` (Ray 2.60) has none.
    """
    from ray._private.parameter import RayParams
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", DEFAULT_DASHBOARD_AGENT_LISTEN_PORT))
        except OSError:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
            init = partialmethod(RayParams.__init__, dashboard_agent_listen_port=port)
            RayParams.__init__ = init  # type: ignore[method-assign,assignment]


def _stop(_signal: int, _frame: FrameType | None) -> None:
    from ray import serve

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)  # once is enough: stopping is not to be interrupted
    print("stopping: requests in flight are answered first", flush=True)
    for application in serve.status().applications:
        serve.delete(application)
    raise KeyboardInterrupt  # what `serve run` takes as its end


if __name__ == "__main__":
    main(sys.argv[1:])
