"""/embed, /embed_sparse, /similarity, /tokenize, /info and TEI's form of /rerank."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app import __version__
from serve_app.api.dialects.tei import tei_routes
from serve_app.domain.errors import CapabilityError
from serve_app.domain.profiles import TextRole
from tests.unit.api.conftest import LIMITS
from tests.unit.api.fake_inference import Asked, FakeInference, score_of, vector_of


@pytest.mark.parametrize("path", ["/embed", "/"])
@pytest.mark.parametrize("inputs", ["cats", ["cats"], ["cats", "dogs"]])
async def test_vectors_come_as_a_bare_list_of_lists(client: httpx.AsyncClient, path: str, inputs: Any) -> None:
    reply = await client.post(path, json={"inputs": inputs})
    texts = [inputs] if isinstance(inputs, str) else inputs
    assert reply.json() == [[float(str(x)) for x in vector_of(text)] for text in texts]


async def test_texts_get_no_prefix_and_no_truncation_by_default(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    await client.post("/embed", json={"inputs": "cats"})
    assert inference.asked == [Asked(["cats"], None, None, False, LIMITS.request_timeout_s)]


@pytest.mark.parametrize(
    ("prompt", "role"), [("query", TextRole.QUERY), ("passage", TextRole.PASSAGE), ("document", TextRole.PASSAGE)]
)
async def test_a_prompt_is_a_role(
    client: httpx.AsyncClient, inference: FakeInference, prompt: str, role: TextRole
) -> None:
    options = {"prompt_name": prompt, "truncate": True, "normalize": True, "truncation_direction": "right"}
    await client.post("/embed", json={"inputs": "cats", "model": "my-e5", **options})
    await client.post("/embed_sparse", json={"inputs": "cats", "prompt_name": prompt})
    await client.post("/tokenize", json={"inputs": "cats", "prompt_name": prompt})
    assert [asked.role for asked in inference.asked] == [role] * 3
    assert (inference.asked[0].model, inference.asked[0].truncate) == ("my-e5", True)


async def test_token_ids_and_fewer_dimensions(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/embed", json={"inputs": [[5, 7], [8]], "dimensions": 3})
    assert inference.asked_ids == [[[5, 7], [8]]]
    np.testing.assert_allclose(np.linalg.norm(reply.json(), axis=1), [1, 1], atol=1e-6)


async def test_a_large_reply_is_streamed_and_holds_every_number(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    inference.dimension, inference.truncated = 40_000, [1]
    reply = await client.post("/embed", json={"inputs": ["a", "b"]})
    assert "content-length" not in reply.headers
    assert reply.headers["x-truncated"] == "1"
    np.testing.assert_array_equal(
        np.array(reply.json(), np.float32), np.stack([vector_of("a", 40_000), vector_of("b", 40_000)])
    )


async def test_sparse_vectors_are_weights_by_token_id(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.truncated = [0]
    reply = await client.post("/embed_sparse", json={"inputs": ["big cats", "dog"], "truncate": True})
    assert reply.json() == [[{"index": 3, "value": 0.5}, {"index": 4, "value": 0.5}], [{"index": 3, "value": 0.5}]]
    assert reply.headers["x-truncated"] == "0"
    inference.error = CapabilityError("'my-e5' does not support sparse vectors")
    assert (await client.post("/embed_sparse", json={"inputs": "a"})).status_code == 400


async def test_similarities_are_dot_products_with_the_source_sentence_from_one_call(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    inputs, inference.truncated = {"source_sentence": "cats", "sentences": ["dogs", "cats"]}, [2]
    reply = await client.post("/similarity", json={"inputs": inputs})
    source, other = vector_of("cats"), vector_of("dogs")
    assert reply.json() == pytest.approx([float(other @ source), float(source @ source)], rel=1e-5)
    assert reply.headers["x-truncated"] == "2"
    assert inference.asked == [Asked(["cats", "dogs", "cats"], None, None, False, LIMITS.request_timeout_s)]


@pytest.mark.parametrize("parameters", [None, {}, {"prompt_name": "query", "truncate": True, "model": "my-e5"}])
async def test_similarity_has_its_options_in_parameters(
    client: httpx.AsyncClient, inference: FakeInference, parameters: dict[str, Any] | None
) -> None:
    inputs = {"source_sentence": "cats", "sentences": ["dogs"]}
    await client.post("/similarity", json={"inputs": inputs, "parameters": parameters})
    asked = inference.asked[0]
    wanted = (TextRole.QUERY, True, "my-e5") if parameters else (None, False, None)
    assert (asked.role, asked.truncate, asked.model) == wanted


@pytest.mark.parametrize("piece", [1, 4096])
@pytest.mark.parametrize("special", [True, False])
async def test_tokens_have_teis_fields(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, special: bool, piece: int
) -> None:
    monkeypatch.setattr(tei_routes, "_BATCH_TOKENS", piece)
    reply = await client.post("/tokenize", json={"inputs": ["é", "cats"], "add_special_tokens": special})
    first = [{"id": 0, "text": "<s>", "special": True, "start": None, "stop": None}] if special else []
    assert reply.json() == [
        [*first, {"id": 1, "text": "é", "special": False, "start": 0, "stop": 2}],
        [*first, {"id": 4, "text": "cats", "special": False, "start": 0, "stop": 4}],
    ]


async def test_the_characters_of_all_texts_to_tokenise_are_bounded(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    half = "x" * (LIMITS.max_text_chars // 2)
    assert (await client.post("/tokenize", json={"inputs": [half, half]})).status_code == 200
    reply = await client.post("/tokenize", json={"inputs": [half, half, "x"]})
    assert (reply.status_code, len(inference.asked)) == (400, 1)
    assert reply.json()["error"].startswith("inputs: 101 characters together, the limit is 100")


async def test_info_names_the_default_model_and_the_limits(client: httpx.AsyncClient) -> None:
    received = (await client.get("/info")).json()
    assert (received["model_id"], received["max_input_length"], received["model_dtype"]) == ("my-e5", 512, "float32")
    assert (received["max_client_batch_size"], received["version"]) == (LIMITS.max_items, __version__)
    ours = {"max_text_tokens": 512, "max_backlog_tokens": 9000}
    assert received["limits"] == asdict(LIMITS) | ours
    assert received["limits"].keys() > {"max_body_bytes", "max_items", "max_text_chars", "max_candidates"}
    assert received["limits"].keys() > {"max_request_tokens", "request_timeout_s", "body_timeout_s"}


# ------------------------------------------------------------------ /rerank


async def test_texts_come_back_sorted(client: httpx.AsyncClient, inference: FakeInference) -> None:
    body = {"query": "cats", "texts": ["bb", "a", "ccc"]}
    reply = await client.post("/rerank", json=body)
    expected = [{"index": i, "score": score_of(body["texts"][i])} for i in (2, 0, 1)]
    assert reply.json() == expected
    assert (inference.reranks[0].normalize, inference.reranks[0].options.truncate) == (True, False)
    received = (await client.post("/rerank", json=body | {"raw_scores": True, "return_text": True})).json()
    assert received == [result | {"text": body["texts"][int(result["index"])]} for result in expected]
    assert inference.reranks[1].normalize is False


async def test_no_texts_get_no_scores_without_any_work(client: httpx.AsyncClient, inference: FakeInference) -> None:
    assert (await client.post("/rerank", json={"query": "a", "texts": []})).json() == []
    assert inference.reranks == []


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/embed", {}, "inputs: field required"),
        ("/embed", {"inputs": []}, "inputs: must not be empty"),
        ("/embed", {"inputs": ["a", ""]}, "inputs[1]: must not be empty"),
        ("/embed", {"inputs": "a", "truncation_direction": "Up"}, "truncation_direction: input should be"),
        ("/embed", {"inputs": "a", "prompt_name": "s2s"}, "prompt_name: input should be"),
        ("/embed", {"inputs": [5], "prompt_name": "query"}, "prompt_name: token ids are taken as they are"),
        ("/embed_sparse", {"inputs": [5]}, "inputs[0]: input should be a valid string"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences: must not be empty"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["a"]}}, "inputs.source_sentence: must not"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", ""]}}, "inputs.sentences[1]: must not"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 5}}, "inputs.sentences: 5 texts"),
        ("/similarity", {"inputs": "a"}, "inputs: input should be"),
        ("/tokenize", {"inputs": 5}, "inputs: input should be a string or a list of strings"),
    ],
)
async def test_a_violation_of_the_schema_or_a_limit_is_named(
    client: httpx.AsyncClient, inference: FakeInference, path: str, body: dict[str, Any], named: str
) -> None:
    reply = await client.post(path, json=body)
    assert (reply.status_code, inference.asked) == (400, [])
    assert reply.json()["error"].startswith(named)


@pytest.mark.parametrize(
    "body", [{"query": "a", "texts": ["b", ""]}, {"query": "a", "texts": ["b"], "candidates": ["c"]}]
)
async def test_a_broken_form_of_texts_is_named(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    reply = await client.post("/rerank", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith(("texts[1]: must not", "candidates: cannot be honoured"))


# ------------------------------------------------------------------ /embed_all, /decode, what /info tells


async def test_every_token_has_its_state(client: httpx.AsyncClient, inference: FakeInference) -> None:
    inference.truncated = [1]
    reply = await client.post("/embed_all", json={"inputs": ["big cats", "dog"], "prompt_name": "query"})
    expected = [[vector_of(word) for word in ("<s>", *text.split())] for text in ("big cats", "dog")]
    for received, states in zip(reply.json(), expected, strict=True):
        np.testing.assert_allclose(received, states, rtol=1e-6)
    assert (reply.headers["x-truncated"], inference.asked[0].role) == ("1", TextRole.QUERY)
    one = (await client.post("/embed_all", json={"inputs": "dog"})).json()
    np.testing.assert_allclose(one, expected[1:], rtol=1e-6)


async def test_token_ids_become_texts(client: httpx.AsyncClient, inference: FakeInference) -> None:
    assert (await client.post("/decode", json={"ids": [5, 7]})).json() == ["5 7"]
    body = {"ids": [[5, 7], [8]], "skip_special_tokens": False}
    assert (await client.post("/decode", json=body)).json() == ["<s> 5 7", "<s> 8"]
    for ids, message in (
        ([], "ids: must not be empty"),
        ([[5], []], "ids[1]: must not be empty"),
        ([5, -1], "ids[1]: input should be a token id"),
        ([[5] * 60, [5] * 60], "ids: 120 token ids together, the limit is 100"),
        ("a", "ids: input should be a list of token ids"),
        (["a"], "ids: input should be a list of token ids"),
    ):
        reply = await client.post("/decode", json={"ids": ids})
        assert (reply.status_code, reply.json()["error"][: len(message)]) == (400, message)


async def test_info_has_the_keys_of_tei(client: httpx.AsyncClient) -> None:
    received = (await client.get("/info")).json()
    assert (received["max_concurrent_requests"], received["tokenization_workers"]) == (100, 2)
    assert (received["max_batch_tokens"], received["max_batch_requests"]) == (None, None)
