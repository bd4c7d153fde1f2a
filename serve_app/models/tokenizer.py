"""Texts to token ids, with the ``tokenizers`` library alone (no torch, no transformers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
from tokenizers import Encoding

from serve_app.domain.embeddings import Int32, TokenBatch
from serve_app.domain.errors import InvalidInputError, ModelLoadError
from serve_app.domain.tokens import Token
from serve_app.models.model_source import ModelSource
from serve_app.models.vocabulary import load_vocabulary


@dataclass(frozen=True)
class Tokenised:
    """Token ids of a request's texts.

    Attributes:
        ids: int32 ``[sum(lengths)]``, special tokens included, each text cut to the limit.
        lengths: int32 ``[n]``.
        full_lengths: int32 ``[n]``, as ``lengths`` before the cut.
    """

    ids: Int32
    lengths: Int32
    full_lengths: Int32

    @property
    def truncated(self) -> list[int]:
        """Indices of the texts that were cut."""
        return [int(i) for i in np.flatnonzero(self.full_lengths > self.lengths)]

    @classmethod
    def join(cls, parts: Sequence[Tokenised]) -> Tokenised:
        """Several as one, in order; at least one."""
        if len(parts) == 1:
            return parts[0]
        ids, lengths, full_lengths = zip(*((part.ids, part.lengths, part.full_lengths) for part in parts), strict=True)
        return cls(np.concatenate(ids), np.concatenate(lengths), np.concatenate(full_lengths))

    def batch(self) -> TokenBatch:
        """The ids as a batch that nobody owns yet."""
        return TokenBatch(self.ids, self.lengths)


class TextTokenizer:
    """Tokenises already formatted texts; safe to use from several threads."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Reads ``folder/tokenizer.json``.

        Args:
            folder: A model folder.
            max_tokens: Longest text in tokens, special tokens included; longer ones are cut at the end.

        Raises:
            ModelLoadError: It, or ``tokenizer_config.json``, can not be read.
        """
        self.max_tokens = max_tokens
        self.vocabulary = load_vocabulary(folder)
        self._tokenizer = self.vocabulary.tokenizer
        self._prefix, self._suffix = self._around_text()

    @classmethod
    def of(cls, source: ModelSource, max_tokens: int | None = None) -> TextTokenizer:
        """The tokenizer of a model.

        Args:
            source: The model's card.
            max_tokens: Another limit than the model's.

        Raises:
            ModelLoadError: It can not be read, or has tokens that the model has no embedding for.
        """
        tokenizer = cls(source.folder, source.max_tokens if max_tokens is None else max_tokens)
        if source.rows is not None and (size := tokenizer.vocabulary.size) > source.rows:
            raise ModelLoadError(
                f"{source.folder / 'tokenizer.json'} has {size} tokens, and the model has embeddings for "
                f"{source.rows} (vocab_size in config.json): take the tokenizer and the weights from one model"
            )
        return tokenizer

    def __call__(
        self,
        texts: Sequence[str],
        *,
        max_tokens: int | None = None,
        keep_end: bool = False,
        prompts: Sequence[str] = (),
    ) -> Tokenised:
        """Token ids of the texts, in order, each at most ``max_tokens`` long.

        A text that is too long loses its end but keeps the closing special tokens, as the
        ``longest_first`` truncation of transformers does for a single text.

        Args:
            texts: Already formatted.
            max_tokens: A smaller limit than the tokenizer's own, special tokens included.
            keep_end: Cut a text that is too long at its beginning, behind its prompt.
            prompts: What texts may begin with and keep.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        rows = [encoding.ids for encoding in encodings]
        full_lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        limit = min(self.max_tokens, max_tokens or self.max_tokens)
        if not keep_end:
            return _tokenised([self._cut(row, limit) for row in rows], full_lengths)
        heads = [self._tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
        return _tokenised([self._cut_beginning(row, limit, heads) for row in rows], full_lengths)

    def pairs(
        self,
        query: str,
        candidates: Sequence[str],
        *,
        max_tokens: int | None = None,
        max_query_tokens: int | None = None,
        keep_end: bool = False,
    ) -> Tokenised:
        """Token ids of the pairs of one query with each candidate, as a cross-encoder reads them.

        XLM-RoBERTa reads ``<s> query </s></s> candidate </s>``. Too long a pair is cut as FlagEmbedding's
        reranker cuts it: the query to three quarters of ``max_tokens``, then the candidate to what is left.

        Args:
            query: What is searched for.
            candidates: What was found.
            max_tokens: Most tokens of a candidate, special tokens not included; None for what is left of the pair.
            max_query_tokens: Most tokens of the query, likewise.
            keep_end: Cut texts at their beginning.

        Returns:
            One row for each candidate, in order, at most ``max_tokens`` long, but never shorter than its special
            tokens. The full lengths are those of the whole pair: where the query is cut, every pair is truncated.
        """
        before, between, after = self._around_pair
        specials = len(before) + len(between) + len(after)
        whole, *others = self._tokenizer.encode_batch_fast([query, *candidates], add_special_tokens=False)
        room = max(0, self.max_tokens - specials)
        head = _part(whole.ids, min(room, self.max_tokens * 3 // 4, max_query_tokens or room), keep_end)
        most = min(room - len(head), max_tokens or room)
        rows = [[*before, *head, *between, *_part(other.ids, most, keep_end), *after] for other in others]
        full_lengths = [len(whole.ids) + len(other.ids) + specials for other in others]
        return _tokenised(rows, np.array(full_lengths, np.int32))

    def of_ids(
        self, rows: Sequence[Sequence[int]], *, max_tokens: int | None = None, keep_end: bool = False
    ) -> Tokenised:
        """Texts that a client has tokenised itself: nothing is added, and a long one is cut as a text is.

        The special tokens around a text must be there: ids without them are those of another vocabulary, most of
        which a large one has too, or would give another vector than the text.

        Raises:
            InvalidInputError: An id is not in the vocabulary, or the special tokens are missing; ``item`` is the row.
        """
        self._require_known(rows)
        for i, row in enumerate(rows):
            if not self._has_special_tokens(row):
                raise InvalidInputError(
                    f"the model's token ids begin with {self._prefix} and end with {self._suffix}, these do not; "
                    f"send the text where they come from another vocabulary",
                    item=i,
                )
        full_lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        limit = min(self.max_tokens, max_tokens or self.max_tokens)
        cut = [self._cut_beginning(row, limit, []) if keep_end else self._cut(row, limit) for row in rows]
        return _tokenised(cut, full_lengths)

    def decode(self, rows: Sequence[Sequence[int]], *, special: bool = False) -> list[str]:
        """The text of each row of at least one token id, with or without special tokens.

        Raises:
            InvalidInputError: An id is not in the vocabulary; ``item`` is the row.
        """
        self._require_known(rows)
        return [self._tokenizer.decode(list(row), skip_special_tokens=not special) for row in rows]

    def tokens(self, texts: Sequence[str], *, special: bool = True) -> list[list[Token]]:
        """The tokens of each text, uncut, with their places in it.

        Args:
            texts: As they are to be read.
            special: Whether the tokens around a text are wanted too.
        """
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [_tokens(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    def _require_known(self, rows: Sequence[Sequence[int]]) -> None:
        for i, row in enumerate(rows):
            if (largest := max(row)) >= self.vocabulary.size:
                raise InvalidInputError(
                    f"token id {largest} is not in the model's vocabulary of {self.vocabulary.size}", item=i
                )

    def _cut(self, row: Sequence[int], limit: int) -> Sequence[int]:
        """The beginning of a row that is too long; the special tokens stay, however small the limit is."""
        if len(row) <= limit:
            return row
        return [*row[: max(limit - len(self._suffix), len(self._prefix))], *self._suffix]

    def _cut_beginning(self, row: Sequence[int], limit: int, prompts: Sequence[Sequence[int]]) -> Sequence[int]:
        """The end of a row that is too long, behind its special tokens and its prompt."""
        if len(row) <= limit:
            return row
        before, after = len(self._prefix), len(self._suffix)
        prompt = max((_common(row[before:], ids) for ids in prompts), default=0)
        head = min(before + prompt, max(limit - after, before))
        body = row[head : len(row) - after]
        return [*row[:head], *_part(body, max(limit - head - after, 0), keep_end=True), *self._suffix]

    def _has_special_tokens(self, row: Sequence[int]) -> bool:
        before, after = len(self._prefix), len(self._suffix)
        if len(row) < before + after:
            return False
        return [*row[:before]] == self._prefix and [*row[len(row) - after :]] == self._suffix

    def _around_text(self) -> tuple[list[int], list[int]]:
        """The special tokens that the post-processor puts before and behind a text."""
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a").ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return list(full[:start]), list(full[start + len(bare) :])
        return [], []

    @cached_property
    def _around_pair(self) -> tuple[list[int], list[int], list[int]]:
        """The special tokens that the post-processor puts before, between and behind the texts of a pair."""
        length = len(self._tokenizer.encode("a", add_special_tokens=False).ids)
        pair = self._tokenizer.encode("a", "a")
        first, second = pair.sequence_ids.index(0), pair.sequence_ids.index(1)
        return pair.ids[:first], pair.ids[first + length : second], pair.ids[second + length :]


def _tokenised(rows: Sequence[Sequence[int]], full_lengths: Int32) -> Tokenised:
    lengths = np.fromiter(map(len, rows), np.int32, len(rows))
    return Tokenised(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths, full_lengths)


def _part(ids: Sequence[int], most: int, keep_end: bool) -> Sequence[int]:
    return ids[max(len(ids) - most, 0) :] if keep_end else ids[:most]


def _common(row: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens of a prompt a row begins with: the last one may have merged with the text behind it."""
    return next((i for i, (a, b) in enumerate(zip(row, prompt, strict=False)) if a != b), min(len(row), len(prompt)))


def _tokens(encoding: Encoding, text: str) -> list[Token]:
    content = text.encode()
    if len(content) == len(text):
        places = encoding.offsets
    else:  # the library counts characters
        byte_of = [0, *accumulate(len(character.encode()) for character in text)]
        places = [(byte_of[start], byte_of[stop]) for start, stop in encoding.offsets]
    tokens = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, places, strict=True)
    return [
        Token(id, name, True)
        if special
        else Token(id, content[start:stop].decode(errors="replace"), False, start, stop)
        for id, name, special, (start, stop) in tokens
    ]
