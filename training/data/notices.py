"""Cleaning of a job's examples, and a notice for the job's events about each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from serve_app.domain.profiles import PROFILES, Profile, TextRole
from serve_app.domain.unicode import fold
from serve_app.jobs.training_pairs import Example
from training.data.examples import Notice

_QUOTES = {'"': '"', "\u201c": "\u201d"}
_NAMES = {TextRole.QUERY: ("query", "queries"), TextRole.PASSAGE: ("passage", "passages")}
_BEGINS = sorted({p for known in PROFILES.values() for p in (known.query_prefix, known.passage_prefix) if p})


def clean(examples: Iterable[Example], profile: Profile) -> tuple[list[Example], list[Notice]]:
    """The examples to train on, and notices about what differs from the examples that were sent.

    Args:
        examples: As the user sent them.
        profile: Of the base model, whose prefixes are put in front of every text.
    """
    cleaned, notices = without_prefixes(examples, profile)
    notices += notice_quotes(cleaned)
    cleaned, contradictions = without_contradictions(cleaned)
    return cleaned, [*notices, *contradictions]


def without_prefixes(examples: Iterable[Example], profile: Profile) -> tuple[list[Example], list[Notice]]:
    """Removes the model's own prefix from texts that have it, because training and serving add it to every text."""
    own: Counter[TextRole] = Counter()
    foreign: Counter[tuple[TextRole, str]] = Counter()

    def strip(role: TextRole, text: str) -> str:
        prefix = profile.format(role, "")
        if prefix and text.startswith(prefix) and text[len(prefix) :].strip():
            own[role] += 1
            return text[len(prefix) :]
        if text.startswith(tuple(_BEGINS)):
            foreign[role, next(begin for begin in _BEGINS if text.startswith(begin))] += 1
        return text

    stripped = [_mapped(example, strip) for example in examples]
    notices = []
    if own:
        prefixes = " and ".join(repr(profile.format(role, "")) for role in own)
        notices.append(
            Notice(
                "info",
                f"the model's own prefix ({prefixes}) is already in front of {_counted(own)}; training and serving add "
                f"it themselves, so it is removed here and need not be sent",
            )
        )
    for (role, begin), count in foreign.items():
        notices.append(
            Notice(
                "warning",
                f"{begin!r} is in front of {_counted({role: count})}, where it is not a prefix of this model; it is "
                f"trained on as part of the text",
            )
        )
    return stripped, notices


def notice_quotes(examples: Sequence[Example]) -> list[Notice]:
    """A notice about texts in quotation marks, which an export may have added. The texts stay as they are."""
    quoted: Counter[TextRole] = Counter()
    for example in examples:
        quoted[TextRole.QUERY] += _is_quoted(example.query)
        quoted[TextRole.PASSAGE] += sum(map(_is_quoted, example.positives))
    if not quoted.total():
        return []
    many = quoted[TextRole.QUERY] * 2 >= len(examples) or quoted[TextRole.PASSAGE] * 2 >= len(examples)
    return [
        Notice(
            "warning" if many else "info",
            f"quotation marks surround {_counted(+quoted)} and are trained on as part of the text; if an export added "
            f"them, send the texts without them",
        )
    ]


def without_contradictions(examples: Sequence[Example]) -> tuple[list[Example], list[Notice]]:
    """Removes negatives that answer the same query elsewhere, in any spelling of query and passage."""
    if not any(example.negatives for example in examples):
        return list(examples), []
    right: dict[str, set[str]] = {}
    for example in examples:
        right.setdefault(fold(example.query), set()).update(map(fold, example.positives))
    kept = [
        example._replace(negatives=tuple(n for n in example.negatives if fold(n) not in right[fold(example.query)]))
        for example in examples
    ]
    changed = [before.query for before, after in zip(examples, kept, strict=True) if before != after]
    if not changed:
        return kept, []
    message = (
        f"negatives that another example gives as answers to the same query count as answers: {len(changed)} examples, "
        f"the first with the query {changed[0][:60]!r}"
    )
    return kept, [Notice("warning", message)]


def notice_negatives(examples: Sequence[Example], width: int) -> list[Notice]:
    """A notice where rows have another number of negatives than their examples.

    Args:
        examples: Merged examples that are trained on.
        width: Negatives of every row.
    """
    more = sum(len(example.negatives) > width for example in examples)
    fewer = sum(len(example.negatives) < width for example in examples)
    if not more and not fewer:
        return []
    message = (
        f"every pair is trained with {width} negatives, the average: {more} queries have more and use a sample, "
        f"{fewer} have fewer and use those of other queries"
    )
    return [Notice("info", message)]


def _mapped(example: Example, change: Callable[[TextRole, str], str]) -> Example:
    query = change(TextRole.QUERY, example.query)
    positives, negatives = (
        tuple(change(TextRole.PASSAGE, text) for text in texts) for texts in (example.positives, example.negatives)
    )
    return Example(query, positives, negatives)


def _is_quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 2 and _QUOTES.get(text[0]) == text[-1]


def _counted(counts: Counter[TextRole] | dict[TextRole, int]) -> str:
    return " and ".join(f"{count} {_NAMES[role][count != 1]}" for role, count in counts.items())
