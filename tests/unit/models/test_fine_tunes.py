"""Fine-tunes on disk: what is one, what is none, and how one goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve_app.domain.embeddings import ModelVersion
from serve_app.domain.errors import ConflictError, ModelNotFoundError
from serve_app.domain.manifest import Manifest
from serve_app.models import fine_tunes as module
from serve_app.models.fine_tunes import delete_fine_tune, find_fine_tune, fine_tunes
from tests.unit.models.fine_tune_examples import write_manifest

OUTSIDE = ("../x", "a/../../x", "a/../x", "..", ".", "", "./x", ".staging", ".staging/x", ".trash/x", "a/./x")
KEYS = ("job_id", "base", "family", "kind", "adapter")


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """An empty one, not alone in its folder."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def names(models_dir: Path) -> list[str]:
    return [found.name for found in fine_tunes(models_dir)]


def test_a_fine_tune_has_the_fields_of_its_manifest(models_dir: Path) -> None:
    folder = write_manifest(models_dir / "laws", base="e5-base", family="e5", kind="qlora", job_id="job-7")
    found = find_fine_tune("laws", models_dir)
    assert found is not None
    assert (found.name, found.model_version) == ("laws", ModelVersion("laws", "job-7"))
    assert (found.base, found.family, found.kind, found.adapter) == ("e5-base", "e5", "qlora", True)
    assert found.folder == folder
    assert found.manifest.metrics == {"before": {"mrr@10": 0.5}, "after": {"mrr@10": 0.75}}


def test_a_whole_model_is_no_adapter(models_dir: Path) -> None:
    write_manifest(models_dir / "laws", base="e5-base", kind="full")
    found = find_fine_tune("laws", models_dir)
    assert found is not None
    assert not found.adapter


def test_a_fine_tune_of_the_same_name_is_another_version(models_dir: Path) -> None:
    versions = []
    for job_id in ("job-1", "job-2"):
        write_manifest(models_dir / "laws", base="e5-base", job_id=job_id)
        found = find_fine_tune("laws", models_dir)
        assert found is not None
        versions.append(found.model_version)
    assert versions[0] != versions[1]


# ------------------------------------------------------------------ what is none


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"laws"', b"7", b"{}", b'{"name": "laws"}', b"\xff\xfe{}"],
)
def test_a_folder_with_a_broken_manifest_is_not_a_fine_tune(models_dir: Path, content: bytes) -> None:
    write_manifest(models_dir / "healthy", base="e5-base")
    (models_dir / "laws").mkdir()
    (models_dir / "laws" / "manifest.json").write_bytes(content)
    assert find_fine_tune("laws", models_dir) is None
    assert names(models_dir) == ["healthy"]


@pytest.mark.parametrize("key", KEYS)
def test_a_fine_tune_needs_every_key_of_its_manifest(models_dir: Path, key: str) -> None:
    path = write_manifest(models_dir / "laws", base="e5-base") / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    assert find_fine_tune("laws", models_dir) is None


def test_a_starter_or_a_bare_folder_or_a_file_is_not_a_fine_tune(models_dir: Path) -> None:
    (models_dir / "starter").mkdir()
    Manifest(name="starter", family="e5", kind="starter", source="somewhere", license="MIT").write(
        models_dir / "starter"
    )
    (models_dir / "bare").mkdir()
    (models_dir / "file").write_text("{}")
    (models_dir / "odd" / "manifest.json").mkdir(parents=True)
    for name in ("starter", "bare", "file", "odd", "nothing"):
        assert find_fine_tune(name, models_dir) is None
    assert names(models_dir) == []


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_never_leads_out_of_the_directory_or_into_a_hidden_folder(models_dir: Path, name: str) -> None:
    write_manifest(models_dir / "a", base="e5-base")
    write_manifest(models_dir / "x", base="e5-base")
    write_manifest((models_dir / name).resolve(), base="e5-base")  # it is there, and it is not what was asked for
    assert find_fine_tune(name, models_dir) is None
    with pytest.raises(ModelNotFoundError):
        delete_fine_tune(name, models_dir)
    assert (models_dir / name / "manifest.json").exists()


def test_an_absolute_path_is_not_a_name(models_dir: Path) -> None:
    folder = write_manifest(models_dir / "laws", base="e5-base")
    assert find_fine_tune(str(folder), models_dir) is None


# ------------------------------------------------------------------ all of them


def test_fine_tunes_are_listed_by_name_and_hidden_folders_are_not(models_dir: Path) -> None:
    for name in ("taxes", "Laws", "acts", ".staging", ".trash", ".acts.swp"):
        write_manifest(models_dir / name, base="e5-base")
    assert names(models_dir) == ["Laws", "acts", "taxes"]


def test_a_directory_that_is_not_there_has_no_fine_tunes(tmp_path: Path) -> None:
    assert fine_tunes(tmp_path / "nowhere") == []


# ------------------------------------------------------------------ how one goes


def test_a_deleted_fine_tune_is_gone_and_its_name_is_free(models_dir: Path) -> None:
    folder = write_manifest(models_dir / "laws", base="e5-base")
    (folder / "model.safetensors").write_bytes(bytes(100))
    write_manifest(models_dir / "taxes", base="e5-base")
    delete_fine_tune("laws", models_dir)
    assert names(models_dir) == ["taxes"]
    assert not folder.exists()
    write_manifest(models_dir / "laws", base="e5-base", job_id="job-2")
    assert names(models_dir) == ["laws", "taxes"]
    delete_fine_tune("laws", models_dir)
    assert [path for path in models_dir.rglob("*") if path.is_file()] == [models_dir / "taxes" / "manifest.json"]


def test_a_base_of_others_is_not_deleted_before_them(models_dir: Path) -> None:
    write_manifest(models_dir / "laws", base="e5-base", kind="full")
    for child in ("acts", "taxes"):
        write_manifest(models_dir / child, base="laws")
    with pytest.raises(ConflictError, match="'laws' is the base of acts, taxes"):
        delete_fine_tune("laws", models_dir)
    for name in ("acts", "taxes", "laws"):
        delete_fine_tune(name, models_dir)
    assert names(models_dir) == []


def test_a_starter_is_not_deleted(models_dir: Path) -> None:
    (models_dir / "starter").mkdir()
    Manifest(name="starter", family="e5", kind="starter", source="somewhere", license="MIT").write(
        models_dir / "starter"
    )
    with pytest.raises(ModelNotFoundError, match="no fine-tune 'starter'"):
        delete_fine_tune("starter", models_dir)
    assert (models_dir / "starter" / "manifest.json").exists()


def test_of_two_deletions_at_once_one_gets_not_found(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(models_dir / "laws", base="e5-base")
    found = find_fine_tune("laws", models_dir)
    delete_fine_tune("laws", models_dir)
    monkeypatch.setattr(module, "find_fine_tune", lambda *_: found)  # the second one has looked before that
    with pytest.raises(ModelNotFoundError, match="no fine-tune 'laws'"):
        delete_fine_tune("laws", models_dir)


def test_a_deletion_removes_what_a_killed_process_has_left(models_dir: Path) -> None:
    write_manifest(models_dir / ".trash" / "half", base="e5-base")
    write_manifest(models_dir / "laws", base="e5-base")
    delete_fine_tune("laws", models_dir)
    assert list((models_dir / ".trash").iterdir()) == []


def test_a_fine_tune_that_is_a_link_leaves_nothing_and_what_it_leads_to_stays(models_dir: Path) -> None:
    elsewhere = models_dir.parent / "elsewhere"
    write_manifest(elsewhere, base="e5-base")
    (models_dir / "laws").symlink_to(elsewhere)
    delete_fine_tune("laws", models_dir)
    assert list((models_dir / ".trash").iterdir()) == []
    assert (elsewhere / "manifest.json").exists()


def test_a_link_in_the_place_of_the_trash_is_not_emptied(models_dir: Path) -> None:
    elsewhere = models_dir.parent / "elsewhere"
    write_manifest(elsewhere / "kept", base="e5-base")
    (models_dir / ".trash").symlink_to(elsewhere)
    write_manifest(models_dir / "laws", base="e5-base")
    delete_fine_tune("laws", models_dir)
    assert (elsewhere / "kept" / "manifest.json").exists()
    assert find_fine_tune("laws", models_dir) is None
