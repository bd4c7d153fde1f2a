"""Mapping of OpenAI's fine-tuning request to the native one, with errors that name OpenAI's fields."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from serve_app.api.dialects.native.fine_tune_schemas import FineTuneLoraRequest, FineTuneRequest
from serve_app.api.dialects.openai.fine_tuning_jobs_schemas import (
    FineTuningJobRequest,
    Hyperparameters,
    LoraHyperparameters,
)
from serve_app.api.fine_tune_parsing import (
    parse_fine_tune_with,
    require_at_most,
    validate_held_out,
    validate_numbers,
    validate_pairs,
)
from serve_app.api.jobs_protocol import ParsedFineTune, Uploads
from serve_app.domain import hyperparameters as defaults
from serve_app.domain.errors import InvalidInputError, ServiceError, UploadNotFoundError
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.jobs.pair_files import parse_file
from serve_app.jobs.training_pairs import Ignored, Pairs
from serve_app.jobs.training_spec import ClientMetadata, TrainingKind, default_learning_rate

_KINDS = {"supervised": TrainingKind.FULL, "lora": TrainingKind.LORA, "qlora": TrainingKind.QLORA}
_LONGEST_BASE = 80  # of a generated name, which has twelve characters more
_FASTEST = 1.0  # learning rate, as on the native routes


async def parse_openai_fine_tune(
    request: FineTuningJobRequest, uploads: Uploads, limits: FineTuneLimits
) -> tuple[ParsedFineTune, Sequence[Ignored]]:
    """Validates a request and reads its files, in a thread.

    Returns:
        The parsed request, and the ignored lines.

    Raises:
        InvalidInputError: A number over a limit, or no usable pairs to train or evaluate on.
        UploadNotFoundError: No file has this id.
    """
    native = _native(request)
    validate_numbers(native, limits)
    pairs, held_out = await asyncio.to_thread(_read_all, request, uploads, limits)
    parsed, ignored = parse_fine_tune_with(native, pairs, held_out)
    origin = ClientMetadata(request.training_file, request.validation_file, request.metadata)
    return replace(parsed, origin=origin, has_generated_name=not request.suffix), ignored


@contextmanager
def translate_field_names(request: FineTuningJobRequest) -> Iterator[None]:
    """Translates the native field names in errors into those of the request."""
    where, _ = _hyperparameters(request)
    names = {
        "model_name": "suffix",
        "base_model": "model",
        "use_qlora": "method.type",
        "epochs": f"{where}.n_epochs",
        "batch_size": f"{where}.batch_size",
        "r": f"{where}.r",
    }
    try:
        yield
    except ServiceError as error:
        raise _renamed(error, names) from error


def _renamed(error: ServiceError, names: Mapping[str, str]) -> ServiceError:
    field, colon, rest = error.message.partition(": ")
    if not colon or field not in names:
        return error
    return type(error)(f"{names[field]}: {rest}", retry_after_s=error.retry_after_s)


def _native(request: FineTuningJobRequest) -> FineTuneRequest:
    """The native request, without its data."""
    kind = _KINDS[request.method.type if request.method else "supervised"]
    where, given = _hyperparameters(request)
    rate = None
    if given.learning_rate_multiplier is not None:
        rate = given.learning_rate_multiplier * default_learning_rate(kind)
        if not 0 < rate <= _FASTEST:
            raise InvalidInputError(f"{where}.learning_rate_multiplier: makes a learning rate of {rate:g}, not 0 to 1")
    common = {
        "model_name": request.suffix or _generated_name(request.model),
        "base_model": request.model,
        "epochs": given.n_epochs or defaults.EPOCHS,
        "batch_size": given.batch_size or defaults.BATCH_SIZE,
        "learning_rate": rate,
        "seed": request.seed,
    }
    if kind is TrainingKind.FULL:
        return FineTuneRequest.model_validate(common)
    adapters = given if isinstance(given, LoraHyperparameters) else LoraHyperparameters.model_validate({})
    shape = {name: getattr(adapters, name) for name in ("r", "lora_alpha", "lora_dropout")}
    return FineTuneLoraRequest.model_validate({**common, **shape, "use_qlora": kind is TrainingKind.QLORA})


def _hyperparameters(request: FineTuningJobRequest) -> tuple[str, Hyperparameters]:
    """The name of the field with the hyper-parameters, and their values.

    Raises:
        InvalidInputError: They stand in two places, or under the name of another method.
    """
    method = request.method
    found: list[tuple[str, Hyperparameters]] = []
    if request.hyperparameters is not None:
        found.append(("hyperparameters", request.hyperparameters))
    for name in _KINDS if method else ():
        if (settings := getattr(method, name)) is None:
            continue
        if method is not None and name != method.type:
            raise InvalidInputError(f"method.{name}: the method's type is {method.type!r}")
        if settings.hyperparameters is not None:
            found.append((f"method.{name}.hyperparameters", settings.hyperparameters))
    if len(found) > 1:
        raise InvalidInputError("hyperparameters: send them here or in method, not in both")
    return found[0] if found else ("hyperparameters", Hyperparameters.model_validate({}))


def _generated_name(base: str) -> str:
    """A name for a request without one: ``e5-small-ft-1a2b3c4d``."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", base.rpartition("/")[2]).lstrip("._-")[:_LONGEST_BASE]
    return f"{stem or 'model'}-ft-{uuid.uuid4().hex[:8]}"


def _read_all(request: FineTuningJobRequest, uploads: Uploads, limits: FineTuneLimits) -> tuple[Pairs, Pairs]:
    pairs = validate_pairs(_read("training_file", request.training_file, uploads, limits), "training_file")
    if request.validation_file is None:
        return pairs, Pairs((), ())
    field = "validation_file"
    return pairs, validate_held_out(_read(field, request.validation_file, uploads, limits), pairs, field)


def _read(field: str, file_id: str, uploads: Uploads, limits: FineTuneLimits) -> Pairs:
    try:
        with uploads.open(file_id) as file:
            data = file.read()
    except UploadNotFoundError as error:
        raise UploadNotFoundError(f"{field}: {error.message}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(
            f"{field}: not UTF-8 text in line {line} (byte {error.start} of the file); save it as UTF-8"
        ) from error
    require_at_most(field, text.count("\n"), limits)
    return parse_file(text, max_text_chars=limits.max_text_chars)
