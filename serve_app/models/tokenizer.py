"""Texts to token ids, with the ``tokenizers`` library alone (no torch, no transformers)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from tokenizers import Encoding

from serve_app.domain.errors import InvalidInputError, ModelLoadError
from serve_app.domain.tokens import Token
from serve_app.models.model_source import ModelSource
from serve_app.models.tokenised import Tokenised
from serve_app.models.truncation import PairTemplate, Template, cut
from serve_app.models.vocabulary import load_vocabulary


class TextTokenizer:
    """A model's tokenizer for formatted texts, with the model's length limit; safe to use from several threads."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Reads ``folder/tokenizer.json``.

        Args:
            folder: A model folder.
            max_tokens: Longest text in tokens, special tokens included; longer ones are cut at the end.

        Raises:
            ModelLoadError: It, or ``tokenizer_config.json``, cannot be read.
        """
        self.max_tokens = max_tokens
        self.vocabulary = load_vocabulary(folder)
        self._tokenizer = self.vocabulary.tokenizer
        self._template = Template.of(self._tokenizer)

    @classmethod
    def of(cls, source: ModelSource, max_tokens: int | None = None) -> TextTokenizer:
        """The tokenizer of a model.

        Args:
            source: The model's card.
            max_tokens: Another limit than the model's.

        Raises:
            ModelLoadError: It cannot be read, or has tokens that the model has no embedding for.
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
            prompts: Prefixes that texts may begin with and keep.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        rows = [encoding.ids for encoding in encodings]
        full_lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        limit = min(self.max_tokens, max_tokens or self.max_tokens)
        if not keep_end:
            return Tokenised.of_rows([self._template.cut_end(row, limit) for row in rows], full_lengths)
        heads = [self._tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
        return Tokenised.of_rows([self._template.cut_beginning(row, limit, heads) for row in rows], full_lengths)

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
            query: The search text.
            candidates: The texts to score for it.
            max_tokens: Most tokens of a candidate, special tokens not included; None for what is left of the pair.
            max_query_tokens: Most tokens of the query, likewise.
            keep_end: Cut texts at their beginning.

        Returns:
            One row for each candidate, in order, at most ``max_tokens`` long, but never shorter than its special
            tokens. The full lengths are those of the whole pair: where the query is cut, every pair is truncated.
        """
        whole, *others = self._tokenizer.encode_batch_fast([query, *candidates], add_special_tokens=False)
        template = self._pair_template
        room = max(0, self.max_tokens - template.size)
        head = cut(whole.ids, min(room, self.max_tokens * 3 // 4, max_query_tokens or room), keep_end)
        most = min(room - len(head), max_tokens or room)
        start = [*template.before, *head, *template.between]
        rows = [[*start, *cut(other.ids, most, keep_end), *template.after] for other in others]
        full_lengths = [len(whole.ids) + len(other.ids) + template.size for other in others]
        return Tokenised.of_rows(rows, np.array(full_lengths, np.int32))

    def of_ids(
        self, rows: Sequence[Sequence[int]], *, max_tokens: int | None = None, keep_end: bool = False
    ) -> Tokenised:
        """Texts that a client has tokenised itself: nothing is added, and a long one is cut as a text is.

        The special tokens around a text are required. Ids without them come from another vocabulary, or would give
        another vector than the text.

        Raises:
            InvalidInputError: An id is not in the vocabulary, or the special tokens are missing; ``item`` is the row.
        """
        self._require_known(rows)
        for i, row in enumerate(rows):
            if not self._template.encloses(row):
                raise InvalidInputError(
                    f"the model's token ids begin with {self._template.before} and end with {self._template.after}; "
                    f"these do not. Send the text if they come from another vocabulary",
                    item=i,
                )
        full_lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        limit = min(self.max_tokens, max_tokens or self.max_tokens)
        shorten = self._template.cut_beginning if keep_end else self._template.cut_end
        return Tokenised.of_rows([shorten(row, limit) for row in rows], full_lengths)

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
            special: Whether to include the special tokens around a text.
        """
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [_tokens(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    @cached_property
    def _pair_template(self) -> PairTemplate:
        return PairTemplate.of(self._tokenizer)

    def _require_known(self, rows: Sequence[Sequence[int]]) -> None:
        for i, row in enumerate(rows):
            if (largest := max(row)) >= self.vocabulary.size:
                raise InvalidInputError(
                    f"token id {largest} is not in the model's vocabulary of {self.vocabulary.size}", item=i
                )


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
