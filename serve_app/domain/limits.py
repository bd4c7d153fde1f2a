"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Limits:
    """Bounds that are checked before any work is done.

    Attributes:
        max_body_bytes: Size of a request body. 32 MiB holds 2,048 long texts with room to spare.
        max_items: Texts in one request. OpenAI's clients send up to 2,048.
        max_text_chars: Characters of one text, before tokenising. 8,192 tokens are about 40,000
            characters; what is beyond the token limit is only tokenised to be thrown away.
        max_candidates: Candidates of one rerank request.
        max_colbert_floats: Numbers of all ColBERT vectors in one reply: 4 KB a token with 1,024 dimensions, and
            three times that as JSON. The default is one text of 8,192 tokens.
        request_timeout_s: Seconds until a request is answered 408 and its remaining work dropped. The
            request header ``X-Request-Timeout-Seconds`` may lower it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_body_bytes: int = 32 * 1024 * 1024
    max_items: int = 2048
    max_text_chars: int = 200_000
    max_candidates: int = 2048
    max_colbert_floats: int = 8192 * 1024
    request_timeout_s: float = 120.0
