"""Metrics against loops over the definition, and the retrieval task of a job."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.embeddings import Encoded, Float32
from serve_app.domain.profiles import E5, TextRole
from serve_app.jobs.training_pairs import Example
from training.data.splitting import Split
from training.evaluation import held_out as module
from training.evaluation.held_out import evaluate, held_out_task
from training.evaluation.ranking_metrics import ranking_metrics

TRAIN = tuple(Example(f"q{i}", (f"p{i}",)) for i in range(20))
HELD_OUT = (Example("h0", ("a", "b")), Example("h1", ("p3",)), Example("h2", ("a",)))


def dense(vectors: Float32) -> Iterable[tuple[int, Encoded]]:
    """A model that computes these, the last text first."""
    return [(i, Encoded(row)) for i, row in reversed(list(enumerate(vectors)))]


def metrics_by_loops(scores: Float32, relevant: Sequence[set[int]]) -> dict[str, float]:
    """The definitions, one query and one rank at a time."""
    sums = dict.fromkeys(("ndcg@10", "recall@1", "recall@10", "mrr@10"), 0.0)
    for row, wanted in zip(scores.tolist(), relevant, strict=True):
        ranking = sorted(range(len(row)), key=lambda document: (-row[document], document))[:10]
        gain = sum(1 / math.log2(rank + 2) for rank, document in enumerate(ranking) if document in wanted)
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(wanted))))
        ranks = [rank for rank, document in enumerate(ranking) if document in wanted]
        sums["ndcg@10"] += gain / ideal
        sums["recall@1"] += (ranking[0] in wanted) / len(wanted)
        sums["recall@10"] += len(ranks) / len(wanted)
        sums["mrr@10"] += 1 / (ranks[0] + 1) if ranks else 0.0
    return {name: value / len(relevant) for name, value in sums.items()}


@given(st.data())
def test_metrics_are_those_of_their_definition(data: st.DataObject) -> None:
    queries, documents = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 30))
    values = st.lists(st.sampled_from([0.0, 0.25, 0.5, -1.0]), min_size=documents, max_size=documents)  # with ties
    scores = np.array([data.draw(values) for _ in range(queries)], np.float32)
    relevant = [data.draw(st.sets(st.integers(0, documents - 1), min_size=1)) for _ in range(queries)]
    assert ranking_metrics(scores, relevant) == pytest.approx(metrics_by_loops(scores, relevant), abs=1e-6)


def test_an_answer_in_second_place_has_the_metrics_of_the_textbook() -> None:
    metrics = ranking_metrics(np.array([[0.9, 0.8, 0.1]], np.float32), [{1}])
    assert metrics == {"ndcg@10": 0.63093, "recall@1": 0.0, "recall@10": 1.0, "mrr@10": 0.5}


def test_hard_negatives_of_the_held_out_examples_are_documents_however_many_others_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENTS", 6)
    held_out = (Example("h0", ("a",), ("hard", "p3")), Example("h1", ("p3",), ("a", "harder")))
    train = (*TRAIN, Example("t", ("p0",), ("of no question here",)))
    for seed in range(20):
        task = held_out_task(Split(train, held_out), E5, seed=seed)
        assert task is not None
        texts = {text.removeprefix(E5.format(TextRole.PASSAGE, "")) for text in task.documents}
        assert {"a", "p3", "hard", "harder"} < texts
        assert len(texts) == len(task.documents) == 6
        assert texts - {"hard", "harder"} <= {"a", *(f"p{i}" for i in range(20))}


def test_the_passages_of_the_training_examples_are_documents_too() -> None:
    task = held_out_task(Split(TRAIN, HELD_OUT), E5, seed=0)
    assert task is not None
    assert set(task.documents) == {E5.format(TextRole.PASSAGE, t) for t in ("a", "b", *(f"p{i}" for i in range(20)))}
    found = {q: {task.documents[i] for i in places} for q, places in zip(task.queries, task.relevant, strict=True)}
    assert found == {
        E5.format(TextRole.QUERY, example.query): {E5.format(TextRole.PASSAGE, t) for t in example.positives}
        for example in HELD_OUT
    }


def test_a_passage_or_query_in_another_spelling_is_as_right() -> None:
    twins = (Example("How?", ("Answer",)), Example("how?", ("answer", "more")))
    task = held_out_task(Split(TRAIN, twins), E5, seed=0)
    assert task is not None
    wanted = {E5.format(TextRole.PASSAGE, text) for text in ("Answer", "answer", "more")}
    assert [{task.documents[i] for i in places} for places in task.relevant] == [wanted, wanted]


def test_a_large_task_is_drawn_small_and_keeps_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUERIES", 2)
    monkeypatch.setattr(module, "MAX_DOCUMENTS", 5)
    first, again, other = (held_out_task(Split(TRAIN, HELD_OUT), E5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first is not None
    assert (len(first.queries), len(first.documents)) == (2, 5)
    assert all(first.relevant)


def test_without_held_out_examples_there_is_no_task() -> None:
    assert held_out_task(Split(TRAIN, ()), E5, seed=0) is None


def test_a_perfect_model_scores_one_and_an_indifferent_one_does_not() -> None:
    task = held_out_task(Split(TRAIN, HELD_OUT), E5, seed=0)
    assert task is not None

    def knowing(texts: Sequence[str]) -> Iterable[tuple[int, Encoded]]:
        if tuple(texts) == task.documents:
            return dense(np.eye(len(task.documents), dtype=np.float32))
        rows = [[i in wanted for i in range(len(task.documents))] for wanted in task.relevant]
        return dense(np.array(rows, np.float32))

    perfect = evaluate(task, knowing)
    assert perfect["ndcg@10"] == perfect["mrr@10"] == perfect["recall@10"] == 1.0
    assert (perfect["queries"], perfect["documents"]) == (3, 22)
    assert evaluate(task, lambda texts: dense(np.ones((len(texts), 2), np.float32)))["ndcg@10"] < 0.9
