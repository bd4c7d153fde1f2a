"""LiteLLM against the running service, by each of the providers whose form of requests the service reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import CROSS_ENCODER, M3
from tests.contract.conftest import PASSAGES, QUERY, Native, same
from tests.service_process import STARTER, Service

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def litellm() -> Any:
    """Imported here, because that takes seconds."""
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.disable_hf_tokenizer_download = True  # it counts tokens for its own statistics
    return litellm


def vectors_of(reply: Any) -> list[list[float]]:
    return [item["embedding"] for item in reply.data]


@pytest.mark.parametrize(
    ("provider", "path", "more", "is_query"),
    [
        ("openai", "/v1", {}, False),
        ("openai", "", {}, False),
        ("hosted_vllm", "/v1", {}, False),
        ("hosted_vllm", "/v1", {"input_type": "query"}, True),
        ("nvidia_nim", "/v1", {"input_type": "query"}, True),
        ("lm_studio", "/v1", {}, False),
        ("openai_like", "/v1", {}, False),
        ("cohere", "/v2/embed", {}, False),
        ("cohere", "/v2/embed", {"input_type": "search_query"}, True),
        ("jina_ai", "/v1", {"task": "retrieval.query"}, True),
        ("jina_ai", "/v1", {"task": "retrieval.passage"}, False),
        ("jina_ai", "", {}, False),
        ("infinity", "", {}, False),
        ("infinity", "/v1", {"encoding_format": "float"}, False),
        ("voyage", "/v1", {"input_type": "query"}, True),
        ("voyage", "/v1", {}, False),
    ],
)
def test_each_provider_gets_the_native_vectors(
    litellm: Any, service: Service, native: Native, provider: str, path: str, more: dict[str, Any], is_query: bool
) -> None:
    model, base = f"{provider}/{STARTER}", service.url + path
    reply = litellm.embedding(model=model, input=PASSAGES, api_base=base, api_key="any", **more)
    assert same(vectors_of(reply), native.vectors(PASSAGES, is_query=is_query))
    assert reply.usage.total_tokens > len(PASSAGES)


async def test_the_asynchronous_form_gets_the_same(litellm: Any, service: Service, native: Native) -> None:
    model, base = f"hosted_vllm/{STARTER}", f"{service.url}/v1"
    reply = await litellm.aembedding(model=model, input=PASSAGES, api_base=base, api_key="any")
    assert same(vectors_of(reply), native.vectors(PASSAGES))


@pytest.mark.parametrize(
    ("provider", "path"), [("cohere", "/v2/embed"), ("jina_ai", "/v1"), ("infinity", ""), ("voyage", "/v1")]
)
def test_fewer_dimensions_are_normalised_again(
    litellm: Any, service: Service, native: Native, provider: str, path: str
) -> None:
    model, base = f"{provider}/{STARTER}", service.url + path
    reply = litellm.embedding(model=model, input=PASSAGES, api_base=base, api_key="any", dimensions=64)
    whole = native.vectors(PASSAGES)[:, :64]
    assert same(vectors_of(reply), whole / np.linalg.norm(whole, axis=1, keepdims=True))


@pytest.mark.parametrize("model", [M3, CROSS_ENCODER])
@pytest.mark.parametrize(
    ("provider", "path", "more"),
    [
        ("hosted_vllm", "", {}),
        ("hosted_vllm", "/v1", {}),
        ("cohere", "", {}),
        ("cohere", "/v1/rerank", {}),
        ("cohere", "", {"max_tokens_per_doc": 200}),
        ("jina_ai", "", {}),
        ("voyage", "/v1", {}),
        ("infinity", "", {"return_documents": False}),  # with documents it reads another form than vLLM's on one path
    ],
)
def test_each_provider_gets_the_native_scores_and_the_documents(
    litellm: Any, service: Service, native: Native, model: str, provider: str, path: str, more: dict[str, Any]
) -> None:
    scores = native.scores(QUERY, PASSAGES, model=model)
    base, name = service.url + path, f"{provider}/{model}"
    ranked = litellm.rerank(
        model=name, query=QUERY, documents=PASSAGES, top_n=3, api_base=base, api_key="any", **more
    ).results
    assert [result["index"] for result in ranked] == np.argsort(-np.array(scores), kind="stable")[:3].tolist()
    for result in ranked:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-5)
        if more.get("return_documents", True):
            assert result["document"] == {"text": PASSAGES[result["index"]]}


def test_hugging_faces_form_reranks_with_the_default_reranker(
    litellm: Any, service: Service, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    # for its list of prices it asks the hub how long the texts of a model may be, and goes on without an answer
    monkeypatch.setattr(litellm.utils, "_get_max_position_embeddings", lambda _: None)
    ranked = litellm.rerank(
        model="huggingface/any", query=QUERY, documents=PASSAGES, top_n=2, api_base=service.url, api_key="any"
    ).results
    scores = native.scores(QUERY, PASSAGES)
    assert [result["index"] for result in ranked] == np.argsort(-np.array(scores), kind="stable")[:2].tolist()
    assert ranked[0]["document"]["text"] == PASSAGES[ranked[0]["index"]]


def test_an_unknown_model_and_a_bad_value_are_of_its_own_classes(litellm: Any, service: Service) -> None:
    base = f"{service.url}/v1"
    with pytest.raises(litellm.NotFoundError, match="nothing-here"):
        litellm.embedding(model="openai/nothing-here", input=["a"], api_base=base, api_key="any", num_retries=0)
    with pytest.raises(litellm.BadRequestError, match="input"):
        litellm.embedding(model=f"openai/{STARTER}", input=["a", ""], api_base=base, api_key="any", num_retries=0)
