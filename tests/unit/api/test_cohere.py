"""/v1/embed and /v2/embed of the Cohere API."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.api.encoding import json_stream
from serve_app.api.encoding.quantize import as_base64, as_binary, as_int8, as_ubinary, as_uint8
from serve_app.domain.profiles import TextRole
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import Asked, FakeInference, vector_of

TEXTS = ["cats", "dogs"]
TOKENS = {"input_tokens": 7, "output_tokens": 0}
FORMS = {"int8": as_int8, "uint8": as_uint8, "binary": as_binary, "ubinary": as_ubinary}


async def embed(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await client.post("/v2/embed", json={"texts": TEXTS, "input_type": "search_document", **more})


async def test_the_reply_has_coheres_fields_and_real_usage(client: httpx.AsyncClient, inference: FakeInference) -> None:
    received = (await embed(client, model="my-e5")).json()
    assert received.pop("id")
    assert received == {
        "response_type": "embeddings_by_type",
        "model": "my-e5",
        "embeddings": {"float": [[float(str(x)) for x in vector_of(text)] for text in TEXTS]},
        "texts": TEXTS,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}, "tokens": TOKENS},
    }
    assert inference.asked == [Asked(TEXTS, TextRole.PASSAGE, "my-e5", True, LIMITS.request_timeout_s)]


@pytest.mark.parametrize("pieces", [False, True])
async def test_all_encodings_come_from_one_call_in_the_requested_order(
    client: httpx.AsyncClient, inference: FakeInference, monkeypatch: pytest.MonkeyPatch, pieces: bool
) -> None:
    if pieces:
        monkeypatch.setattr(json_stream, "_PIECE_FLOATS", 4)  # a row
    types = ["ubinary", "float", "base64", "int8", "uint8", "binary", "float"]
    received = (await embed(client, embedding_types=types)).json()["embeddings"]
    assert list(received) == types[:-1]
    vectors = np.stack([vector_of(text) for text in TEXTS])
    np.testing.assert_array_equal(np.array(received["float"], np.float32), vectors)
    for name, form in FORMS.items():
        assert received[name] == form(vectors).tolist()
    assert received["base64"] == as_base64(vectors)
    assert len(inference.asked) == 1


@pytest.mark.parametrize(
    ("input_type", "role"),
    [
        ("search_query", TextRole.QUERY),
        ("search_document", TextRole.PASSAGE),
        ("classification", TextRole.QUERY),
        ("clustering", TextRole.QUERY),
    ],
)
async def test_the_input_type_is_a_role(
    client: httpx.AsyncClient, inference: FakeInference, input_type: str, role: TextRole
) -> None:
    await embed(client, input_type=input_type, truncate="NONE")
    assert (inference.asked[0].role, inference.asked[0].truncate) == (role, False)


async def test_fewer_dimensions_are_normalised_again(client: httpx.AsyncClient) -> None:
    received = (await embed(client, output_dimension=3)).json()["embeddings"]["float"]
    np.testing.assert_allclose(np.linalg.norm(received, axis=1), 1, atol=1e-6)
    assert np.array(received).shape == (2, 3)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"texts": []}, "texts"),
        ({"texts": ["a", ""]}, "texts[1]"),
        ({"texts": ["a"] * 6}, "texts"),
        ({"texts": "a"}, "texts"),
        ({"input_type": "image"}, "input_type"),
        ({"embedding_types": []}, "embedding_types"),
        ({"embedding_types": ["float", "int4"]}, "embedding_types[1]"),
        ({"truncate": "MIDDLE"}, "truncate"),
        ({"output_dimension": 5}, "output_dimension"),
        ({"images": ["data:"]}, "images"),
    ],
)
async def test_a_violation_of_the_schema_or_a_limit_is_named(
    client: httpx.AsyncClient, more: dict[str, Any], param: str
) -> None:
    reply = await embed(client, **more)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_cut_texts_are_named_in_a_header(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.truncated = [1]
    assert (await embed(client)).headers["x-truncated"] == "1"


async def test_v1_returns_a_plain_list_of_passages_by_default(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    received = (await client.post("/v1/embed", json={"texts": TEXTS})).json()
    assert received.pop("id")
    assert received == {
        "response_type": "embeddings_floats",
        "model": "my-e5",
        "embeddings": [[float(str(x)) for x in vector_of(text)] for text in TEXTS],
        "texts": TEXTS,
        "meta": {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 7}, "tokens": TOKENS},
    }
    assert inference.asked == [Asked(TEXTS, TextRole.PASSAGE, None, True, LIMITS.request_timeout_s)]


async def test_v1_treats_null_as_absent(client: httpx.AsyncClient, inference: FakeInference) -> None:
    empty = dict.fromkeys(["model", "input_type", "embedding_types", "truncate"])
    assert (await client.post("/v1/embed", json={"texts": TEXTS, **empty})).status_code == 200
    assert (inference.asked[0].role, inference.asked[0].truncate) == (TextRole.PASSAGE, True)


async def test_v1_gives_the_types_that_are_named(client: httpx.AsyncClient, inference: FakeInference) -> None:
    body = {"texts": TEXTS, "embedding_types": ["int8"], "input_type": "search_query", "truncate": "NONE"}
    received = (await client.post("/v1/embed", json=body)).json()
    assert received["response_type"] == "embeddings_by_type"
    assert received["embeddings"] == {"int8": as_int8(np.stack([vector_of(text) for text in TEXTS])).tolist()}
    assert (inference.asked[0].role, inference.asked[0].truncate) == (TextRole.QUERY, False)


@pytest.mark.parametrize(
    ("more", "param"),
    [({"texts": []}, "texts"), ({"embedding_types": []}, "embedding_types"), ({"truncate": "MIDDLE"}, "truncate")],
)
async def test_v1_names_a_violation_of_the_schema(client: httpx.AsyncClient, more: dict[str, Any], param: str) -> None:
    reply = await client.post("/v1/embed", json={"texts": TEXTS, **more})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
