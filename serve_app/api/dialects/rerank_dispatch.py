"""POST /rerank, which several dialects share: the form of the body selects the dialect."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Discriminator
from starlette.types import Scope

from serve_app.api.dialects.dialect_registry import DIALECTS, note_rerank_dialect, rerank_dialect
from serve_app.api.dialects.documented_errors import SHARED_STATUSES, documented
from serve_app.api.dialects.tolerant_request import TolerantRoute
from serve_app.api.request_options import TimeoutHeader
from serve_app.api.route_services import ServicesDep

_FORMS = {dialect: dialect.rerank for dialect in DIALECTS if dialect.rerank is not None}
_REPLY: Any = reduce(or_, (form.reply for form in _FORMS.values()))
_ERRORS = documented(reduce(or_, (dialect.error_schema for dialect in _FORMS)), SHARED_STATUSES)


def _tag(body: Any) -> str:
    fields: Mapping[str, Any] = body if isinstance(body, dict) else getattr(body, "__dict__", {})
    return _FORMS[rerank_dialect(fields)].tag.tag


if TYPE_CHECKING:
    AnyRerankRequest = BaseModel
else:
    AnyRerankRequest = Annotated[
        reduce(or_, (Annotated[form.request, form.tag] for form in _FORMS.values())), Discriminator(_tag)
    ]


class RerankRoute(TolerantRoute):
    """A route that records the dialect of its body, in which errors are answered."""

    def note_body(self, scope: Scope, body: Any) -> None:
        """Records the dialect."""
        note_rerank_dialect(scope, body)


router = APIRouter(tags=["reranking"], route_class=RerankRoute)


@router.post("/rerank", response_model=_REPLY, responses=_ERRORS, summary="Rerank candidates")
async def rerank(services: ServicesDep, request: AnyRerankRequest, timeout_header: TimeoutHeader = None) -> Response:
    """With `candidates` one score for each, in their order; with `documents` or `texts` results sorted by score."""
    form = next(form for form in _FORMS.values() if isinstance(request, form.request))
    return await form.answer(services, request, timeout_header)
