"""openai's client against the running service: first with its own defaults, then with its options."""

from __future__ import annotations

import numpy as np
import openai
import pytest

from tests.contract.conftest import MANY, PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0)


def test_with_its_defaults_the_vectors_are_the_native_ones(service: Service, native: Native) -> None:
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="any")
    reply = client.embeddings.create(model=STARTER, input=MANY)
    assert same([item.embedding for item in reply.data], native.vectors(MANY))
    assert [item.index for item in reply.data] == list(range(len(MANY)))
    assert reply.model == STARTER


async def test_the_asynchronous_client_gets_the_same(service: Service, native: Native) -> None:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any") as client:
        reply = await client.embeddings.create(model=STARTER, input=PASSAGES)
    assert same([item.embedding for item in reply.data], native.vectors(PASSAGES))


def test_base64_which_it_asks_for_unless_told_is_the_same_as_numbers(client: openai.OpenAI) -> None:
    asked = client.embeddings.create(model=STARTER, input=QUERY)
    told = client.embeddings.create(model=STARTER, input=QUERY, encoding_format="float")
    assert "base64" in str(client.embeddings.with_raw_response.create(model=STARTER, input=QUERY).http_request.content)
    np.testing.assert_allclose(asked.data[0].embedding, told.data[0].embedding, atol=1e-6)


def test_a_query_is_asked_for_in_the_extra_body(client: openai.OpenAI, native: Native) -> None:
    reply = client.embeddings.create(model=STARTER, input=QUERY, extra_body={"input_type": "query"})
    assert same([reply.data[0].embedding], native.vectors([QUERY], is_query=True))


def test_fewer_dimensions_are_the_first_ones_normalised_again(client: openai.OpenAI, native: Native) -> None:
    reply = client.embeddings.create(model=STARTER, input=PASSAGES, dimensions=64)
    whole = native.vectors(PASSAGES)[:, :64]
    assert same([item.embedding for item in reply.data], whole / np.linalg.norm(whole, axis=1, keepdims=True))


def test_usage_counts_the_tokens_that_were_read(client: openai.OpenAI, native: Native) -> None:
    usage = client.embeddings.create(model=STARTER, input=PASSAGES).usage
    assert usage.prompt_tokens == usage.total_tokens == sum(len(native.token_ids(text)) for text in PASSAGES)


def test_token_ids_of_the_models_own_are_the_text(client: openai.OpenAI, native: Native) -> None:
    reply = client.embeddings.create(model=STARTER, input=[native.token_ids(text) for text in PASSAGES])
    assert same([item.embedding for item in reply.data], native.vectors(PASSAGES))


def test_token_ids_of_another_vocabulary_are_refused_and_not_read_as_something_else(client: openai.OpenAI) -> None:
    without_special_tokens = [4719, 16837, 1501, 4661, 1515, 3626, 13]
    with pytest.raises(openai.BadRequestError, match="another vocabulary") as caught:
        client.embeddings.create(model=STARTER, input=[without_special_tokens])
    assert caught.value.param == "input[0]"


def test_2048_inputs_are_taken_and_one_more_is_refused_by_name(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="e5-tiny", input=["a"] * 2048).data) == 2048
    with pytest.raises(openai.BadRequestError, match="2048") as caught:
        client.embeddings.create(model="e5-tiny", input=["a"] * 2049)
    assert caught.value.param == "input"


def test_what_is_wrong_is_of_the_clients_own_classes_and_names_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="text-embedding-3-small") as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model=STARTER, input=["a", ""])
    assert empty.value.param == "input[1]"
    with pytest.raises(openai.BadRequestError) as large:
        client.embeddings.create(model=STARTER, input="a", dimensions=1536)
    assert large.value.param == "dimensions"


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert STARTER in [model.id for model in client.models.list()]
    assert client.models.retrieve(STARTER).object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
