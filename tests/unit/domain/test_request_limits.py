"""Bounds that a configuration may not go beyond."""

from __future__ import annotations

import pytest

from serve_app.domain.request_limits import MOST_TEXTS, Limits


@pytest.mark.parametrize("name", ["max_items", "max_candidates"])
def test_more_texts_than_the_schemas_take_cannot_be_configured(name: str) -> None:
    assert getattr(Limits(**{name: MOST_TEXTS}), name) == MOST_TEXTS
    with pytest.raises(ValueError, match=f"{name}: 10001, at most 10000"):
        Limits(**{name: MOST_TEXTS + 1})


def test_there_is_room_for_one_body_of_the_largest_size() -> None:
    assert Limits(max_body_bytes=2**30, max_bodies_bytes=2**30).max_bodies_bytes == 2**30
    with pytest.raises(ValueError, match="max_bodies_bytes: 268435456, at least max_body_bytes"):
        Limits(max_body_bytes=2**30)
