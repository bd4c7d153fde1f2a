"""Bodies of the routes that clients of Hugging Face's text-embeddings-inference speak, but for /rerank."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.schemas.inputs import Inputs, TextInputs
from serve_app.api.schemas.native import EncodingOptions, Request, Text
from serve_app.domain.limits import MOST_TEXTS

_PROMPT = (
    "What the texts are for. If absent they are read as they are, and a prefix that the model needs is yours to put."
)

PromptName = Literal["query", "passage", "document"]


class TEIOptions(EncodingOptions):
    """What TEI's requests have in common."""

    truncate: bool = Field(False, description="Cut texts over the model's token limit instead of refusing.")
    truncation_direction: Literal["Right", "right"] = Field("Right", description="Texts are cut at their end.")


class TEIEmbedRequest(TEIOptions):
    """One text or several, as text or as token ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "cron runs jobs.", "prompt_name": "passage"}]})

    inputs: Inputs = Field(description="A text, a list of texts, a list of token ids or a list of such lists.")
    prompt_name: PromptName | None = Field(None, description=_PROMPT + " Not for token ids.")
    normalize: Literal[True] = Field(True, description="Vectors are always L2-normalised.")
    dimensions: int | None = Field(
        None, ge=1, description="Give only the first so many numbers of each vector, L2-normalised again."
    )


class TEISparseRequest(TEIOptions):
    """One text or several, for sparse vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "cron runs jobs."}]})

    inputs: TextInputs = Field(description="A text or a list of texts.")
    prompt_name: PromptName | None = Field(None, description=_PROMPT)


class Sentences(Request):
    """A text and those that it is compared with."""

    source_sentence: Text
    sentences: list[Text] = Field(max_length=MOST_TEXTS - 1, json_schema_extra={"minItems": 1})


class SimilarityParameters(TEIOptions):
    """How the texts are read."""

    prompt_name: PromptName | None = Field(None, description=_PROMPT)


class TEISimilarityRequest(Request):
    """A text and others, to be compared."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"source_sentence": "rotate logs", "sentences": ["logrotate rotates log files."]}}]
        }
    )

    inputs: Sentences
    parameters: SimilarityParameters | None = None
    model: str | None = Field(None, description="A served name, if `parameters` have none; else the default model.")


class TEITokenizeRequest(Request):
    """One text or several, to be taken apart."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "cron runs jobs."}]})

    inputs: TextInputs = Field(description="A text or a list of texts.")
    add_special_tokens: bool = Field(True, description="Give the special tokens around each text, too.")
    prompt_name: PromptName | None = Field(None, description="Put this prefix in front; it counts for the places.")
    model: str | None = Field(None, description="A served name; the default model if absent.")


class SparseValue(BaseModel):
    """The weight of a token."""

    index: int = Field(description="The token's id.")
    value: float


class TEIToken(BaseModel):
    """A token and its place in the text's UTF-8 bytes; special tokens have none."""

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
    max_client_batch_size: int = Field(description="Texts in a request.")
    auto_truncate: bool = Field(description="Whether texts that are too long are cut without being asked to.")
    version: str
    limits: dict[str, Any] = Field(description="Ours: all limits of a request and of the default model.")
