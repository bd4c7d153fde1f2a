"""Joining or starting the Ray cluster of a service, with clear errors, isolated ports and our own signal handlers."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray._private.parameter import RayParams
from ray._private.services import canonicalize_bootstrap_address  # ray.init(address="auto") joins any local cluster

from serve_app.domain.files import PRIVATE_FILE
from serve_app.launch.config import http_address
from serve_app.launch.failures import startup_timeout
from serve_app.launch.ports import bind_error
from serve_app.launch.signals import STOP_SIGNALS


class StartError(Exception):
    """The service cannot start; the message gives the reason and the next step."""


def start_ray(config: Mapping[str, Any], agent_port: int) -> bool:
    """Joins the cluster that the environment names, or starts one.

    No cluster is started if the service's port is taken: HAProxy would share the port with the program that has it, and
    each would get a part of the requests.

    Returns:
        Whether it has started a cluster, which then ends with this process.

    Raises:
        StartError: The port is taken, or Ray does not start.
    """
    host, port = http_address(config)
    is_taken = _is_taken(host, port)
    starts = canonicalize_bootstrap_address(None) is None  # type: ignore[arg-type]  # as ray.init() calls it
    if is_taken and starts:
        raise _port_taken(port)
    if starts:
        _set_agent_port(agent_port)
    _keep_signals_from_ray()
    try:
        ray.init(namespace="serve")
    except Exception as error:
        raise StartError(startup_timeout(error, ray_sessions())) from error
    if starts:
        _close_token_to_other_users()
    if is_taken and not serve.status().proxies:  # a Serve that already runs has its own port
        raise _port_taken(port)
    return starts


def ray_sessions() -> Path:
    """The folder of Ray's sessions."""
    return Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray"


def _is_taken(host: str, port: int) -> bool:
    """Whether another program listens on the service's port.

    Raises:
        StartError: No program can listen there.
    """
    error = None if ":" in host else bind_error(port, "" if host == "0.0.0.0" else host)
    if error is None or error.errno == errno.EADDRINUSE:
        return error is not None
    raise StartError(
        f"the service cannot listen on {host}, port {port} ({error.strerror}): correct http_options in the config; "
        "the host is an address of this machine or 0.0.0.0"
    )


def _port_taken(port: int) -> StartError:
    return StartError(
        f"port {port} is used by another program, perhaps by another copy of this service: "
        "stop that, or choose another port in the config (http_options: {port: ...})"
    )


def _set_agent_port(port: int) -> None:
    """Sets the port of Ray's agent, which Ray needs for jobs; the default is in the range of outgoing connections.

    Patched, because ``ray start`` has an option for it and ``ray.init`` (Ray 2.60) has none.
    """
    init = partialmethod(RayParams.__init__, dashboard_agent_listen_port=port)
    RayParams.__init__ = init  # type: ignore[method-assign,assignment]


def _keep_signals_from_ray() -> None:
    """Unblocks stop signals in the processes that Ray starts, and keeps Ray's own handler out of this one.

    This process blocks the signals while Ray starts, because the handlers of Ray's core worker abort it; children
    would inherit that. Patched, because Ray 2.60 has no option for either.
    """
    popen: Any = ray._private.services.ConsolePopen

    def popen_unblocked(*args: Any, preexec_fn: Callable[[], None] | None = None, **kwargs: Any) -> Any:
        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            if preexec_fn is not None:
                preexec_fn()

        return popen(*args, preexec_fn=prepare, **kwargs)

    ray._private.services.ConsolePopen = popen_unblocked  # type: ignore[misc,assignment]
    ray._private.utils.set_sigterm_handler = lambda _handler: None


def _close_token_to_other_users() -> None:
    """Makes Ray's token private: its holder can run code in the cluster, and Ray leaves it readable."""
    with suppress(OSError, RuntimeError):
        Path("~/.ray/auth_token").expanduser().chmod(PRIVATE_FILE)
