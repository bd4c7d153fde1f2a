"""``python -m serve_app CONFIG``: serves until it is stopped, and cleans up however it ends.

``serve run`` stops its proxies first on Ctrl-C and kills its cluster on SIGTERM; both cut the requests in flight, and
a stop at the wrong moment leaves processes. Here either signal makes the HTTP replicas refuse new requests and answer
those in flight; then everything stops. Exit status: 0 when stopped by a signal, 1 when the
service cannot start, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serve_app.domain.files import PRIVATE_FOLDER
from serve_app.domain.service_namespace import SERVICE_VARIABLE
from serve_app.launch.isolated_ray_env import isolated_ray_env, without_overrides
from serve_app.launch.ports import reserve_block
from serve_app.launch.signals import StopRequest, StopSignals
from serve_app.launch.watchdog import Watchdog

_SHORT = "/tmp"  # Unix sockets go below it, and their paths have at most about a hundred bytes

# As in configs/serve.env, which explains both; for a start without that file, as in the container.
EDGE = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.api.middleware.edge.middlewares"}
HEAD_TIMEOUT = {"RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "leastconn\n    timeout http-request 10s"}

_DEFAULTS = {
    **EDGE,
    **HEAD_TIMEOUT,
    # A model that cannot start is tried twice; with Serve's default of three a wrong name takes a minute.
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "2",
    # Seconds for the start of Ray's control service, which a slow machine needs; Ray's default is 20.
    "RAY_gcs_server_port_wait_time_s": "120",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app",
        description="Serves the models of a config until Ctrl-C or SIGTERM.",
        epilog="Starts a Ray cluster on this machine, or joins the one that RAY_ADDRESS names.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a Serve config, such as serve_config.yaml")
    path: Path = parser.parse_args(arguments).config
    if not path.is_file():
        parser.exit(1, f"there is no file {path}; name a Serve config, such as serve_config.yaml\n")

    from serve_app.launch.config import ConfigError, read_config  # now: --help does not wait for pydantic

    try:
        config = read_config(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    os.umask(0o077)  # files of the service are private to its user
    signals = StopSignals()
    try:
        return _serve(config, signals)
    except StopRequest:  # the service has not started yet
        return 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def _serve(config: dict[str, Any], signals: StopSignals) -> int:
    """Runs the service in an isolated environment; when this returns, every process that it started has ended.

    Raises:
        OSError: The machine has no free ports, or a folder cannot be made.
    """
    if "RAY_TMPDIR" not in os.environ:
        os.environ["RAY_TMPDIR"] = str(private_ray_folder())
    ports = reserve_block()
    folder = Path(tempfile.mkdtemp(prefix="retrieval-", dir=_SHORT))
    watchdog = None
    try:
        service_id = secrets.token_hex(16)
        watchdog = Watchdog(f"{SERVICE_VARIABLE}={service_id}", [folder])
        os.environ.update(
            without_overrides(isolated_ray_env(folder, ports) | _DEFAULTS, os.environ), **{SERVICE_VARIABLE: service_id}
        )
        with signals.held_back():  # the threads of libraries must not receive a signal instead of this one
            from serve_app.launch.lifecycle import run  # now: Ray reads the environment when it is imported

        return run(config, signals, agent_port=ports.take())
    finally:
        signals.ignore()
        if watchdog is not None:
            watchdog.finish()
        shutil.rmtree(folder, ignore_errors=True)


def private_ray_folder(parent: Path = Path(_SHORT)) -> Path:
    """The folder of this user's Ray sessions, closed to other users, because Ray opens the folders below it to all.

    Raises:
        OSError: Another user owns it, or it is not a folder.
    """
    folder = parent / f"retrieval-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=PRIVATE_FOLDER)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(
            f"{folder} is not a folder, or belongs to another user; "
            "set RAY_TMPDIR to a folder of your own with a short path"
        )
    folder.chmod(PRIVATE_FOLDER)
    return folder
