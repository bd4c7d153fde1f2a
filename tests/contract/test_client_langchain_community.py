"""The classes of langchain-community for Infinity and Jina against the running service."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from infinity_client import Client
from langchain_core.documents import Document

with warnings.catch_warnings():  # the package says that it is no longer maintained
    warnings.simplefilter("ignore")
    from langchain_community.document_compressors import jina_rerank
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank
    from langchain_community.embeddings import InfinityEmbeddings, JinaEmbeddings, jina

from tests.conftest import CROSS_ENCODER, M3
from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service

DOCUMENTS = [Document(page_content=text) for text in PASSAGES]


@pytest.mark.parametrize("path", ["", "/v1"])
def test_infinitys_embeddings_are_the_native_ones(service: Service, native: Native, path: str) -> None:
    embeddings = InfinityEmbeddings(model=STARTER, infinity_api_url=service.url + path)
    assert same(embeddings.embed_documents(MANY), native.vectors(MANY))
    assert same([embeddings.embed_query(QUERY)], native.vectors([QUERY]))


@pytest.mark.parametrize("model", [M3, CROSS_ENCODER])
def test_infinitys_compressor_keeps_the_best(service: Service, native: Native, model: str) -> None:
    compressor = InfinityRerank(client=Client(base_url=service.url), model=model, top_n=2)
    scores = native.scores(QUERY, PASSAGES, model=model)
    best = compressor.compress_documents(DOCUMENTS, QUERY)[0]
    assert best.page_content == PASSAGES[int(np.argmax(scores))]
    assert best.metadata["relevance_score"] == pytest.approx(max(scores), abs=1e-5)


def test_jinas_embeddings_and_compressor_where_the_address_is_this_service(
    service: Service, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jina, "JINA_API_URL", f"{service.url}/v1/embeddings")  # the classes have no field for it
    monkeypatch.setattr(jina_rerank, "JINA_API_URL", f"{service.url}/v1/rerank")
    embeddings = JinaEmbeddings(jina_api_key="any", model_name=STARTER)
    assert same(embeddings.embed_documents(PASSAGES), native.vectors(PASSAGES))
    compressor = jina_rerank.JinaRerank(jina_api_key="any", model=M3, top_n=1)
    (best,) = compressor.compress_documents(DOCUMENTS, QUERY)
    assert best.page_content == PASSAGES[int(np.argmax(native.scores(QUERY, PASSAGES)))]
