"""Tags of discriminated unions: pydantic puts them into the location of an error, where they name no field."""

from __future__ import annotations

from pydantic import Tag

UNION_TAGS: set[str] = set()


def union_tag(name: str) -> Tag:
    """A tag, such as ``<texts>``, that error messages leave out."""
    UNION_TAGS.add(name)
    return Tag(name)
