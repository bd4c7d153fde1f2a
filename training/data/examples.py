"""A job's examples: read, merged, formatted as the model reads them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from serve_app.domain.profiles import Profile, TextRole
from serve_app.jobs.training_pairs import Example
from training.training_errors import TrainingError

MAX_NEGATIVES = 7  # hard negatives of one query; FlagEmbedding's default group of 8 passages has as many

_DRAWS = 50  # of another query's text, at most


class Notice(NamedTuple):
    """A job event about the examples; ``level`` is ``info`` or ``warning``."""

    level: str
    message: str


def read_examples(path: Path) -> list[Example]:
    """Reads ``pairs.jsonl`` or ``eval.jsonl``.

    Raises:
        TrainingError: A line is not an example; the message names it.
    """
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                example = Example.from_json(line)
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(f"{path.name} line {number} is not a training example: {error!r}") from error
            found.append(example)
    return found


def merge(examples: Iterable[Example]) -> list[Example]:
    """One example for each query, in order of first appearance; in two, its passages would be each other's negatives.

    A passage that is both positive and negative of a query counts as positive. Queries without a positive are left
    out.
    """
    positives: dict[str, dict[str, None]] = {}
    negatives: dict[str, dict[str, None]] = {}
    for example in examples:
        positives.setdefault(example.query, {}).update(dict.fromkeys(example.positives))
        negatives.setdefault(example.query, {}).update(dict.fromkeys(example.negatives))
    return [
        Example(query, tuple(kept), tuple(text for text in negatives[query] if text not in kept))
        for query, kept in positives.items()
        if kept
    ]


def pairs(examples: Sequence[Example]) -> int:
    """The number of query-passage pairs."""
    return sum(len(example.positives) for example in examples)


def columns(examples: Sequence[Example], profile: Profile, *, seed: int) -> dict[str, list[str]]:
    """Training rows, one for each pair, as columns of formatted texts.

    All rows of a batch need the same number of negatives. It is the average number, at most ``MAX_NEGATIVES``; a row
    with more takes a sample of them, a row with fewer is filled with negatives of other queries, which serve it like
    those in its batch. Passages of other queries would conflict with these in its batch.

    Returns:
        ``query``, ``positive`` and ``negative_1``, ... in this order, all of one length.
    """
    width = negatives_per_row(examples)
    rows = list(rows_of(examples, width, seed))
    names = ("query", "positive", *(f"negative_{i + 1}" for i in range(width)))
    roles = (TextRole.QUERY, *(TextRole.PASSAGE for _ in names[1:]))
    return {
        name: [profile.format(role, row[column]) for row in rows]
        for column, (name, role) in enumerate(zip(names, roles, strict=True))
    }


def negatives_per_row(examples: Sequence[Example]) -> int:
    """The number of negatives of every row."""
    given = sum(min(len(example.negatives), MAX_NEGATIVES) for example in examples)
    return max(1, round(given / len(examples))) if given else 0


def rows_of(examples: Sequence[Example], width: int, seed: int) -> Iterator[tuple[str, ...]]:
    """Query, positive and ``width`` negatives of every pair, as the user sent them."""
    draw = random.Random(seed)
    others = list(dict.fromkeys(text for example in examples for text in example.negatives)) if width else []
    passages = [example.positives[0] for example in examples] if width else []
    for example in examples:
        for positive in example.positives:
            chosen = draw.sample(example.negatives, min(width, len(example.negatives)))
            taken = {*example.positives, *chosen}
            while len(chosen) < width:
                found = _sample_negative(others, taken, draw)
                if found is None:  # no other negative is left: one of its own again, or a passage
                    found = chosen[0] if chosen else _sample_negative(passages, taken, draw) or passages[0]
                taken.add(found)
                chosen.append(found)
            yield (example.query, positive, *chosen)


def _sample_negative(texts: Sequence[str], taken: AbstractSet[str], draw: random.Random) -> str | None:
    return next((text for _ in range(_DRAWS) if (text := draw.choice(texts)) not in taken), None)
