"""GET /: the playground page; POST / is a route of text-embeddings-inference."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from serve_app.api.playground.page import assembled


def playground_router() -> APIRouter:
    """The route; reads the page once."""
    page = assembled()
    headers = {
        "Content-Security-Policy": page.policy,
        "Cache-Control": "no-cache",  # a newer service has a newer page
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def playground() -> Response:
        return HTMLResponse(page.html, headers=headers)

    return router
