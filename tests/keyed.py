"""The service that is tested as if strangers could reach it: its API keys, and how long it waits for slow clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serve_app.security.api_keys import ApiKey, Scope, sha256_of

USE = "rk_use-nT0hC1qv8mXyPz4s"
ADMIN = "rk_admin-Vb7eR2kUj5wGd9aL"
FEW_REQUESTS = "rk_requests-Qo6fI3xJt1ZcM8yE"
FEW_TOKENS = "rk_tokens-Hs4uK9pWn2BrD7vA"
UNKNOWN = "rk_unknown-Yg5lS0iOa3FmX6tN"

HEAD_S, BODY_S = 4, 4  # until the head of a request is there, and the body
SILENT_S = 2  # without a byte from a client that has some to send

REQUESTS_PER_MINUTE = 60
TOKENS_PER_MINUTE = 6000

KEYS: Mapping[str, ApiKey] = {
    USE: ApiKey("search", sha256_of(USE)),
    ADMIN: ApiKey("ops", sha256_of(ADMIN), Scope.ADMIN),
    FEW_REQUESTS: ApiKey("few-requests", sha256_of(FEW_REQUESTS), requests_per_minute=REQUESTS_PER_MINUTE),
    FEW_TOKENS: ApiKey("few-tokens", sha256_of(FEW_TOKENS), tokens_per_minute=TOKENS_PER_MINUTE),
}


def bearer(key: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {key}"}


def write_keys(file: Path) -> None:
    """The file of keys that the service reads."""
    lines = (
        f"{key.name}:{key.sha256}:{key.scope}:{key.requests_per_minute or ''}:{key.tokens_per_minute or ''}\n"
        for key in KEYS.values()
    )
    file.write_text("".join(lines))
