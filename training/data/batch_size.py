"""How many pairs a batch has: as many as were asked for, where enough of the pairs can then be trained on."""

from __future__ import annotations

from serve_app.jobs.training_spec import TrainingSpec
from training.data.conflict_free_batches import full_batches, most_in_a_batch, text_ids
from training.reporting import Reporter
from training.training_errors import TrainingError

_ENOUGH = 0.5  # of the pairs, in the batches of an epoch; else smaller batches are tried, in which more find a place
_NONE = "the examples share their texts: no two pairs could be in one batch, so there would be no negatives"


def choose_batches(
    rows: dict[str, list[str]], spec: TrainingSpec, reporter: Reporter, *, world_size: int
) -> tuple[int, int]:
    """The size of a batch, of all workers together, and the number of batches of an epoch.

    Args:
        rows: Columns of texts: query, positive, negatives.
        spec: Its ``batch_size`` is the most.
        reporter: Is told where it is another, or where pairs are left out.
        world_size: Workers; each gets an equal part of a batch.

    Raises:
        TrainingError: No two pairs fit into one batch.
    """
    asked, count = spec.batch_size, len(rows["query"])
    ids = text_ids(rows.values())
    possible = most_in_a_batch(ids, asked)
    size = _for_all(min(asked, possible), world_size)
    if size < 2:
        raise TrainingError(_NONE if asked >= 2 else "a batch of one pair has no negatives; use a batch_size above 1")
    largest, smallest = size, max(2, world_size)
    batches = len(full_batches(ids, size, seed=spec.seed))
    while size * batches < _ENOUGH * count and size > smallest:
        size = max(_for_all(size // 2, world_size), smallest)
        batches = len(full_batches(ids, size, seed=spec.seed))
    if not batches:
        raise TrainingError(_NONE)
    if size < largest:
        why = "in larger ones most pairs would find no place beside others with the same text"
    elif possible < asked:
        why = "no more pairs without a common text are there"
    else:
        why = "equal parts for each worker"
    if size < asked:
        reporter.event("info", f"batches have {size} pairs instead of {asked}: {why}")
    trained = f"an epoch trains on {size * batches} of {count} pairs"
    if size * batches < _ENOUGH * count:
        reporter.event("warning", f"{trained}: the others share their texts")
    elif size * batches < count:
        reporter.event("info", f"{trained}: all batches are whole, and which pairs are left over changes by epoch")
    return size, batches


def _for_all(size: int, world_size: int) -> int:
    return size // world_size * world_size
