"""Parsing of a fine-tune request: reads the data and validates limits before anything is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from serve_app.api.dialects.native.fine_tune_schemas import FineTuneLoraRequest, FineTuneRequest, TrainingExample
from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.api.violations import describe_violations
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.domain.unicode import fold
from serve_app.jobs.pair_faults import wrong_field
from serve_app.jobs.training_pairs import Ignored, Pairs, parse_examples, parse_lines
from serve_app.jobs.training_spec import LoraSettings, TrainingKind


async def parse_fine_tune(request: FineTuneRequest, limits: FineTuneLimits) -> tuple[ParsedFineTune, Sequence[Ignored]]:
    """Validates a request and reads its data, in a thread: a million lines take seconds.

    Returns:
        The parsed request, and the ignored lines.

    Raises:
        InvalidInputError: A number over a limit, no data or two kinds of it, or no usable pairs.
    """
    validate_numbers(request, limits)
    pairs, held_out = await asyncio.to_thread(_read_all, request, limits)
    return parse_fine_tune_with(request, pairs, held_out)


def parse_fine_tune_with(
    request: FineTuneRequest, pairs: Pairs, held_out: Pairs
) -> tuple[ParsedFineTune, Sequence[Ignored]]:
    """The parsed form of a request with validated numbers and validated data.

    Returns:
        The parsed request, and the ignored lines.
    """
    ignored = [*pairs.ignored, *held_out.ignored]
    lora = None
    kind = TrainingKind.FULL
    if isinstance(request, FineTuneLoraRequest):
        kind = TrainingKind.QLORA if request.use_qlora else TrainingKind.LORA
        lora = LoraSettings(request.r, request.lora_alpha, request.lora_dropout)
    parsed = ParsedFineTune(
        model_name=request.model_name,
        kind=kind,
        examples=pairs.accepted,
        ignored=len(ignored),
        held_out=held_out.accepted,
        base_model=request.base_model,
        lora=lora,
        epochs=request.epochs,
        batch_size=request.batch_size,
        learning_rate=request.learning_rate,
        max_seq_length=request.max_seq_length,
        eval_fraction=request.eval_fraction,
        seed=request.seed,
    )
    return parsed, ignored


def validate_pairs(pairs: Pairs, field: str) -> Pairs:
    """Validates that pairs can be trained on.

    Args:
        pairs: The pairs that were read.
        field: Their field, for the message.

    Raises:
        InvalidInputError: No pair, one pair, or pairs without any negative.
    """
    _require_some(pairs, field)
    if len(pairs.accepted) < 2:
        raise InvalidInputError(f"{field}: one usable pair; at least two are needed, each is the other's negative")
    if not pairs.has_in_batch_negatives:
        raise InvalidInputError(
            f"{field}: all pairs have the same query or the same passage; two must differ in both, to be negatives"
        )
    return pairs


def validate_held_out(held_out: Pairs, pairs: Pairs, field: str) -> Pairs:
    """Validates that held-out pairs can be evaluated on, and that training pairs remain without their queries.

    Args:
        held_out: The pairs that were read.
        pairs: The training pairs, validated.
        field: The field of the held-out pairs, for messages; the reasons of ignored lines begin with it.

    Raises:
        InvalidInputError: No pair is left to evaluate or train on.
    """
    _require_some(held_out, field)
    asked = {fold(example.query) for example in held_out.accepted}
    rest = [example for example in pairs.accepted if fold(example.query) not in asked]
    if len(rest) < 2 or not Pairs(rest, ()).has_in_batch_negatives:
        raise InvalidInputError(
            f"{field}: no training pairs remain after removing the queries that are held out (spellings that differ in "
            f"case or white space are one query)"
        )
    return Pairs(held_out.accepted, [Ignored(line, f"{field}: {reason}") for line, reason in held_out.ignored])


def _read_all(request: FineTuneRequest, limits: FineTuneLimits) -> tuple[Pairs, Pairs]:
    pairs = _read(request, limits)
    return pairs, _read_held_out(request, limits, pairs)


def _read_held_out(request: FineTuneRequest, limits: FineTuneLimits, pairs: Pairs) -> Pairs:
    field, text = "eval_text_content", request.eval_text_content
    if text is None:
        return Pairs((), ())
    require_at_most(field, text.count("\n"), limits)
    return validate_held_out(parse_lines(text, max_text_chars=limits.max_text_chars), pairs, field)


def _read(request: FineTuneRequest, limits: FineTuneLimits) -> Pairs:
    if (request.text_content is None) == (request.examples is None):
        raise InvalidInputError("text_content: send either text_content or examples")
    if request.text_content is not None:
        require_at_most("text_content", request.text_content.count("\n"), limits)
        pairs = parse_lines(request.text_content, max_text_chars=limits.max_text_chars)
        return validate_pairs(pairs, "text_content")
    given = request.examples or []
    require_at_most("examples", len(given), limits)
    checked = (vars(_checked(i, example)) for i, example in enumerate(given))
    return validate_pairs(parse_examples(checked, max_text_chars=limits.max_text_chars), "examples")


def _checked(index: int, given: Any) -> TrainingExample:
    if isinstance(given, dict) and (reason := wrong_field(given)):
        raise InvalidInputError(f"examples[{index}]: {reason}")
    try:
        return TrainingExample.model_validate(given)
    except ValidationError as error:
        raise InvalidInputError(describe_violations(error.errors(), within=("examples", index))) from None


def _require_some(pairs: Pairs, field: str) -> None:
    if not pairs.accepted:
        first = f" (number {pairs.ignored[0].line}: {pairs.ignored[0].reason})" if pairs.ignored else ""
        raise InvalidInputError(f"{field}: not one usable pair of query and passage{first}")


def require_at_most(field: str, count: int, limits: FineTuneLimits) -> None:
    """Raises ``InvalidInputError`` for more lines or examples than the limit."""
    if count > limits.max_examples:
        raise InvalidInputError(f"{field}: {count} examples, the limit is {limits.max_examples}")


def validate_numbers(request: FineTuneRequest, limits: FineTuneLimits) -> None:
    """Raises ``InvalidInputError`` for a number over its limit, or a batch without negatives."""
    if request.batch_size < 2:
        raise InvalidInputError("batch_size: must be 2 or more; a batch of one has no negatives, so nothing is learnt")
    bounds = [
        ("epochs", request.epochs, limits.max_epochs),
        ("batch_size", request.batch_size, limits.max_batch_size),
        ("max_seq_length", request.max_seq_length, limits.max_seq_length),
        ("r", getattr(request, "r", None), limits.max_rank),
    ]
    for field, value, most in bounds:
        if value is not None and value > most:
            raise InvalidInputError(f"{field}: {value}, the limit is {most}")
