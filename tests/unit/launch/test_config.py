"""Mistakes in a config are answered with one message, before Ray is imported."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.launch.command import main, private_ray_folder
from serve_app.launch.config import ConfigError, http_address, read_config

ROOT = Path(__file__).parents[3]
APP = "applications: [{name: a, import_path: 'serve_app.app:build', args: %s}]"


def test_a_config_that_ships_is_read() -> None:
    for path in (ROOT / "serve_config.yaml", *(ROOT / "configs").glob("*.yaml")):
        assert http_address(read_config(path))[1] == 8000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid YAML"),
        ("\xff", "is not valid YAML"),
        ("- a list", "it has no list 'applications'"),
        ("applications: 3", "it has no list 'applications'"),
        ("applications: []", "'applications' is empty; name at least one"),
        (APP % "{models: [{nam: x}]}", "applications.0.args.models.0.nam: Extra inputs"),
        (APP % "{models: []}", "applications.0.args.models: name at least one model"),
        (APP % "[1]", "applications.0.args must be a mapping"),
        (APP % "{1: 2}", "applications.0.args"),
        (APP % "{models: [{name: x, dtype: int3}], limits: {max_texts: x}}", "applications.0.args.models.0.dtype"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(text.encode("latin-1"))
    assert main([str(config)]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert all(line.startswith(str(config)) for line in err.splitlines())
    assert out == ""


def test_applications_of_others_are_left_to_serve(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("applications: [{import_path: 'other:app', args: {x: 1}}]")
    assert read_config(config)["applications"][0]["args"] == {"x": 1}


@pytest.mark.parametrize("options", [3, [1], {"port": "x"}])
def test_an_address_that_is_none_is_refused(options: object) -> None:
    with pytest.raises(ConfigError, match="http_options"):
        http_address({"http_options": options})


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [(["--help"], 0, "usage: python -m serve_app"), ([], 2, "CONFIG"), (["absent.yaml"], 1, "no file absent.yaml")],
)
def test_help_and_a_missing_file_are_answered_before_anything_is_imported(
    arguments: list[str], status: int, message: str
) -> None:
    program = [sys.executable, "-X", "importtime", "-m", "serve_app", *arguments]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status
    assert message in ended.stdout + ended.stderr
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    assert "serve_app.launch.command" in imported
    assert not imported & {"ray", "torch", "pydantic", "yaml"}


def test_the_folder_of_ray_sessions_is_closed_to_other_users_and_never_anothers(tmp_path: Path) -> None:
    folder = private_ray_folder(tmp_path)
    folder.chmod(0o755)
    assert private_ray_folder(tmp_path) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
    for target in ("/dev/null", "nowhere"):
        folder.symlink_to(target)
        with pytest.raises(OSError, match="is not a folder, or belongs to another user; set RAY_TMPDIR"):
            private_ray_folder(tmp_path)
        folder.unlink()
    folder.write_text("a file")
    with pytest.raises(OSError, match="is not a folder, or belongs to another user; set RAY_TMPDIR"):
        private_ray_folder(tmp_path)
    folder.unlink()
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="belongs to another user; set RAY_TMPDIR"):
        private_ray_folder(tmp_path)
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755
