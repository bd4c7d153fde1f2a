"""How long a request may take: the configured time, or less if the client says so."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Header

from serve_app.domain.errors import InvalidInputError
from serve_app.domain.limits import Limits

TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
_MARGIN_S = 0.1  # Ray Serve reads the same header; we answer first, with a body that says what happened

TimeoutHeader = Annotated[
    str | None,
    Header(alias=TIMEOUT_HEADER, description="Seconds this client will wait; may only lower the configured limit."),
]


def timeout_s(header: str | None, limits: Limits) -> float:
    """Seconds until the request's deadline.

    Raises:
        InvalidInputError: The header is not a positive number.
    """
    if header is None:
        return limits.request_timeout_s
    try:
        wanted = float(header)
    except ValueError:
        wanted = math.nan
    if not wanted > 0:
        raise InvalidInputError(f"header {TIMEOUT_HEADER}: must be a positive number of seconds")
    return min(wanted - min(_MARGIN_S, wanted / 10), limits.request_timeout_s)
