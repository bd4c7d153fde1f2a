"""Index of an application's routes, for errors that suggest a path or a method."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from starlette.routing import BaseRoute

_CLOSE = 0.7  # ratio of difflib: /vectorise and /vectorize have 0.9, /v1/chat/completions and any route here less
_MARGIN = 0.08  # suggestions are about as similar as the best one
_MOST = 3  # suggestions
_SHOWN_CHARS = 100
_READ_CHARS = 200
_COMPARED_CHARS = 60  # the work grows with their square
_KEPT = 512  # paths whose suggestions are cached: clients and scanners repeat them


class RouteIndex:
    """Paths and methods of an application's routes."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Reads the routes, those of included routers too."""
        self._routes: dict[str, tuple[re.Pattern[str], set[str]]] = {}
        for route in _flat(routes):
            _, methods = self._routes.setdefault(route.path, (route.path_regex, set()))
            methods |= route.methods
        self._near = lru_cache(maxsize=_KEPT)(self._compare)

    @property
    def paths(self) -> list[str]:
        """Path templates, such as ``/jobs/{job_id}``."""
        return list(self._routes)

    def methods_of(self, path: str) -> list[str]:
        """The methods of all routes that a path leads to."""
        found: set[str] = set()
        for pattern, methods in self._routes.values():
            if pattern.match(path):
                found |= methods
        return sorted(found)

    def near(self, path: str) -> list[str]:
        """``METHOD /path`` of the routes with a similar path, the most similar first."""
        return list(self._near(path[:_READ_CHARS].rstrip("/").lower()))

    def _compare(self, path: str) -> tuple[str, ...]:
        matchers = _Matchers()
        scores = {template: _likeness(template, path, matchers) for template in self._routes if template != "/"}
        least = max(_CLOSE, max(scores.values(), default=0.0) - _MARGIN)
        best = sorted((template for template in scores if scores[template] >= least), key=scores.__getitem__)
        return tuple(self._shown(template) for template in best[: -_MOST - 1 : -1])

    def not_found(self, method: str, path: str) -> str:
        """The message of a 404."""
        near = self.near(path)
        hint = f"did you mean {' or '.join(near)}?" if near else "GET /docs lists all routes"
        return f"there is no route {method} {path[:_SHOWN_CHARS]}; {hint}"

    def wrong_method(self, method: str, path: str) -> str:
        """The message of a 405."""
        methods = [name for name in self.methods_of(path) if name != "HEAD"]
        return f"{method} is not allowed for {path[:_SHOWN_CHARS]}; use {' or '.join(methods)}"

    def _shown(self, template: str) -> str:
        methods = "|".join(sorted(self._routes[template][1] - {"HEAD"}))
        return f"{methods} {template.replace(':path', '')}"


class _Matchers(dict[str, difflib.SequenceMatcher[str]]):
    """One matcher for each form of a path."""

    def __missing__(self, path: str) -> difflib.SequenceMatcher[str]:
        self[path] = difflib.SequenceMatcher(None, "", path)
        return self[path]


def _likeness(template: str, path: str, matchers: _Matchers) -> float:
    """Similarity of a path and a template, 0 to 1; parameters do not count.

    0 for a value below ``_CLOSE``, which costs a tenth of the time to find out.
    """
    fixed, given = template.split("/"), path.split("/")
    for i, part in enumerate(fixed):
        if part.startswith("{"):
            fixed[i] = ""
            given[i : i + 1] = [""] * (i < len(given))
    matcher = matchers["/".join(given)[:_COMPARED_CHARS]]
    matcher.set_seq1("/".join(fixed))
    if matcher.real_quick_ratio() < _CLOSE or matcher.quick_ratio() < _CLOSE:
        return 0.0
    return matcher.ratio()


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        if getattr(route, "methods", None) and hasattr(route, "path_regex"):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:  # how FastAPI keeps included routers
            yield from _flat(router.routes)
