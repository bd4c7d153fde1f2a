"""What a request says beside its texts: model, truncation, and how long it may take."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Header

from serve_app.api.dialects.strict_request import EncodingOptions
from serve_app.api.dialects.tolerant_options import TolerantOptions
from serve_app.api.encoding.quantize import require_no_more
from serve_app.api.service import ServiceProtocol
from serve_app.api.service_results import CallOptions, Use
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import Limits

TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
_SHORTEST_S = 0.01  # in less there is no time to answer before Ray Serve does
_MARGIN_S = 0.1  # Ray Serve reads the same header; we answer first, with a body that says what happened

TimeoutHeader = Annotated[
    str | None,
    Header(alias=TIMEOUT_HEADER, description="Seconds this client will wait; may only lower the configured limit."),
]


def options_of(request: EncodingOptions, header: str | None, limits: Limits) -> CallOptions:
    """The options of a request for the gateway.

    Raises:
        InvalidInputError: The timeout header is not a positive number.
    """
    return CallOptions(
        request.model,
        request.truncate,
        timeout_s(header, limits),
        stated_timeout_s=stated_timeout_s(header, limits),
    )


def tolerant_options(
    request: TolerantOptions, header: str | None, limits: Limits, *, truncate: bool = True
) -> CallOptions:
    """The options of a request of another service's client.

    Args:
        request: What it says of truncation.
        header: See ``timeout_s``.
        limits: Of a request.
        truncate: Whether texts over their limit are cut where the request says nothing of it.

    Raises:
        InvalidInputError: The timeout header is not a positive number.
    """
    if request.truncate is not None:
        truncate = request.truncate != "NONE"
    elif request.max_tokens is not None:
        truncate = True
    return CallOptions(
        request.model,
        truncate,
        timeout_s(header, limits),
        max_tokens=request.max_tokens,
        keep_end=request.truncate == "START" or request.truncation_direction == "left",
        keep_prefix=True,
        stated_timeout_s=stated_timeout_s(header, limits),
    )


async def known_name(gateway: ServiceProtocol, options: CallOptions, use: Use) -> str:
    """The model of a request without texts: empty if none is named, and never a name that is not served.

    Raises:
        ModelNotFoundError: No served model has this name.
        CapabilityError: It is served for something else.
    """
    return "" if options.model is None else (await gateway.find(options.model, use)).name


async def validate_dimensions(
    gateway: ServiceProtocol, options: CallOptions, dimensions: int | None, *, field: str = "dimensions"
) -> None:
    """Makes sure that a model has as many dimensions as a client wants, before anything is computed.

    Raises:
        InvalidInputError: It has fewer.
    """
    if dimensions is not None:
        require_no_more(dimensions, (await gateway.find(options.model, "embed")).dimension, field=field)


def timeout_s(header: str | None, limits: Limits) -> float:
    """Seconds until the request's deadline.

    Raises:
        InvalidInputError: The header is not a positive number.
    """
    wanted = _wanted_s(header)
    return min(wanted - min(_MARGIN_S, wanted / 10), limits.request_timeout_s)


def stated_timeout_s(header: str | None, limits: Limits) -> float:
    """The same seconds as the client or the configuration states them, for messages.

    Raises:
        InvalidInputError: The header is not a positive number.
    """
    return min(_wanted_s(header), limits.request_timeout_s)


def _wanted_s(header: str | None) -> float:
    if header is None:
        return math.inf
    try:
        wanted = float(header)
    except ValueError:
        wanted = math.nan
    if not wanted >= _SHORTEST_S:
        raise InvalidInputError(f"header {TIMEOUT_HEADER}: must be a number of seconds, at least {_SHORTEST_S}")
    return wanted
