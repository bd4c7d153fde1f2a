"""A job's examples: read, merged, split into training and held-out ones, formatted as the model reads them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from serve_app.domain.profiles import Profile, TextRole
from training.errors import TrainingError
from training.rivals import most_in_a_batch, text_ids

MAX_NEGATIVES = 7  # hard negatives of one query; FlagEmbedding's default group of 8 passages has as many

_DRAWS = 50  # for a text of another query, before it is given up


@dataclass(frozen=True)
class Example:
    """A query and what is known about its passages; all texts as the user sent them.

    Attributes:
        query: The query.
        positives: Passages that answer it, each once; at least one.
        negatives: Passages that do not, each once; often none.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Training and held-out examples; no query is in both."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]


def read_examples(path: Path) -> list[Example]:
    """Reads ``pairs.jsonl`` or ``eval.jsonl``.

    Raises:
        TrainingError: A line is no example; the message names it.
    """
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line)
                example = Example(value["query"], tuple(value["pos"]), tuple(value.get("neg") or ()))
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(f"{path.name} line {number} is no training example: {error!r}") from error
            found.append(example)
    return found


def merge(examples: Iterable[Example]) -> list[Example]:
    """One example for each query, in order of first sight; in two, its passages would be each other's negatives.

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


def split(examples: Sequence[Example], *, fraction: float, seed: int, held_out: Sequence[Example] | None) -> Split:
    """Holds examples out, the same ones for the same seed.

    Args:
        examples: Merged examples.
        fraction: Share that is held out: at least one example if it is above 0, and two are always left to train on.
        seed: Of the draw.
        held_out: Merged examples of the client's own ``eval.jsonl``; then nothing is drawn, and their queries are
            not trained on.

    Nothing is held out if what is left could form no batch: a model that was not measured is better than none.
    """
    if held_out is not None:
        queries = {example.query for example in held_out}
        return Split(tuple(e for e in examples if e.query not in queries), tuple(held_out))
    count = max(1, round(fraction * len(examples))) if fraction > 0 else 0
    count = max(0, min(count, len(examples) - 2))
    drawn = set(random.Random(seed).sample(range(len(examples)), count))
    rest = [e for i, e in enumerate(examples) if i not in drawn]
    if not rest or most_in_a_batch(text_ids(zip(*_rows(rest, _negatives_per_row(rest), seed), strict=True)), 2) < 2:
        return Split(tuple(examples), ())
    return Split(
        train=tuple(rest),
        held_out=tuple(e for i, e in enumerate(examples) if i in drawn),
    )


def load_split(job_dir: Path, *, fraction: float, seed: int) -> Split:
    """The job's examples, merged and split.

    Raises:
        TrainingError: A file is missing or a line is broken, or fewer than two examples are left to train on.
    """
    if not (job_dir / "pairs.jsonl").is_file():
        raise TrainingError("the job has no training examples (pairs.jsonl is missing)")
    examples = merge(read_examples(job_dir / "pairs.jsonl"))
    given = job_dir / "eval.jsonl"
    held_out = merge(read_examples(given)) if given.is_file() else None
    parts = split(examples, fraction=fraction, seed=seed, held_out=held_out)
    if len(parts.train) < 2:
        raise TrainingError(
            f"{len(parts.train)} different queries are left to train on; it takes two, because each one's passage is "
            f"the other's negative"
        )
    return parts


def pairs(examples: Sequence[Example]) -> int:
    """The number of query-passage pairs."""
    return sum(len(example.positives) for example in examples)


def columns(examples: Sequence[Example], profile: Profile, *, seed: int) -> dict[str, list[str]]:
    """Training rows, one for each pair, as columns of formatted texts.

    All rows of a batch need the same number of negatives. It is the average number, at most ``MAX_NEGATIVES``; a row
    with more takes a draw of them, a row with fewer is filled with negatives of other queries, which are the same to
    it as those that it finds in its batch. Passages of other queries would keep these out of its batch.

    Returns:
        ``query``, ``positive`` and ``negative_1``, ... in this order, all of one length.
    """
    width = _negatives_per_row(examples)
    rows = list(_rows(examples, width, seed))
    names = ("query", "positive", *(f"negative_{i + 1}" for i in range(width)))
    roles = (TextRole.QUERY, *(TextRole.PASSAGE for _ in names[1:]))
    return {
        name: [profile.format(role, row[column]) for row in rows]
        for column, (name, role) in enumerate(zip(names, roles, strict=True))
    }


def _negatives_per_row(examples: Sequence[Example]) -> int:
    given = sum(min(len(example.negatives), MAX_NEGATIVES) for example in examples)
    return max(1, round(given / len(examples))) if given else 0


def _rows(examples: Sequence[Example], width: int, seed: int) -> Iterator[tuple[str, ...]]:
    """Query, positive and ``width`` negatives of every pair, as the user sent them."""
    draw = random.Random(seed)
    others = list(dict.fromkeys(text for example in examples for text in example.negatives)) if width else []
    passages = [example.positives[0] for example in examples] if width else []
    for example in examples:
        for positive in example.positives:
            chosen = draw.sample(example.negatives, min(width, len(example.negatives)))
            taken = {*example.positives, *chosen}
            while len(chosen) < width:
                found = _stranger(others, taken, draw)
                if found is None:  # hardly another negative is left: one of its own again, or a passage
                    found = chosen[0] if chosen else _stranger(passages, taken, draw) or passages[0]
                taken.add(found)
                chosen.append(found)
            yield (example.query, positive, *chosen)


def _stranger(texts: Sequence[str], taken: AbstractSet[str], draw: random.Random) -> str | None:
    return next((text for _ in range(_DRAWS) if (text := draw.choice(texts)) not in taken), None)
