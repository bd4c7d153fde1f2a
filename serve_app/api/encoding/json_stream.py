"""JSON replies with many numbers: encoded by orjson from numpy arrays, streamed in pieces where they are large.

A pydantic response model would build a Python object for every float, which is many times slower.

A streamed value is a tree of plain values and the three nodes below; ``stream`` writes it a piece at a time, so that
the event loop is free between two pieces. The bytes are those of the whole value encoded at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from fastapi.responses import Response, StreamingResponse
from numpy.typing import NDArray

_JSON = "application/json"
_PIECE_FLOATS = 64 * 1024  # about 2 ms of encoding
_PIECE_BYTES = 32 * 1024  # smaller values are collected up to this size
_MAX_LISTED = 1000  # indices in a header


@dataclass(frozen=True)
class Batches:
    """A JSON array whose elements come in batches: lists or arrays, each encoded in one call."""

    batches: Iterable[Any]


@dataclass(frozen=True)
class Elements:
    """A JSON array of values that are streamed one by one."""

    values: Iterable[Any]


@dataclass(frozen=True)
class Members:
    """A JSON object of values that are streamed one by one; a mapping inside of a value is encoded in one call."""

    pairs: Iterable[tuple[str, Any]] | Mapping[str, Any]


Node = Batches | Elements | Members


def dumps(value: Any) -> bytes:
    """JSON of plain values and C-contiguous numpy arrays; non-finite floats become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def matrix(rows: NDArray[Any], form: Callable[[NDArray[Any]], Any] = np.ascontiguousarray) -> Batches:
    """A JSON array of the rows of ``[n, dimension]``.

    Args:
        rows: The numbers.
        form: Turns a slice of the rows into the values to encode, one for each row.
    """
    return Batches(form(rows[start:end]) for start, end in row_slices(rows))


def row_slices(rows: NDArray[Any]) -> Iterable[tuple[int, int]]:
    """Start and end of slices of ``[n, dimension]`` that are encoded in about 2 ms each."""
    step = max(1, _PIECE_FLOATS // max(1, int(rows.shape[1])))
    return ((start, start + step) for start in range(0, len(rows), step))


def is_small(rows: NDArray[Any]) -> bool:
    """True for an array that is encoded in one piece."""
    return rows.size <= _PIECE_FLOATS


def json_reply(value: Any, *, truncated: Sequence[int] = ()) -> Response:
    """A small reply in one piece."""
    return Response(dumps(value), headers=truncation_headers(truncated), media_type=_JSON)


def stream_reply(value: Node, *, truncated: Sequence[int] = ()) -> StreamingResponse:
    """A streamed reply; ``truncated`` are the indices of the texts that were cut, for the ``X-Truncated`` header."""
    return StreamingResponse(stream(value), headers=truncation_headers(truncated), media_type=_JSON)


async def stream(value: Node) -> AsyncIterator[bytes]:
    """The JSON of a value in pieces; other tasks run between two of them."""
    buffer = bytearray()
    for _ in _write(value, buffer):
        yield bytes(buffer)
        buffer.clear()
        await asyncio.sleep(0)
    yield bytes(buffer)


def _write(value: Any, buffer: bytearray) -> Iterator[None]:
    """Appends the JSON of a value to a buffer; yields where the buffer is a piece to be sent and cleared."""
    if isinstance(value, Batches):
        buffer += b"["
        for i, batch in enumerate(value.batches):
            buffer += b"," if i else b""
            buffer += memoryview(dumps(batch))[1:-1]
            yield
        buffer += b"]"
    elif isinstance(value, Elements):
        yield from _write_all(b"[]", ((b"", each) for each in value.values), buffer)
    elif isinstance(value, Members):
        pairs = value.pairs.items() if isinstance(value.pairs, Mapping) else value.pairs
        yield from _write_all(b"{}", ((dumps(key) + b":", each) for key, each in pairs), buffer)
    else:
        buffer += dumps(value)


def _write_all(brackets: bytes, parts: Iterable[tuple[bytes, Any]], buffer: bytearray) -> Iterator[None]:
    buffer += brackets[:1]
    for i, (key, value) in enumerate(parts):
        buffer += b"," + key if i else key
        if isinstance(value, Node):
            yield from _write(value, buffer)
        else:
            buffer += dumps(value)
        if len(buffer) >= _PIECE_BYTES:
            yield
    buffer += brackets[1:]


def truncation_headers(truncated: Sequence[int]) -> dict[str, str]:
    """``X-Truncated`` with the first 1,000 indices and ``X-Truncated-Count``; empty if no text was cut."""
    if not truncated:
        return {}
    listed = ",".join(map(str, truncated[:_MAX_LISTED]))
    return {"X-Truncated": listed, "X-Truncated-Count": str(len(truncated))}
