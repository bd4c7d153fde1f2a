"""LangChain's embeddings and compressor against the running service."""

from __future__ import annotations

import numpy as np
import openai
import pytest
import tiktoken
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

from tests.conftest import M3
from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service


def openai_embeddings(service: Service, **more: object) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(  # the last one, because its token ids are of another vocabulary
        model=STARTER, base_url=f"{service.url}/v1", api_key="any", check_embedding_ctx_length=False, **more
    )


def cohere_embeddings(service: Service) -> CohereEmbeddings:
    return CohereEmbeddings(model=STARTER, base_url=service.url, cohere_api_key="any")


def test_openais_embeddings_are_the_native_ones_in_several_requests(service: Service, native: Native) -> None:
    assert same(openai_embeddings(service).embed_documents(MANY), native.vectors(MANY))
    assert same(openai_embeddings(service, chunk_size=10).embed_documents(MANY), native.vectors(MANY))


def test_with_openais_defaults_it_sends_token_ids_which_are_refused_and_not_read_as_something_else(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_bytes = tiktoken.Encoding(
        "bytes", pat_str=".", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: by_bytes)  # its own has to be downloaded
    embeddings = OpenAIEmbeddings(model=STARTER, base_url=f"{service.url}/v1", api_key="any")
    with pytest.raises(openai.BadRequestError, match="another vocabulary"):
        embeddings.embed_documents(PASSAGES)


async def test_openais_asynchronous_embeddings_are_the_same(service: Service, native: Native) -> None:
    assert same(await openai_embeddings(service).aembed_documents(PASSAGES), native.vectors(PASSAGES))


def test_openais_query_is_a_query_when_the_call_says_so(service: Service, native: Native) -> None:
    vector = openai_embeddings(service).embed_query(QUERY, extra_body={"input_type": "query"})
    assert same([vector], native.vectors([QUERY], is_query=True))
    assert same([openai_embeddings(service).embed_query(QUERY)], native.vectors([QUERY]))


def test_openais_fewer_dimensions_are_normalised_again(service: Service, native: Native) -> None:
    whole = native.vectors(PASSAGES)[:, :64]
    vectors = openai_embeddings(service, dimensions=64).embed_documents(PASSAGES)
    assert same(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True))


def test_coheres_embeddings_know_queries_from_documents(service: Service, native: Native) -> None:
    embeddings, texts = cohere_embeddings(service), MANY * 4  # two requests
    assert same(embeddings.embed_documents(texts), native.vectors(texts))
    assert same([embeddings.embed_query(QUERY)], native.vectors([QUERY], is_query=True))


async def test_coheres_asynchronous_embeddings_are_the_same(service: Service, native: Native) -> None:
    embeddings = cohere_embeddings(service)
    assert same(await embeddings.aembed_documents(PASSAGES), native.vectors(PASSAGES))
    assert same([await embeddings.aembed_query(QUERY)], native.vectors([QUERY], is_query=True))


def test_a_vector_store_finds_the_passage(service: Service) -> None:
    store = InMemoryVectorStore.from_texts(PASSAGES, cohere_embeddings(service))
    assert store.similarity_search(QUERY, k=1)[0].page_content == PASSAGES[0]


def test_the_compressor_keeps_the_best_three_with_their_native_scores(service: Service, native: Native) -> None:
    compressor = CohereRerank(model=M3, base_url=service.url, cohere_api_key="any")
    kept = compressor.compress_documents([Document(text) for text in PASSAGES], QUERY)
    scores = np.array(native.scores(QUERY, PASSAGES))
    order = np.argsort(-scores)[:3]
    assert [document.page_content for document in kept] == [PASSAGES[i] for i in order]
    assert [document.metadata["relevance_score"] for document in kept] == pytest.approx(scores[order], abs=1e-5)
    assert len(compressor.rerank(PASSAGES, QUERY, top_n=None)) == len(PASSAGES)
