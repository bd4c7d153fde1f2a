"""Spellings of a model's name by clients: with the prefix of a provider, or an alias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PROVIDERS = frozenset(
    {"openai", "custom_openai", "openai_like", "litellm_proxy", "hosted_vllm", "vllm", "infinity", "huggingface",
     "cohere", "jina_ai", "voyage", "lm_studio", "nvidia_nim", "xinference"}
)  # fmt: skip
"""Prefixes by which LiteLLM and similar clients choose a provider; some of them send the prefix."""


MAX_CHARS = 256
"""Longest name of a model; longer names are not searched for."""
_MAX_PREFIXES = 2
_SHOWN_CHARS = 100


def shown(name: str) -> str:
    """A name in quotes for a message; a long one is cut."""
    return repr(name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}...")


def spellings(name: str, aliases: Mapping[str, str]) -> Iterator[str]:
    """The names that a client may mean, the most literal first.

    A model that is served by the whole name comes before one whose provider prefix was cut off, so a model that is
    called ``openai/x`` is never confused with ``x``. At most two prefixes are cut off, and a name of more than
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
