"""/embed, /embed_all, /embed_sparse, /similarity, /tokenize, /decode and /info of text-embeddings-inference (TEI).

The contract is TEI's where it differs from the native routes: no prefix is added unless ``prompt_name`` names one, so
that an index built with TEI stays valid, and texts over the limit are refused unless the request sets
``truncate: true``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response

from serve_app import __version__
from serve_app.api.dialects.input_types import role_of
from serve_app.api.dialects.tei.tei_errors import TEI_ERRORS
from serve_app.api.dialects.tei.tei_schemas import (
    SparseValue,
    TEIDecodeRequest,
    TEIEmbedRequest,
    TEIInfo,
    TEISimilarityRequest,
    TEITextsRequest,
    TEIToken,
    TEITokenizeRequest,
)
from serve_app.api.dialects.text_or_ids import are_ids, embed_inputs, token_ids
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.json_stream import Batches, Elements, is_small, json_reply, matrix, stream_reply
from serve_app.api.encoding.quantize import shortened
from serve_app.api.request_options import TimeoutHeader, tolerant_options, validate_dimensions
from serve_app.api.route_services import ServicesDep
from serve_app.api.validated_texts import compared_texts, field_errors, listed_texts
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.tokens import Token

_BATCH_TOKENS = 4096  # about a millisecond of encoding


router = APIRouter(tags=["text-embeddings-inference"], responses=TEI_ERRORS, route_class=TolerantRoute)


@router.post("/", include_in_schema=False)  # as TEI does; GET / is the playground
@router.post("/embed", response_model=list[list[float]], summary="Embed texts (TEI)")
async def embed(services: ServicesDep, request: TEIEmbedRequest, timeout_header: TimeoutHeader = None) -> Response:
    """Embeds one or many texts; without `prompt_name` no prefix is added."""
    if request.input_type is not None and are_ids(request.inputs):
        raise InvalidInputError("prompt_name: token ids are taken as they are; leave it out")
    options = tolerant_options(request, timeout_header, services.limits, truncate=False)
    options = replace(options, normalize=request.normalize)
    await validate_dimensions(services.inference, options, request.dimensions)
    role = role_of(request.input_type, None)
    embedded = await embed_inputs(services, request.inputs, role, options, field="inputs")
    vectors = shortened(embedded.vectors, request.dimensions, normalize=request.normalize)
    if is_small(vectors):
        return json_reply(np.ascontiguousarray(vectors), truncated=embedded.truncated)
    return stream_reply(matrix(vectors), truncated=embedded.truncated)


@router.post("/embed_all", response_model=list[list[list[float]]], summary="Token embeddings (TEI)")
async def embed_all(services: ServicesDep, request: TEITextsRequest, timeout_header: TimeoutHeader = None) -> Response:
    """For each text the hidden state of each of its tokens, special ones included, not normalised."""
    texts = listed_texts(request.inputs, services.limits, field="inputs")
    options = tolerant_options(request, timeout_header, services.limits, truncate=False)
    with field_errors(texts):
        embedded = await services.inference.embed_tokens(texts.values, role_of(request.prompt_name, None), options)
    return stream_reply(Elements(map(matrix, embedded.states)), truncated=embedded.truncated)


@router.post("/embed_sparse", response_model=list[list[SparseValue]], summary="Sparse vectors (TEI)")
async def embed_sparse(
    services: ServicesDep, request: TEITextsRequest, timeout_header: TimeoutHeader = None
) -> Response:
    """Weights by token id; needs a BGE-M3 model."""
    texts = listed_texts(request.inputs, services.limits, field="inputs")
    options = tolerant_options(request, timeout_header, services.limits, truncate=False)
    with field_errors(texts):
        embedded = await services.inference.encode_sparse(texts.values, role_of(request.prompt_name, None), options)
    rows = ([[{"index": id, "value": weight} for id, weight in row]] for row in embedded.weights)
    return stream_reply(Batches(rows), truncated=embedded.truncated)


@router.post("/similarity", response_model=list[float], summary="Cosine similarities of a text (TEI)")
async def similarity(
    services: ServicesDep, request: TEISimilarityRequest, timeout_header: TimeoutHeader = None
) -> Response:
    """One for each sentence, in their order; `X-Truncated` counts the source sentence as the first text."""
    parameters = request.settled()
    texts = compared_texts(request.inputs.source_sentence, request.inputs.sentences, services.limits)
    options = tolerant_options(parameters, timeout_header, services.limits, truncate=False)
    with field_errors(texts):
        embedded = await services.inference.embed(texts.values, role_of(parameters.prompt_name, None), options)
    return json_reply(embedded.vectors[1:] @ embedded.vectors[0], truncated=embedded.truncated)


@router.post("/tokenize", response_model=list[list[TEIToken]], summary="Tokenize texts (TEI)")
async def tokenize(services: ServicesDep, request: TEITokenizeRequest) -> Response:
    """Ids, texts and offsets of the tokens, without truncation."""
    texts = listed_texts(request.inputs, services.limits, field="inputs")
    if (
        total := sum(map(len, texts.values))
    ) > services.limits.max_text_chars:  # a token takes fifty times its text's room
        raise InvalidInputError(
            f"inputs: {total} characters together, the limit is {services.limits.max_text_chars}; send several requests"
        )
    role, special = role_of(request.prompt_name, None), request.add_special_tokens
    rows = await services.inference.tokenize(texts.values, role, request.model, special=special)
    return stream_reply(Elements(map(_tokens, rows)))


@router.post("/decode", response_model=list[str], summary="Decode token ids (TEI)")
async def decode(services: ServicesDep, request: TEIDecodeRequest) -> Response:
    """One text for each list of ids; special tokens are left out by default."""
    ids = await token_ids(request.ids, services.limits, field="ids")
    if (total := sum(map(len, ids.rows))) > services.limits.max_text_chars:
        raise InvalidInputError(
            f"ids: {total} token ids together, the limit is {services.limits.max_text_chars}; send several requests"
        )
    with field_errors(ids):
        return json_reply(
            await services.inference.decode(ids.rows, request.model, special=not request.skip_special_tokens)
        )


@router.get("/info", response_model=TEIInfo, summary="Default model and limits (TEI)")
async def info(services: ServicesDep) -> Response:
    """TEI's fields; `limits` has all limits of this service."""
    state = (await services.inference.models())[0]
    return json_reply(
        {
            "model_id": state.name,
            "model_sha": None,
            "model_dtype": state.dtype,
            "model_type": {"embedding": {"pooling": state.pooling}},
            "max_input_length": state.max_tokens,
            "max_concurrent_requests": services.inference.capacity.max_concurrent_requests,
            "max_batch_tokens": state.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": services.limits.max_items,
            "tokenization_workers": services.inference.capacity.tokenization_workers,
            "auto_truncate": False,
            "version": __version__,
            "limits": {
                **asdict(services.limits),
                "max_text_tokens": state.max_tokens,
                "max_backlog_tokens": state.max_backlog_tokens,
            },
        }
    )


def _tokens(row: Sequence[Token]) -> Batches:
    return Batches(row[start : start + _BATCH_TOKENS] for start in range(0, len(row), _BATCH_TOKENS))
