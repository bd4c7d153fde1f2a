"""Retrieval quality of a model by each head: the held-out queries against all passages that answer something."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from serve_app.domain.embeddings import Encoded
from serve_app.domain.profiles import Profile, TextRole
from serve_app.domain.unicode import fold
from serve_app.jobs.retrieval_metrics import measure_name
from training.data.splitting import Split
from training.evaluation.document_scorer import DocumentScorer
from training.evaluation.ranking_metrics import ranking_metrics

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
    examples = draw.sample(split.held_out, min(MAX_QUERIES, len(split.held_out)))
    answers = dict.fromkeys(text for example in examples for text in example.positives)
    negatives = dict.fromkeys(text for example in examples for text in example.negatives)
    known = dict.fromkeys(text for part in (split.held_out, split.train) for e in part for text in e.positives)
    documents = list(answers)
    for others in (negatives, known):  # the client's hard negatives come first
        taken = set(documents)
        new = [text for text in others if text not in taken]
        documents += draw.sample(new, min(max(0, MAX_DOCUMENTS - len(documents)), len(new)))
    draw.shuffle(documents)  # among equal scores the first document wins, which must not be the answer by habit
    positions: dict[str, set[int]] = {}
    for i, text in enumerate(documents):
        positions.setdefault(fold(text), set()).add(i)
    right: dict[str, set[int]] = {}  # what answers one spelling of a query answers the others
    for example in split.held_out:
        found = right.setdefault(fold(example.query), set())
        found.update(*(positions.get(fold(text), ()) for text in example.positives))
    return HeldOut(
        groups=split.held_out_groups,
        queries=tuple(profile.format(TextRole.QUERY, example.query) for example in examples),
        documents=tuple(profile.format(TextRole.PASSAGE, text) for text in documents),
        relevant=tuple(frozenset(right[fold(example.query)]) for example in examples),
    )


def evaluate(task: HeldOut, encode: Encode, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """The metrics of the task by each head of the model, with the sizes of the task.

    Args:
        task: From ``held_out_task``.
        encode: The model.
        device: Where the scores are computed.

    Returns:
        By name, see ``ranking_metrics.METRICS``; those of heads beside the dense one have the head's name in front,
        as ``sparse_ndcg@10``.
    """
    queries = dict(encode(task.queries))
    scorer = DocumentScorer([queries[i] for i in range(len(task.queries))], device)
    scores = {head: np.empty((len(task.queries), len(task.documents)), np.float32) for head in scorer.heads}
    for position, document in encode(task.documents):
        for head, column in scorer.score(document).items():
            scores[head][:, position] = column
    metrics = {
        measure_name(head, name): value
        for head, found in scores.items()
        for name, value in ranking_metrics(found, task.relevant).items()
    }
    return metrics | sizes_of(task)


def sizes_of(task: HeldOut) -> dict[str, int]:
    """Sizes of the task. Whether it is large enough depends on ``groups``, which share no text, not on queries."""
    return {"queries": len(task.queries), "groups": task.groups, "documents": len(task.documents)}
