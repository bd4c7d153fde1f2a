"""Bounds of one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

MOST_TEXTS = 10_000
"""Largest configurable number of texts of a request, because they are checked on the event loop."""


@dataclass(frozen=True)
class Limits:
    """Bounds that are checked before any work is done.

    Attributes:
        max_body_bytes: Size of a request body. 32 MiB holds 2,048 long texts with room to spare.
        max_bodies_bytes: Bytes of the bodies of all requests that one HTTP replica works on at once; beyond that 429.
            As Python objects a body takes three to six times its size, so the default is about a gigabyte of memory.
        body_timeout_s: Seconds that a body may take to arrive, beside those that its bytes take at 16 KiB a second;
            then the request is answered 408. Without it a client that sends a byte now and then would never end.
        max_items: Texts in one request, at most 10,000. OpenAI's clients send up to 2,048.
        max_text_chars: Characters of one text, before tokenising. 8,192 tokens are about 40,000
            characters; what is beyond the token limit is tokenised only to be cut.
        max_request_tokens: Tokens of all texts of a request together, after each was cut to its model's limit; token
            ids that a client sends are counted before that. The default is 2,048 texts of 2,048 tokens, which take
            minutes on most devices.
        max_candidates: Candidates of one rerank request, likewise.
        max_colbert_floats: Numbers of all ColBERT vectors in one reply: 4 KB a token with 1,024 dimensions, and
            three times that as JSON. The default is one text of 8,192 tokens.
        request_timeout_s: Seconds until a request is answered 408 and its remaining work dropped. The
            request header ``X-Request-Timeout-Seconds`` may lower it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_body_bytes: int = 32 * 1024 * 1024
    max_bodies_bytes: int = 256 * 1024 * 1024
    body_timeout_s: float = 20.0
    max_items: int = 2048
    max_text_chars: int = 200_000
    max_request_tokens: int = 2048 * 2048
    max_candidates: int = 2048
    max_colbert_floats: int = 8192 * 1024
    request_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Raises ``ValueError`` if a bound exceeds the schemas', or no body of the largest size fits."""
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError(f"max_bodies_bytes: {self.max_bodies_bytes}, at least max_body_bytes")
        for name in ("max_items", "max_candidates"):
            if getattr(self, name) > MOST_TEXTS:
                raise ValueError(f"{name}: {getattr(self, name)}, at most {MOST_TEXTS}")


@dataclass(frozen=True)
class FineTuneLimits:
    """Bounds of a fine-tune, checked before anything is stored; ``limits.max_body_bytes`` bounds its body.

    Attributes:
        max_examples: Lines of ``text_content``, or entries of ``examples``.
        max_text_chars: Characters of a query or passage; a longer pair is left out and reported.
        max_listed: Ignored lines that a reply lists; all are counted.
        max_epochs: Passes over the data.
        max_batch_size: Pairs of one contrastive batch. Activations in memory do not grow with it; its vectors and the
            similarity matrix do, and of BGE-M3 the vectors of every token: 4 KB each with 1,024 dimensions.
        max_seq_length: Tokens; the base model's own limit holds as well.
        max_rank: Rank of LoRA; beyond the hidden size it adds nothing.
        max_files: Uploaded files that are kept at once; only clients delete them.
        max_files_bytes: Size of all of them together, 16 GiB by default.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_examples: int = 1_000_000
    max_text_chars: int = 200_000
    max_listed: int = 20
    max_epochs: int = 100
    max_batch_size: int = 4096
    max_seq_length: int = 8192
    max_rank: int = 256
    max_files: int = 1000
    max_files_bytes: int = 16 * 2**30
