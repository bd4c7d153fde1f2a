from __future__ import annotations

import stat
from pathlib import Path

import pytest

from serve_app.keys import main
from serve_app.security.api_keys import ApiKey, KeyRing, Scope
from serve_app.security.key_file import keys_of_file


def secret_of(shown: str) -> str:
    return shown.splitlines()[0].split()[1]


def test_a_key_is_shown_with_the_line_by_which_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ops", "--admin", "--tokens-per-minute", "5000"])
    shown = capsys.readouterr().out
    secret = secret_of(shown)
    (key,) = keys_of_file(shown.splitlines()[1].removeprefix("line").strip())
    assert KeyRing([key]).match([secret.encode()]) is key
    assert key == ApiKey("ops", key.sha256, Scope.ADMIN, None, 5000)
    assert len(secret) >= 43
    assert shown.count(secret) == 1


def test_no_two_keys_are_the_same_and_a_plain_one_may_only_use(capsys: pytest.CaptureFixture[str]) -> None:
    secrets = set()
    for _ in range(20):
        main(["search"])
        shown = capsys.readouterr().out
        secrets.add(secret_of(shown))
        (key,) = keys_of_file(shown.splitlines()[1].removeprefix("line").strip())
        assert (key.scope, key.is_limited) == (Scope.USE, False)
    assert len(secrets) == 20


def test_lines_are_added_to_a_file_that_only_its_owner_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    secrets = []
    for name in ("search", "ops"):
        main([name, "--file", str(file), "--requests-per-minute", "60"])
        secrets.append(secret_of(capsys.readouterr().out))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    ring = KeyRing(keys_of_file(file.read_text()))
    found = [ring.match([secret.encode()]) for secret in secrets]
    assert [(key.name, key.requests_per_minute) for key in found if key] == [("search", 60), ("ops", 60)]
    assert not any(secret in file.read_text() for secret in secrets)


def test_existing_lines_stay_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    before = f"# ours\nme:{'0' * 64}:use:5  # as long as he behaves"
    file.write_text(before)
    file.chmod(0o640)
    main(["you", "--file", str(file)])
    assert file.read_text().startswith(before + "\nyou:")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_the_file_is_followed(tmp_path: Path, exists: bool) -> None:
    file, link, outer = tmp_path / "secrets" / "keys", tmp_path / "link", tmp_path / "outer"
    file.parent.mkdir()
    if exists:
        file.write_text(f"me:{'0' * 64}\n")
        file.chmod(0o640)
    link.symlink_to("secrets/keys")
    outer.symlink_to(link)
    main(["you", "--file", str(outer)])
    assert link.is_symlink()
    assert outer.is_symlink()
    assert [key.name for key in keys_of_file(file.read_text())] == ["me"] * exists + ["you"]
    assert stat.S_IMODE(file.stat().st_mode) == (0o640 if exists else 0o600)
    assert [path.name for path in file.parent.iterdir()] == ["keys"]


def test_links_in_a_circle_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(SystemExit):
        main(["you", "--file", str(link)])
    out, err = capsys.readouterr()
    assert (out, link.is_symlink()) == ("", True)
    assert str(link) in err


def test_a_link_at_a_temporary_name_is_not_written_through(tmp_path: Path) -> None:
    file, victim = tmp_path / "keys", tmp_path / "victim"
    victim.write_text("mine")
    victim.chmod(0o644)
    for planted in ("keys.new", "keys.tmp", ".keys"):
        (tmp_path / planted).symlink_to(victim)
    main(["you", "--file", str(file)])
    assert victim.read_text() == "mine"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    assert [key.name for key in keys_of_file(file.read_text())] == ["you"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no good"], "a key's name has"),
        (["me", "--requests-per-minute", "0"], "below 1"),
        (["me", "--file", "{file}"], "two API keys have the name 'me'"),
        (["you", "--file", "{broken}"], "line 1"),
        (["you", "--file", "{missing}"], "No such file"),
    ],
)
def test_a_key_that_would_break_the_file_is_refused_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    files = {"file": tmp_path / "keys", "broken": tmp_path / "broken", "missing": tmp_path / "no" / "keys"}
    files["file"].write_text(f"me:{'0' * 64}\n")
    files["broken"].write_text("what?\n")
    with pytest.raises(SystemExit) as caught:
        main([argument.format(**files) for argument in arguments])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert files["file"].read_text() == f"me:{'0' * 64}\n"
    assert files["broken"].read_text() == "what?\n"
