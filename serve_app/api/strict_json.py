"""Strict reading of JSON bodies: nothing is lost silently.

JSON lets an object name a key twice, and Python keeps the last. In ``{"items": {id: text}}`` that would drop a
text silently, so it is an error here, in every object of every body.

Large bodies are read in a thread, so that one of them does not hold up all other requests.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope

from serve_app.domain.errors import InvalidInputError
from serve_app.domain.request_limits import MOST_TEXTS

_INLINE_BYTES = 256 * 1024  # about two milliseconds of reading


async def take_body(request: Request) -> None:
    """Dependency of a POST without a body: reads a body that is sent anyway, within the limits of bodies."""
    await request.body()


class StrictRoute(APIRoute):
    """A route whose JSON body may not name a key twice; for ``APIRouter(route_class=StrictRoute)``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, on a request that reads strictly."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive, self.note_body))

        return strictly

    def note_body(self, scope: Scope, body: Any) -> None:
        """Called with each JSON body before it is validated; does nothing here."""


class _StrictRequest(Request):
    def __init__(self, scope: Scope, receive: Receive, note_body: Callable[[Scope, Any], None]) -> None:
        super().__init__(scope, receive)
        self._note_body = note_body

    async def json(self) -> Any:
        content = await self.body()
        if len(content) <= _INLINE_BYTES:
            value = json.loads(content, object_pairs_hook=_distinct)
        else:
            value = await asyncio.to_thread(json.loads, content, object_pairs_hook=_distinct, parse_int=_integer)
        self._note_body(self.scope, value)
        return value


def _integer(digits: str) -> int:
    """``int``, called from Python: the C reader of a long list of integers would hold the GIL until its end."""
    return int(digits)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_TEXTS:
        raise InvalidInputError(f"body: an object with {len(pairs)} names, the limit is {MOST_TEXTS}")
    values = dict(pairs)
    if len(values) < len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise InvalidInputError(f"body: an object names {name!r} twice")
    return values
