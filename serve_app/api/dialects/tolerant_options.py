"""Options that the requests of several services share, and the options that none of them can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from serve_app.api.dialects.field_values import Dimensions, Flag, MaxTokens, ModelField, Side, Truncate
from serve_app.api.dialects.input_types import InputTypeField, role_of
from serve_app.api.dialects.tolerant_request import NOTHING, TolerantRequest, names

_TRUNCATE = (
    "Cut texts over the limit in tokens at their end (true, END) or beginning (START), or refuse them (false, NONE)."
)
_MAX_TOKENS = "Longest text in tokens, special tokens included; longer ones are cut. -1 for the model's own limit."
_DIMENSIONS = "Keep only the first numbers of each vector, L2-normalised again; 0 for all."
_NORMALIZE = "L2-normalise the vectors (the default), or return the output of the model's pooling."
_INPUT_TYPE = (
    "Purpose of the texts. Texts to classify, to cluster or for symmetric comparison get the query prefix, raw ones "
    "no prefix. A text that begins with one of the model's prefixes gets no other one."
)


_TRUE = (True, "true", "True")
_FALSE = (False, "false", "False")
VECTOR_FORMS: Mapping[str, tuple[Any, ...]] = {
    "output_dtype": ("float",),
    "embedding_type": ("float",),
    "embedding_types": ("float", ["float"], []),
    "encoding_format": ("float",),
    "encoding": ("float",),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
}
"""Vector encodings of other routes, with the values that request plain floats."""
SHAPES: Mapping[str, tuple[Any, ...]] = {"dimensions": (0,), "output_dimension": (0,)}
NORMALIZED: Mapping[str, tuple[Any, ...]] = dict.fromkeys(
    ("normalize", "normalized", "normalize_embeddings", "use_activation"), _TRUE
)
UNCUT: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("truncate", "truncation"), (*_FALSE, "NONE", "none", "None")),
    **dict.fromkeys(("max_tokens", "truncate_prompt_tokens", "max_tokens_per_doc"), (-1,)),
}
"""Truncation fields, with the values that truncate nothing."""


class ComputeRequest(TolerantRequest):
    """Base of every request that computes: fields that no tolerant route can honour are refused by name.

    A schema adds the fields of its siblings. A field of the schema itself is never unsupported.
    """

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **dict.fromkeys(
            (
                "stream", "late_chunking", "return_multivector", "return_colbert_vecs", "images",
                "image", "audio", "video", "messages", "instruction", "instruct", "prompt", "query_instruction",
            ),
            NOTHING,
        ),
        "add_special_tokens": _TRUE,
        "modality": ("text",),
    }  # fmt: skip

    @classmethod
    def meaning(cls, field: str, value: Any) -> Any:
        """The role, for an input type."""
        return role_of(value) if field in {"input_type", "prompt_name"} else value


class TolerantOptions(ComputeRequest):
    """Options of every request that computes."""

    model: ModelField = Field(None, description="A served name; the default model if absent.")
    truncate: Truncate | None = Field(None, validation_alias=names("truncate", "truncation"), description=_TRUNCATE)
    truncation_direction: Side | None = Field(
        None,
        validation_alias=names("truncation_direction", "truncation_side"),
        description="At which side texts over the limit are cut; at the right if absent.",
    )
    max_tokens: MaxTokens = Field(
        None,
        validation_alias=names("max_tokens", "truncate_prompt_tokens", "max_tokens_per_doc"),
        description=_MAX_TOKENS,
    )


class TolerantEmbeddingOptions(TolerantOptions):
    """Options of every request for dense vectors."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ComputeRequest.unsupported,
        **VECTOR_FORMS,
        "return_dense": _TRUE,
        "return_sparse": NOTHING,
    }

    input_type: InputTypeField | None = Field(
        None,
        validation_alias=names("input_type", "task", "task_type", "prompt_name"),
        description=_INPUT_TYPE + " If absent, passages. Not for token ids.",
    )
    dimensions: Dimensions = Field(
        None, validation_alias=names("dimensions", "output_dimension"), description=_DIMENSIONS
    )
    normalize: Flag = Field(
        True,
        validation_alias=names("normalize", "normalized", "normalize_embeddings", "use_activation"),
        description=_NORMALIZE,
    )
