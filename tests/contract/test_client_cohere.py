"""Cohere's clients against the running service; and Jina's form of reranking, which has no client of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import cohere
import httpx
import numpy as np
import pytest

from tests.conftest import CROSS_ENCODER, M3
from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service


@pytest.fixture
def client(service: Service) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key="any", base_url=service.url) as client:
        yield client


def test_with_its_defaults_the_vectors_are_the_native_ones(client: cohere.ClientV2, native: Native) -> None:
    reply = client.embed(model=STARTER, texts=PASSAGES, input_type="search_document")
    assert same(reply.embeddings.float_, native.vectors(PASSAGES))
    assert reply.texts == PASSAGES
    query = client.embed(model=STARTER, texts=[QUERY], input_type="search_query")
    assert same(query.embeddings.float_, native.vectors([QUERY], is_query=True))


def test_usage_counts_the_tokens_that_were_read(client: cohere.ClientV2, native: Native) -> None:
    reply = client.embed(model=STARTER, texts=PASSAGES, input_type="search_document")
    assert reply.meta.billed_units.input_tokens == sum(len(native.token_ids(text)) for text in PASSAGES)


def test_every_type_of_vector_is_the_same_vector(client: cohere.ClientV2, native: Native) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    told = client.embed(model=STARTER, texts=PASSAGES, input_type="search_document", embedding_types=types).embeddings
    whole = native.vectors(PASSAGES)
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in told.base64]
    assert same(decoded, whole)
    assert np.abs(np.array(told.int8) / 127 - whole).max() < 0.005
    assert np.abs((np.array(told.uint8) - 128.0) / 127 - whole).max() < 0.005
    bits = np.unpackbits(np.array(told.ubinary, np.uint8), axis=1)
    assert (bits == (np.array(told.float_) > 0)).all()
    assert (np.array(told.binary) + 128 == np.array(told.ubinary)).all()


def test_fewer_dimensions_are_the_first_ones_normalised_again(client: cohere.ClientV2, native: Native) -> None:
    reply = client.embed(model=STARTER, texts=PASSAGES, input_type="search_document", output_dimension=64)
    whole = native.vectors(PASSAGES)[:, :64]
    assert same(reply.embeddings.float_, whole / np.linalg.norm(whole, axis=1, keepdims=True))


async def test_the_asynchronous_client_embeds_and_reranks_alike(service: Service, native: Native) -> None:
    async with cohere.AsyncClientV2(api_key="any", base_url=service.url) as client:
        reply = await client.embed(model=STARTER, texts=PASSAGES, input_type="search_document")
        ranked = await client.rerank(model=M3, query=QUERY, documents=PASSAGES)
    assert same(reply.embeddings.float_, native.vectors(PASSAGES))
    assert ranked.results[0].index == int(np.argmax(native.scores(QUERY, PASSAGES)))


def test_the_first_versions_client_embeds_many_texts_in_requests_of_96(service: Service, native: Native) -> None:
    texts = MANY * 4
    with cohere.Client(api_key="any", base_url=service.url) as client:
        plain = client.embed(model=STARTER, texts=texts)
        typed = client.embed(model=STARTER, texts=MANY, input_type="search_query", embedding_types=["float"])
    assert same(plain.embeddings, native.vectors(texts))
    assert same(typed.embeddings.float_, native.vectors(MANY, is_query=True))


@pytest.mark.parametrize("model", [M3, CROSS_ENCODER])
def test_reranked_documents_have_the_native_scores_best_first(
    client: cohere.ClientV2, native: Native, model: str
) -> None:
    scores = native.scores(QUERY, PASSAGES, model=model)
    results = client.rerank(model=model, query=QUERY, documents=PASSAGES).results
    assert [result.index for result in results] == np.argsort(-np.array(scores), kind="stable").tolist()
    for result in results:
        assert result.relevance_score == pytest.approx(scores[result.index], abs=1e-5)
    (best,) = client.rerank(model=model, query=QUERY, documents=PASSAGES, top_n=1).results
    assert best.index == results[0].index


def test_the_first_versions_client_reranks_and_gets_documents_back(service: Service, native: Native) -> None:
    with cohere.Client(api_key="any", base_url=service.url) as client:
        results = client.rerank(model=M3, query=QUERY, documents=PASSAGES, return_documents=True).results
    assert [PASSAGES[result.index] for result in results] == [result.document.text for result in results]


def test_what_is_wrong_is_of_the_clients_own_classes_and_names_the_field(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.NotFoundError, match="embed-v4"):
        client.embed(model="embed-v4.0", texts=["a"], input_type="search_query")
    with pytest.raises(cohere.BadRequestError, match=r"texts\[1\]"):
        client.embed(model=STARTER, texts=["a", ""], input_type="search_query")
    with pytest.raises(cohere.BadRequestError, match="2048"):
        client.embed(model=STARTER, texts=["a"] * 2049, input_type="search_query")
    with pytest.raises(cohere.BadRequestError, match=M3):
        client.rerank(model=STARTER, query=QUERY, documents=PASSAGES)


def test_what_jinas_documentation_posts_is_answered_in_its_form(service: Service, native: Native) -> None:
    body = {"model": M3, "query": QUERY, "top_n": 3, "documents": PASSAGES, "return_documents": True}
    told = httpx.post(f"{service.url}/v1/rerank", json=body, headers={"Authorization": "Bearer any"}).json()
    scores = native.scores(QUERY, PASSAGES)
    assert [result["index"] for result in told["results"]] == np.argsort(-np.array(scores))[:3].tolist()
    for result in told["results"]:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-5)
        assert result["document"] == {"text": PASSAGES[result["index"]]}
    assert told["usage"]["total_tokens"] > 0
