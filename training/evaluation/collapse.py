"""Detection of a collapsed model: few different vectors for all texts, or a loss no better than chance."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np

from serve_app.domain.embeddings import Encoded, Float32
from serve_app.domain.profiles import Profile, TextRole
from serve_app.domain.unicode import fold
from serve_app.jobs.job_updates import JobUpdate, UpdateType
from serve_app.jobs.training_pairs import Example
from training.evaluation.held_out import Encode
from training.training_errors import TrainingError

SAME_COSINE = 0.999
"""Above it two vectors are one: divided by a temperature of 0.05 their scores differ by a fiftieth.

Passages that differ have median cosines of 0.79 to 0.99 under models that search well.
"""

MAX_PASSAGES = 32

_MAX_TOKENS = 1024  # of all passages together, whose ColBERT vectors are compared pair by pair
_LEAST_STEPS = 10  # in fewer a loss cannot stand still
_CHANCE = 0.97  # of the chance loss; a model that has collapsed is within two percent of it
_LAST = 0.75  # of the steps are over before the loss is judged


def sample_passages(examples: Sequence[Example], profile: Profile, *, seed: int) -> list[str]:
    """A sample of different passages that were trained on, formatted."""
    distinct = {fold(text): text for example in examples for text in example.positives}
    drawn = random.Random(seed).sample(list(distinct.values()), min(MAX_PASSAGES, len(distinct)))
    return [profile.format(TextRole.PASSAGE, text) for text in drawn]


def describe_collapse(encode: Encode, passages: Sequence[str]) -> str | None:
    """A sentence about the heads that do not distinguish most of the passages; None if all heads do.

    Args:
        encode: The result.
        passages: From ``sample_passages``; fewer than two show nothing.
    """
    if len(passages) < 2:
        return None
    heads = collapsed_heads([encoded for _, encoded in encode(passages)])
    if not heads:
        return None
    return (
        f"the model has COLLAPSED: for {len(passages)} different training passages it {', '.join(heads)}, so search "
        f"with it finds nothing; delete it and train again with a lower learning_rate, fewer epochs or larger batches"
    )


def collapsed_heads(texts: Sequence[Encoded]) -> list[str]:
    """For each collapsed head, a phrase about its representations of some different texts."""
    found = []
    if count := _few_vectors(np.stack([text.dense for text in texts]), len(texts)):
        found.append(f"computes {_amount(count, 'dense')}")
    empty = sum(text.sparse is not None and not len(text.sparse[0]) for text in texts)
    if 2 * empty > len(texts):
        found.append("gives no token a sparse weight" + (f" in {empty} of them" if empty < len(texts) else ""))
    colbert = [text.colbert for text in texts if text.colbert is not None]
    if colbert and (count := _few_vectors(_sample_rows(np.concatenate(colbert)), len(texts))):
        found.append(f"computes {_amount(count, 'ColBERT')} for all tokens")
    return found


def check_collapse(encode: Encode, passages: Sequence[str], *, measured: bool) -> str | None:
    """``describe_collapse`` of a result that was measured.

    Raises:
        TrainingError: The result has collapsed, and no measurement could show it to the user.
    """
    collapse = describe_collapse(encode, passages)
    if collapse and not measured:
        raise TrainingError(f"{collapse}; it is not published, because nothing was held out to measure it on")
    return collapse


def describe_stalled_loss(updates: Iterable[JobUpdate], chance_loss: float) -> str | None:
    """A sentence about a loss that is no better than chance at the end; None if it is better, or the steps are few.

    Args:
        updates: All updates of the training.
        chance_loss: The loss of a model that scores all passages of a batch equally.
    """
    steps = {update.count("step") or 0: update for update in updates if update.type is UpdateType.PROGRESS}
    total = max((update.count("total_steps") or 0 for update in steps.values()), default=0)
    losses = [update.number("loss") for step, update in steps.items() if step > _LAST * total]
    last = [loss for loss in losses if loss is not None]
    if total < _LEAST_STEPS or not last:
        return None
    loss = sum(last) / len(last)
    if loss < _CHANCE * chance_loss:
        return None
    return (
        f"the loss is {loss:.3f} after {total} steps, no better than chance ({chance_loss:.3f}): the model does not "
        f"learn which passage answers which query; use a lower learning_rate, or check that queries and passages "
        f"belong together"
    )


def _few_vectors(vectors: Float32, texts: int) -> int | None:
    """The number of different vectors if a head has collapsed, None if it has not.

    It has if half of all pairs are the same vector, or if there are fewer different vectors than half of the texts: a
    few exceptions make no model that finds anything.

    Args:
        vectors: ``[n, dimensions]`` of different texts or of their tokens; those of zeros count as one vector.
        texts: Number of different texts.
    """
    if len(vectors) < 2:
        return None
    norms = np.linalg.norm(vectors, axis=1)
    is_zero = norms == 0
    unit = vectors / np.where(is_zero, 1, norms)[:, None]
    cosines = unit @ unit.T
    cosines[np.ix_(is_zero, is_zero)] = 1
    is_same = cosines > SAME_COSINE
    different: list[int] = []
    for i, same in enumerate(is_same):
        if not same[different].any():
            different.append(i)
    median = float(np.median(cosines[np.triu_indices(len(vectors), k=1)]))
    return len(different) if median > SAME_COSINE or 2 * len(different) < texts else None


def _sample_rows(rows: Float32) -> Float32:
    """At most ``_MAX_TOKENS`` rows, at even distances."""
    sample: Float32 = rows[np.linspace(0, len(rows) - 1, min(_MAX_TOKENS, len(rows))).astype(np.intp)]
    return sample


def _amount(count: int, head: str) -> str:
    return f"one {head} vector" if count == 1 else f"only {count} different {head} vectors"
