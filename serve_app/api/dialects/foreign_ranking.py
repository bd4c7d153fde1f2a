"""Options and order of results that the ranking routes of several dialects share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serve_app.api.dialects.ranking_schemas import RankingOptions
from serve_app.api.inference_results import CallOptions
from serve_app.api.request_options import tolerant_options
from serve_app.domain.embeddings import Float32
from serve_app.domain.request_limits import Limits

BATCH_SIZE = 12  # candidates in one forward, where a request cannot set it


def ranking_options(
    request: RankingOptions, header: str | None, limits: Limits, *, truncate: bool = True
) -> CallOptions:
    """The options of a ranking request; see ``tolerant_options``."""
    options = tolerant_options(request, header, limits, truncate=truncate)
    if request.max_query_tokens is not None and request.truncate is None:
        options = replace(options, truncate=True)
    return replace(options, max_query_tokens=request.max_query_tokens)


def wants_normalized(request: RankingOptions) -> bool:
    """True for scores as means or probabilities, false for sums or logits."""
    return request.normalize and not request.raw_scores


def best_first(scores: Float32) -> list[int]:
    """Indices by descending score; ties keep their order."""
    return [int(index) for index in np.argsort(-scores, kind="stable")]
