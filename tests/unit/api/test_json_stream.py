"""Large replies are streamed in pieces with the bytes of one piece."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest
from fastapi.responses import Response, StreamingResponse

from serve_app.api.dialects.native.vectorize_routes import vectors_reply
from serve_app.api.encoding import json_stream
from serve_app.api.encoding.json_stream import dumps, truncation_headers
from serve_app.domain.embeddings import Float32
from tests.unit.api.fake_inference import FakeInference, vector_of


async def body_of(reply: Response) -> tuple[bytes, int]:
    """The bytes of a reply and the number of pieces they came in."""
    if not isinstance(reply, StreamingResponse):
        return bytes(reply.body), 1
    pieces = [bytes(piece) async for piece in reply.body_iterator]  # type: ignore[arg-type]
    return b"".join(pieces), len(pieces)


def vectors(count: int, dimension: int) -> Float32:
    return np.random.default_rng(count).normal(size=(count, dimension)).astype(np.float32)


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize(
    ("count", "dimension"), [(1, 300), (2, 101), (7, 30), (40, 3), (41, 3), (101, 1), (100, 100), (3, 5000)]
)
async def test_a_reply_in_pieces_is_byte_for_byte_the_reply_in_one(
    monkeypatch: pytest.MonkeyPatch, count: int, dimension: int, with_ids: bool
) -> None:
    array = vectors(count, dimension)
    ids = [f'"{i}" \u2028 é' for i in range(count)] if with_ids else None
    whole = vectors_reply(array, ids, ())
    assert not isinstance(whole, StreamingResponse)
    monkeypatch.setattr(json_stream, "_PIECE_FLOATS", 100)
    monkeypatch.setattr(json_stream, "_PIECE_BYTES", 100)
    in_pieces = vectors_reply(array, ids, ())
    assert isinstance(in_pieces, StreamingResponse)
    body, pieces = await body_of(in_pieces)
    assert body == (await body_of(whole))[0]
    assert pieces > 1
    assert in_pieces.media_type == whole.media_type == "application/json"


@pytest.mark.parametrize("with_ids", [False, True])
async def test_a_reply_over_the_bound_is_streamed_and_holds_every_number(with_ids: bool) -> None:
    array = vectors(300, 384)
    assert array.size > json_stream._PIECE_FLOATS
    ids = [str(i) for i in range(300)] if with_ids else None
    body, pieces = await body_of(vectors_reply(array, ids, ()))
    assert pieces > 2
    received = json.loads(body)["vectors"]
    rows = [received[name] for name in ids] if ids else received
    np.testing.assert_array_equal(np.array(rows, np.float32), array)  # JSON keeps a float32 exactly


async def test_other_tasks_run_between_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_PIECE_FLOATS", 100)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    _, pieces = await body_of(vectors_reply(vectors(50, 100), None, ()))
    task.cancel()
    assert turns >= pieces - 2


def test_numbers_are_written_as_short_as_float32_allows() -> None:
    assert dumps({"v": np.array([0.1, -1.0, 1e-7], np.float32)}) == b'{"v":[0.1,-1.0,1e-7]}'


@pytest.mark.parametrize("items", ["list", "map"])
async def test_a_large_request_is_answered_whole_over_http(
    client: httpx.AsyncClient, inference: FakeInference, items: str
) -> None:
    inference.dimension, inference.truncated = 20_000, [1, 4]
    texts = ["a", "b", "c", "d", "e"]
    reply = await client.post(
        "/vectorize-batch", json={"items": texts if items == "list" else dict(zip(texts, texts, strict=True))}
    )
    assert "content-length" not in reply.headers  # it was streamed
    assert reply.headers["x-truncated"] == "1,4"
    received = reply.json()["vectors"]
    rows = received if items == "list" else [received[text] for text in texts]
    expected = np.stack([vector_of(text, 20_000) for text in texts])
    np.testing.assert_array_equal(np.array(rows, np.float32), expected)


@pytest.mark.parametrize(
    ("count", "listed"),
    [(1, "0"), (3, "0,1,2"), (1000, ",".join(map(str, range(1000)))), (1500, ",".join(map(str, range(1000))))],
)
def test_the_header_lists_the_first_thousand_cut_texts_and_counts_all(count: int, listed: str) -> None:
    assert truncation_headers(range(count)) == {"X-Truncated": listed, "X-Truncated-Count": str(count)}


def test_without_cut_texts_there_is_no_header() -> None:
    assert truncation_headers([]) == {}
