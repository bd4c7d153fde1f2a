"""/vectorize-hybrid and /vectorize-batch-hybrid: forms, options, and large replies in pieces."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from serve_app.api.dialects.native.hybrid_routes import hybrid_reply
from serve_app.api.inference_results import HybridEmbedded
from tests.unit.api.fake_inference import FakeInference, vector_of


def hybrid(text: str, *, colbert: bool = False) -> dict[str, Any]:
    """The fake vector of a text, as JSON writes a float32."""
    words = text.split()
    return {
        "dense": [float(str(value)) for value in vector_of(text)],
        "sparse": dict.fromkeys(words, 0.5),
        "colbert": [[float(str(value)) for value in vector_of(word)] for word in words] if colbert else None,
    }


@pytest.mark.parametrize("colbert", [False, True])
async def test_one_text_gets_all_representations_and_colbert_only_when_asked_for(
    client: httpx.AsyncClient, colbert: bool
) -> None:
    reply = await client.post("/vectorize-hybrid", json={"text": "two cats", "return_colbert": colbert})
    assert (reply.status_code, reply.json()) == (200, {"hybrid_vector": hybrid("two cats", colbert=colbert)})
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("items", "ids"),
    [
        (["two cats", "dogs"], None),
        ({"b": "two cats", 'a"': "dogs"}, ["b", 'a"']),
        ([{"id": "b", "text": "two cats"}, {"id": "ключ", "text": "dogs"}], ["b", "ключ"]),
    ],
)
@pytest.mark.parametrize("colbert", [False, True])
async def test_all_forms_of_items_are_answered_in_their_form(
    client: httpx.AsyncClient, items: Any, ids: list[str] | None, colbert: bool
) -> None:
    reply = await client.post("/vectorize-batch-hybrid", json={"items": items, "return_colbert": colbert})
    rows = [hybrid("two cats", colbert=colbert), hybrid("dogs", colbert=colbert)]
    assert reply.json() == {"hybrid_vectors": rows if ids is None else dict(zip(ids, rows, strict=True))}


@pytest.mark.parametrize(("items", "answer"), [([], []), ({}, {})])
async def test_empty_items_get_an_empty_answer_without_any_work(
    client: httpx.AsyncClient, inference: FakeInference, items: Any, answer: Any
) -> None:
    reply = await client.post("/vectorize-batch-hybrid", json={"items": items})
    assert (reply.json(), inference.asked) == ({"hybrid_vectors": answer}, [])


@pytest.mark.parametrize("path", ["/vectorize-batch", "/vectorize-batch-hybrid"])
@pytest.mark.parametrize("form", ["application/json", "application/octet-stream"])
async def test_empty_items_for_a_model_that_is_not_served_are_refused_as_others_are(
    client: httpx.AsyncClient, path: str, form: str
) -> None:
    body = {"items": [], "model": "e6"} | ({"return_colbert": True} if "hybrid" in path else {})
    reply = await client.post(path, json=body, headers={"accept": form})
    assert (reply.status_code, reply.json()["code"]) == (404, "model_not_found")


async def test_options_reach_the_service_and_cut_texts_are_in_a_header(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    inference.truncated = [0]
    reply = await client.post("/vectorize-hybrid", json={"text": "cats", "model": "my-m3", "truncate": False})
    assert (inference.asked[0].model, inference.asked[0].truncate) == ("my-m3", False)
    assert reply.headers["x-truncated"] == "0"


@pytest.mark.parametrize("lengths", [[1], [0, 3], [700, 1, 0, 2000]])
async def test_a_reply_in_many_pieces_is_the_json_of_the_whole(lengths: list[int]) -> None:
    draw = np.random.default_rng(0)
    dense = draw.normal(size=(len(lengths), 128)).astype(np.float32)
    colbert = [draw.normal(size=(length, 128)).astype(np.float32) for length in lengths]
    sparse = [{"a": 0.5}] * len(lengths)
    reply = hybrid_reply(HybridEmbedded("my-m3", dense, 1, (), sparse, colbert))
    pieces = [piece async for piece in reply.body_iterator]  # type: ignore[attr-defined]
    assert max(map(len, pieces)) < 2_000_000
    rows = orjson.loads(b"".join(pieces))["hybrid_vectors"]
    for row, vectors in zip(rows, colbert, strict=True):
        assert np.array_equal(np.array(row["colbert"], np.float32).reshape(-1, 128), vectors)
    assert np.array_equal(np.array([row["dense"] for row in rows], np.float32), dense)
