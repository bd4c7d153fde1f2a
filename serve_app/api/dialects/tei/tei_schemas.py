"""Schemas of the routes of text-embeddings-inference, except /rerank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.dialects.field_values import Flag
from serve_app.api.dialects.input_types import InputTypeField
from serve_app.api.dialects.text_objects import ForeignText, TextOrObject
from serve_app.api.dialects.text_or_ids_schemas import Ids, Inputs, TextInputs
from serve_app.api.dialects.tolerant_options import (
    NORMALIZED,
    SHAPES,
    UNCUT,
    VECTOR_FORMS,
    ComputeRequest,
    TolerantEmbeddingOptions,
    TolerantOptions,
)
from serve_app.api.dialects.tolerant_request import names
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import MOST_TEXTS

_PROMPT = "Purpose of the texts. If absent, no prefix is added, and texts must have the prefix that the model needs."
_NAMES = names("prompt_name", "input_type", "task", "task_type")


class TEIEmbedRequest(TolerantEmbeddingOptions):
    """One text or several, as text or as token ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "cron runs jobs.", "prompt_name": "passage"}]})

    inputs: Inputs = Field(
        validation_alias=names("inputs", "input"),
        description="A text, a list of texts, a list of token ids or a list of such lists.",
    )
    input_type: InputTypeField | None = Field(
        None, validation_alias=_NAMES, description=_PROMPT + " Not for token ids."
    )


class TEITextsRequest(TolerantOptions):
    """One text or several, for token embeddings or sparse vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "cron runs jobs."}]})

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {**ComputeRequest.unsupported, **VECTOR_FORMS, **SHAPES}

    inputs: TextInputs = Field(validation_alias=names("inputs", "input"), description="A text or a list of texts.")
    prompt_name: InputTypeField | None = Field(None, validation_alias=_NAMES, description=_PROMPT)


class Sentences(ComputeRequest):
    """A text and the texts to compare it with."""

    source_sentence: TextOrObject
    sentences: list[ForeignText] = Field(max_length=MOST_TEXTS - 1, json_schema_extra={"minItems": 1})


class SimilarityParameters(TolerantOptions):
    """Options of the texts."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ComputeRequest.unsupported,
        **VECTOR_FORMS,
        **SHAPES,
        **NORMALIZED,
    }

    prompt_name: InputTypeField | None = Field(None, validation_alias=_NAMES, description=_PROMPT)


class TEISimilarityRequest(SimilarityParameters):
    """A text and others to compare; the fields of `parameters` may also stand beside `inputs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"source_sentence": "rotate logs", "sentences": ["logrotate rotates log files."]}}]
        }
    )

    inputs: Sentences
    parameters: SimilarityParameters | None = None

    def settled(self) -> SimilarityParameters:
        """The parameters of the request, wherever they stand.

        Raises:
            InvalidInputError: A parameter has two values.
        """
        inner = self.parameters or SimilarityParameters.model_validate({})
        values = inner.model_dump(include=inner.model_fields_set)
        for name in self.model_fields_set & SimilarityParameters.model_fields.keys():
            value = getattr(self, name)
            if name in values and self.meaning(name, values[name]) != self.meaning(name, value):
                raise InvalidInputError(
                    f"parameters.{name}: {name} beside parameters has another value; send one of them"
                )
            values[name] = value
        return SimilarityParameters.model_validate(values)


class TEITokenizeRequest(ComputeRequest):
    """One text or several to tokenize."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "cron runs jobs."}]})

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {**ComputeRequest.unsupported, **UNCUT}

    inputs: TextInputs = Field(validation_alias=names("inputs", "input"), description="A text or a list of texts.")
    add_special_tokens: Flag = Field(True, description="Include the special tokens around each text.")
    prompt_name: InputTypeField | None = Field(
        None, validation_alias=_NAMES, description="Add the prefix of this purpose; offsets include it."
    )
    model: str | None = Field(None, description="A served name; the default model if absent.")


class TEIDecodeRequest(ComputeRequest):
    """Token ids of one text or several to decode."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [[0, 5, 2]]}]})

    ids: Ids = Field(description="The token ids of a text, or a list of such lists.")
    skip_special_tokens: Flag = Field(True, description="Leave the special tokens out.")
    model: str | None = Field(None, description="A served name; the default model if absent.")


class SparseValue(BaseModel):
    """The weight of a token."""

    index: int = Field(description="The token's id.")
    value: float


class TEIToken(BaseModel):
    """A token and its offsets in the text's UTF-8 bytes; special tokens have none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TEIInfo(BaseModel):
    """The default model and the limits of a request."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_sha: str | None
    model_dtype: str | None
    model_type: dict[str, dict[str, str | None]]
    max_input_length: int = Field(description="Tokens of a text.")
    max_concurrent_requests: int = Field(description="Concurrent requests of one HTTP replica.")
    max_batch_tokens: int | None = Field(description="Padded tokens of one forward, if known.")
    max_batch_requests: int | None = Field(description="Texts of one forward; null, as only tokens are limited.")
    max_client_batch_size: int = Field(description="Texts in a request.")
    tokenization_workers: int = Field(description="Threads of one HTTP replica that tokenise lists.")
    auto_truncate: bool = Field(description="Whether texts over the limit are cut by default.")
    version: str
    limits: dict[str, Any] = Field(description="All limits of a request and of the default model.")
