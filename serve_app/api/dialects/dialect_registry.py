"""The table of all dialects, and the dialect in which a request is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette._utils import get_route_path  # the path that the router matches
from starlette.types import Scope

from serve_app.api.dialects.cohere.cohere_dialect import COHERE
from serve_app.api.dialects.dialect import Dialect
from serve_app.api.dialects.jina.jina_dialect import JINA
from serve_app.api.dialects.native.native_dialect import NATIVE
from serve_app.api.dialects.openai.openai_dialect import OPENAI
from serve_app.api.dialects.tei.tei_dialect import TEI
from serve_app.api.dialects.vllm.vllm_dialect import VLLM

DIALECTS: tuple[Dialect, ...] = (NATIVE, OPENAI, COHERE, JINA, VLLM, TEI)

_BY_PATH = {path: dialect for dialect in DIALECTS for path in dialect.paths}
_BY_PREFIX = {prefix: dialect for dialect in DIALECTS for prefix in dialect.prefixes}
_RERANK = {
    dialect: dialect.rerank.fields for dialect in (*DIALECTS[1:], NATIVE) if dialect.rerank is not None
}  # NATIVE last: a body with lists of two dialects is the other's
_SCOPE_KEY = "dialect"


def dialect_of(scope: Scope) -> Dialect:
    """The dialect in which a request is answered."""
    dialect: Dialect | None = scope.get(_SCOPE_KEY)
    return dialect or dialect_of_path(get_route_path(scope))


def dialect_of_path(path: str) -> Dialect:
    """The dialect of a path or a path template; NATIVE for an unknown one."""
    by_prefix = next((dialect for prefix, dialect in _BY_PREFIX.items() if path.startswith(prefix)), NATIVE)
    return _BY_PATH.get(path, by_prefix)


def note_rerank_dialect(scope: Scope, body: Any) -> None:
    """Records the dialect of a body of POST /rerank, for an error response."""
    if isinstance(body, dict):
        scope[_SCOPE_KEY] = rerank_dialect(body)


def rerank_dialect(body: Mapping[str, Any]) -> Dialect:
    """The dialect of a body of POST /rerank, by its list of documents; a null list counts if there is no other."""
    for names in ({name for name, value in body.items() if value is not None}, body.keys()):
        for dialect, fields in _RERANK.items():
            if not fields.isdisjoint(names):
                return dialect
    return NATIVE
