"""/v1/embeddings of the OpenAI API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import Response

from serve_app.api.dialects.input_types import InputTypeField, role_of
from serve_app.api.dialects.openai.embeddings_schemas import EmbeddingsReply, EmbeddingsRequest
from serve_app.api.dialects.openai.openai_errors import OPENAI_ERRORS
from serve_app.api.dialects.text_or_ids import are_ids, embed_inputs
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.encoding.binary import BINARY, AcceptHeader, binary_dtype, binary_reply
from serve_app.api.encoding.json_stream import Batches, Members, row_slices, stream_reply
from serve_app.api.encoding.quantize import FORMS, as_base64, require_normalized, shortened
from serve_app.api.request_options import TimeoutHeader, tolerant_options, validate_dimensions
from serve_app.api.route_services import ServicesDep
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError

InputTypeHeader = Annotated[
    InputTypeField | None,
    Header(alias="X-Input-Type", description="As `input_type`, for clients that cannot add a field to the body."),
]


router = APIRouter(tags=["OpenAI"], route_class=TolerantRoute)


@router.post(
    "/embeddings",
    response_model=EmbeddingsReply,
    responses=OPENAI_ERRORS | BINARY,
    summary="Embed texts (alias of /v1/embeddings)",
)
@router.post("/v1/embeddings", response_model=EmbeddingsReply, responses=OPENAI_ERRORS | BINARY, summary="Embed texts")
async def embeddings(
    services: ServicesDep,
    request: EmbeddingsRequest,
    timeout_header: TimeoutHeader = None,
    accept: AcceptHeader = "",
    header_type: InputTypeHeader = None,
) -> Response:
    """Embeds one or many texts, by default as passages."""
    dtype = binary_dtype(accept)
    if dtype is not None and request.output_dtype not in {"float", "base64"}:
        raise InvalidInputError("header Accept: bytes are for floats alone; leave out output_dtype")
    require_normalized(request.output_dtype, "output_dtype", normalize=request.normalize)
    input_type = request.input_type or header_type
    if input_type is not None and are_ids(request.input):
        raise InvalidInputError("input_type: token ids are taken as they are; leave it out")
    options = replace(tolerant_options(request, timeout_header, services.limits), normalize=request.normalize)
    await validate_dimensions(services.inference, options, request.dimensions)
    embedded = await embed_inputs(services, request.input, role_of(input_type), options, field="input")
    vectors = shortened(embedded.vectors, request.dimensions, normalize=request.normalize)
    if dtype is not None:
        return binary_reply(vectors, dtype, truncated=embedded.truncated)
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    data = Batches(_batches(vectors, _form(request)))
    reply = {"object": "list", "data": data, "model": embedded.model, "usage": usage}
    return stream_reply(Members(reply), truncated=embedded.truncated)


def _form(request: EmbeddingsRequest) -> Callable[[Float32], Any]:
    """The conversion of vectors into the values of a reply, one for each row."""
    form = FORMS[request.output_dtype]
    if request.encoding_format == "float" or request.output_dtype == "base64":
        return form
    return lambda vectors: as_base64(form(vectors))


def _batches(vectors: Float32, form: Callable[[Float32], Any]) -> Iterator[list[dict[str, Any]]]:
    for start, end in row_slices(vectors):
        rows = enumerate(form(vectors[start:end]), start)
        yield [{"object": "embedding", "index": i, "embedding": row} for i, row in rows]
