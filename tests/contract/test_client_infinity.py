"""infinity_client against the running service; it reads replies strictly and sends a default for what is not given.

It wants an older httpx than the one that is pinned here, so it is installed without its dependencies (Makefile), and
works with this one.
"""

from __future__ import annotations

import numpy as np
import pytest
from infinity_client import Client
from infinity_client.api.default import embeddings, health, models, rerank
from infinity_client.models import (
    EmbeddingEncodingFormat,
    HTTPValidationError,
    OpenAIEmbeddingInputText,
    OpenAIEmbeddingResult,
    OpenAIModelInfo,
    RerankInput,
    ReRankResult,
)

from tests.conftest import CROSS_ENCODER, M3
from tests.contract.conftest import PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service


@pytest.fixture
def client(service: Service) -> Client:
    return Client(base_url=service.url, raise_on_unexpected_status=True)


def test_with_its_defaults_the_vectors_are_the_native_ones(client: Client, native: Native) -> None:
    named = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=PASSAGES, model=STARTER))
    assert isinstance(named, OpenAIEmbeddingResult)
    assert same([item.embedding for item in named.data], native.vectors(PASSAGES))
    assert named.usage.total_tokens == sum(len(native.token_ids(text)) for text in PASSAGES)
    default = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=QUERY))  # "default/not-specified"
    assert isinstance(default, OpenAIEmbeddingResult)
    assert same([default.data[0].embedding], native.vectors([QUERY]))


def test_fewer_dimensions_are_normalised_again(client: Client, native: Native) -> None:
    form = EmbeddingEncodingFormat.FLOAT
    body = OpenAIEmbeddingInputText(input_=PASSAGES, model=STARTER, dimensions=64, encoding_format=form)
    reply = embeddings.sync(client=client, body=body)
    assert isinstance(reply, OpenAIEmbeddingResult)
    whole = native.vectors(PASSAGES)[:, :64]
    assert same([item.embedding for item in reply.data], whole / np.linalg.norm(whole, axis=1, keepdims=True))


@pytest.mark.parametrize("model", [M3, CROSS_ENCODER])
def test_reranked_documents_have_the_native_scores_best_first(client: Client, native: Native, model: str) -> None:
    body = RerankInput(query=QUERY, documents=PASSAGES, model=model, top_n=3)
    reply = rerank.sync(client=client, body=body)
    assert isinstance(reply, ReRankResult)
    scores = native.scores(QUERY, PASSAGES, model=model)
    assert [result.index for result in reply.results] == np.argsort(-np.array(scores), kind="stable")[:3].tolist()
    assert reply.results[0].relevance_score == pytest.approx(max(scores), abs=1e-5)
    assert reply.model == model


def test_models_and_health_are_read(client: Client) -> None:
    listed = models.sync(client=client)
    assert isinstance(listed, OpenAIModelInfo)
    assert {STARTER, M3, CROSS_ENCODER} <= {model.id for model in listed.data}
    assert health.sync_detailed(client=client).status_code == 200


def test_an_empty_text_is_an_error_that_it_can_raise(client: Client) -> None:
    from infinity_client.errors import UnexpectedStatus

    with pytest.raises(UnexpectedStatus, match=r"input\[1\]"):
        reply = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=["a", ""], model=STARTER))
        assert not isinstance(reply, HTTPValidationError)
