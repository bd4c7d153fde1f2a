"""Haystack's embedders for OpenAI's API against the running service."""

from __future__ import annotations

import numpy as np
import openai
import pytest
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service

KEY = Secret.from_token("any")


def documents_embedder(service: Service, **more: object) -> OpenAIDocumentEmbedder:
    more = {"model": STARTER, "progress_bar": False, **more}
    return OpenAIDocumentEmbedder(api_key=KEY, api_base_url=f"{service.url}/v1", **more)


def text_embedder(service: Service, **more: object) -> OpenAITextEmbedder:
    return OpenAITextEmbedder(api_key=KEY, model=STARTER, api_base_url=f"{service.url}/v1", **more)


def test_with_its_defaults_documents_have_the_native_vectors(service: Service, native: Native) -> None:
    told = documents_embedder(service).run([Document(content=text) for text in MANY])
    assert same([document.embedding for document in told["documents"]], native.vectors(MANY))
    assert told["meta"]["usage"]["total_tokens"] == sum(len(native.token_ids(text)) for text in MANY)


def test_documents_may_take_several_requests(service: Service, native: Native) -> None:
    told = documents_embedder(service, batch_size=10).run([Document(content=text) for text in MANY])
    assert same([document.embedding for document in told["documents"]], native.vectors(MANY))


async def test_its_asynchronous_run_gives_the_same(service: Service, native: Native) -> None:
    embedder = documents_embedder(service)
    told = await embedder.run_async([Document(content=text) for text in PASSAGES])
    await embedder.close_async()
    assert same([document.embedding for document in told["documents"]], native.vectors(PASSAGES))


def test_a_text_is_a_passage_with_its_defaults(service: Service, native: Native) -> None:
    told = text_embedder(service).run(QUERY)
    assert same([told["embedding"]], native.vectors([QUERY]))


def test_a_text_is_a_query_when_the_header_says_so(service: Service, native: Native) -> None:
    told = text_embedder(service, http_client_kwargs={"headers": {"X-Input-Type": "query"}}).run(QUERY)
    assert same([told["embedding"]], native.vectors([QUERY], is_query=True))


def test_fewer_dimensions_are_normalised_again(service: Service, native: Native) -> None:
    whole = native.vectors([QUERY])[:, :64]
    told = text_embedder(service, dimensions=64).run(QUERY)
    assert same([told["embedding"]], whole / np.linalg.norm(whole, axis=1, keepdims=True))


def test_an_unknown_model_is_an_error_when_failures_are_to_be_raised(service: Service) -> None:
    embedder = documents_embedder(service, model="text-embedding-3-small", raise_on_failure=True)
    with pytest.raises(openai.NotFoundError, match="text-embedding-3-small"):
        embedder.run([Document(content="a")])
