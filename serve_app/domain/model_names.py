"""The ways in which clients write the name of a model: with the prefix of a provider, or an alias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PROVIDERS = frozenset(
    {"openai", "custom_openai", "openai_like", "litellm_proxy", "hosted_vllm", "vllm", "infinity", "huggingface",
     "cohere", "jina_ai", "voyage", "lm_studio", "nvidia_nim", "xinference"}
)  # fmt: skip
"""Prefixes by which LiteLLM and clients like it choose how to speak to a service; some send them along."""


def spellings(name: str, aliases: Mapping[str, str]) -> Iterator[str]:
    """The names that a client may mean, the most literal first.

    A model that is served by the whole name comes before one whose provider prefix was cut off, so a model that is
    called ``openai/x`` is never taken for ``x``.

    Args:
        name: As the client wrote it.
        aliases: The model of each alias.
    """
    while True:
        yield name
        if name in aliases:
            yield aliases[name]
        provider, slash, rest = name.partition("/")
        if provider not in PROVIDERS or not slash or not rest:
            return
        name = rest
