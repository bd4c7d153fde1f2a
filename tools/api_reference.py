"""The tables of ``docs/api/``: routes with their fields, error codes; from the OpenAPI description of the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from serve_app.api.application import create_app
from serve_app.domain import errors
from serve_app.domain.errors import ServiceError
from serve_app.domain.request_limits import FineTuneLimits, Limits
from tools.json_schema import Schema, cell, default_of, resolve, table, type_of

PAGES: Mapping[str, tuple[str, ...]] = {
    "native": ("vectors", "reranking", "models", "health"),
    "jobs": ("fine-tuning", "jobs"),
    "openai": ("OpenAI",),
    "cohere": ("Cohere", "reranking"),
    "tei": ("text-embeddings-inference",),
    "vllm": ("vLLM",),
}
"""Pages of the reference, and the tags of the routes on them."""
RANKINGS = ("/v1/rerank", "/v2/rerank")  # tagged as reranking, spoken by Cohere's and Jina's clients
_SCHEMAS = {  # of /rerank, whose body says whose client sent it
    "RerankDocumentsRequest": "cohere", "RerankDocumentsReply": "cohere", "RerankTextsRequest": "tei",
    "RankedText": "tei",
}  # fmt: skip
_DEPTH = 2  # levels of objects within objects that are shown
_AT_START = frozenset({"ConfigurationError", "ModelLoadError"})


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI description of the service."""
    return create_app(None, None, Limits(), FineTuneLimits()).openapi()  # type: ignore[arg-type]


def page_of(path: str, tag: str) -> str:
    """The page that describes a route."""
    if path in RANKINGS:
        return "cohere"
    return next(page for page, tags in PAGES.items() if tag in tags)


def routes_table(page: str) -> str:
    """Method, path and summary of each route on a page."""
    rows = [[f"`{method} {path}`", cell(operation["summary"])] for method, path, operation in _routes(page)]
    return table(["route", "what it does"], rows)


def fields_tables(page: str) -> str:
    """The fields of each request and reply on a page; a schema that several routes share is described once."""
    definitions = openapi()["components"]["schemas"]
    described: dict[str, list[str]] = {}
    for method, path, operation in _all_routes():
        for name in [*_names(operation.get("requestBody", {})), *_names(operation["responses"].get("200", {}))]:
            if _SCHEMAS.get(name, page_of(path, operation["tags"][0])) == page:
                described.setdefault(name, []).append(f"`{method} {path}`")
    names = frozenset(described)
    return "\n\n".join(
        _section(name, routes, definitions, names)
        for name, routes in described.items()
        if definitions[name].get("properties")
    )


def codes_table() -> str:
    """Every error code with its status and meaning."""
    known = [cls for cls in _subclasses(ServiceError) if cls.__module__ == errors.__name__]
    rows = [
        [f"`{cls.code}`", str(cls.status), cell((cls.__doc__ or "").split("\n\n")[0])]
        for cls in known
        if cls.__name__ not in _AT_START
    ]
    return table(["code", "status", "meaning"], sorted(rows, key=lambda row: (row[1], row[0])))


def _subclasses(cls: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _all_routes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def _routes(page: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for method, path, operation in _all_routes():
        if page_of(path, operation["tags"][0]) == page:
            yield method, path, operation


def _names(body: Schema) -> Iterator[str]:
    """The names of the schemas of a request or reply in JSON or as a form."""
    for content in body.get("content", {}).values():
        yield from _references(content.get("schema", {}))


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rsplit("/", 1)[-1]
        for union in ("oneOf", "anyOf", "items"):
            yield from _references(schema.get(union))
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _section(name: str, routes: list[str], definitions: Mapping[str, Schema], described: frozenset[str]) -> str:
    schema = definitions[name]
    title = f"### {name}\n\n{', '.join(dict.fromkeys(routes))}: {cell(schema.get('description', ''))}"
    if name.endswith(("Request", "Form")):
        return f"{title}\n\n{table(['field', 'type', 'default', 'meaning'], _request_rows(schema, definitions))}"
    return f"{title}\n\n{table(['field', 'type', 'meaning'], list(_reply_rows('', schema, definitions, described)))}"


def _request_rows(schema: Schema, definitions: Mapping[str, Schema]) -> list[list[str]]:
    fields = schema["properties"]
    others: dict[str, list[str]] = {}
    for field, described in fields.items():
        if (first := _other_name_of(described)) is not None:
            others.setdefault(first, []).append(field)
    rows = []
    for field, described in fields.items():
        if _other_name_of(described) is None:
            shown = ", ".join([f"`{field}`", *(f"`{other}`" for other in others.get(field, ()))])
            default = "required" if field in schema.get("required", ()) else default_of(described)
            rows.append([shown, cell(type_of(described, definitions)), default, _meaning(described, definitions)])
    return rows


def _other_name_of(field: Schema) -> str | None:
    """The name of the field that this is another name for."""
    description = str(field.get("description", ""))
    return description[4:-2] if description.startswith("As `") and description.endswith("`.") else None


def _reply_rows(
    path: str, schema: Schema, definitions: Mapping[str, Schema], described: frozenset[str]
) -> Iterator[list[str]]:
    """A row for each field, and below it one for each field of the object that it holds.

    Args:
        path: In front of the names of the fields, ending with a dot if it is not empty.
        schema: Of the object with these fields.
        definitions: All schemas by their names.
        described: Names of the schemas that have a section of their own.
    """
    for name, field in schema["properties"].items():
        inner, suffix = _object_in(field, definitions)
        title = inner.get("title") if inner else None
        more = f" See [{title}](#{title.lower()})." if title in described else ""
        yield [f"`{path}{name}`", cell(type_of(field, definitions)), (_meaning(field, definitions) + more).strip()]
        if inner is not None and not more and path.count(".") < _DEPTH:
            yield from _reply_rows(f"{path}{name}{suffix}.", inner, definitions, described)


def _object_in(schema: Schema, definitions: Mapping[str, Schema]) -> tuple[Schema | None, str]:
    """The object with named fields that a field holds, and ``[]`` if it holds a list of them."""
    for part in schema.get("anyOf", [schema]):
        found = resolve(part, definitions)
        if found.get("properties"):
            return found, ""
        item = resolve(found.get("items", {}), definitions)
        if item.get("properties"):
            return item, "[]"
    return None, ""


def _meaning(field: Schema, definitions: Mapping[str, Schema]) -> str:
    return cell(field.get("description") or resolve(field, definitions).get("description", ""))
