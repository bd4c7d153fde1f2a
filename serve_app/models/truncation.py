"""Truncation of token ids that keeps the special tokens around a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer


@dataclass(frozen=True)
class Template:
    """The special tokens that a tokenizer's post-processor puts before and behind a text."""

    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Template:
        """The tokenizer's own."""
        bare = tokenizer.encode("a", add_special_tokens=False).ids
        full = tokenizer.encode("a").ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return cls(list(full[:start]), list(full[start + len(bare) :]))
        return cls([], [])

    def encloses(self, row: Sequence[int]) -> bool:
        """True if a row begins and ends with the special tokens."""
        if len(row) < len(self.before) + len(self.after):
            return False
        return [*row[: len(self.before)]] == self.before and [*row[len(row) - len(self.after) :]] == self.after

    def cut_end(self, row: Sequence[int], limit: int) -> Sequence[int]:
        """The beginning of a row that is too long; the special tokens stay, however small the limit is."""
        if len(row) <= limit:
            return row
        return [*row[: max(limit - len(self.after), len(self.before))], *self.after]

    def cut_beginning(self, row: Sequence[int], limit: int, prompts: Sequence[Sequence[int]] = ()) -> Sequence[int]:
        """The end of a row that is too long, behind its special tokens and its prompt.

        Args:
            row: Special tokens included.
            limit: Longest row.
            prompts: Token ids, without special tokens, that rows may begin with and keep.
        """
        if len(row) <= limit:
            return row
        before, after = len(self.before), len(self.after)
        prompt = max((_common(row[before:], ids) for ids in prompts), default=0)
        head = min(before + prompt, max(limit - after, before))
        body = row[head : len(row) - after]
        return [*row[:head], *cut(body, max(limit - head - after, 0), keep_end=True), *self.after]


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens that the post-processor puts before, between and behind the texts of a pair."""

    before: list[int]
    between: list[int]
    after: list[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PairTemplate:
        """The tokenizer's own."""
        length = len(tokenizer.encode("a", add_special_tokens=False).ids)
        pair = tokenizer.encode("a", "a")
        first, second = pair.sequence_ids.index(0), pair.sequence_ids.index(1)
        return cls(pair.ids[:first], pair.ids[first + length : second], pair.ids[second + length :])

    @property
    def size(self) -> int:
        """The number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)


def cut(ids: Sequence[int], most: int, keep_end: bool) -> Sequence[int]:
    """The first ids, or the last ones."""
    return ids[max(len(ids) - most, 0) :] if keep_end else ids[:most]


def _common(row: Sequence[int], prompt: Sequence[int]) -> int:
    """The number of a prompt's tokens that a row begins with: the last one may have merged with the text behind it."""
    return next((i for i, (a, b) in enumerate(zip(row, prompt, strict=False)) if a != b), min(len(row), len(prompt)))
