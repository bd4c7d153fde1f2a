from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.security.api_keys import ApiKey, Scope, sha256_of
from serve_app.settings.security_settings import FILE_VARIABLE, KEYS_VARIABLE, SecuritySettings
from serve_app.settings.service_settings import Settings

SECRET = "rk_a-long-secret-that-is-not-guessed"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (KEYS_VARIABLE, FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("args", [{}, {"security": {}}])
def test_by_default_no_key_is_required_and_no_page_may_call(args: dict[str, Any]) -> None:
    security = Settings(**args).security
    assert not security.wants_keys
    assert security.cors_origins == ()
    assert security.allowed_hosts == ()


@pytest.mark.parametrize("args", [{}, {"security": {}}])
def test_keys_of_the_environment_turn_keys_on_and_arrive_hashed_in_the_replicas(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any]
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"search:{SECRET},ops:x{SECRET}:admin:60")
    sent = pickle.dumps(Settings(**args))
    monkeypatch.delenv(KEYS_VARIABLE)
    security = pickle.loads(sent).security
    assert security.wants_keys
    assert security.environment_keys == (
        ApiKey("search", sha256_of(SECRET)),
        ApiKey("ops", sha256_of(f"x{SECRET}"), Scope.ADMIN, 60),
    )
    assert SECRET.encode() not in sent


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"search:{SECRET}")
    settings = Settings()
    for shown in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
        assert sha256_of(SECRET) not in shown


@pytest.mark.parametrize(
    "text",
    [SECRET, f"{SECRET}:", f"me:{SECRET}:root", f"me:{SECRET},me:x{SECRET}", f"me:{SECRET},you:{SECRET}", ",", " "],
)
def test_a_malformed_variable_prevents_the_start_and_is_not_quoted(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, text)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert KEYS_VARIABLE in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_environments_file_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SecuritySettings(api_keys_file=Path("keys")).api_keys_file == Path("keys").absolute()
    monkeypatch.setenv(FILE_VARIABLE, "/env/keys")
    for security in (Settings().security, Settings(security={"api_keys_file": "/yaml/keys"}).security):
        assert security.api_keys_file == Path("/env/keys")
        assert security.wants_keys


@pytest.mark.parametrize("variable", [KEYS_VARIABLE, FILE_VARIABLE])
@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("args", [{}, {"security": {"api_keys_file": "/yaml/keys"}}])
def test_an_empty_variable_prevents_the_start_instead_of_disabling_keys(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, args: dict[str, Any]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=f"{variable} is set but empty"):
        Settings(**args)


def test_the_config_cannot_contain_keys() -> None:
    with pytest.raises(ValidationError):
        Settings(security={"api_keys": [f"search:{SECRET}"]})


@pytest.mark.parametrize("origin", ["*", "https://app.example.com", "http://localhost:5173", "chrome-extension://abc"])
def test_an_origin_is_what_browsers_send(origin: str) -> None:
    assert SecuritySettings(cors_origins=(origin,)).cors_origins == (origin,)


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "https://*.example.com", "", "**"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        SecuritySettings(cors_origins=(origin,))


def test_allowed_hosts_are_names_without_scheme_and_port() -> None:
    assert SecuritySettings(allowed_hosts=("Models.example.com", "*")).allowed_hosts == ("models.example.com", "*")
    for wrong in ("http://models.example.com", "models.example.com:8000", "", "a b", ".com"):
        with pytest.raises(ValidationError, match="not a host name"):
            SecuritySettings(allowed_hosts=(wrong,))
