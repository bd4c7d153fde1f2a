"""Tolerant requests: each field is honoured, ignored by name, or refused by name."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.domain.profiles import TextRole
from tests.unit.api.fake_inference import FakeInference, vector_of

PASSAGE, QUERY = TextRole.PASSAGE, TextRole.QUERY
RANKED = {"query": "cats", "documents": ["bb", "a", "ccc"]}
MINIMAL: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "cats"},
    "/embeddings": {"input": "cats"},
    "/v1/embed": {"texts": ["cats"]},
    "/v2/embed": {"texts": ["cats"]},
    "/v1/rerank": RANKED,
    "/v2/rerank": RANKED,
    "/rerank": RANKED,
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/embed": {"inputs": "cats"},
    "/embed_all": {"inputs": "cats"},
    "/embed_sparse": {"inputs": "cats"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/tokenize": {"inputs": "cats"},
    "/decode": {"ids": [5]},
}
EMBEDDING = ["/v1/embeddings", "/embeddings", "/v1/embed", "/v2/embed", "/embed"]
RANKING = ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/score"]
CUTTING = [*EMBEDDING, *RANKING, "/embed_all", "/embed_sparse"]
SPARSELY_CUT = {"/embed", "/embed_all", "/embed_sparse"}  # they refuse what is too long unless told otherwise


async def ok(client: httpx.AsyncClient, path: str, **more: Any) -> httpx.Response:
    reply = await client.post(path, json=MINIMAL[path] | more)
    assert reply.status_code == 200, reply.text
    return reply


# ------------------------------------------------------------------ the four rules


@pytest.mark.parametrize("path", MINIMAL)
async def test_null_is_absent_in_every_documented_field(client: httpx.AsyncClient, path: str) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    refs = [body["$ref"]] if "$ref" in body else [one["$ref"] for one in body.get("anyOf", body.get("oneOf"))]
    names = {ref.split("/")[-1] for ref in refs} - {"RerankRequest", "RerankTextsRequest"}
    for name in names:
        known = schema["components"]["schemas"][name]
        optional = set(known["properties"]) - set(known["required"])
        assert len(optional) >= 1
        expected, received = await ok(client, path), await ok(client, path, **dict.fromkeys(optional))
        assert '"id":' in received.text or received.text == expected.text


@pytest.mark.parametrize("path", MINIMAL)
async def test_unknown_fields_are_ignored_and_named(client: httpx.AsyncClient, path: str) -> None:
    assert "x-ignored-fields" not in (await ok(client, path, unknown=None)).headers
    reply = await ok(client, path, drop_params=True, **{"odd\r\nName: ü": {}})
    assert reply.headers["x-ignored-fields"] == "drop_params,odd??Name???"
    many = (await ok(client, path, **{f"field_{i}": i for i in range(30)})).headers["x-ignored-fields"]
    assert many.count(",") == 20
    assert many.endswith("field_19,...")


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/embeddings", "late_chunking", True),
        ("/v1/embeddings", "stream", True),
        ("/v2/embed", "images", ["data:"]),
        ("/embed", "instruction", "Find"),
        ("/v1/embeddings", "add_special_tokens", False),
        ("/v1/embeddings", "modality", "image"),
        ("/v1/rerank", "instruction", "Find"),
        ("/v2/rerank", "candidates", ["a"]),
        ("/v1/embeddings", "output_dtype", "int4"),
        ("/v1/embeddings", "embedding_type", "int4"),
        ("/v1/embeddings", "input_type", "image"),
        ("/v1/embeddings", "task", "translation"),
        ("/v2/embed", "truncate", "MIDDLE"),
        ("/v2/embed", "embedding_types", ["int4"]),
        ("/v1/rerank", "top_k", 0),
        ("/v1/rerank", "return_documents", "perhaps"),
        ("/v1/rerank", "rank_fields", []),
        ("/v1/embeddings", "truncate_prompt_tokens", 0),
        ("/v1/embeddings", "normalize", "half"),
        ("/v1/embeddings", "embedding_types", ["int8"]),
        ("/v1/embed", "output_dtype", "int8"),
        ("/v2/embed", "encoding_format", "base64"),
        ("/embed", "output_dtype", "int8"),
        ("/embed", "encoding_format", "base64"),
        ("/embed", "return_sparse", True),
        ("/embed_all", "dimensions", 2),
        ("/embed_sparse", "output_dtype", "int8"),
        ("/tokenize", "truncate", True),
        ("/tokenize", "max_tokens", 5),
        ("/similarity", "dimensions", 2),
        ("/similarity", "normalize", False),
        ("/rerank", "texts", ["a"]),
        ("/v1/score", "top_n", 1),
        ("/v1/score", "rank_fields", ["a"]),
        ("/v1/score", "return_documents", True),
        ("/v1/rerank", "score_threshold", 0.5),
    ],
)
async def test_an_unsupported_field_is_refused_by_its_name_in_the_request(
    client: httpx.AsyncClient, inference: FakeInference, path: str, field: str, value: Any
) -> None:
    reply = await client.post(path, json=MINIMAL[path] | {field: value})
    assert reply.status_code == 400, reply.text
    assert reply.json()["detail"].startswith(field)
    assert (inference.asked, inference.reranks) == ([], [])


@pytest.mark.parametrize("path", MINIMAL)
async def test_no_route_ignores_a_field_that_changes_its_result(
    client: httpx.AsyncClient, inference: FakeInference, path: str
) -> None:
    cannot = {"prompt": "Find: ", "instruction": "Find", "images": ["data:"], "stream": True, "messages": [{}]}
    if path != "/tokenize":
        cannot["add_special_tokens"] = False
    for field, value in cannot.items():
        reply = await client.post(path, json=MINIMAL[path] | {field: value})
        assert (reply.status_code, reply.json()["detail"].split(":")[0]) == (400, field)
    assert (inference.asked, inference.reranks) == ([], [])
    harmless = {"prompt": "", "images": [], "stream": False, "add_special_tokens": True, "instruct": None}
    assert "x-ignored-fields" not in (await ok(client, path, **harmless)).headers


@pytest.mark.parametrize("path", EMBEDDING)
async def test_the_same_fields_are_harmless_with_values_that_change_nothing(
    client: httpx.AsyncClient, path: str
) -> None:
    harmless = {"stream": False, "late_chunking": False, "images": [], "modality": "text", "add_special_tokens": True}
    reply = await ok(client, path, **harmless, normalized=True, dimensions=0, model="default/not-specified")
    assert "x-ignored-fields" not in reply.headers


async def test_two_names_of_one_field_may_agree_but_not_contradict_each_other(client: httpx.AsyncClient) -> None:
    assert len((await ok(client, "/v1/rerank", top_n=1, top_k=1)).json()["results"]) == 1
    reply = await client.post("/v1/rerank", json=RANKED | {"top_n": 1, "top_k": 2})
    assert reply.status_code == 400
    assert reply.json()["message"].startswith("top_k: top_n means the same")


@pytest.mark.parametrize(
    ("path", "agree", "differ"),
    [
        ("/v1/embeddings", {"truncate": True, "truncation": "END"}, {"truncate": True, "truncation": "none"}),
        (
            "/v1/embeddings",
            {"input_type": "search_query", "task": "retrieval.query"},
            {"input_type": "search_query", "task": "retrieval.passage"},
        ),
        ("/tokenize", {"prompt_name": "Query", "input_type": "query"}, {"prompt_name": "query", "input_type": "raw"}),
        ("/embed", {"normalize": "false", "normalized": False}, {"normalize": "no", "normalized": False}),
        ("/v1/rerank", {"return_documents": "True", "return_text": True}, {"top_n": "1", "top_k": 1}),
    ],
)
async def test_names_of_one_field_agree_where_their_values_mean_the_same(
    client: httpx.AsyncClient, path: str, agree: dict[str, Any], differ: dict[str, Any]
) -> None:
    await ok(client, path, **agree)
    reply = await client.post(path, json=MINIMAL[path] | differ)
    assert (reply.status_code, "means the same and has another value" in reply.text) == (400, True)


async def test_fields_may_be_nested_in_extra_body(client: httpx.AsyncClient) -> None:
    """LiteLLM sends to vLLM's route as ``extra_body`` what the OpenAI SDK merges into the body itself."""
    nested = await ok(client, "/v1/embeddings", extra_body={"input_type": "query", "colour": "red"})
    merged = await ok(client, "/v1/embeddings", input_type="query", colour="red")
    assert nested.json()["data"] == merged.json()["data"]
    assert nested.headers["X-Ignored-Fields"] == merged.headers["X-Ignored-Fields"] == "colour"


async def test_similarity_reads_its_options_beside_the_parameters_and_in_them(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    beside = {"prompt_name": "query", "truncate": True, "model": "my-e5", "truncation_direction": "Left"}
    await ok(client, "/similarity", **beside)
    await ok(client, "/similarity", parameters=beside)
    await ok(client, "/similarity", parameters=beside, truncate="END", input_type="search_query")
    assert [asked.role for asked in inference.asked] == [QUERY] * 3
    assert len(set(inference.options)) == 1
    assert (inference.options[0].truncate, inference.options[0].keep_end, inference.options[0].model) == (
        True,
        True,
        "my-e5",
    )
    for body, field in (
        ({"parameters": {"truncate": False}, "truncate": True}, "parameters.truncate"),
        ({"parameters": {"prompt": "Find"}}, "prompt"),
    ):
        reply = await client.post("/similarity", json=MINIMAL["/similarity"] | body)
        assert (reply.status_code, reply.json()["detail"].split(":")[0]) == (400, field)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"documents": None, "texts": ["a"]}, 200, '"score"'),
        ({"texts": None, "documents": ["a"]}, 200, '"results"'),
        ({"passages": ["a"]}, 200, '"results"'),
        ({"passages": None, "texts": ["a"]}, 200, '"score"'),
        ({"documents": None}, 400, "documents: field required"),
        ({"texts": None}, 400, "texts: field required"),
        ({"documents": ["a"], "texts": ["b"]}, 400, "texts: cannot be honoured here"),
        ({"passages": ["a"], "documents": ["b"]}, 400, "documents: passages means the same"),
    ],
)
async def test_the_form_of_a_rerank_request_is_that_of_the_list_it_has(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, message: str
) -> None:
    reply = await client.post("/rerank", json={"query": "q"} | body)
    assert (reply.status_code, message in reply.text) == (status, True), reply.text


@pytest.mark.parametrize("word", ["query", "Query", "SEARCH_QUERY", "Retrieval.Query"])
async def test_the_header_for_the_input_type_takes_the_values_of_the_field(
    client: httpx.AsyncClient, inference: FakeInference, word: str
) -> None:
    body = MINIMAL["/v1/embeddings"]
    assert (await client.post("/v1/embeddings", json=body, headers={"X-Input-Type": word})).status_code == 200
    assert (await client.post("/v1/embeddings", json=body | {"input_type": word})).status_code == 200
    assert [asked.role for asked in inference.asked] == [QUERY, QUERY]


async def test_our_own_routes_stay_strict_and_name_the_near_field(client: httpx.AsyncClient) -> None:
    for path, body, message in (
        ("/vectorize", {"txt": "a"}, "txt: extra inputs are not permitted; did you mean 'text'?"),
        ("/vectorize-batch", {"items": [{"id": "a", "txt": "b"}]}, "items[0].txt: extra inputs are not permitted; did"),
        (
            "/rerank",
            {"query": "a", "candidate": ["b"]},
            "candidate: extra inputs are not permitted; did you mean 'cand",
        ),
        ("/fine-tune", {"modelname": "x"}, "modelname: extra inputs are not permitted; did you mean 'model_name'?"),
        ("/vectorize", {"text": "a", "zzz": 1}, "zzz: extra inputs are not permitted"),
        ("/vectorize", {"text": "a", "is_query": None}, "is_query: input should be a valid boolean"),
    ):
        reply = await client.post(path, json=body)
        assert (reply.status_code, message in reply.json()["detail"]) == (422, True), reply.text
        assert ("did you mean" in reply.text) == ("did" in message)


# ------------------------------------------------------------------ what is honoured under another name


@pytest.mark.parametrize("path", [*EMBEDDING, "/embed_sparse", "/embed_all", "/tokenize"])
@pytest.mark.parametrize(
    ("more", "role"),
    [
        ({"input_type": "query"}, QUERY),
        ({"input_type": "search_query"}, QUERY),
        ({"task": "retrieval.query"}, QUERY),
        ({"task_type": "RETRIEVAL_QUERY"}, QUERY),
        ({"prompt_name": "query"}, QUERY),
        ({"input_type": "passage"}, PASSAGE),
        ({"input_type": "document"}, PASSAGE),
        ({"input_type": "search_document"}, PASSAGE),
        ({"task": "retrieval.passage"}, PASSAGE),
        ({"input_type": "classification"}, QUERY),
        ({"task": "text-matching"}, QUERY),
        ({"input_type": "raw"}, None),
    ],
)
async def test_the_input_type_is_accepted_in_every_services_words(
    client: httpx.AsyncClient, inference: FakeInference, path: str, more: dict[str, str], role: TextRole | None
) -> None:
    reply = await ok(client, path, **more)
    assert inference.asked[0].role is role
    assert "x-ignored-fields" not in reply.headers


@pytest.mark.parametrize("path", CUTTING)
@pytest.mark.parametrize(
    ("more", "truncate", "keep_end", "max_tokens"),
    [
        ({}, None, False, None),
        ({"truncate": True}, True, False, None),
        ({"truncate": "END"}, True, False, None),
        ({"truncate": "START"}, True, True, None),
        ({"truncate": "none"}, False, False, None),
        ({"truncation": False}, False, False, None),
        ({"truncation": "true"}, True, False, None),
        ({"truncate": True, "truncation_direction": "Left"}, True, True, None),
        ({"truncation_side": "left"}, None, True, None),
        ({"truncate_prompt_tokens": 16}, True, False, 16),
        ({"truncate_prompt_tokens": -1}, None, False, None),
        ({"max_tokens_per_doc": 5}, True, False, 5),
        ({"max_tokens": 5, "truncate": "NONE"}, False, False, 5),
    ],
)
async def test_truncation_is_accepted_in_every_services_words(
    client: httpx.AsyncClient,
    inference: FakeInference,
    path: str,
    more: dict[str, Any],
    truncate: bool | None,
    keep_end: bool,
    max_tokens: int | None,
) -> None:
    await ok(client, path, **more)
    (options,) = inference.options
    default = path not in SPARSELY_CUT
    assert options.truncate is (default if truncate is None else truncate)
    assert (options.keep_end, options.max_tokens, options.keep_prefix) == (keep_end, max_tokens, True)


@pytest.mark.parametrize("path", EMBEDDING)
@pytest.mark.parametrize("name", ["normalize", "normalized", "normalize_embeddings"])
async def test_vectors_are_not_normalised_on_request(
    client: httpx.AsyncClient, inference: FakeInference, path: str, name: str
) -> None:
    reply = await ok(client, path, **{name: False}, dimensions=3, embedding_types=["float"])
    assert inference.options[0].normalize is False
    assert str(float(str(vector_of("cats")[2]))) in reply.text, "shortened, and not normalised again"
    if path != "/embed":
        field = {"embedding_types": ["int8"]} if path[3:] == "/embed" else {"output_dtype": "int8"}
        reply = await client.post(path, json=MINIMAL[path] | field | {name: False})
        assert (reply.status_code, "is for L2-normalised vectors" in reply.text) == (400, True)


@pytest.mark.parametrize("inputs", [{"text": "cats"}, [{"text": "cats"}], [{"content": "cats"}], ["cats"]])
@pytest.mark.parametrize(
    ("path", "field"), [("/v1/embeddings", "input"), ("/embed", "inputs"), ("/embed_all", "inputs")]
)
async def test_texts_may_be_objects(
    client: httpx.AsyncClient, inference: FakeInference, path: str, field: str, inputs: Any
) -> None:
    await ok(client, path, **{field: inputs})
    assert inference.asked[0].texts == ["cats"]


async def test_coheres_inputs_have_parts_of_which_only_texts_are_read(
    client: httpx.AsyncClient, inference: FakeInference
) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    reply = await client.post("/v2/embed", json={"inputs": [{"content": parts}, {"content": "c"}]})
    assert (reply.status_code, inference.asked[0].texts) == (200, ["a\nb", "c"])
    picture = {"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    reply = await client.post("/v2/embed", json={"inputs": ["a", picture]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "inputs[1]")


@pytest.mark.parametrize("path", MINIMAL)
async def test_blank_texts_are_read_and_empty_ones_refused_by_index(client: httpx.AsyncClient, path: str) -> None:
    fields = {"/similarity": "sentences", "/decode": None, "/v1/score": "text_2", "/v1/embeddings": "input"}
    field = fields.get(path, "documents" if "rerank" in path else "texts" if path[1:4] in {"v1/", "v2/"} else "inputs")
    field = "input" if path == "/embeddings" else field
    if field is None:
        return
    for text, status in ((" \n", 200), ("", 400)):
        body = MINIMAL[path] | {field: ["a", text]}
        if path == "/similarity":
            body = {"inputs": {"source_sentence": "a", "sentences": ["a", text]}}
        reply = await client.post(path, json=body)
        assert reply.status_code == status, reply.text
    assert f"{field}[1]: must not be empty" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("more", "dtype"),
    [
        ({"output_dtype": "int8"}, np.int8),
        ({"embedding_type": "ubinary"}, np.uint8),
        ({"output_dtype": "float"}, "<f4"),
    ],
)
async def test_openais_route_sends_numbers_as_voyages_and_jinas_clients_want_them(
    client: httpx.AsyncClient, more: dict[str, str], dtype: Any
) -> None:
    import base64

    numbers = (await ok(client, "/v1/embeddings", **more)).json()["data"][0]["embedding"]
    text = (await ok(client, "/v1/embeddings", encoding_format="base64", **more)).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(text), dtype), numbers, rtol=1e-6)
    reply = await ok(client, "/v1/embeddings", embedding_type="base64")
    assert isinstance(reply.json()["data"][0]["embedding"], str)


# ------------------------------------------------------------------ reranking


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_documents_are_read_by_their_text_or_by_the_rank_fields(
    client: httpx.AsyncClient, inference: FakeInference, path: str
) -> None:
    documents = ["plain", {"text": "t"}, {"content": "c", "n": 1}, {"page_content": "p"}]
    await ok(client, path, documents=documents)
    fields = [{"title": "x", "body": "y", "n": 3}, {"body": "z"}, "plain"]
    reply = await ok(client, path, documents=fields, rank_fields=["body", "n"], return_documents="true")
    assert [asked.candidates for asked in inference.reranks] == [["plain", "t", "c", "p"], ["y\n3", "z", "plain"]]
    assert fields[0] in [result["document"] for result in reply.json()["results"]]
    for broken, message in (
        ({"body": ["y"]}, "neither a string nor a number"),
        ({"title": "x"}, "none of the rank_fields"),
    ):
        reply = await client.post(path, json=RANKED | {"documents": ["a", broken], "rank_fields": ["body"]})
        assert reply.status_code == 400
        assert reply.json()["message"].startswith("documents[1]: ")
        assert message in reply.json()["message"]


@pytest.mark.parametrize("path", RANKING)
async def test_scores_are_raw_on_request_and_a_query_has_a_separate_limit(
    client: httpx.AsyncClient, inference: FakeInference, path: str
) -> None:
    for more in ({"raw_scores": True}, {"normalize": False}, {"use_activation": "false"}, {"raw_scores": False}):
        await ok(client, path, **more)
    assert [asked.normalize for asked in inference.reranks] == [False, False, False, True]
    query = "text_1" if path == "/v1/score" else "query"
    await ok(client, path, max_tokens_per_query=7, **{query: {"text": "cats"}})
    assert (inference.options[-1].max_query_tokens, inference.options[-1].max_tokens) == (7, None)


async def test_teis_form_takes_top_n_and_its_own_fields(client: httpx.AsyncClient, inference: FakeInference) -> None:
    body = {"query": "a", "texts": ["bb", "a", "ccc"], "top_n": 1, "return_text": True, "truncate": True}
    reply = await client.post("/rerank", json=body | {"truncation_direction": "Left", "raw_scores": False, "other": 1})
    assert [(one["index"], one["text"]) for one in reply.json()] == [(2, "ccc")]
    assert reply.headers["x-ignored-fields"] == "other"
    assert (inference.options[0].truncate, inference.options[0].keep_end) == (True, True)
