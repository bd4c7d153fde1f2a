"""``python -m serve_app CONFIG``: serves until it is stopped, and leaves nothing behind however it ends.

Left alone, Ctrl-C makes ``serve run`` stop its proxies first, and SIGTERM makes it kill its cluster; both cut the
requests in flight, and an end at the wrong moment leaves processes. Here either signal has the HTTP replicas refuse
what is new and answer what they have; then everything stops. Exit status: 0 when stopped by a signal, 1 when the
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

_SHORT = "/tmp"  # a Unix socket goes below it, whose path has about a hundred bytes

# As in configs/serve.env, which explains both; for those who start without that file, the container among them.
EDGE = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.api.middleware.edge.middlewares"}
HEAD_TIMEOUT = {"RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "leastconn\n    timeout http-request 10s"}

_DEFAULTS = {
    **EDGE,
    **HEAD_TIMEOUT,
    # A model that cannot start is tried twice; Serve's own three times make a mistake in a name take a minute.
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "2",
    # Seconds that a slow machine has to start Ray's control service; Ray's own are 20.
    "RAY_gcs_server_port_wait_time_s": "120",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app",
        description="Serves what a config says, until Ctrl-C or SIGTERM.",
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
    os.umask(0o077)  # what the service writes is its user's alone
    signals = StopSignals()
    try:
        return _serve(config, signals)
    except StopRequest:  # nothing serves yet
        return 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def _serve(config: dict[str, Any], signals: StopSignals) -> int:
    """Runs the service in an environment of its own; whatever it has started is gone when this returns.

    Raises:
        OSError: There is no room for it on this machine: ports, folders.
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
        with signals.held_back():  # the threads of libraries must not get a signal in the place of this one
            from serve_app.launch.service import run  # now: Ray reads the environment when it is imported

        return run(config, signals, agent_port=ports.take())
    finally:
        signals.ignore()
        if watchdog is not None:
            watchdog.finish()
        shutil.rmtree(folder, ignore_errors=True)


def private_ray_folder(parent: Path = Path(_SHORT)) -> Path:
    """The folder of this user's Ray sessions, closed to other users: Ray itself opens what is below it to everybody.

    Raises:
        OSError: Another user has made it, or it is not a folder.
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
