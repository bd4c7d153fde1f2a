"""The table of dialects: each route belongs to one, and a path selects the error body."""

from __future__ import annotations

from collections import Counter

import pytest

from serve_app.api.dialects.dialect import Dialect
from serve_app.api.dialects.dialect_registry import (
    COHERE,
    DIALECTS,
    JINA,
    NATIVE,
    OPENAI,
    TEI,
    VLLM,
    dialect_of_path,
    rerank_dialect,
)


def test_every_path_belongs_to_one_dialect() -> None:
    assert [
        path for path, count in Counter(path for each in DIALECTS for path in each.paths).items() if count > 1
    ] == []
    assert all(dialect_of_path(path) is each for each in DIALECTS for path in each.paths)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [("/vectorize", NATIVE), ("/nowhere", NATIVE), ("/v1/models", OPENAI), ("/v1/nowhere", OPENAI), ("/v2/x", OPENAI),
     ("/v2/rerank", COHERE), ("/v1/rerank", JINA), ("/score", VLLM), ("/", TEI), ("/embed", TEI)],
)  # fmt: skip
def test_a_path_selects_the_dialect_of_its_errors(path: str, dialect: Dialect) -> None:
    assert dialect_of_path(path) is dialect


@pytest.mark.parametrize(
    ("fields", "dialect"),
    [({"documents": []}, COHERE), ({"passages": []}, COHERE), ({"texts": []}, TEI), ({"candidates": []}, NATIVE),
     ({}, NATIVE), ({"candidates": [], "texts": []}, TEI), ({"candidates": [], "documents": None}, NATIVE),
     ({"documents": None}, COHERE)],
)  # fmt: skip
def test_the_list_of_documents_selects_the_form_of_rerank(
    fields: dict[str, list[str] | None], dialect: Dialect
) -> None:
    assert rerank_dialect(fields) is dialect
