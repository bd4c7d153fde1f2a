"""Haystack's components for text-embeddings-inference against the running service, with their defaults."""

from __future__ import annotations

import numpy as np
import pytest
from haystack import Document
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import Service

TEI = "text_embeddings_inference"


def documents_embedder(service: Service, **more: object) -> HuggingFaceAPIDocumentEmbedder:
    params = {"url": service.url}
    return HuggingFaceAPIDocumentEmbedder(api_type=TEI, api_params=params, progress_bar=False, **more)


def normalised(vectors: list[list[float]]) -> list[list[float]]:
    """The embedders ask for vectors as they were pooled, of whatever length."""
    array = np.array(vectors)
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).tolist()


def test_with_its_defaults_documents_are_read_as_they_are(service: Service, native: Native) -> None:
    told = documents_embedder(service).run([Document(content=f"passage: {text}") for text in MANY])
    assert same(normalised([document.embedding for document in told["documents"]]), native.vectors(MANY))
    prefixed = documents_embedder(service, prefix="passage: ").run([Document(content=text) for text in PASSAGES])
    assert same(normalised([document.embedding for document in prefixed["documents"]]), native.vectors(PASSAGES))


async def test_a_text_is_a_query_with_its_prefix(service: Service, native: Native) -> None:
    embedder = HuggingFaceAPITextEmbedder(api_type=TEI, api_params={"url": service.url}, prefix="query: ")
    expected = native.vectors([QUERY], is_query=True)
    assert same(normalised([embedder.run(QUERY)["embedding"]]), expected)
    assert same(normalised([(await embedder.run_async(QUERY))["embedding"]]), expected)


def test_normalised_vectors_on_request(service: Service, native: Native) -> None:
    embedder = documents_embedder(service, normalize=True, truncate=False, prefix="passage: ")
    told = embedder.run([Document(content=text) for text in PASSAGES])
    assert same([document.embedding for document in told["documents"]], native.vectors(PASSAGES))


def test_its_ranker_gives_the_native_scores_best_first(service: Service, native: Native) -> None:
    documents, scores = [Document(content=text) for text in PASSAGES], native.scores(QUERY, PASSAGES)
    ranked = HuggingFaceTEIRanker(url=service.url, top_k=2).run(query=QUERY, documents=documents)["documents"]
    best = np.argsort(-np.array(scores), kind="stable")[:2]
    assert [document.content for document in ranked] == [PASSAGES[i] for i in best]
    assert ranked[0].score == pytest.approx(max(scores), abs=1e-5)
