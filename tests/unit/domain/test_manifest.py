"""The manifest of a model folder: one type reads and writes it, and a file of today stays readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.manifest import MANIFEST_FILE, Manifest

FINE_TUNE: dict[str, Any] = {
    "name": "tuned", "family": "e5", "base": "multilingual-e5-small", "kind": "lora", "adapter": True, "job_id": "j1",
    "created": "2026-01-02T03:04:05+00:00", "metrics": {"before": {"mrr@10": 0.5}, "after": {"mrr@10": 0.75}},
    "data": {"train_pairs": 9, "eval_pairs": 1}, "warnings": [], "settings": {"epochs": 1, "lora": {"r": 8}},
}  # fmt: skip
STARTER = {"name": "small", "family": "e5", "base": None, "kind": "starter", "source": "a package", "license": "MIT"}


@pytest.mark.parametrize("values", [FINE_TUNE, STARTER], ids=["fine-tune", "starter"])
def test_a_manifest_is_written_as_it_was_read_and_foreign_keys_are_ignored(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(values | {"a key of a later version": 1}))
    manifest = Manifest.read(tmp_path)
    assert (manifest.name, manifest.base, manifest.job_id) == (values["name"], values["base"], values.get("job_id"))
    manifest.write(tmp_path)
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == values
    assert Manifest.read(tmp_path) == manifest


def test_a_folder_without_a_manifest_has_an_empty_one(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) == Manifest()


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"family": ["e5"]}'])
def test_an_unreadable_manifest_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ModelLoadError, match=r"manifest\.json"):
        Manifest.read(tmp_path)
