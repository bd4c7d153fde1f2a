"""Retrieval quality before and after a fine-tune, by representation: names of the measures, and what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.domain.profiles import Capability

MEASURE = "ndcg@10"  # what decides whether a fine-tune made its model better
_LABELS = {Capability.DENSE: "dense", Capability.SPARSE: "sparse", Capability.COLBERT: "ColBERT"}


def measure_name(head: Capability, measure: str = MEASURE) -> str:
    """The key of a measure: the dense vectors' is its plain name, the others' have the head in front."""
    return measure if head is Capability.DENSE else f"{head.value}_{measure}"


@dataclass(frozen=True)
class Change:
    """One representation's quality, nDCG@10 on the held-out examples.

    Attributes:
        head: Its name, for people.
        before: Of the base.
        after: Of the result.
    """

    head: str
    before: float
    after: float

    @property
    def is_worse(self) -> bool:
        """True if the fine-tune has lowered the quality."""
        return self.after < self.before

    def __str__(self) -> str:
        """The change in words."""
        if self.after == self.before:
            return f"is as it was, {self.before:.3f}"
        return f"{'fell' if self.is_worse else 'rose'} from {self.before:.3f} to {self.after:.3f}"


def changes(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> list[Change]:
    """Changes of all heads that were measured before and after, the dense vectors first."""
    found = []
    for head, label in _LABELS.items():
        name = measure_name(head)
        if before and after and name in before and name in after:
            found.append(Change(label, before[name], after[name]))
    return found
