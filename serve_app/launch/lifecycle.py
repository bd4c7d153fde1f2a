"""A service from the start of its Ray cluster to its end.

``serve run`` (Ray 2.60) waits for ever when an application cannot start, prints every attempt, and exits with status 0.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve._private import api as serve_api  # Serve has no public call that deploys a config
from ray.serve.config import gRPCOptions
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from serve_app.deployments import startup_failures
from serve_app.deployments.graceful_stop import stop_gracefully
from serve_app.launch.config import ConfigError, http_address
from serve_app.launch.failures import explain, startup_timeout
from serve_app.launch.ray_start import StartError, ray_sessions, start_ray
from serve_app.launch.signals import StopRequest, StopSignals

_POLL_S = 0.5
_STOP_S = 90.0  # for the whole stop; then the watchdog kills the rest
_INGRESS = "Ingress"


def run(config: Mapping[str, Any], signals: StopSignals, *, agent_port: int) -> int:
    """Serves until a stop signal.

    Args:
        config: A Serve config with valid settings.
        signals: Raise ``StopRequest``.
        agent_port: Port of Ray's agent on this node.

    Returns:
        The exit status.
    """
    deployed = owns_cluster = False
    try:
        schema = _schema(config)
        # a process that is half connected to its cluster aborts when it is interrupted
        with signals.deferred(), signals.held_back():
            owns_cluster = start_ray(config, agent_port)
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
            with suppress(Exception):  # a service that has not started completely has no requests in flight
                stop_gracefully(_INGRESS, owns_cluster=owns_cluster)
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
        raise StartError(startup_timeout(error, ray_sessions())) from error


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
    """Serve's messages of an application that failed, those of its deployments first."""
    for name, deployment in application.deployments.items():
        if "FAILED" in str(deployment.status) or "UNHEALTHY" in str(deployment.status):
            yield f"{name}: {deployment.message}"
    yield application.message


def _shut_down(deployed: bool) -> None:
    """Ends Serve and leaves or ends the cluster, without output: Ray reports every process that ends as an error."""
    limit = threading.Timer(_STOP_S, os._exit, (1,))
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
