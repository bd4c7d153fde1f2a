"""LlamaIndex's OpenAI-like embedding against the running service."""

from __future__ import annotations

import numpy as np
import openai
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service


def embedding(service: Service, **more: object) -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name=STARTER, api_base=f"{service.url}/v1", **more)


def test_with_its_defaults_the_vectors_are_the_native_ones_in_requests_of_ten(service: Service, native: Native) -> None:
    assert same(embedding(service).get_text_embedding_batch(MANY), native.vectors(MANY))
    assert same([embedding(service).get_text_embedding(PASSAGES[3])], native.vectors([PASSAGES[3]]))


async def test_its_asynchronous_calls_give_the_same(service: Service, native: Native) -> None:
    assert same(await embedding(service).aget_text_embedding_batch(MANY), native.vectors(MANY))
    assert same([await embedding(service).aget_query_embedding(QUERY)], native.vectors([QUERY]))


def test_an_embedding_for_queries_says_so_in_the_extra_body(service: Service, native: Native) -> None:
    queries = embedding(service, additional_kwargs={"extra_body": {"input_type": "query"}})
    assert same([queries.get_query_embedding(QUERY)], native.vectors([QUERY], is_query=True))


def test_fewer_dimensions_are_normalised_again(service: Service, native: Native) -> None:
    whole = native.vectors(PASSAGES)[:, :64]
    vectors = embedding(service, dimensions=64).get_text_embedding_batch(PASSAGES)
    assert same(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True))


def test_an_index_finds_the_passage(service: Service) -> None:
    queries = embedding(service, additional_kwargs={"extra_body": {"input_type": "query"}})
    index = VectorStoreIndex([TextNode(text=text) for text in PASSAGES], embed_model=embedding(service))
    found = index.as_retriever(similarity_top_k=1, embed_model=queries).retrieve(QUERY)
    assert found[0].text == PASSAGES[0]


def test_an_unknown_model_is_an_error_of_the_client_at_once(service: Service) -> None:
    unknown = OpenAILikeEmbedding(model_name="text-embedding-3-small", api_base=f"{service.url}/v1")
    with pytest.raises(openai.NotFoundError, match="text-embedding-3-small"):
        unknown.get_text_embedding("a")
