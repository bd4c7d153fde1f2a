"""Model families as data: prefixes, token limit, default pooling and what they can compute.

A profile is a value. Serving, training and a saved manifest use the same object, and no other
place in the project knows a prefix. Sources: the model cards of ``intfloat/multilingual-e5-*``
(prefixes, 512 tokens, mean pooling), ``intfloat/multilingual-e5-large-instruct`` (an instruction
before queries, here that of its example for web search), ``BAAI/bge-m3`` (no prefix, 8,192 tokens, CLS pooling) and
``BAAI/bge-reranker-*`` (pairs of texts, 8,192 tokens where the folder has the positions).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from serve_app.domain.errors import ModelLoadError


class TextRole(StrEnum):
    """Role of a text: E5 embeds a query and a passage differently."""

    QUERY = "query"
    PASSAGE = "passage"

    @classmethod
    def of(cls, *, is_query: bool) -> TextRole:
        """The role for the wire's ``is_query`` flag."""
        return cls.QUERY if is_query else cls.PASSAGE


class Capability(StrEnum):
    """Output of a model: a representation of a text, or the score of a pair of texts.

    Every embedding model has the last two, so no profile lists them: the dense vector before its L2 normalisation, in
    place of the normalised one, and the hidden state of every token.
    """

    DENSE = "dense"
    SPARSE = "sparse"
    COLBERT = "colbert"
    PAIR_SCORE = "pair_score"
    UNNORMALIZED = "unnormalized"
    TOKEN_STATES = "token_states"


class Pooling(StrEnum):
    """Reduction of token states to one vector."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True)
class Profile:
    """One model family.

    Attributes:
        family: The name used in ``family:`` settings and manifests.
        query_prefix: Text put in front of every query.
        passage_prefix: Text put in front of every passage.
        max_tokens: Longest input in tokens, special tokens and prefix included.
        pooling: Pooling for model folders without ``1_Pooling/config.json``.
        capabilities: The representations the family has.
    """

    family: str
    query_prefix: str
    passage_prefix: str
    max_tokens: int
    pooling: Pooling
    capabilities: frozenset[Capability]

    def format(self, role: TextRole, text: str, *, keep_prefix: bool = False) -> str:
        """The text as the model was trained to read it.

        Args:
            role: Role of the text.
            text: Without a prefix.
            keep_prefix: Return a text that already begins with the query or the passage prefix as it is.
        """
        if keep_prefix and text.startswith(self.prefixes):
            return text
        return (self.query_prefix if role is TextRole.QUERY else self.passage_prefix) + text

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The query and the passage prefix, without empty ones."""
        return tuple(prefix for prefix in (self.query_prefix, self.passage_prefix) if prefix)


E5 = Profile(
    family="e5",
    query_prefix="query: ",
    passage_prefix="passage: ",
    max_tokens=512,
    pooling=Pooling.MEAN,
    capabilities=frozenset({Capability.DENSE}),
)
E5_INSTRUCT = Profile(
    family="e5-instruct",
    query_prefix="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
    passage_prefix="",
    max_tokens=512,
    pooling=Pooling.MEAN,
    capabilities=frozenset({Capability.DENSE}),
)
BGE_M3 = Profile(
    family="bge-m3",
    query_prefix="",
    passage_prefix="",
    max_tokens=8192,
    pooling=Pooling.CLS,
    capabilities=frozenset({Capability.DENSE, Capability.SPARSE, Capability.COLBERT}),
)
CROSS_ENCODER = Profile(
    family="cross-encoder",
    query_prefix="",
    passage_prefix="",
    max_tokens=8192,
    pooling=Pooling.CLS,
    capabilities=frozenset({Capability.PAIR_SCORE}),
)
PROFILES: Mapping[str, Profile] = MappingProxyType({p.family: p for p in (E5, E5_INSTRUCT, BGE_M3, CROSS_ENCODER)})


def resolve_profile(name: str, family: str | None = None) -> Profile:
    """The profile of a model.

    Args:
        name: Model name, as ``intfloat/multilingual-e5-large`` or a folder's name. Guessed from only
            when ``family`` is not given.
        family: Family in a manifest or in the ``family:`` setting.

    Raises:
        ModelLoadError: The family is unknown, or cannot be guessed from the name.
    """
    known = ", ".join(PROFILES)
    if family is not None:
        if family not in PROFILES:
            raise ModelLoadError(f"unknown model family {family!r} for {name!r}; the families are: {known}")
        return PROFILES[family]
    if _names(name, "bge-m3"):
        return BGE_M3
    if _names(name, "e5"):
        return E5_INSTRUCT if _names(name, "instruct") else E5
    if _names(name, "reranker"):
        return CROSS_ENCODER
    raise ModelLoadError(
        f"cannot infer the model family of {name!r} from its name. Families served here: {known}. If the model is one "
        f"of these, set `family:` beside its `name:` in the serve config, or MODEL_FAMILY"
    )


def _names(name: str, word: str) -> bool:
    """Whether a word is a whole part of a name: ``e5`` of ``my-e5-law``, not of ``code5`` or ``me5x``."""
    return re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", name.lower()) is not None
