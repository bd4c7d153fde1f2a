"""Assembly of the page: one HTML reply that loads nothing, under a policy that forbids loading.

The files beside this one are the source. There is no build step: the style sheet and the scripts are put into
``index.html`` as they are, and the policy names their hashes, so that nothing else on the page can ever run.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources

SCRIPTS = (
    "dom.js", "api.js", "errors.js", "curl.js", "models.js", "similarity.js", "rerank.js", "explanation.js",
    "examples.js", "finetune.js", "events.js", "curve.js", "metrics.js", "job.js", "jobs.js", "tabs.js",
)  # fmt: skip
"""In this order; they share one scope, and code that runs on load follows what it needs."""

_STYLE_MARK, _SCRIPT_MARK = "/* style.css */", "/* scripts */"


@dataclass(frozen=True)
class Page:
    """The page as it is sent.

    Attributes:
        html: In UTF-8.
        policy: Its ``Content-Security-Policy``.
    """

    html: bytes
    policy: str


def assembled() -> Page:
    """Reads the files of this package.

    Raises:
        OSError: One is missing: the package was installed without its data.
    """
    style = _text("style.css")
    script = "\n".join(map(_text, SCRIPTS))
    html = _text("index.html").replace(_STYLE_MARK, style).replace(_SCRIPT_MARK, script)
    return Page(html.encode(), _policy(style, script))


def _policy(style: str, script: str) -> str:
    """The content security policy: this script, this style, requests to this service."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data: blob:",  # its icon, and a finished loss curve that was fetched with the key
            "require-trusted-types-for 'script'",  # and there is no type: text cannot become markup
            "trusted-types 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
