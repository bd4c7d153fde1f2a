"""Dense vectors of OpenAI's ``input`` and TEI's ``inputs``: texts, or token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from serve_app.api.dialects.text_or_ids_schemas import Inputs
from serve_app.api.inference_results import CallOptions, Embedded
from serve_app.api.route_services import Services
from serve_app.api.validated_texts import field_errors, listed_texts, require_at_most
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.profiles import TextRole
from serve_app.domain.request_limits import Limits

_IDS = 2**31


@dataclass(frozen=True)
class TokenIds:
    """Token ids of a request's texts, each of at least one."""

    rows: Sequence[Sequence[int]]
    name: Callable[[int], str]


async def embed_inputs(
    services: Services, inputs: Inputs, role: TextRole | None, options: CallOptions, *, field: str
) -> Embedded:
    """Dense vectors of one or several texts; token ids are used unchanged, whatever the role.

    Args:
        services: The inference service and the limits.
        inputs: A text, a list of texts, the ids of a text, or a list of such lists.
        role: Role of the texts; None for no prefix.
        options: Options of the call.
        field: Name of the field, for messages.

    Raises:
        InvalidInputError: None or too many, or a text that is blank, broken or over a limit.
    """
    if not are_ids(inputs):
        texts = listed_texts(cast("str | list[str]", inputs), services.limits, field=field)
        with field_errors(texts):
            return await services.inference.embed(texts.values, role, options)
    ids = await token_ids(cast("list[int] | list[list[int]]", inputs), services.limits, field=field)
    with field_errors(ids):
        return await services.inference.embed_ids(ids.rows, options)


async def token_ids(inputs: list[int] | list[list[int]], limits: Limits, *, field: str) -> TokenIds:
    """Checks the ids of a text, or a list of such lists.

    Raises:
        InvalidInputError: None, too many, or an invalid id.
    """
    if not inputs:
        raise InvalidInputError(f"{field}: must not be empty")
    _require_few(inputs, limits, field)
    return await asyncio.to_thread(_ids, inputs, limits, field)  # there may be millions


def are_ids(inputs: Inputs) -> bool:
    """True if the client has tokenised its texts."""
    return bool(inputs) and not isinstance(inputs, str) and not isinstance(inputs[0], str)


def _require_few(inputs: list[int] | list[list[int]], limits: Limits, field: str) -> None:
    """Raises ``InvalidInputError`` for more token ids than a request may have, before any of them is validated."""
    ids = sum(map(len, inputs)) if isinstance(inputs[0], list) else len(inputs)
    if ids > limits.max_request_tokens:
        raise InvalidInputError(
            f"{field}: {ids} token ids together, the limit is {limits.max_request_tokens}; send several requests"
        )


def _ids(inputs: list[int] | list[list[int]], limits: Limits, field: str) -> TokenIds:
    if not isinstance(inputs[0], list):
        _validate(inputs, field, limits)
        return TokenIds([inputs], lambda _: field)
    require_at_most(inputs, limits.max_items, field)
    for i, row in enumerate(inputs):
        _validate(row, f"{field}[{i}]", limits)
    return TokenIds(inputs, lambda i: f"{field}[{i}]")


def _validate(row: list[int], name: str, limits: Limits) -> None:
    """Validates number, type and bounds of token ids, which pydantic skips."""
    if not row:
        raise InvalidInputError(f"{name}: must not be empty")
    if len(row) > limits.max_text_chars:  # a token has a character at least
        raise InvalidInputError(f"{name}: {len(row)} token ids, the limit is {limits.max_text_chars}; split the text")
    if set(map(type, row)) == {int} and min(row) >= 0 and max(row) < _IDS:
        return
    i = next(i for i, id in enumerate(row) if type(id) is not int or not 0 <= id < _IDS)
    raise InvalidInputError(f"{name}[{i}]: input should be a token id, an integer from 0 to {_IDS - 1}")
