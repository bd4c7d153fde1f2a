"""Texts made from a small word list in several languages: the same on every machine, no data set needed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from serve_app.models.tokenizer import TextTokenizer

Kind = Literal["short", "mixed"]
KINDS: tuple[Kind, ...] = ("short", "mixed")

_LANGUAGES = (  # tokens that a word has in the tokenizer of multilingual E5, and the words of one language
    (
        1.19,
        "how to rotate the log file without losing lines when a disk is full and nobody watches the server at night",
    ),
    (1.24, "wie man eine Sicherung der Datenbank wiederherstellt wenn das Netz langsam ist und niemand Zeit dafür hat"),
    (1.0, "comment réduire la durée de la recherche dans une grande bibliothèque de documents sans perdre de qualité"),
    (1.15, "cuál es la mejor manera de guardar las facturas del cliente para que se encuentren otra vez en un año"),
    (1.06, "perché la macchina del caffè non si accende dopo la pioggia e che cosa bisogna controllare per prima"),
    (1.18, "yeni bir şehirde ucuz ve temiz bir ev bulmak için hangi mahallelere bakmak daha doğru olur acaba"),
    (1.63, "jak przygotować ciasto drożdżowe z owocami żeby było lekkie oraz nie opadło po wyjęciu z piekarnika"),
    (1.31, "почему поезд из столицы опоздал на два часа и кто должен вернуть пассажирам деньги за билеты"),
    (1.25, "बारिश के मौसम में खेत की मिट्टी को कैसे बचाया जाए ताकि अगली फसल अच्छी हो"),
    (2.06, "怎样 在 周末 带 孩子 去 山里 看 日出 并且 安全 回家 需要 准备 什么 东西"),
)
_POOL = {"short": 1024, "mixed": 512}
_AROUND = 4  # the prefix and the special tokens


@dataclass(frozen=True)
class Texts:
    """A pool of texts; whoever needs more starts again at its beginning.

    Attributes:
        kind: ``short``: about 20 tokens. ``mixed``: about 100, from 10 to 400.
        values: The texts, in random order, so that neighbours are a random group.
        tokens: Tokens of each text, prefix and special tokens included.
    """

    kind: Kind
    values: tuple[str, ...]
    tokens: tuple[int, ...]

    def group(self, start: int, size: int) -> list[int]:
        """Indices of ``size`` texts from ``start`` on, around the end of the pool."""
        return [i % len(self.values) for i in range(start, start + size)]

    @property
    def mean_tokens(self) -> float:
        """Tokens of a text of the pool, on average."""
        return sum(self.tokens) / len(self.tokens)


def counted_texts(kind: Kind, tokenizer: TextTokenizer) -> Texts:
    """The pool of one kind with the tokens of its texts as queries of the E5 family."""
    values = make_texts(kind)
    return Texts(kind, tuple(values), tuple(tokenizer([f"query: {text}" for text in values]).lengths.tolist()))


def make_texts(kind: Kind) -> list[str]:
    """The pool of one kind; every call gives the same."""
    rng = random.Random(f"texts of {kind} length, first edition")
    return [_text(rng, _tokens(rng, kind)) for _ in range(_POOL[kind])]


def _tokens(rng: random.Random, kind: Kind) -> float:
    return rng.uniform(13, 27) if kind == "short" else min(400.0, max(10.0, rng.lognormvariate(4.3, 0.85)))


def _text(rng: random.Random, tokens: float) -> str:
    tokens_per_word, words = rng.choice(_LANGUAGES)
    return " ".join(rng.choice(words.split()) for _ in range(max(3, round((tokens - _AROUND) / tokens_per_word))))
