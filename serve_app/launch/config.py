"""Reads the Serve config before Ray is imported, so that a mistake is reported within a second.

Only our own arguments are validated here; Serve validates the rest of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serve_app.settings.service_settings import Settings

OUR_APPLICATION = "serve_app.app:build"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


class ConfigError(Exception):
    """The config cannot be used; the message names the change to make."""


def read_config(path: Path) -> dict[str, Any]:
    """Reads a Serve config and validates the arguments of our application.

    Raises:
        ConfigError: The file is missing or not a Serve config, or a setting is invalid.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; name a Serve config, such as serve_config.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("applications"), list):
        raise ConfigError(f"{path} is not a Serve config: it has no list 'applications' (see serve_config.yaml)")
    if not config["applications"]:
        raise ConfigError(f"{path}: 'applications' is empty; name at least one application (see serve_config.yaml)")
    if errors := [error for i, app in enumerate(config["applications"]) for error in _errors(i, app)]:
        raise ConfigError("\n".join(f"{path}: {error}" for error in errors))
    return config


def http_address(config: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port of the service.

    Raises:
        ConfigError: ``http_options`` is malformed.
    """
    options = config.get("http_options") or {}
    try:
        host, port = str(options.get("host") or DEFAULT_HOST), int(options.get("port") or DEFAULT_PORT)
    except (AttributeError, TypeError, ValueError):
        raise ConfigError("http_options must be a mapping such as {host: 127.0.0.1, port: 8000}") from None
    if not 0 < port < 2**16:
        raise ConfigError(f"http_options.port must be from 1 to 65535, not {port}")
    return host, port


def _errors(index: int, application: Any) -> Iterator[str]:
    if not isinstance(application, dict) or application.get("import_path") != OUR_APPLICATION:
        return  # Serve validates it
    args = application.get("args") or {}
    if not isinstance(args, dict):
        yield f"applications.{index}.args must be a mapping of settings"
        return
    try:
        Settings(**args)
    except TypeError as error:  # a key that is not a string
        yield f"applications.{index}.args: {error}"
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join(map(str, ("applications", index, "args", *fault["loc"])))
            yield f"{where}: {fault['msg'].removeprefix('Value error, ')}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
