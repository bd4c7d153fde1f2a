"""Hugging Face's InferenceClient against the running service, as against text-embeddings-inference."""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import Service


@pytest.fixture
def client(service: Service) -> InferenceClient:
    return InferenceClient(base_url=service.url)


def test_with_its_defaults_a_text_is_read_as_it_is(client: InferenceClient, native: Native) -> None:
    assert same(client.feature_extraction(f"passage: {QUERY}"), native.vectors([QUERY]))
    assert same(client.feature_extraction([f"query: {text}" for text in MANY]), native.vectors(MANY, is_query=True))


def test_its_prompt_names_are_our_roles(client: InferenceClient, native: Native) -> None:
    assert same(client.feature_extraction(QUERY, prompt_name="query"), native.vectors([QUERY], is_query=True))
    assert same(client.feature_extraction(PASSAGES, prompt_name="document"), native.vectors(PASSAGES))


async def test_the_asynchronous_client_gets_the_same(service: Service, native: Native) -> None:
    client = AsyncInferenceClient(base_url=f"{service.url}/embed")
    assert same(await client.feature_extraction(PASSAGES, prompt_name="passage"), native.vectors(PASSAGES))


def test_what_is_too_long_is_refused_unless_it_may_be_cut(client: InferenceClient, native: Native) -> None:
    long = "long text " * 600
    with pytest.raises(HfHubHTTPError, match="512"):
        client.feature_extraction(long, prompt_name="document")
    options = {"normalize": True, "truncate": True, "truncation_direction": "right"}
    assert same(client.feature_extraction(long, prompt_name="document", **options), native.vectors([long]))


def test_fewer_dimensions_are_normalised_again(client: InferenceClient, native: Native) -> None:
    whole = native.vectors(PASSAGES)[:, :64]
    vectors = client.feature_extraction(PASSAGES, prompt_name="document", dimensions=64)
    assert same(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True))


def test_similarities_are_the_cosines_of_the_vectors(service: Service, native: Native) -> None:
    client = InferenceClient(base_url=f"{service.url}/similarity")
    told = client.sentence_similarity(f"query: {QUERY}", [f"passage: {text}" for text in PASSAGES])
    cosines = native.vectors(PASSAGES) @ native.vectors([QUERY], is_query=True)[0]
    assert told == pytest.approx(cosines, abs=1e-4)


def test_what_is_wrong_is_an_error_of_the_client_with_our_words(client: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match=r"inputs\[1\]") as caught:
        client.feature_extraction(["a", ""])
    assert caught.value.response.status_code == 400
