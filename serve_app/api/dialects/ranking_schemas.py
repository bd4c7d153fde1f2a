"""Schemas that the ranking routes of several dialects share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from serve_app.api.dialects.field_values import Flag, MaxTokens
from serve_app.api.dialects.tolerant_options import ComputeRequest, TolerantOptions
from serve_app.api.dialects.tolerant_request import NOTHING, names

BATCH_DESCRIPTION = "Candidates in one forward, at most."
NORMALIZE_DESCRIPTION = (
    "Late interaction: the mean over query tokens of the best match's cosine (false: their sum). "
    "Cross-encoder: the sigmoid of the logit (false: the logit)."
)


class RankingOptions(TolerantOptions):
    """Options of ranking requests."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ComputeRequest.unsupported,
        **dict.fromkeys(("candidates", "documents", "passages", "texts"), NOTHING),
        **dict.fromkeys(("score_threshold", "top_n", "top_k"), ()),
        **dict.fromkeys(("return_documents", "return_text"), NOTHING),
        "rank_fields": NOTHING,
    }

    max_tokens: MaxTokens = Field(
        None,
        validation_alias=names("max_tokens_per_doc", "truncate_prompt_tokens", "max_tokens"),
        description="Longest document in tokens; longer ones are cut. -1 for the model's own limit.",
    )
    max_query_tokens: MaxTokens = Field(
        None,
        validation_alias=names("max_tokens_per_query", "max_query_tokens"),
        description="Longest query in tokens; a longer one is cut. -1 for the model's own limit.",
    )
    normalize: Flag = Field(
        True, validation_alias=names("normalize", "use_activation", "activation"), description=NORMALIZE_DESCRIPTION
    )
    raw_scores: Flag = Field(False, description="As normalize: false.")


class RankingUsage(BaseModel):
    """Token counts; a repeated document counts each time."""

    prompt_tokens: int
    total_tokens: int
