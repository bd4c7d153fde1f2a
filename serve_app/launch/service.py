"""A service from the start of its Ray cluster to its end.

``serve run`` (Ray 2.60) waits for ever when an application cannot start, shows every try, and ends with status 0.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partialmethod
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray._private.parameter import RayParams
from ray._private.services import canonicalize_bootstrap_address  # no public way exists in Ray 2.60
from ray.serve._private import api as serve_api
from ray.serve.config import gRPCOptions
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from serve_app.deployments import startup_failures
from serve_app.deployments.graceful_stop import stop_gently
from serve_app.domain.files import PRIVATE_FILE
from serve_app.launch.config import ConfigError, http_address
from serve_app.launch.failures import explain, startup_timeout
from serve_app.launch.ports import bind_error
from serve_app.launch.signals import STOP_SIGNALS, StopRequest, StopSignals

_POLL_S = 0.5
_STOP_S = 90.0  # for all of the stop; what is left then is killed
_INGRESS = "Ingress"


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


def run(config: Mapping[str, Any], signals: StopSignals, *, agent_port: int) -> int:
    """Serves until a signal comes.

    Args:
        config: A Serve config whose own settings are valid.
        signals: Raise ``StopRequest``.
        agent_port: For Ray's agent of this node.

    Returns:
        The exit status.
    """
    deployed = False
    try:
        schema = _schema(config)
        # a process that is half connected to its cluster aborts when it is interrupted
        with signals.deferred(), signals.held_back():
            _start_ray(config, agent_port)
        deployed = True
        _deploy(schema)
        _wait_until_running({app.name for app in schema.applications})
        while True:
            time.sleep(3600)
    except (ConfigError, StartError) as error:
        signals.ignore()
        print(error, file=sys.stderr, flush=True)
        return 1
    except StopRequest:
        if deployed:
            print("stopping: requests in flight are answered first", flush=True)
            with suppress(Exception):  # a service that is only half there has no requests in flight
                stop_gently(_INGRESS)
        return 0
    finally:
        signals.ignore()
        _shut_down(deployed)


def _schema(config: Mapping[str, Any]) -> ServeDeploySchema:
    """The config as Serve reads it, with the address of ``http_address``: Serve's own default is every interface.

    Raises:
        ConfigError: Serve cannot read it.
    """
    try:
        schema = ServeDeploySchema.model_validate(dict(config))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        lines = (
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults
        )
        raise ConfigError("the config is not one of Ray Serve:\n" + "\n".join(lines)) from None
    schema.http_options.host, schema.http_options.port = http_address(config)
    return schema


def _start_ray(config: Mapping[str, Any], agent_port: int) -> None:
    """Joins or starts a cluster; none is started if the port is taken, unless there is one to join.

    HAProxy would share the port with the program that has it, and each would get a part of the requests.

    Raises:
        StartError: The port is taken, or Ray does not start.
    """
    host, port = http_address(config)
    is_taken = _is_taken(host, port)
    # None is what Ray itself asks with, whatever its annotation says
    joins = canonicalize_bootstrap_address(None) is not None  # type: ignore[arg-type]
    if is_taken and not joins:
        raise _port_taken(port)
    if not joins:
        _set_agent_port(agent_port)
    _keep_signals_from_ray()
    try:
        ray.init(namespace="serve")
    except Exception as error:
        raise StartError(startup_timeout(error, _sessions())) from error
    if not joins:
        _close_token_to_other_users()
    if is_taken and not serve.status().proxies:  # one that serves already has its own port
        raise _port_taken(port)


def _is_taken(host: str, port: int) -> bool:
    """Whether another program listens on the service's port.

    Raises:
        StartError: Nobody can listen there.
    """
    error = None if ":" in host else bind_error(port, "" if host == "0.0.0.0" else host)
    if error is None or error.errno == errno.EADDRINUSE:
        return error is not None
    raise StartError(
        f"the service cannot listen on {host}, port {port} ({error.strerror}): correct http_options in the config; "
        "the host is an address of this machine or 0.0.0.0"
    )


def _sessions() -> Path:
    return Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray"


def _port_taken(port: int) -> StartError:
    return StartError(
        f"port {port} is used by another program, perhaps by another copy of this service: "
        "stop that, or choose another port in the config (http_options: {port: ...})"
    )


def _set_agent_port(port: int) -> None:
    """Ray's agent has one fixed port, in the range of outgoing connections, and without it Ray runs no jobs.

    ``ray start`` has an option for it, ``ray.init`` (Ray 2.60) has none.
    """
    init = partialmethod(RayParams.__init__, dashboard_agent_listen_port=port)
    RayParams.__init__ = init  # type: ignore[method-assign,assignment]


def _keep_signals_from_ray() -> None:
    """Signals are blocked while Ray starts, because the handlers of its core worker abort the process.

    The processes that it starts must get them all the same, and must not inherit that.
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
    """Ray's token lets its holder run code in the cluster, and Ray leaves it readable."""
    with suppress(OSError, RuntimeError):
        Path("~/.ray/auth_token").expanduser().chmod(PRIVATE_FILE)


def _deploy(schema: ServeDeploySchema) -> None:
    """Starts Serve and has it start the applications.

    Raises:
        StartError: Serve does not start.
    """
    try:
        startup_failures.clear()
        client = serve_api.serve_start(
            http_options=schema.http_options.model_dump(),
            proxy_location=schema.proxy_location,
            grpc_options=gRPCOptions(**schema.grpc_options.model_dump()),
            controller_options=schema.controller_options,
        )
        client.deploy_apps(schema, _blocking=False)
    except Exception as error:
        raise StartError(startup_timeout(error, _sessions())) from error


def _wait_until_running(applications: set[str]) -> None:
    """Returns when all applications run.

    Raises:
        StartError: One cannot start.
    """
    while True:
        with suppress(ray.exceptions.RayError, TimeoutError):
            found = {name: app for name, app in serve.status().applications.items() if name in applications}
            if any(app.status == ApplicationStatus.DEPLOY_FAILED for app in found.values()):
                messages = [message for app in found.values() for message in _messages(app)]
                raise StartError(explain(startup_failures.reported(), messages))
            if len(found) == len(applications) and all(
                app.status == ApplicationStatus.RUNNING for app in found.values()
            ):
                return
        time.sleep(_POLL_S)


def _messages(application: Any) -> Iterator[str]:
    """What Serve says of an application that failed, its deployments first."""
    for name, deployment in application.deployments.items():
        if "FAILED" in str(deployment.status) or "UNHEALTHY" in str(deployment.status):
            yield f"{name}: {deployment.message}"
    yield application.message


def _shut_down(deployed: bool) -> None:
    """Ends Serve and leaves or ends the cluster, quietly: Ray tells every process that goes as an error."""
    limit = threading.Timer(_STOP_S, os._exit, (1,))  # the watchdog does the rest
    limit.daemon = True
    limit.start()
    with _quiet():
        if deployed:
            with suppress(Exception):
                serve.shutdown()
        with suppress(Exception):
            ray.shutdown()
    limit.cancel()


@contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
