"""Replies with many numbers: written from numpy arrays by orjson, never as Python lists.

A pydantic response model would turn every float into an object first, which is many times slower.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi.responses import Response, StreamingResponse
from numpy.typing import NDArray

from serve_app.api.service_results import HybridEmbedded
from serve_app.domain.embeddings import Float32

_JSON = "application/json"
_PIECE_FLOATS = 64 * 1024  # about 2 ms of writing: the event loop is never held longer
_MAX_LISTED = 1000  # indices in a header


def dumps(value: Any) -> bytes:
    """JSON of plain values and C-contiguous numpy arrays; non-finite floats become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_reply(value: Any, *, truncated: Sequence[int] = ()) -> Response:
    """A small reply in one piece."""
    return Response(dumps(value), headers=truncation_headers(truncated), media_type=_JSON)


def vectors_reply(
    vectors: NDArray[Any], ids: Sequence[str] | None = None, *, truncated: Sequence[int] = ()
) -> Response:
    """``{"vectors": [[f]]}``, or ``{"vectors": {id: [f]}}`` with ``ids``; large ones are streamed.

    Args:
        vectors: ``[n, dimension]``.
        ids: One name for each row.
        truncated: Rows whose text was cut, for the ``X-Truncated`` header.
    """
    if vectors.size <= _PIECE_FLOATS:
        rows: Any = vectors if ids is None else dict(zip(ids, vectors, strict=True))
        return json_reply({"vectors": rows}, truncated=truncated)
    headers = truncation_headers(truncated)
    return StreamingResponse(_pieces(vectors, ids), headers=headers, media_type=_JSON)


def matrix_reply(vectors: Float32, *, truncated: Sequence[int] = ()) -> Response:
    """``[[f]]``; large ones are streamed."""
    if vectors.size <= _PIECE_FLOATS:
        return json_reply(vectors, truncated=truncated)
    headers = truncation_headers(truncated)
    return StreamingResponse(matrix_pieces(vectors), headers=headers, media_type=_JSON)


def piece_rows(rows: NDArray[Any]) -> int:
    """How many rows of ``[n, dimension]`` are written at once."""
    return max(1, _PIECE_FLOATS // max(1, int(rows.shape[1])))


def truncation_headers(truncated: Sequence[int]) -> dict[str, str]:
    """``X-Truncated`` with the indices (the first 1,000) and ``X-Truncated-Count``; nothing if none was cut."""
    if not truncated:
        return {}
    listed = ",".join(map(str, truncated[:_MAX_LISTED]))
    return {"X-Truncated": listed, "X-Truncated-Count": str(len(truncated))}


def hybrid_reply(embedded: HybridEmbedded, ids: Sequence[str] | None = None) -> Response:
    """``{"hybrid_vectors": [...]}``, or by id with ``ids``; with ColBERT vectors it is streamed text by text."""
    headers = truncation_headers(embedded.truncated)
    pieces = _hybrid_pieces(embedded, ids)
    return StreamingResponse(pieces, headers=headers, media_type=_JSON)


def single_hybrid_reply(embedded: HybridEmbedded) -> Response:
    """``{"hybrid_vector": {...}}`` of the only text."""
    headers = truncation_headers(embedded.truncated)
    return StreamingResponse(_enclosed(b'{"hybrid_vector":', embedded, 0), headers=headers, media_type=_JSON)


async def _hybrid_pieces(embedded: HybridEmbedded, ids: Sequence[str] | None) -> AsyncIterator[bytes]:
    yield b'{"hybrid_vectors":' + (b"[" if ids is None else b"{")
    for row in range(len(embedded.vectors)):
        comma = b"," if row else b""
        yield comma if ids is None else comma + dumps(ids[row]) + b":"
        async for piece in _hybrid_row(embedded, row):
            yield piece
        await asyncio.sleep(0)
    yield b"]}" if ids is None else b"}}"


async def _enclosed(head: bytes, embedded: HybridEmbedded, row: int) -> AsyncIterator[bytes]:
    yield head
    async for piece in _hybrid_row(embedded, row):
        yield piece
    yield b"}"


async def _hybrid_row(embedded: HybridEmbedded, row: int) -> AsyncIterator[bytes]:
    head = dumps({"dense": embedded.vectors[row], "sparse": _sparse(embedded, row)})[:-1]
    if embedded.colbert is None:
        yield head + b',"colbert":null}'
        return
    yield head + b',"colbert":'
    async for piece in matrix_pieces(embedded.colbert[row]):
        yield piece
    yield b"}"


def _sparse(embedded: HybridEmbedded, row: int) -> Any:
    if embedded.weights is None:
        return embedded.sparse[row]
    weights = sorted(embedded.weights[row])
    return {"indices": [id for id, _ in weights], "values": [weight for _, weight in weights]}


async def matrix_pieces(
    rows: NDArray[Any], form: Callable[[NDArray[Any]], Any] = np.ascontiguousarray
) -> AsyncIterator[bytes]:
    """A JSON list of rows, in pieces that hold the event loop for a moment only.

    Args:
        rows: ``[n, dimension]``.
        form: Turns some of the rows into what is written: as many rows, or other values.
    """
    step = piece_rows(rows)
    yield b"["
    for start in range(0, len(rows), step):
        yield (b"," if start else b"") + dumps(form(rows[start : start + step]))[1:-1]
        await asyncio.sleep(0)
    yield b"]"


async def _pieces(vectors: NDArray[Any], ids: Sequence[str] | None) -> AsyncIterator[bytes]:
    step = piece_rows(vectors)
    yield b'{"vectors":' + (b"[" if ids is None else b"{")
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        text = dumps(part if ids is None else dict(zip(ids[start : start + step], part, strict=True)))
        yield (b"," if start else b"") + text[1:-1]
        await asyncio.sleep(0)
    yield b"]}" if ids is None else b"}}"
