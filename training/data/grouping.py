"""Groups of examples that share a query or a positive passage, directly or through others."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.domain.unicode import fold
from serve_app.jobs.training_pairs import Example


def group_examples(examples: Sequence[Example]) -> list[list[int]]:
    """Connected components of the examples, where an edge is a common text.

    Texts are compared without case, white space and Unicode form, and a query counts like a passage: of two examples
    that are each other's question and answer, neither may measure what the other one taught.

    Returns:
        Positions of the examples of each group, in order of first sight; every example is in one group.
    """
    parent = list(range(len(examples)))
    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        for text in (example.query, *example.positives):
            one, other = _root(parent, first.setdefault(fold(text), i)), _root(parent, i)
            parent[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = {}
    for i in range(len(examples)):
        groups.setdefault(_root(parent, i), []).append(i)
    return list(groups.values())


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]  # halves the way for the next one
        i = parent[i]
    return i
