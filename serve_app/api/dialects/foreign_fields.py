"""Words and values that clients of other services use for the same things, as data; and what they mean to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from serve_app.api.dialects.tolerant_request import NOTHING, TolerantRequest, names
from serve_app.domain.profiles import TextRole
from serve_app.domain.request_limits import MOST_TEXTS

# ------------------------------------------------------------------ what a text is for

InputType = Literal[
    "query", "search_query", "retrieval.query", "retrieval_query", "code.query", "question_answering",
    "passage", "document", "search_document", "retrieval.passage", "retrieval_document", "code.passage",
    "classification", "clustering", "separation", "text-matching", "semantic_similarity",
    "raw",
]  # fmt: skip
INPUT_TYPES: tuple[str, ...] = get_args(InputType)
_PASSAGES = frozenset(
    {"passage", "document", "search_document", "retrieval.passage", "retrieval_document", "code.passage"}
)


def role_of(input_type: InputType | None, default: TextRole | None = TextRole.PASSAGE) -> TextRole | None:
    """The role behind a client's word; None for ``raw``, with which a text is read as it is.

    Vectors that are compared with their like or used as features are those of queries, as E5's card wants it.
    """
    if input_type is None:
        return default
    return None if input_type == "raw" else TextRole.of(is_query=input_type not in _PASSAGES)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _any_case(words: tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of words that may also be written in capitals or with a capital."""
    return {"type": "string", "enum": sorted({form for word in words for form in (word, word.upper(), word.title())})}


InputTypeField = Annotated[InputType, BeforeValidator(_lower, json_schema_input_type=InputType)]

# ------------------------------------------------------------------ true and false, and what is cut

_FLAGS = {"true": True, "false": False}


def _flag(value: Any) -> Any:
    return _FLAGS.get(value.lower(), value) if isinstance(value, str) else value


Flag = Annotated[
    bool,
    BeforeValidator(
        _flag,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, _any_case(("true", "false"))]})
        ],
    ),
]

TruncateWord = Literal["NONE", "START", "END"]


def _truncate(value: Any) -> Any:
    flag = _flag(value)
    if isinstance(flag, bool):
        return "END" if flag else "NONE"
    return value.upper() if isinstance(value, str) else value


Truncate = Annotated[
    TruncateWord,
    BeforeValidator(
        _truncate,
        json_schema_input_type=Annotated[
            Any,
            WithJsonSchema({"anyOf": [{"type": "boolean"}, _any_case(("none", "start", "end", "true", "false"))]}),
        ],
    ),
]

Side = Annotated[
    Literal["left", "right"],
    BeforeValidator(_lower, json_schema_input_type=Annotated[Any, WithJsonSchema(_any_case(("left", "right")))]),
]


def _no_limit(value: Any) -> Any:
    return None if type(value) is int and value == -1 else value


MaxTokens = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(
        _no_limit,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": -1}, {"type": "null"}]})
        ],
    ),
]


def _all_dimensions(value: Any) -> Any:
    return None if type(value) is int and value == 0 else value


Dimensions = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(
        _all_dimensions,
        json_schema_input_type=Annotated[
            Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})
        ],
    ),
]

_UNNAMED_MODELS = frozenset({"default/not-specified"})  # of infinity's clients


def _named_model(value: Any) -> Any:
    return None if isinstance(value, str) and value in _UNNAMED_MODELS else value


ModelField = Annotated[str | None, BeforeValidator(_named_model)]

# ------------------------------------------------------------------ texts, and objects that hold one

_TEXT_KEYS = ("text", "content", "page_content")
TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
OBJECT_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"text": TEXT_SCHEMA}, "required": ["text"]}
_TEXTS_SCHEMA: dict[str, Any] = {
    "type": "array", "items": {"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA]}, "minItems": 1, "maxItems": MOST_TEXTS,
}  # fmt: skip
_ID_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}
IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": _ID_SCHEMA, "minItems": 1}
LISTS_SCHEMA: dict[str, Any] = {"type": "array", "items": IDS_SCHEMA, "minItems": 1, "maxItems": MOST_TEXTS}
TEXT_INPUTS_SCHEMA: dict[str, Any] = {"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA, _TEXTS_SCHEMA]}
INPUTS_SCHEMA: dict[str, Any] = {"anyOf": [*TEXT_INPUTS_SCHEMA["anyOf"], IDS_SCHEMA, LISTS_SCHEMA]}


def text_of(value: Any) -> Any:
    """The text of an object that holds one, as ``{"text"}`` or as parts ``{"content": [{"type": "text", "text"}]}``.

    Anything else is returned as it is, for pydantic to name.
    """
    if not isinstance(value, dict):
        return value
    for key in _TEXT_KEYS:
        found = value.get(key)
        if isinstance(found, str):
            return found
        if isinstance(found, list) and found and all(_is_text_part(part) for part in found):
            return "\n".join(part["text"] for part in found)
    return value


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def texts_of(value: Any) -> Any:
    """The same for a list; a list of token ids, of which there may be millions, is not looked through."""
    if not isinstance(value, list):
        return text_of(value)
    if not 0 < len(value) <= MOST_TEXTS or not isinstance(value[0], str | dict):
        return value
    return [text_of(item) for item in value]


ForeignText = Annotated[str, Field(json_schema_extra={"minLength": 1}, description="Not empty.")]
TextOrObject = Annotated[
    str,
    BeforeValidator(
        text_of, json_schema_input_type=Annotated[Any, WithJsonSchema({"anyOf": [TEXT_SCHEMA, OBJECT_SCHEMA]})]
    ),
]

# ------------------------------------------------------------------ fields of many requests

_TRUNCATE = (
    "Cut texts over the limit in tokens at their end (true, END) or beginning (START), or refuse them (false, NONE)."
)
_MAX_TOKENS = "Longest text in tokens, special tokens included; longer ones are cut. -1 for the model's own limit."
_DIMENSIONS = "Give only the first so many numbers of each vector, L2-normalised again; 0 for all."
_NORMALIZE = "L2-normalise the vectors (the default), or give them as the model's pooling does."
_INPUT_TYPE = (
    "What the texts are for. Texts to classify, cluster or compare with their like are read as queries, raw ones as "
    "they are, without a prefix. A text that begins with one of the model's prefixes gets no other one."
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
"""Forms of vectors that other routes give, with the values that ask for plain floats."""
SHAPES: Mapping[str, tuple[Any, ...]] = {"dimensions": (0,), "output_dimension": (0,)}
NORMALIZED: Mapping[str, tuple[Any, ...]] = dict.fromkeys(
    ("normalize", "normalized", "normalize_embeddings", "use_activation"), _TRUE
)
UNCUT: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("truncate", "truncation"), (*_FALSE, "NONE", "none", "None")),
    **dict.fromkeys(("max_tokens", "truncate_prompt_tokens", "max_tokens_per_doc"), (-1,)),
}
"""Words for cutting texts, with the values that cut none."""


class ComputeRequest(TolerantRequest):
    """Base of every request that computes: what no route of other services' clients can honour is refused by name.

    A schema adds the words that only its siblings know. Where a word is one of its own fields the table does not count.
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
        """Of what a text is for: the role that it gets."""
        return role_of(value) if field in {"input_type", "prompt_name"} else value


class TolerantOptions(ComputeRequest):
    """What every request that computes may also say."""

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
    """What every request for dense vectors may also say."""

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
