"""Texts to token ids, with the ``tokenizers`` library alone (no torch, no transformers).

The reference is what ``transformers`` does with the same folder, because that is what training and
sentence-transformers use. It builds the pre-tokenizer of the class XLMRobertaTokenizer itself
(split at white space, then mark words) and ignores the one in tokenizer.json; so do we. The only
texts where it matters have blanks at an end or in a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.domain.embeddings import Int32, TokenBatch
from serve_app.domain.errors import ModelLoadError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # replicas share cores with the model

from tokenizers import Tokenizer, pre_tokenizers


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
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ModelLoadError(f"{folder / 'tokenizer.json'} can not be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if _is_xlm_roberta(folder):
            self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
            )
        self._suffix = self._ids_after_text()

    def __call__(self, texts: Sequence[str]) -> Tokenised:
        """Token ids of the texts, in order, each at most ``max_tokens`` long.

        A text that is too long loses its end but keeps the closing special tokens, as the
        ``longest_first`` truncation of transformers does for a single text.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        rows = [encoding.ids for encoding in encodings]
        full_lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        limit = self.max_tokens
        for i in np.flatnonzero(full_lengths > limit).tolist():
            rows[i] = rows[i][: limit - len(self._suffix)] + self._suffix
        lengths = np.minimum(full_lengths, limit).astype(np.int32)
        flat = np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum()))
        return Tokenised(flat, lengths, full_lengths)

    def _ids_after_text(self) -> list[int]:
        """The special tokens that the post-processor puts behind a text."""
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a").ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return list(full[start + len(bare) :])
        return []


def _is_xlm_roberta(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return str(config.get("tokenizer_class", "")).startswith("XLMRobertaTokenizer")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"{path} can not be read: {error}") from error
