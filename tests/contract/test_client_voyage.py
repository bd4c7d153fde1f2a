"""Voyage's client against the running service."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import voyageai

from tests.conftest import CROSS_ENCODER, M3
from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service


@pytest.fixture
def client(service: Service) -> voyageai.Client:
    return voyageai.Client(api_key="any", base_url=f"{service.url}/v1", max_retries=0)


def test_its_input_types_are_our_roles_and_without_one_a_text_is_a_passage(
    client: voyageai.Client, native: Native
) -> None:
    documents = client.embed(MANY, model=STARTER, input_type="document")
    assert same(documents.embeddings, native.vectors(MANY))
    assert documents.total_tokens == sum(len(native.token_ids(text)) for text in MANY)
    assert same(
        client.embed([QUERY], model=STARTER, input_type="query").embeddings, native.vectors([QUERY], is_query=True)
    )
    assert same(client.embed([QUERY], model=STARTER).embeddings, native.vectors([QUERY]))


async def test_the_asynchronous_client_gets_the_same(service: Service, native: Native) -> None:
    client = voyageai.AsyncClient(api_key="any", base_url=f"{service.url}/v1", max_retries=0)
    reply = await client.embed(PASSAGES, model=STARTER, input_type="document")
    assert same(reply.embeddings, native.vectors(PASSAGES))


def test_fewer_dimensions_and_whole_numbers(client: voyageai.Client, native: Native) -> None:
    whole = native.vectors(PASSAGES)[:, :64]
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    floats = client.embed(PASSAGES, model=STARTER, input_type="document", output_dimension=64, output_dtype="float")
    assert same(floats.embeddings, whole)
    small = client.embed(PASSAGES, model=STARTER, input_type="document", output_dimension=64, output_dtype="int8")
    assert np.abs(np.array(small.embeddings) / 127 - whole).max() < 0.005


@pytest.mark.parametrize("model", [M3, CROSS_ENCODER])
def test_reranked_documents_have_the_native_scores_best_first(
    client: voyageai.Client, native: Native, model: str
) -> None:
    reply = client.rerank(QUERY, PASSAGES, model=model, top_k=3)
    scores = native.scores(QUERY, PASSAGES, model=model)
    assert [result.index for result in reply.results] == np.argsort(-np.array(scores), kind="stable")[:3].tolist()
    assert [result.document for result in reply.results] == [PASSAGES[result.index] for result in reply.results]
    assert reply.results[0].relevance_score == pytest.approx(max(scores), abs=1e-5)
    assert reply.total_tokens > 0
    assert len(client.rerank(QUERY, PASSAGES, model=model).results) == len(PASSAGES)


def test_what_is_wrong_is_of_its_own_classes(client: voyageai.Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(voyageai.error.VoyageError, match="voyage-3"):
            client.embed(["a"], model="voyage-3")
        with pytest.raises(voyageai.error.InvalidRequestError, match=r"input\[1\]"):
            client.embed(["a", ""], model=STARTER)
