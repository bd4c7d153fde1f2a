"""The split of a job's examples into training and held-out ones that share no text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serve_app.domain.profiles import Profile
from serve_app.domain.unicode import fold
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_pairs import Example
from training.data.conflict_free_batches import largest_batch, text_ids
from training.data.examples import Notice, merge, negatives_per_row, pairs, read_examples, rows_of
from training.data.grouping import group_examples
from training.data.notices import clean, notice_negatives
from training.training_errors import TrainingError

_MOST = 2  # times the requested share, where groups are larger than that


@dataclass(frozen=True)
class Split:
    """Training and held-out examples.

    Attributes:
        train: Trained on.
        held_out: Measured on.
        train_groups: Groups of examples in ``train``; see ``group_examples``.
        held_out_groups: The same of ``held_out``.
        notices: Events for the user about the two parts.
    """

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    train_groups: int = 0
    held_out_groups: int = 0
    notices: tuple[Notice, ...] = ()

    @property
    def pair_counts(self) -> dict[str, int]:
        """Numbers of query-passage pairs that are trained on and held out, as reports and manifests name them."""
        return {"train_pairs": pairs(self.train), "eval_pairs": pairs(self.held_out)}

    @property
    def group_counts(self) -> dict[str, int]:
        """The same of groups."""
        return {"train_groups": self.train_groups, "eval_groups": self.held_out_groups}


def load_split(job_dir: Path, profile: Profile, *, fraction: float, seed: int) -> Split:
    """The job's examples, cleaned for a model of this profile, merged and split.

    Raises:
        TrainingError: A file is missing or a line is broken, or fewer than two examples are left to train on.
    """
    folder = JobFolder(job_dir)
    if not folder.pairs_file.is_file():
        raise TrainingError(f"the job has no training examples ({folder.pairs_file.name} is missing)")
    cleaned, notices = clean(read_examples(folder.pairs_file), profile)
    examples = merge(cleaned)
    if folder.held_out_file.is_file():
        cleaned, of_held_out = clean(read_examples(folder.held_out_file), profile)
        notices += [Notice(level, f"held-out examples: {message}") for level, message in of_held_out]
        parts = without_held_out(examples, merge(cleaned))
    else:
        parts = split(examples, fraction=fraction, seed=seed)
    parts = replace(parts, notices=(*notices, *parts.notices))
    if len(parts.train) < 2:
        raise TrainingError(
            f"{len(parts.train)} different queries remain to train on; at least two are needed, because each one's "
            f"passage is the other's negative"
        )
    return replace(parts, notices=(*parts.notices, *notice_negatives(parts.train, negatives_per_row(parts.train))))


def split(examples: Sequence[Example], *, fraction: float, seed: int) -> Split:
    """Holds whole groups of examples out, the same ones for the same seed.

    Args:
        examples: Merged examples.
        fraction: Share of the examples that is held out: at least one if it is above 0, and two are always left to
            train on. Where every group is larger, the smallest one is held out, up to twice that share.
        seed: Of the draw.

    Nothing is held out if no group is small enough, or if the rest could form no batch: a model without metrics is
    better than none. A notice reports it.
    """
    groups = group_examples(examples)
    if fraction <= 0:
        return Split(tuple(examples), (), len(groups))
    count = min(max(1, round(fraction * len(examples))), max(0, len(examples) - 2))
    drawn = _draw(groups, count, random.Random(seed)) if count else []
    if not drawn:
        smallest = min(map(len, groups), default=0)
        return _nothing_held_out(
            examples, len(groups), f"the smallest group has {smallest} examples, and {count} were to be held out"
        )
    out = {i for group in drawn for i in group}
    rest = [example for i, example in enumerate(examples) if i not in out]
    if not _can_fill_a_batch(rest, seed):
        return _nothing_held_out(examples, len(groups), "the remaining examples would form no batch")
    held_out = tuple(example for i, example in enumerate(examples) if i in out)
    message = (
        f"{len(held_out)} of {len(examples)} queries are held out: {len(drawn)} of {len(groups)} groups (queries that "
        f"share a text, apart from case and white space, are one group, and no group is divided)"
    )
    return Split(tuple(rest), held_out, len(groups) - len(drawn), len(drawn), (Notice("info", message),))


def without_held_out(examples: Sequence[Example], held_out: Sequence[Example]) -> Split:
    """The client's own held-out examples, and the others without their queries.

    A passage may be in both parts: other questions about known passages are a valid task. A notice counts the
    held-out examples with such a passage.

    Args:
        examples: Merged examples.
        held_out: Merged examples of the client's ``eval.jsonl``.
    """
    queries = {fold(example.query) for example in held_out}
    train = tuple(example for example in examples if fold(example.query) not in queries)
    trained = {fold(text) for example in train for text in example.positives}
    known = sum(any(fold(text) in trained for text in example.positives) for example in held_out)
    notices = []
    if removed := len(examples) - len(train):
        notices.append(
            Notice("info", f"held-out queries are not trained on, in any case and white space: {removed} removed")
        )
    if known:
        notices.append(
            Notice(
                "warning",
                f"the passages of {known} of {len(held_out)} held-out queries are trained on with other queries; the "
                f"quality on passages that the model has never seen may be lower than measured",
            )
        )
    return Split(train, tuple(held_out), len(group_examples(train)), len(group_examples(held_out)), tuple(notices))


def _draw(groups: Sequence[list[int]], count: int, draw: random.Random) -> list[list[int]]:
    """Groups of ``count`` examples together, or fewer; the smallest one if none is so small."""
    order = draw.sample(groups, len(groups))
    drawn: list[list[int]] = []
    room = count
    for group in order:
        if len(group) <= room:
            drawn.append(group)
            room -= len(group)
    if not drawn:
        smallest = min(order, key=len)
        drawn = [smallest] if len(smallest) <= _MOST * count else []
    return drawn


def _nothing_held_out(examples: Sequence[Example], groups: int, reason: str) -> Split:
    formed = "one group that shares" if groups == 1 else f"{groups} groups that share"
    message = (
        f"nothing can be held out: the {len(examples)} queries form {formed} texts, and {reason}; send held-out "
        f"examples of your own (eval_text_content or validation_file)"
    )
    return Split(tuple(examples), (), groups, 0, (Notice("warning", message),))


def _can_fill_a_batch(examples: Sequence[Example], seed: int) -> bool:
    """True if two rows may be in one batch."""
    rows = list(rows_of(examples, negatives_per_row(examples), seed))
    return bool(rows) and largest_batch(text_ids(zip(*rows, strict=True)), 2) >= 2
