"""The size of a batch: the requested one, or a smaller one where too few pairs would be trained on."""

from __future__ import annotations

from serve_app.jobs.training_spec import TrainingSpec
from training.data.conflict_free_batches import full_batches, largest_batch, text_ids
from training.reporting import Reporter
from training.training_errors import TrainingError

_ENOUGH = 0.5  # of the pairs, in the batches of an epoch; else smaller batches are tried, which take more of them
_NONE = (
    "the examples share their texts: no two pairs can be in one batch, so there are no negatives; send pairs with "
    "different queries and passages"
)


def choose_batches(
    rows: dict[str, list[str]], spec: TrainingSpec, reporter: Reporter, *, world_size: int
) -> tuple[int, int]:
    """The size of a batch, of all workers together, and the number of batches of an epoch.

    Args:
        rows: Columns of texts: query, positive, negatives.
        spec: Its ``batch_size`` is the upper bound.
        reporter: Receives an event if the size is smaller, or if pairs are left out.
        world_size: Workers; each gets an equal part of a batch.

    Raises:
        TrainingError: No two pairs fit into one batch.
    """
    requested, count = spec.batch_size, len(rows["query"])
    ids = text_ids(rows.values())
    possible = largest_batch(ids, requested)
    size = _for_all(min(requested, possible), world_size)
    if size < 2:
        raise TrainingError(
            _NONE if requested >= 2 else "a batch of one pair has no negatives; use a batch_size above 1"
        )
    largest, smallest = size, max(2, world_size)
    batches = len(full_batches(ids, size, seed=spec.seed))
    while size * batches < _ENOUGH * count and size > smallest:
        size = max(_for_all(size // 2, world_size), smallest)
        batches = len(full_batches(ids, size, seed=spec.seed))
    if not batches:
        raise TrainingError(_NONE)
    if size < largest:
        reason = "in larger ones most pairs would conflict with others that have the same text"
    elif possible < requested:
        reason = "there are no more pairs without a common text"
    else:
        reason = "equal parts for each worker"
    if size < requested:
        reporter.event("info", f"batches have {size} pairs instead of {requested}: {reason}")
    trained = f"an epoch trains on {size * batches} of {count} pairs"
    if size * batches < _ENOUGH * count:
        reporter.event("warning", f"{trained}: the others share their texts")
    elif size * batches < count:
        reporter.event("info", f"{trained}: every batch is full, and other pairs are left over in each epoch")
    return size, batches


def _for_all(size: int, world_size: int) -> int:
    return size // world_size * world_size
