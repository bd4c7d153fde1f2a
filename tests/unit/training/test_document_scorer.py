"""Scores by each head against the definitions, and what a served model must share with the trained one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serve_app.domain.embeddings import Encoded, Float32
from serve_app.domain.profiles import Capability
from serve_app.models.model_source import describe
from tests.unit.training.training_jobs import make_job
from training.evaluation.document_scorer import DocumentScorer
from training.losses.loss_registry import build_objective
from training.probe import agreement, check_agreement, probe_of, probe_text
from training.trainer.trainable_model import build_model, choose_compute
from training.training_errors import TrainingError
from training.verification import load_base

DRAW = np.random.default_rng(0)


def text(tokens: int, *ids: int) -> Encoded:
    return Encoded(units(1)[0], (np.array(ids, np.int32), DRAW.random(len(ids), np.float32)), units(tokens))


def units(count: int) -> Float32:
    vectors = DRAW.standard_normal((count, 8)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_each_head_scores_by_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.document_scorer.MAX_SIMILARITIES", 7)  # a token or two at a time
    queries = [text(3, 5, 9), text(1), text(2, 9, 100, 3)]
    scores = DocumentScorer(queries)
    for document in (text(4, 9, 3), text(1, 7), text(9)):
        found = scores.score(document)
        assert document.colbert is not None
        for row, query in enumerate(queries):
            assert query.colbert is not None
            assert query.sparse is not None
            assert document.sparse is not None
            own, other = (dict(zip(*side.sparse, strict=True)) for side in (query, document))
            assert found[Capability.DENSE][row] == pytest.approx(query.dense @ document.dense, abs=1e-6)
            common = sum(own[id] * other[id] for id in own.keys() & other.keys())
            assert found[Capability.SPARSE][row] == pytest.approx(common, abs=1e-6)
            best = (query.colbert @ document.colbert.T).max(axis=1).mean()
            assert found[Capability.COLBERT][row] == pytest.approx(best, abs=1e-6)


def test_a_dense_model_has_dense_scores_alone() -> None:
    dense = [Encoded(vector) for vector in units(2)]
    assert list(DocumentScorer(dense).score(dense[0])) == [Capability.DENSE]


@pytest.mark.parametrize(
    ("other", "head"),
    [
        (lambda one: replace(one, dense=-one.dense), "dense"),
        (lambda one: replace(one, sparse=(one.sparse[0] + 1, one.sparse[1])), "sparse"),
        (lambda one: replace(one, sparse=(one.sparse[0], one.sparse[1] * 2)), "sparse"),  # longer, the same direction
        (lambda one: replace(one, sparse=(one.sparse[0][:0], one.sparse[1][:0])), "sparse"),
        (lambda one: replace(one, colbert=one.colbert[::-1]), "ColBERT"),
        (lambda one: replace(one, colbert=one.colbert[:-1]), "ColBERT"),
        (lambda one: replace(one, colbert=one.colbert * np.nan), "ColBERT"),
    ],
)
def test_a_result_that_differs_by_one_head_alone_is_not_published(other: object, head: str) -> None:
    one = text(3, 4, 8)
    bounds = {"least": 0.99, "least_of_tokens": 0.99}
    check_agreement(one, one, **bounds)
    weightless = replace(one, sparse=(np.empty(0, np.int32), np.empty(0, np.float32)))
    check_agreement(weightless, weightless, **bounds)
    with pytest.raises(TrainingError, match=rf"\({head} vectors"):
        check_agreement(one, other(one), **bounds)  # type: ignore[operator]


@pytest.mark.parametrize("family", ["e5", "bge-m3"])
def test_trainer_and_loader_agree_by_every_head(tmp_path: Path, e5_tiny: Path, bge_m3_tiny: Path, family: str) -> None:
    folder = {"e5": e5_tiny, "bge-m3": bge_m3_tiny}[family]
    spec, _ = make_job(tmp_path, folder, family=family)
    source, place = describe(folder.name, folder, family=family), choose_compute(spec)
    model = build_model(source, place, max_tokens=spec.max_seq_length)
    heads = build_objective(model, spec, mini_batch_size=1, world_size=1).heads
    ((_, served),) = load_base(spec, source, place, lambda: None)([probe_text(source)])
    found = agreement(probe_of(model, heads, source, place), served)
    assert list(found) == (["dense"] if family == "e5" else ["dense", "sparse", "ColBERT"])
    assert min(found.values()) > 0.999  # in bfloat16, where the CPU has it
