from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serve_app.starter_models.staging import LOCK_FILE, only_builder, staged
from serve_app.starter_models.starter_error import StarterError


def test_folder_appears_whole_when_the_body_is_through(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with staged(target) as folder:
        (folder / "a").write_text("1")
        assert folder.parent == target.parent
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "a").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_failure_leaves_no_folder_and_no_staging_rest(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged(tmp_path / "model") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_target_that_appeared_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(StarterError, match="left as it is"), staged(target) as folder:
        (folder / "a").write_text("ours")
        target.mkdir()
        (target / "a").write_text("theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "a").read_text() == "theirs"


def test_rest_of_a_killed_process_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {".staging-other-1", ".staging-model-x", ".staging-model-2-1"}
    for name in (".staging-model-123", *kept):
        (tmp_path / name).mkdir()
    with staged(tmp_path / "model"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == kept | {"model"}


def test_second_builder_waits_for_the_first(tmp_path: Path) -> None:
    waiting, log = threading.Event(), []

    def second() -> None:
        with only_builder(tmp_path, waiting=waiting.set):
            log.append("second")

    thread = threading.Thread(target=second)
    with only_builder(tmp_path, waiting=lambda: log.append("never")):
        thread.start()
        assert waiting.wait(5)
        log.append("first")
    thread.join(5)
    assert log == ["first", "second"]
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
