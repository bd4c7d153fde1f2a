"""How well a model retrieves, by each head: the held-out queries against all passages that answer something."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import torch

from serve_app.domain.embeddings import Encoded, Float32
from serve_app.domain.profiles import Profile, TextRole
from serve_app.domain.unicode import fold
from serve_app.jobs.retrieval_metrics import measure_name
from training.data.splitting import Split
from training.evaluation.head_scores import HeadScores

MAX_QUERIES = 1000
MAX_DOCUMENTS = 2000

Encode = Callable[[Sequence[str]], Iterable[tuple[int, Encoded]]]
"""Formatted texts -> position and representations of each, in any order and a few at a time: the token vectors of all
passages together would fill the memory."""


@dataclass(frozen=True)
class HeldOut:
    """A small retrieval task.

    Attributes:
        groups: Groups of held-out examples; see ``training.data.grouping``.
        queries: Formatted held-out queries.
        documents: Formatted passages: every positive of these queries; as far as there is room their negatives, and
            then other passages.
        relevant: For each query the positions in ``documents`` of its positives, in any spelling.
    """

    groups: int
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: tuple[frozenset[int], ...]


def held_out_task(split: Split, profile: Profile, *, seed: int) -> HeldOut | None:
    """The task of a job: the same one before and after training, and whenever the job is resumed.

    Args:
        split: The job's examples. The passages of both parts are documents: among the held-out ones alone almost any
            model finds the right one.
        profile: Formats the texts.
        seed: Of the draws, where there are more than ``MAX_QUERIES`` queries or ``MAX_DOCUMENTS`` passages.

    Returns:
        None if nothing is held out.
    """
    if not split.held_out:
        return None
    draw = random.Random(seed)
    asked = draw.sample(split.held_out, min(MAX_QUERIES, len(split.held_out)))
    answers = dict.fromkeys(text for example in asked for text in example.positives)
    rivals = dict.fromkeys(text for example in asked for text in example.negatives)
    known = dict.fromkeys(text for part in (split.held_out, split.train) for e in part for text in e.positives)
    documents = list(answers)
    for others in (rivals, known):  # what the client says is hard comes first
        taken = set(documents)
        new = [text for text in others if text not in taken]
        documents += draw.sample(new, min(max(0, MAX_DOCUMENTS - len(documents)), len(new)))
    draw.shuffle(documents)  # among equal scores the first document wins, which must not be the answer by habit
    place: dict[str, set[int]] = {}
    for i, text in enumerate(documents):
        place.setdefault(fold(text), set()).add(i)
    right: dict[str, set[int]] = {}  # what answers one spelling of a query answers the others
    for example in split.held_out:
        found = right.setdefault(fold(example.query), set())
        found.update(*(place.get(fold(text), ()) for text in example.positives))
    return HeldOut(
        groups=split.held_out_groups,
        queries=tuple(profile.format(TextRole.QUERY, example.query) for example in asked),
        documents=tuple(profile.format(TextRole.PASSAGE, text) for text in documents),
        relevant=tuple(frozenset(right[fold(example.query)]) for example in asked),
    )


def evaluate(task: HeldOut, encode: Encode, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """nDCG@10, recall@1, recall@10 and MRR@10 of the task by each head of the model, with the sizes of the task.

    Args:
        task: From ``held_out_task``.
        encode: The model.
        device: Where the scores are computed.

    Returns:
        By name of the measure; those of heads beside the dense one have the head's name in front, as
        ``sparse_ndcg@10``.
    """
    queries = dict(encode(task.queries))
    ranking = HeadScores([queries[i] for i in range(len(task.queries))], device)
    scores = {head: np.empty((len(task.queries), len(task.documents)), np.float32) for head in ranking.heads}
    for place, document in encode(task.documents):
        for head, column in ranking.score(document).items():
            scores[head][:, place] = column
    metrics = {
        measure_name(head, name): value
        for head, found in scores.items()
        for name, value in ranking_metrics(found, task.relevant).items()
    }
    return metrics | sizes_of(task)


def sizes_of(task: HeldOut) -> dict[str, int]:
    """How large the task is; of ``groups``, which share no text, not of queries, one asks whether they are enough."""
    return {"queries": len(task.queries), "groups": task.groups, "documents": len(task.documents)}


def ranking_metrics(scores: Float32, relevant: Sequence[AbstractSet[int]]) -> dict[str, float]:
    """Means over the queries, with gains of 0 and 1.

    Args:
        scores: float32 ``[queries, documents]``; of equal scores the first document ranks higher.
        relevant: For each query the columns of its answers, at least one.

    Returns:
        ``ndcg@10``, ``recall@1``, ``recall@10`` (share of a query's answers among its first 1 or 10 documents) and
        ``mrr@10`` (1 / rank of the first answer, 0 beyond 10), rounded to six digits.
    """
    discount = 1.0 / np.log2(np.arange(2, 12))
    rows = []
    for row, wanted in zip(scores, relevant, strict=True):
        top = np.argsort(-row, kind="stable")[:10]
        hits = np.array([int(document) in wanted for document in top], dtype=np.float64)
        first = int(hits.argmax())
        rows.append(
            (
                (hits * discount[: len(hits)]).sum() / discount[: len(wanted)].sum(),
                hits[0] / len(wanted),
                hits.sum() / len(wanted),
                1.0 / (first + 1) if hits.any() else 0.0,
            )
        )
    means = np.mean(rows, axis=0)
    return {
        name: round(float(mean), 6)
        for name, mean in zip(("ndcg@10", "recall@1", "recall@10", "mrr@10"), means, strict=True)
    }
