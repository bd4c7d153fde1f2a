"""Token ids as text that people can read."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

_WORD_START = "▁"


class Vocabulary:
    """The pieces of a tokenizer; what was looked up once is remembered."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes the tokenizer whose ids are to be read."""
        self._tokenizer = tokenizer
        self._special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._texts: dict[int, str] = {}

    def weights_by_text(self, ids: Iterable[int], weights: Iterable[float]) -> dict[str, float]:
        """The weight of each token by its text, as FlagEmbedding spells it: the token decoded alone.

        Special tokens are left out. Two ids that read the same (a piece inside a word and at its start) keep
        the larger weight.
        """
        named: dict[str, float] = {}
        for id, weight in zip(ids, weights, strict=True):
            if id not in self._special:
                text = self._text(id)
                named[text] = max(weight, named.get(text, 0.0))
        return named

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The tokens as they stand in the text: a blank in front says that a word starts there."""
        return [(self._tokenizer.id_to_token(id) or "").replace(_WORD_START, " ") for id in ids]

    def _text(self, id: int) -> str:
        text = self._texts.get(id)
        if text is None:
            text = self._texts[id] = self._tokenizer.decode([id])
        return text
