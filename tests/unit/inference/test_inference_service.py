"""What the gateway sends to an encoder, for texts with and without a role and for token ids."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serve_app.api.inference_results import CallOptions
from serve_app.domain.embeddings import DENSE, EncodedBatch, TokenBatch
from serve_app.domain.errors import CapabilityError, ConflictError, DeadlineError, InvalidInputError, ModelNotFoundError
from serve_app.domain.profiles import Capability, TextRole
from serve_app.domain.ragged import Ragged
from serve_app.domain.request_limits import Limits
from serve_app.domain.usage import measured
from serve_app.inference import inference_service as gateway_module
from serve_app.inference import model_registry as catalogue_module
from serve_app.inference import served_model as served_module
from serve_app.inference.inference_service import InferenceService
from serve_app.inference.model_registry import ModelRegistry
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import describe
from serve_app.models.tokenizer import TextTokenizer
from serve_app.models.vocabulary import Vocabulary
from tests.unit.inference.fake_caller import never

OPTIONS = CallOptions(None, truncate=False, timeout_s=5)
MOST_TOKENS = 1000


class FakeEncoder:
    """Answers every text with its number of tokens, and with a weight for each of them."""

    state = None

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.want: frozenset[Capability] = frozenset()

    async def encode(
        self,
        batch: TokenBatch,
        *,
        timeout_s: float,
        want: frozenset[Capability] = DENSE,
        stated_s: float | None = None,
    ) -> EncodedBatch:
        self.rows, self.want = [row.tolist() for row in batch.rows()], want
        weights = Ragged(np.full(batch.tokens, 0.5, np.float32), batch.lengths)
        dense = batch.lengths[:, None].astype(np.float32)
        states = Ragged(np.zeros((batch.tokens, 32), np.float32), batch.lengths)
        return EncodedBatch(dense, (), Ragged(batch.ids, batch.lengths), weights, None, states)


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def gateway_of(encoder: FakeEncoder) -> Callable[[Path, str], InferenceService]:
    def build(folder: Path, family: str) -> InferenceService:
        source = describe("tiny", folder, family=family)
        served = ServedModel(source, source.profile.capabilities, encoder)  # type: ignore[type-var]
        rankers = SimpleNamespace(models=ModelRegistry({}, folder), rerank=None, explain=None)
        metrics = SimpleNamespace(texts=0, tokens=0, truncated=0, observe=lambda *_: None)
        models = ModelRegistry({"tiny": served}, folder)
        return InferenceService(models, rankers, folder, Limits(max_request_tokens=MOST_TOKENS), metrics)  # type: ignore[arg-type]

    return build


Gateways = Callable[[Path, str], InferenceService]


async def test_without_a_role_a_text_is_read_as_it_is(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    await gateway.embed(["cats"], TextRole.QUERY, OPTIONS)
    as_query = encoder.rows
    await gateway.embed(["query: cats"], None, OPTIONS)
    assert encoder.rows == as_query
    await gateway.embed(["cats"], None, OPTIONS)
    assert encoder.rows != as_query


async def test_tokens_put_back_as_ids_are_the_text_that_they_came_from(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    whole = await gateway.embed(["cats", "read a file"], TextRole.PASSAGE, OPTIONS)
    rows = encoder.rows
    tokens = await gateway.tokenize(["cats", "read a file"], TextRole.PASSAGE, None, special=True)
    ids = await gateway.embed_ids([[token.id for token in row] for row in tokens], OPTIONS)
    assert encoder.rows == rows
    assert (ids.tokens, ids.vectors.tolist()) == (whole.tokens, whole.vectors.tolist())


async def test_tokenised_texts_are_charged_even_if_the_request_fails(gateway_of: Gateways, e5_tiny: Path) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    with measured() as tokenised:
        tokens = await gateway.tokenize(["cats", "read a file"], None, None, special=True)
    with measured() as embedded:
        await gateway.embed(["cats", "read a file"], None, OPTIONS)
    assert tokenised.tokens == embedded.tokens == sum(map(len, tokens))
    with measured() as refused, pytest.raises(InvalidInputError):
        await gateway.embed(["cats " * 600], None, OPTIONS)
    assert refused.tokens == 512


@pytest.mark.parametrize("method", ["embed", "embed_ids", "encode", "encode_sparse"])
async def test_the_deadline_acts_while_a_request_waits_to_be_tokenised(
    gateway_of: Gateways, bge_m3_tiny: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(served_module, "run_chunked", never)
    gateway = gateway_of(bge_m3_tiny, "bge-m3")
    options = CallOptions("tiny", truncate=True, timeout_s=0.02, stated_timeout_s=9.0)
    texts = ["more than is tokenised at once " * 200]
    calls = {
        "embed": lambda: gateway.embed(texts, None, options),
        "embed_ids": lambda: gateway.embed_ids([[5] * 5002] * 3, options),
        "encode": lambda: gateway.encode(texts, options, colbert=False),
        "encode_sparse": lambda: gateway.encode_sparse(texts, None, options),
    }
    with pytest.raises(DeadlineError, match="not done within 9 s; the remaining work was dropped"):
        await asyncio.wait_for(calls[method](), 10)


async def test_the_deadline_acts_while_the_model_is_searched_for(
    gateway_of: Gateways, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    monkeypatch.setattr(catalogue_module, "run_io", never)
    options = CallOptions("a-fine-tune", truncate=True, timeout_s=0.02)
    with pytest.raises(DeadlineError, match=r"not done within 0\.02 s; the remaining work was dropped"):
        await asyncio.wait_for(gateway.embed(["cats"], None, options), 10)


async def test_a_missing_capability_is_refused_without_texts_too(gateway_of: Gateways, e5_tiny: Path) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    assert (await gateway.find("tiny", "embed")).name == "tiny"
    with pytest.raises(CapabilityError):
        await gateway.find("tiny", "hybrid")


async def test_ids_are_cut_or_refused_as_texts_are(gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    with pytest.raises(InvalidInputError, match="600 tokens, the model's limit is 512") as caught:
        await gateway.embed_ids([[0, 5, 2], [0, *[6] * 598, 2]], OPTIONS)
    assert caught.value.item == 1
    options = CallOptions("tiny", truncate=True, timeout_s=5)
    embedded = await gateway.embed_ids([[0, 5, 2], [0, *[6] * 598, 2]], options)
    assert (embedded.truncated, embedded.tokens) == ([1], 515)


async def test_texts_with_too_many_tokens_together_are_refused_before_the_call(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    half = [0, *[5] * (MOST_TOKENS // 2 - 2), 2]
    assert (await gateway.embed_ids([half, half], OPTIONS)).tokens == MOST_TOKENS
    encoder.rows = []
    with pytest.raises(InvalidInputError, match="1003 tokens together, the limit is 1000; send several requests"):
        await gateway.embed_ids([half, half, [0, 5, 2]], OPTIONS)
    assert encoder.rows == []


async def test_an_existing_prefix_is_kept_if_the_options_allow_it(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway, options = gateway_of(e5_tiny, "e5"), replace(OPTIONS, keep_prefix=True)
    await gateway.embed(["query: cats", "passage: cats"], None, OPTIONS)
    as_they_are = encoder.rows
    await gateway.embed(["query: cats", "cats"], TextRole.PASSAGE, options)
    assert encoder.rows == as_they_are
    await gateway.embed(["query: cats", "cats"], TextRole.PASSAGE, OPTIONS)
    assert encoder.rows != as_they_are


async def test_a_text_may_be_cut_to_fewer_tokens_at_either_end_and_keeps_its_prefix(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway, text = gateway_of(e5_tiny, "e5"), "cats " * 20 + "read a file"
    await gateway.embed([text], TextRole.QUERY, OPTIONS)
    (whole,) = encoder.rows
    await gateway.embed([""], TextRole.QUERY, OPTIONS)
    head = len(encoder.rows[0]) - 1
    options = replace(OPTIONS, max_tokens=head + 4, truncate=True)
    embedded = await gateway.embed([text], TextRole.QUERY, options)
    assert (encoder.rows, embedded.tokens, embedded.truncated) == ([[*whole[: head + 3], 2]], head + 4, [0])
    embedded = await gateway.embed([text], TextRole.QUERY, replace(options, keep_end=True))
    assert (encoder.rows, embedded.tokens) == ([[*whole[:head], *whole[-4:]]], head + 4)
    await gateway.embed_ids([whole], replace(options, keep_end=True))
    assert encoder.rows == [[0, *whole[-head - 3 :]]]
    with pytest.raises(InvalidInputError, match=rf"{len(whole)} tokens, the limit is {head + 4};"):
        await gateway.embed([text], TextRole.QUERY, replace(options, truncate=False))


async def test_unnormalised_vectors_and_token_states_are_asked_for(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    await gateway.embed(["cats"], None, replace(OPTIONS, normalize=False))
    assert encoder.want == {Capability.DENSE, Capability.UNNORMALIZED}
    embedded = await gateway.embed_tokens(["cats", "read a file"], None, OPTIONS)
    assert encoder.want == {Capability.DENSE, Capability.TOKEN_STATES}
    assert [len(states) for states in embedded.states] == [len(row) for row in encoder.rows]
    gateway._limits = replace(gateway._limits, max_colbert_floats=100)
    with pytest.raises(InvalidInputError, match=r"inputs: .* numbers each are over the limit of 100"):
        await gateway.embed_tokens(["read a file"], None, OPTIONS)


async def test_sparse_weights_by_id_merge_no_two_tokens(
    gateway_of: Gateways, encoder: FakeEncoder, bge_m3_tiny: Path
) -> None:
    gateway = gateway_of(bge_m3_tiny, "bge-m3")
    embedded = await gateway.encode(["read a file"], OPTIONS, colbert=False, by_id=True)
    assert (embedded.weights, embedded.sparse) == ([[(id, 0.5) for id in encoder.rows[0][1:-1]]], [])


async def test_ids_become_text_again(gateway_of: Gateways, e5_tiny: Path) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    (tokens,) = await gateway.tokenize(["read a file"], None, None, special=True)
    ids = [token.id for token in tokens]
    assert await gateway.decode([ids, ids[1:2]], None, special=False) == ["read a file", "read"]
    assert await gateway.decode([ids], None, special=True) == ["<s> read a file</s>"]
    with pytest.raises(InvalidInputError, match="vocabulary") as caught:
        await gateway.decode([ids, [10**9]], None, special=False)
    assert caught.value.item == 1


async def test_sparse_vectors_have_no_special_tokens_and_ask_for_no_colbert(
    gateway_of: Gateways, encoder: FakeEncoder, bge_m3_tiny: Path
) -> None:
    embedded = await gateway_of(bge_m3_tiny, "bge-m3").encode_sparse(["read a file"], None, OPTIONS)
    assert embedded.weights == [[(id, 0.5) for id in encoder.rows[0][1:-1]]]
    assert encoder.want == {Capability.DENSE, Capability.SPARSE}


async def test_a_model_without_sparse_vectors_refuses_them(gateway_of: Gateways, e5_tiny: Path) -> None:
    with pytest.raises(CapabilityError, match="sparse vectors"):
        await gateway_of(e5_tiny, "e5").encode_sparse(["a"], None, OPTIONS)


@pytest.mark.parametrize(("inline", "aside"), [(10_000, False), (3, True)])
async def test_many_tokens_are_worked_on_beside_the_event_loop(
    gateway_of: Gateways, bge_m3_tiny: Path, monkeypatch: pytest.MonkeyPatch, inline: int, aside: bool
) -> None:
    monkeypatch.setattr(gateway_module, "_INLINE_WEIGHTS", inline)
    monkeypatch.setattr(served_module, "_INLINE_IDS", inline)
    workers: list[int] = []

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **more: workers.append(threading.get_ident()) or work(*args, **more)

    for owner, name in ((Vocabulary, "weights_by_text"), (Vocabulary, "weights_by_id"), (TextTokenizer, "of_ids")):
        monkeypatch.setattr(owner, name, noting(getattr(owner, name)))
    gateway = gateway_of(bge_m3_tiny, "bge-m3")
    hybrid = await gateway.encode(["read a file"], OPTIONS, colbert=False)
    sparse = await gateway.encode_sparse(["read a file"], TextRole.PASSAGE, OPTIONS)
    await gateway.embed_ids([[0, 5, 2], [0, 7, 2]], OPTIONS)
    assert len(hybrid.sparse[0]) == len(sparse.weights[0]) > 0
    assert [worker != threading.get_ident() for worker in workers] == [aside] * 3


async def test_a_model_is_found_for_what_it_is_served_for(gateway_of: Gateways, e5_tiny: Path) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    for name in (None, "tiny"):
        assert (await gateway.find(name, "embed")).name == "tiny"
    with pytest.raises(ModelNotFoundError):
        await gateway.find("unknown", "embed")
    with pytest.raises(CapabilityError, match="'tiny' does not support reranking"):
        await gateway.find("tiny", "rerank")
    with pytest.raises(ModelNotFoundError):
        await gateway.find("\ud83d", "rerank")


async def test_an_alias_is_listed_as_a_model_and_leads_to_it(
    gateway_of: Gateways, encoder: FakeEncoder, e5_tiny: Path
) -> None:
    gateway = gateway_of(e5_tiny, "e5")
    gateway._models.aliases = {"text-embedding-3-small": "tiny", "rerank-v3.5": "another"}
    reported = [(state.name, state.alias_of, state.serves) for state in await gateway.models()]
    assert reported == [("tiny", None, ("embed",)), ("text-embedding-3-small", "tiny", ("embed",))]
    assert (await gateway.find("openai/text-embedding-3-small", "embed")).name == "tiny"
    with pytest.raises(ConflictError, match="an alias, in the configuration, of 'tiny'"):
        await gateway.delete_model("text-embedding-3-small", {})
    with pytest.raises(ConflictError, match="only fine-tunes can be deleted"):
        await gateway.delete_model("tiny", {})
