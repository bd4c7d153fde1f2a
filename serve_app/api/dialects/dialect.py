"""A dialect: the routes, error bodies and schemas of one kind of client, as a value.

A new dialect is a folder with such a value and a line in ``dialect_registry``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Tag

from serve_app.api.route_services import Services


@dataclass(frozen=True)
class Failure:
    """An error before it has the form of a dialect.

    Attributes:
        status: The HTTP status on the native routes.
        code: A stable word.
        detail: A sentence; an error in a field begins with the field's name and a colon.
        error_id: The id of the log entry with more details, if there is one.
    """

    status: int
    code: str
    detail: str
    error_id: str | None = None


@dataclass(frozen=True)
class RerankForm:
    """A dialect's form of POST /rerank, which several dialects share.

    Attributes:
        fields: Names of the list of documents; a body with one of them has this form.
        tag: Discriminates the request schemas.
        request: Schema of the body.
        reply: Schema of the reply.
        answer: Handles a request; its arguments are the services, the body and the timeout header.
    """

    fields: frozenset[str]
    tag: Tag
    request: type[BaseModel]
    reply: Any
    answer: Callable[[Services, Any, str | None], Awaitable[Response]]


@dataclass(frozen=True, eq=False)
class Dialect:
    """The HTTP language of one kind of client.

    Attributes:
        routers: Its routes.
        error_body: The body of an error.
        error_schema: The schema of that body, for the OpenAPI document.
        invalid_status: The HTTP status of an invalid value.
        prefixes: Paths below these answer in this dialect, unless another dialect has the route.
        rerank: Its form of POST /rerank.
    """

    routers: tuple[APIRouter, ...]
    error_body: Callable[[Failure], dict[str, Any]]
    error_schema: type[BaseModel]
    invalid_status: int = 400
    prefixes: tuple[str, ...] = ()
    rerank: RerankForm | None = None

    @cached_property
    def paths(self) -> frozenset[str]:
        """Path templates of its routes."""
        routes = [route for router in self.routers for route in router.routes]
        return frozenset(route.path for route in routes if isinstance(route, APIRoute))

    def status_of(self, failure: Failure) -> int:
        """The HTTP status of an error."""
        return self.invalid_status if failure.status == 422 else failure.status
