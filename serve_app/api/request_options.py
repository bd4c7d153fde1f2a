"""Call options from the fields and headers of a request: model, truncation, timeout."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Header

from serve_app.api.dialects.strict_request import EncodingOptions
from serve_app.api.dialects.tolerant_options import TolerantOptions
from serve_app.api.encoding.quantize import require_dimensions
from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.inference_results import CallOptions, Use
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import Limits

TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
_SHORTEST_S = 0.01  # below this, Ray Serve would answer first
_MARGIN_S = 0.1  # Ray Serve reads the same header; the service answers first, with its own error body

TimeoutHeader = Annotated[
    str | None,
    Header(alias=TIMEOUT_HEADER, description="Seconds until the deadline; can only lower the configured limit."),
]


def options_of(request: EncodingOptions, header: str | None, limits: Limits) -> CallOptions:
    """The call options of a native request.

    Raises:
        InvalidInputError: The timeout header is not a positive number.
    """
    return CallOptions(
        request.model, request.truncate, timeout_s(header, limits), stated_timeout_s=stated_timeout_s(header, limits)
    )


def tolerant_options(
    request: TolerantOptions, header: str | None, limits: Limits, *, truncate: bool = True
) -> CallOptions:
    """The call options of a tolerant request.

    Args:
        request: The request's model and truncation.
        header: See ``timeout_s``.
        limits: Limits of a request.
        truncate: Cut texts over their limit if the request does not specify it.

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


async def known_name(inference: InferenceProtocol, options: CallOptions, use: Use) -> str:
    """The served name of the model of a request without texts; empty if the request names none.

    Raises:
        ModelNotFoundError: No served model has this name.
        CapabilityError: The model is not configured for this use.
    """
    return "" if options.model is None else (await inference.find(options.model, use)).name


async def validate_dimensions(
    inference: InferenceProtocol, options: CallOptions, dimensions: int | None, *, field: str = "dimensions"
) -> None:
    """Validates the requested number of dimensions before anything is computed.

    Raises:
        InvalidInputError: The model has fewer.
    """
    if dimensions is not None:
        require_dimensions(dimensions, (await inference.find(options.model, "embed")).dimension, field=field)


def timeout_s(header: str | None, limits: Limits) -> float:
    """Seconds until the request's deadline.

    Raises:
        InvalidInputError: The header is not a positive number.
    """
    requested = _requested_s(header)
    return min(requested - min(_MARGIN_S, requested / 10), limits.request_timeout_s)


def stated_timeout_s(header: str | None, limits: Limits) -> float:
    """The seconds of ``timeout_s`` without the margin, for error messages.

    Raises:
        InvalidInputError: The header is not a positive number.
    """
    return min(_requested_s(header), limits.request_timeout_s)


def _requested_s(header: str | None) -> float:
    if header is None:
        return math.inf
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not seconds >= _SHORTEST_S:
        raise InvalidInputError(f"header {TIMEOUT_HEADER}: must be a number of seconds, at least {_SHORTEST_S}")
    return seconds
