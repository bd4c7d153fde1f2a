"""Binary replies: the headers that request them, and the numbers of the JSON reply."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from serve_app.api.encoding import binary
from serve_app.api.encoding.binary import binary_dtype
from serve_app.domain.errors import InvalidInputError
from tests.unit.api.fake_inference import FakeInference

BYTES = "application/octet-stream"


def array_of(reply: httpx.Response) -> NDArray[Any]:
    """The array as the documentation says to read it."""
    assert (reply.status_code, reply.headers["content-type"]) == (200, BYTES)
    assert int(reply.headers["content-length"]) == len(reply.content)
    shape = [int(number) for number in reply.headers["x-shape"].split(",")]
    return np.frombuffer(reply.content, np.dtype(reply.headers["x-dtype"]).newbyteorder("<")).reshape(shape)


@pytest.mark.parametrize(
    ("accept", "dtype"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/html, application/xhtml+xml;q=0.9, */*;q=0.8", None),
        (f"{BYTES};q=0", None),
        (BYTES, "float32"),
        (f"application/json;q=0.5, {BYTES.upper()} ; q=0.9", "float32"),
        (f"{BYTES}; dtype=float16", "float16"),
        (f'{BYTES};q=1;DType="float16", application/json', "float16"),
    ],
)
def test_only_an_accept_header_for_bytes_gets_bytes(accept: str, dtype: str | None) -> None:
    assert binary_dtype(accept) == dtype


def test_an_encoding_decides_the_type_of_the_bytes() -> None:
    assert binary_dtype(BYTES, "int8") == "int8"
    assert binary_dtype(BYTES, "binary") == "uint8"
    assert binary_dtype("application/json", "int8") is None


@pytest.mark.parametrize(("dtype", "encoding"), [("float64", "float"), ("", "float"), ("float16", "int8")])
def test_a_type_that_is_not_sent_is_refused(dtype: str, encoding: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^header Accept: dtype may be float32 or float16"):
        binary_dtype(f"{BYTES}; dtype={dtype}", encoding)


@pytest.mark.parametrize("encoding", ["float", "int8", "binary"])
async def test_bytes_are_the_numbers_of_the_json_reply(
    client: httpx.AsyncClient, inference: FakeInference, encoding: str
) -> None:
    inference.truncated = [1]
    body = {"items": ["cats", "dogs", "x"], "encoding": encoding}
    numbers = (await client.post("/vectorize-batch", json=body)).json()["vectors"]
    reply = await client.post("/vectorize-batch", json=body, headers={"Accept": BYTES})
    np.testing.assert_array_equal(array_of(reply), np.array(numbers, np.float32))
    assert reply.headers["x-truncated"] == "1"
    single = await client.post("/vectorize", json={"text": "cats", "encoding": encoding}, headers={"Accept": BYTES})
    np.testing.assert_array_equal(array_of(single), array_of(reply)[:1])
    received = (await client.post("/vectorize", json={"text": "cats", "encoding": encoding})).json()["vector"]
    assert received == numbers[0]


async def test_float16_is_the_nearest_to_float32(client: httpx.AsyncClient) -> None:
    body = {"input": ["cats", "dogs"], "encoding_format": "base64"}
    whole = array_of(await client.post("/v1/embeddings", json=body, headers={"Accept": BYTES}))
    half = array_of(await client.post("/v1/embeddings", json=body, headers={"Accept": f"{BYTES};dtype=float16"}))
    np.testing.assert_array_equal(half, whole.astype(np.float16))
    assert half.dtype == np.float16


async def test_many_bytes_come_in_pieces_and_in_order(
    client: httpx.AsyncClient, inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, inference.dimension = {"items": ["a", "b", "c", "d", "e"]}, 100
    whole = await client.post("/vectorize-batch", json=body, headers={"Accept": BYTES})
    monkeypatch.setattr(binary, "_PIECE_BYTES", 1000)  # two rows
    assert (await client.post("/vectorize-batch", json=body, headers={"Accept": BYTES})).content == whole.content


@pytest.mark.parametrize("items", [[], {}])
async def test_no_texts_are_an_empty_array(client: httpx.AsyncClient, items: Any) -> None:
    reply = await client.post("/vectorize-batch", json={"items": items}, headers={"Accept": BYTES})
    assert array_of(reply).shape == (0, 0)


async def test_colbert_vectors_come_one_text_after_the_other_with_their_lengths(client: httpx.AsyncClient) -> None:
    body = {"items": {"a": "one two three", "b": "four"}, "return_colbert": True}
    received = (await client.post("/vectorize-batch-hybrid", json=body)).json()["hybrid_vectors"]
    reply = await client.post("/vectorize-batch-hybrid", json=body, headers={"Accept": BYTES})
    rows = received["a"]["colbert"] + received["b"]["colbert"]
    np.testing.assert_array_equal(array_of(reply), np.array(rows, np.float32))
    assert reply.headers["x-lengths"] == "3,1"


async def test_bytes_without_colbert_vectors_are_refused_on_the_hybrid_route(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    reply = await client.post("/vectorize-batch-hybrid", json={"items": ["a"]}, headers={"Accept": BYTES})
    assert (reply.status_code, inference.asked) == (422, [])
    assert reply.json()["detail"].startswith("header Accept: bytes are for ColBERT vectors alone")
