"""Settings of access: API keys, allowed host names, and the web pages that may call the service from a browser.

A key itself is never a setting, so that none appears in a config or in Ray's dashboard: keys come hashed from a file,
or from the environment, and then only their hashes reach the replicas.
"""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, field_validator, model_validator

from serve_app.security.api_keys import ApiKey, KeyRing
from serve_app.security.key_file import keys_of_variable
from serve_app.settings.frozen_settings import FrozenSettings

KEYS_VARIABLE = "RETRIEVAL_API_KEYS"
FILE_VARIABLE = "RETRIEVAL_API_KEYS_FILE"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s*]+")
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class SecuritySettings(FrozenSettings):
    """Everything about access that an operator can set. By default no API key is required.

    The environment variable ``RETRIEVAL_API_KEYS`` holds keys, ``name:key[:scope[:requests[:tokens]]]`` between commas.
    It is for a quick start: every process of the service can read it. ``RETRIEVAL_API_KEYS_FILE`` wins over
    ``api_keys_file``. Keys of both places count. A variable of the two that is set but empty refuses to start.

    Attributes:
        api_keys_file: One ``name:sha256[:scope[:requests_per_minute[:tokens_per_minute]]]`` a line;
            ``python -m serve_app.keys`` writes them. Scope is ``use`` or ``admin`` (jobs, files, deleting
            models, too). On every node that runs an ingress replica; relative to the working directory. A change
            is seen within five seconds, without a restart.
        cors_origins: Origins of web pages that may call the service from a browser, such as
            ``https://app.example.com``; ``*`` for any. None by default.
        allowed_hosts: Host names under which clients may call the service, such as ``models.example.com``; ``*`` for
            any. Only a service that listens on this machine and requires no key checks them: it accepts addresses and
            ``localhost`` by itself, and no other name, since a web page can make its own name lead to this machine.
    """

    api_keys_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    _environment_keys: tuple[ApiKey, ...] = PrivateAttr(default=())

    @property
    def environment_keys(self) -> tuple[ApiKey, ...]:
        """Keys of ``RETRIEVAL_API_KEYS``, hashed."""
        return self._environment_keys

    @property
    def wants_keys(self) -> bool:
        """Whether a request needs an API key."""
        return self.api_keys_file is not None or bool(self._environment_keys)

    @model_validator(mode="before")
    @classmethod
    def _apply_environment(cls, values: Any) -> Any:
        file = os.environ.get(FILE_VARIABLE)
        if file is None or not isinstance(values, dict):
            return values
        _require_value(FILE_VARIABLE, file)
        return {**values, "api_keys_file": file}

    @field_validator("api_keys_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("cors_origins")
    @classmethod
    def _require_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; write one as browsers do: https://app.example.com, without a slash"
                )
        return origins

    @field_validator("allowed_hosts")
    @classmethod
    def _require_host_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if host != "*" and not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name; write models.example.com, without scheme and port")
        return tuple(host.lower() for host in hosts)

    @model_validator(mode="after")
    def _read_environment(self) -> "SecuritySettings":
        text = os.environ.get(KEYS_VARIABLE)
        if text is not None:
            _require_value(KEYS_VARIABLE, text)
            try:
                self._environment_keys = keys_of_variable(text)
                KeyRing(self._environment_keys)
            except ValueError as error:
                raise ValueError(f"{KEYS_VARIABLE}: {error}") from None
        return self


def _require_value(variable: str, value: str) -> None:
    """Raises ``ValueError`` for an empty variable: more often a failed substitution than a wish to require no key."""
    if not value.strip():
        raise ValueError(f"{variable} is set but empty; give it a value, or unset it to serve without its keys")
