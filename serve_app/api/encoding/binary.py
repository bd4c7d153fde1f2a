"""Replies as raw bytes instead of JSON, for ``Accept: application/octet-stream``.

The body is the array and nothing else, little-endian, row by row; its shape and type are in headers::

    numpy.frombuffer(body, headers["X-Dtype"]).reshape([int(n) for n in headers["X-Shape"].split(",")])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import Header
from fastapi.responses import Response, StreamingResponse
from numpy.typing import NDArray

from serve_app.api.encoding.json_stream import truncation_headers
from serve_app.api.encoding.quantize import Encoding
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError

MEDIA_TYPE = "application/octet-stream"
_PIECE_BYTES = 1024 * 1024  # well under a millisecond of copying: the event loop is never held longer
_FLOATS = ("float32", "float16")

AcceptHeader = Annotated[str, Header(alias="Accept", include_in_schema=False)]
BINARY: dict[int | str, dict[str, Any]] = {  # FastAPI's `responses` of a route with binary replies
    200: {
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        "description": f"JSON, or with `Accept: {MEDIA_TYPE}` the array's bytes, little-endian: float32 (float16 with "
        f"`Accept: {MEDIA_TYPE}; dtype=float16`), or the requested `encoding`. X-Shape and X-Dtype describe them.",
    }
}


def binary_dtype(accept: str, encoding: Encoding = "float") -> str | None:
    """The numpy dtype of a binary reply.

    Args:
        accept: The request's ``Accept`` header.
        encoding: The request's field.

    Returns:
        Its name; None for JSON.

    Raises:
        InvalidInputError: The header requests an unsupported type.
    """
    parameters = _parameters(accept)
    if parameters is None:
        return None
    dtype = parameters.get("dtype", "float32").strip('"')
    if dtype not in _FLOATS or (encoding != "float" and "dtype" in parameters):
        raise InvalidInputError(
            f"header Accept: dtype may be float32 or float16, where encoding is float (it was {dtype!r})"
        )
    return {"float": dtype, "int8": "int8", "binary": "uint8"}[encoding]


def binary_reply(
    values: NDArray[Any], dtype: str, *, lengths: Sequence[int] | None = None, truncated: Sequence[int] = ()
) -> Response:
    """The bytes of an array, in pieces.

    Args:
        values: ``[n, dimension]``.
        dtype: Type of the numbers in the reply.
        lengths: Of ColBERT vectors: the rows of each text, for the header ``X-Lengths``.
        truncated: Indices of the texts that were cut, for the ``X-Truncated`` header.
    """
    wire = np.dtype(dtype).newbyteorder("<")
    headers = truncation_headers(truncated) | {
        "X-Shape": ",".join(map(str, values.shape)),
        "X-Dtype": dtype,
        "Content-Length": str(values.size * wire.itemsize),
    }
    if lengths is not None:
        headers["X-Lengths"] = ",".join(map(str, lengths))
    return StreamingResponse(_pieces(values, wire), headers=headers, media_type=MEDIA_TYPE)


def colbert_reply(rows: Sequence[Float32], dtype: str, *, truncated: Sequence[int] = ()) -> Response:
    """The ColBERT vectors of all texts as one array ``[sum(lengths), dimension]``; ``X-Lengths`` has its parts."""
    return binary_reply(np.concatenate(rows), dtype, lengths=list(map(len, rows)), truncated=truncated)


async def _pieces(values: NDArray[Any], wire: np.dtype[Any]) -> AsyncIterator[bytes]:
    step = max(1, _PIECE_BYTES // max(1, values.shape[1] * wire.itemsize))
    for start in range(0, len(values), step):
        yield values[start : start + step].astype(wire).tobytes()
        await asyncio.sleep(0)


def _parameters(accept: str) -> dict[str, str] | None:
    """The parameters of the header's range for bytes; None without one."""
    for media_range in accept.split(","):
        media_type, *rest = media_range.split(";")
        if media_type.strip().lower() == MEDIA_TYPE:
            pairs = (part.partition("=") for part in rest)
            found = {name.strip().lower(): value.strip() for name, _, value in pairs}
            return None if found.get("q") in {"0", "0.0"} else found
    return None
