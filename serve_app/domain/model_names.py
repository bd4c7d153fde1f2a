"""The ways in which clients write the name of a model: with the prefix of a provider, or an alias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PROVIDERS = frozenset(
    {"openai", "custom_openai", "openai_like", "litellm_proxy", "hosted_vllm", "vllm", "infinity", "huggingface",
     "cohere", "jina_ai", "voyage", "lm_studio", "nvidia_nim", "xinference"}
)  # fmt: skip
"""Prefixes by which LiteLLM and clients like it choose how to speak to a service; some send them along."""


MAX_CHARS = 256
"""A longer name is no model's, and nothing is looked up for it."""
_MAX_PREFIXES = 2
_SHOWN_CHARS = 100


def shown(name: str) -> str:
    """A name in quotes for a message; a long one is cut."""
    return repr(name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}...")


def spellings(name: str, aliases: Mapping[str, str]) -> Iterator[str]:
    """The names that a client may mean, the most literal first.

    A model that is served by the whole name comes before one whose provider prefix was cut off, so a model that is
    called ``openai/x`` is never taken for ``x``. At most two prefixes are cut off, and a name of more than
    ``MAX_CHARS`` characters has no spelling at all.

    Args:
        name: As the client wrote it.
        aliases: The model of each alias.
    """
    if len(name) > MAX_CHARS:
        return
    for _ in range(_MAX_PREFIXES + 1):
        yield name
        if name in aliases:
            yield aliases[name]
        provider, slash, rest = name.partition("/")
        if provider not in PROVIDERS or not slash or not rest:
            return
        name = rest
