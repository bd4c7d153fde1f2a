"""Reranking as the ingress sees it: real tokenizers, a reranker that is not there."""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serve_app.api.inference_results import CallOptions, Ranked, TokenTotal
from serve_app.domain.embeddings import Float32, ItemFailure, ModelVersion
from serve_app.domain.errors import (
    CapabilityError,
    DeadlineError,
    InvalidInputError,
    ModelNotFoundError,
    NonFiniteError,
    OutOfMemoryError,
    ServiceError,
    UnavailableError,
)
from serve_app.domain.profiles import CROSS_ENCODER, Capability
from serve_app.domain.rank_request import QUERY, RankRequest, Scores, TokenMatches
from serve_app.domain.usage import measured
from serve_app.inference.model_registry import ModelRegistry
from serve_app.inference.reranking import RerankClient
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import describe
from tests.unit.inference.fake_caller import FakeCaller, never
from tests.unit.models.fine_tune_examples import write_manifest

COLBERT, CROSS = "bge-m3", "cross"
OPTIONS = CallOptions(model=None, truncate=True, timeout_s=20.0)
ASKED = "how do I read a file?"
CANDIDATES = ["open it", "close it", "open it", "a file is a name", "close it", "open it"]
DISTINCT = ["open it", "close it", "a file is a name"]
LIMIT = 24
MOST_TOKENS = 500
LONG = "a sentence that is longer than the limit " * 5


def scores_of(request: RankRequest) -> list[float]:
    """Distinct scores for the candidates."""
    return [float((row * np.arange(len(row))).sum() % 997) for row in request.candidates.rows()]


def answer(method: str, request: RankRequest) -> Scores:
    assert method == "rank"
    return Scores(np.array(scores_of(request), np.float32))


EMBEDDERS: ModelRegistry[Any] = ModelRegistry({"e5-small": SimpleNamespace()}, Path("nowhere"))  # type: ignore[dict-item]


class Ingress:
    """Rerankers with a fake caller for each kind; the late interaction one is the default."""

    def __init__(self, folder: Path, models_dir: Path, answer: Callable[[str, Any], Any] = answer) -> None:
        source = replace(describe(COLBERT, folder), max_tokens=LIMIT)
        late = ServedModel(source, source.profile.capabilities, FakeCaller(answer))
        pair_source = replace(source, name=CROSS, profile=CROSS_ENCODER)
        pairs = ServedModel(pair_source, CROSS_ENCODER.capabilities, FakeCaller(answer))
        self.served = {COLBERT: late, CROSS: pairs}
        self.metrics = SimpleNamespace(texts=0, tokens=0, truncated=0, observe=lambda *_: None)
        self.rerankers = RerankClient(
            ModelRegistry(self.served, models_dir),  # type: ignore[arg-type]
            EMBEDDERS,
            MOST_TOKENS,
            self.metrics,  # type: ignore[arg-type]
        )

    async def rerank(
        self,
        candidates: Sequence[str] = CANDIDATES,
        query: str = ASKED,
        *,
        options: CallOptions = OPTIONS,
        batch_size: int = 12,
        normalize: bool = False,
    ) -> Ranked:
        return await self.rerankers.rerank(query, candidates, options, batch_size=batch_size, normalize=normalize)

    def requests(self, name: str) -> list[RankRequest]:
        """What the replicas of this reranker were asked."""
        return [request for _, request in self.served[name].caller.calls]


@pytest.fixture
def make(bge_m3_tiny: Path, tmp_path: Path) -> Callable[..., Ingress]:
    def made(answer: Callable[[str, Any], Any] = answer) -> Ingress:
        return Ingress(bge_m3_tiny, tmp_path, answer)

    return made


@pytest.fixture
def ingress(make: Callable[..., Ingress]) -> Ingress:
    return make()


def model(name: str, **more: Any) -> CallOptions:
    return replace(OPTIONS, model=name, **more)


both = pytest.mark.parametrize("name", [COLBERT, CROSS])


@both
async def test_candidates_with_too_many_tokens_together_are_refused_before_the_call(
    ingress: Ingress, name: str
) -> None:
    candidates = [f"{i} {LONG}" for i in range(MOST_TOKENS // LIMIT + 1)]
    with pytest.raises(InvalidInputError, match=rf"\d+ tokens together, the limit is {MOST_TOKENS}; send several"):
        await ingress.rerank(candidates, options=model(name))
    assert ingress.requests(name) == []
    assert len((await ingress.rerank(candidates[: len(candidates) // 2], options=model(name))).scores) == 10


# ------------------------------------------------------------------ scores


@both
async def test_a_repeated_candidate_is_scored_once_and_its_score_given_back_in_every_place(
    ingress: Ingress, name: str
) -> None:
    ranked = await ingress.rerank(options=model(name))
    (request,) = ingress.requests(name)
    assert len(request.candidates.lengths) == len(DISTINCT)
    by_text = dict(zip(DISTINCT, scores_of(request), strict=True))
    np.testing.assert_allclose(ranked.scores, [by_text[text] for text in CANDIDATES], rtol=1e-6)
    assert len(set(by_text.values())) == len(DISTINCT), "or the order is not tested"


@both
async def test_candidates_have_the_score_that_they_have_alone(ingress: Ingress, name: str) -> None:
    alone = [float((await ingress.rerank([text], options=model(name))).scores[0]) for text in CANDIDATES]
    np.testing.assert_allclose((await ingress.rerank(options=model(name))).scores, alone, rtol=1e-6)


async def test_late_interaction_is_the_sum_or_normalised_the_mean_over_query_tokens(ingress: Ingress) -> None:
    sums = (await ingress.rerank()).scores
    means = (await ingress.rerank(normalize=True)).scores
    tokens = len(ingress.requests(COLBERT)[0].query) - 1  # the first one has no vector
    assert tokens > 3
    np.testing.assert_allclose(means * tokens, sums, rtol=1e-6)


async def test_a_cross_encoder_gives_the_logit_or_normalised_its_sigmoid(make: Callable[..., Ingress]) -> None:
    logits = [-500.0, -3.25, 0.0, 7.5, 500.0]
    ingress = make(lambda *_: Scores(np.array(logits, np.float32)))
    texts = [f"candidate {i}" for i in range(len(logits))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = await ingress.rerank(texts, options=model(CROSS))
        normalised = await ingress.rerank(texts, options=model(CROSS), normalize=True)
    assert raw.scores.tolist() == logits
    np.testing.assert_allclose(normalised.scores, [1 / (1 + math.exp(-logit)) for logit in logits], atol=1e-7)


@both
@pytest.mark.parametrize("normalize", [False, True])
async def test_scores_are_float32_and_the_model_is_named(ingress: Ingress, name: str, normalize: bool) -> None:
    ranked = await ingress.rerank(options=model(name), normalize=normalize)
    assert (ranked.scores.dtype, ranked.scores.shape) == (np.float32, (len(CANDIDATES),))
    assert ranked.model == name


# ------------------------------------------------------------------ what replicas are asked


async def test_late_interaction_sends_the_query_beside_its_candidates_and_a_cross_encoder_in_them(
    ingress: Ingress,
) -> None:
    await ingress.rerank(options=model(COLBERT))
    await ingress.rerank(options=model(CROSS))
    late, pairs = ingress.requests(COLBERT)[0], ingress.requests(CROSS)[0]
    assert len(pairs.query) == 0
    asked = late.query[1:-1].tolist()
    for row, text in zip(pairs.candidates.rows(), late.candidates.rows(), strict=True):
        assert row[1 : 1 + len(asked)].tolist() == asked
        assert row[-len(text) + 1 :].tolist() == text[1:].tolist()


async def test_the_request_carries_its_bounds_and_a_key_of_its_own(ingress: Ingress) -> None:
    for _ in range(3):
        await ingress.rerank(batch_size=5)
    requests = ingress.requests(COLBERT)
    assert len({request.key for request in requests}) == 3
    for request in requests:
        assert request.batch_size == 5
        assert 0 < request.timeout_s <= OPTIONS.timeout_s
        assert request.candidates.model_version is None


async def test_a_fine_tune_is_named_in_the_request(ingress: Ingress, tmp_path: Path) -> None:
    write_manifest(tmp_path / "laws", base=COLBERT, family="bge-m3", job_id="job-7")
    ranked = await ingress.rerank(options=model("laws"))
    assert ranked.model == "laws"
    assert ingress.requests(COLBERT)[0].candidates.model_version == ModelVersion("laws", "job-7")


@both
async def test_texts_and_tokens_are_counted_as_often_as_they_are_read(ingress: Ingress, name: str) -> None:
    ranked = await ingress.rerank(options=model(name))
    (request,) = ingress.requests(name)
    assert request.candidates.tokens + len(request.query) == ingress.metrics.tokens
    assert ingress.metrics.texts == len(DISTINCT) + (name == COLBERT)
    sent = [int(request.candidates.lengths[DISTINCT.index(text)]) for text in CANDIDATES]
    assert ranked.tokens == len(request.query) + sum(sent), "the client pays for what it sends"


@both
@pytest.mark.parametrize("keep_end", [False, True])
async def test_a_smaller_limit_cuts_candidates_and_lowers_the_usage(
    ingress: Ingress, name: str, keep_end: bool
) -> None:
    whole = await ingress.rerank(options=model(name))
    most = 3 if name == COLBERT else 2
    options = model(name, max_tokens=most, max_query_tokens=4, keep_end=keep_end)
    cut = await ingress.rerank(options=options)
    first, second = (request.candidates.rows() for request in ingress.requests(name))
    asked = len(ingress.requests(name)[1].query)
    assert cut.tokens < whole.tokens
    assert cut.truncated[-1] == len(CANDIDATES) - 1
    assert asked == (4 if name == COLBERT else 0)
    # of late interaction the limit holds for the row with its two special tokens, of a pair for the text
    assert {len(row) for row in second} == ({3} if name == COLBERT else {4 + 2 + 4})
    kept = 1 if name == COLBERT else 2
    for row, short in zip(first, second, strict=True):
        body = row[1:-1] if name == COLBERT else row[list(row).index(2) + 2 : -1]
        expected = body[-kept:] if keep_end else body[:kept]
        assert short[-1 - kept : -1].tolist() == expected.tolist()
    with pytest.raises(InvalidInputError):
        await ingress.rerank(options=model(name, max_tokens=3, truncate=False))


# ------------------------------------------------------------------ errors name the right text


@both
@pytest.mark.parametrize(("row", "place"), [(0, 0), (1, 1), (2, 3)])
async def test_a_failed_candidate_is_named_by_its_first_place_in_the_request(
    make: Callable[..., Ingress], name: str, row: int, place: int
) -> None:
    failed = Scores(np.zeros(len(DISTINCT), np.float32), (ItemFailure.of(row, NonFiniteError("no number")),))
    with pytest.raises(NonFiniteError, match="no number") as caught:
        await make(lambda *_: failed).rerank(options=model(name))
    assert caught.value.item == place


@both
async def test_a_failed_query_is_item_minus_one(make: Callable[..., Ingress], name: str) -> None:
    failed = Scores(np.zeros(len(DISTINCT), np.float32), (ItemFailure.of(QUERY, OutOfMemoryError("too long")),))
    with pytest.raises(OutOfMemoryError) as caught:
        await make(lambda *_: failed).rerank(options=model(name))
    assert caught.value.item == -1


@both
async def test_an_error_of_the_whole_call_names_no_text(make: Callable[..., Ingress], name: str) -> None:
    def fail(*_: object) -> Scores:
        raise UnavailableError("the replicas died")

    with pytest.raises(UnavailableError, match="the replicas died") as caught:
        await make(fail).rerank(options=model(name))
    assert caught.value.item is None


@both
async def test_a_replica_that_does_not_answer_in_time_is_a_deadline(make: Callable[..., Ingress], name: str) -> None:
    with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
        await asyncio.wait_for(make(never).rerank(options=model(name, timeout_s=0.05)), 10)


@both
async def test_nothing_is_sent_while_no_replica_answers(ingress: Ingress, name: str) -> None:
    ingress.served[name].caller.state = None
    with pytest.raises(UnavailableError):
        await ingress.rerank(options=model(name))
    assert ingress.requests(name) == []


async def test_a_model_that_is_not_a_reranker_is_refused(ingress: Ingress) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'nothing'.* bge-m3, cross, e5-small"):
        await ingress.rerank(options=model("nothing"))
    with pytest.raises(CapabilityError, match="'e5-small' does not support reranking; models that do: bge-m3, cross"):
        await ingress.rerank(options=model("e5-small"))


async def test_without_a_reranker_there_is_no_reranking(tmp_path: Path) -> None:
    none = RerankClient(ModelRegistry({}, tmp_path), EMBEDDERS, MOST_TOKENS, SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="no served model supports reranking"):
        await none.rerank(ASKED, CANDIDATES, OPTIONS, batch_size=12, normalize=True)


# ------------------------------------------------------------------ texts that are too long


@both
async def test_cut_candidates_are_named_in_every_place(ingress: Ingress, name: str) -> None:
    ranked = await ingress.rerank(["short", LONG, "short", LONG + "too", LONG], options=model(name))
    assert list(ranked.truncated) == [1, 3, 4]
    assert ingress.requests(name)[0].candidates.lengths.max() == LIMIT


async def test_a_cut_query_is_named_before_the_candidates(ingress: Ingress) -> None:
    ranked = await ingress.rerank(["short", LONG], LONG)
    assert list(ranked.truncated) == [-1, 1]
    assert len(ingress.requests(COLBERT)[0].query) == LIMIT


async def test_a_query_that_leaves_no_pair_whole_cuts_all_of_them(ingress: Ingress) -> None:
    ranked = await ingress.rerank(["a", "b", "a"], LONG, options=model(CROSS))
    assert list(ranked.truncated) == [0, 1, 2]


@both
async def test_nothing_was_cut_where_everything_fits(ingress: Ingress, name: str) -> None:
    ranked = await ingress.rerank(options=model(name, truncate=False))
    assert list(ranked.truncated) == []


@pytest.mark.parametrize(
    ("name", "query", "candidates", "item", "message"),
    [
        (COLBERT, ASKED, ["a", "a", LONG, LONG], 2, f"tokens, the model's limit is {LIMIT}"),
        (COLBERT, LONG, ["a", LONG], QUERY, f"tokens, the model's limit is {LIMIT}"),
        (CROSS, ASKED, ["a", "a", LONG, LONG], 2, f"together with the query, the model's limit is {LIMIT}"),
        (CROSS, LONG, ["a", "b"], QUERY, f"longer than its share of the {LIMIT} tokens of a pair"),
    ],
)
async def test_where_nothing_may_be_cut_the_text_at_fault_is_named(
    ingress: Ingress, name: str, query: str, candidates: list[str], item: int, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        await ingress.rerank(candidates, query, options=model(name, truncate=False))
    assert caught.value.item == item
    assert ingress.requests(name) == []


# ------------------------------------------------------------------ explanations


async def test_an_explanation_shows_tokens_without_the_first_and_where_each_is_matched(
    make: Callable[..., Ingress],
) -> None:
    def explain(method: str, request: RankRequest) -> TokenMatches:
        assert method == "explain"
        tokens = len(request.query) - 1
        similarities: Float32 = np.linspace(0, 1, tokens, dtype=np.float32)
        return TokenMatches(np.arange(tokens, dtype=np.int64) % request.candidates.tokens, similarities)

    ingress = make(explain)
    explained = await ingress.rerankers.explain("read a file", "open it", OPTIONS)
    assert "".join(explained.query_tokens).replace("</s>", "") == " read a file"
    assert "".join(explained.candidate_tokens).replace("</s>", "") == " open it"
    assert explained.matches.positions.tolist() == [
        i % (len(explained.candidate_tokens) + 1) for i in range(len(explained.query_tokens))
    ]
    similarities = explained.matches.similarities
    np.testing.assert_allclose(similarities, np.linspace(0, 1, len(similarities)), atol=1e-6)
    assert list(explained.truncated) == []


@pytest.mark.parametrize(
    ("query", "candidate", "cut"), [(LONG, "a", [-1]), ("a", LONG, [0]), (LONG, LONG + "too", [-1, 0])]
)
async def test_an_explanation_names_what_was_cut(
    make: Callable[..., Ingress], query: str, candidate: str, cut: list[int]
) -> None:
    nothing = TokenMatches(np.zeros(0, np.int64), np.zeros(0, np.float32))
    ingress = make(lambda *_: nothing)
    assert list((await ingress.rerankers.explain(query, candidate, OPTIONS)).truncated) == cut
    with pytest.raises(InvalidInputError) as caught:
        await ingress.rerankers.explain(query, candidate, replace(OPTIONS, truncate=False))
    assert caught.value.item == cut[0]


async def test_a_cross_encoder_explains_nothing(ingress: Ingress) -> None:
    with pytest.raises(CapabilityError, match="models that do: bge-m3"):
        await ingress.rerankers.explain("read", "open", model(CROSS))
    assert Capability.COLBERT not in ingress.served[CROSS].capabilities


async def test_an_explanation_that_fails_or_is_late_is_that_error(make: Callable[..., Ingress]) -> None:
    def fail(*_: object) -> ServiceError:
        raise NonFiniteError("no number")

    with pytest.raises(NonFiniteError):
        await make(fail).rerankers.explain("read", "open", OPTIONS)
    with pytest.raises(DeadlineError):
        await asyncio.wait_for(make(never).rerankers.explain("read", "open", replace(OPTIONS, timeout_s=0.05)), 10)


@pytest.mark.parametrize("what", ["rank", "explain"])
async def test_a_request_without_an_answer_has_used_its_tokens(make: Callable[..., Ingress], what: str) -> None:
    ingress, hurried = make(never), replace(OPTIONS, timeout_s=0.01)
    with measured() as usage, pytest.raises(DeadlineError):
        if what == "rank":
            await ingress.rerank(options=hurried)
        await ingress.rerankers.explain(ASKED, "open it", hurried)
    assert usage.tokens == ingress.metrics.tokens > 0


async def test_calls_of_one_request_share_its_limit_of_tokens(ingress: Ingress) -> None:
    half = [f"{i} {LONG}" for i in range(MOST_TOKENS // LIMIT // 2)]
    options = replace(OPTIONS, total=TokenTotal())
    await ingress.rerank(half, options=options)
    with pytest.raises(InvalidInputError, match=rf"\d+ tokens together, the limit is {MOST_TOKENS}; send several"):
        await ingress.rerank(half + CANDIDATES, options=options)
    assert len(ingress.requests(COLBERT)) == 1


@both
async def test_a_deadline_names_the_seconds_that_the_request_had_in_all(
    make: Callable[..., Ingress], name: str
) -> None:
    ingress = make(never)
    options = model(name, timeout_s=0.03, stated_timeout_s=7.0)
    with pytest.raises(DeadlineError, match="not done within 7 s; the remaining work was dropped"):
        await ingress.rerank(options=options)
