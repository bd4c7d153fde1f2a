from __future__ import annotations

import hashlib
from hmac import compare_digest
from typing import Any

import pytest

from serve_app.security import api_keys
from serve_app.security.api_keys import (
    ApiKey,
    KeyRing,
    Scope,
    sha256_of,
)
from serve_app.security.key_file import keys_of_file, keys_of_variable, valid_keys_of_file

SECRET = "rk_a-long-secret-that-is-not-guessed"
OTHER = "rk_another-secret-that-is-not-guessed"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()
OTHER_HASH = hashlib.sha256(OTHER.encode()).hexdigest()


def test_a_line_of_the_file_holds_every_field_of_a_key() -> None:
    text = f"""
    # limited
    search:{HASH}
    ops:{OTHER_HASH.upper()}:admin   # may do everything
    a.b-c_9:{"0" * 64}:use:600:100000
    web:{"1" * 64}:::5000
    """
    assert keys_of_file(text) == (
        ApiKey("search", HASH),
        ApiKey("ops", OTHER_HASH, Scope.ADMIN),
        ApiKey("a.b-c_9", "0" * 64, Scope.USE, 600, 100_000),
        ApiKey("web", "1" * 64, Scope.USE, None, 5000),
    )


def test_a_variable_holds_the_keys_themselves_and_only_their_hashes_are_kept() -> None:
    found = keys_of_variable(f"search:{SECRET}, ops:{OTHER}:admin:60,")
    assert found == (ApiKey("search", HASH), ApiKey("ops", OTHER_HASH, Scope.ADMIN, 60))
    assert SECRET not in repr(found)
    assert HASH not in repr(found)


@pytest.mark.parametrize(("secret", "is_short"), [("x" * 15, True), ("x" * 16, False)])
def test_a_short_key_is_noticed(secret: str, is_short: bool) -> None:
    (key,) = keys_of_variable(f"me:{secret}")
    assert key.is_short is is_short


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("search", "line 2: write name:sha256"),
        (f"search:{HASH}:use:1:2:3", "line 2: write name:sha256"),
        (f"search:{SECRET}", "line 2: the second field of 'search' must be the SHA-256 of its key"),
        (f"search:{HASH[:-1]}", "line 2: the second field of 'search' must be the SHA-256 of its key"),
        (f":{HASH}", "line 2: a key's name has"),
        (f"sear ch:{HASH}", "line 2: a key's name has"),
        (f"{'x' * 65}:{HASH}", "line 2: a key's name has"),
        ("search::admin", "line 2: there is no key"),
        (f"{HASH}:search", "line 2: the name comes first"),
        (f"search:{HASH}:root", "line 2: the third field must be one of: use, admin"),
        (f"search:{HASH}:use:many", "line 2: the fourth field must be a whole number"),
        (f"search:{HASH}:use:-5", "line 2: the fourth field must be a whole number"),
        (f"search:{HASH}:use::1.5", "line 2: the fifth field must be a whole number"),
        (f"search:{HASH}:use:0", "line 2: a limit of 'search' is below 1"),
    ],
)
def test_a_malformed_line_is_named_and_not_quoted(line: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        keys_of_file(f"\n{line}\n")
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    assert HASH[:-1] not in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "# none\n\n", "\n"])
def test_a_file_without_keys_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no key in it"):
        keys_of_file(text)


@pytest.mark.parametrize(
    "text", [",", SECRET, f":{SECRET}", f"{SECRET}:search", f"{SECRET}:", f"me:{SECRET}:root", f"m e:{SECRET}"]
)
def test_a_malformed_variable_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        keys_of_variable(text)
    assert SECRET not in str(caught.value)


def test_of_a_file_with_mistakes_valid_lines_count_and_the_others_are_reported() -> None:
    lines = ["# ours", f"a:{HASH}", "b:x", f"a:{OTHER_HASH}", f"c:{HASH}", "", f"d:{OTHER_HASH}:admin"]
    ring, errors = valid_keys_of_file("\n".join(lines), beside=[ApiKey("e", "0" * 64)])
    assert [key.name for key in ring.keys] == ["e", "a", "d"]
    assert [error.partition(":")[0] for error in errors] == ["line 3", "line 4", "line 5"]
    assert not any(hash in error for error in errors for hash in (HASH, OTHER_HASH))
    assert valid_keys_of_file("# none\n") == (KeyRing([]), [])


def test_two_keys_of_one_name_or_two_names_of_one_key_are_refused() -> None:
    with pytest.raises(ValueError, match="two API keys have the name 'a'"):
        KeyRing([ApiKey("a", HASH), ApiKey("a", OTHER_HASH)])
    with pytest.raises(ValueError, match="'a' and 'b' are the same API key"):
        KeyRing([ApiKey("a", HASH), ApiKey("b", HASH)])


RING = KeyRing([ApiKey("a", HASH), ApiKey("b", OTHER_HASH)])


@pytest.mark.parametrize(
    ("presented", "name"),
    [
        ([SECRET], "a"),
        ([OTHER], "b"),
        (["wrong", OTHER], "b"),
        ([OTHER, "wrong"], "b"),
        ([], None),
        ([""], None),
        (["wrong"], None),
        ([SECRET[:-1]], None),
        ([SECRET + "x"], None),
        ([SECRET.upper()], None),
        ([HASH], None),  # a reader of the file has no key yet
        (["\u00e9\u2603"], None),
    ],
)
def test_only_the_key_itself_matches(presented: list[str], name: str | None) -> None:
    found = RING.match(secret.encode() for secret in presented)
    assert (found.name if found else None) == name


@pytest.mark.parametrize("secret", [SECRET, OTHER, "wrong"])
def test_all_hashes_are_compared_in_constant_time_whichever_matches(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    compared: list[tuple[Any, Any]] = []

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return compare_digest(a, b)

    monkeypatch.setattr(api_keys.hmac, "compare_digest", compare)
    RING.match([secret.encode()])
    assert compared == [(HASH, sha256_of(secret)), (OTHER_HASH, sha256_of(secret))]


@pytest.mark.parametrize(
    ("scope", "needed", "may"),
    [
        (Scope.USE, Scope.USE, True),
        (Scope.USE, Scope.ADMIN, False),
        (Scope.ADMIN, Scope.USE, True),
        (Scope.ADMIN, Scope.ADMIN, True),
    ],
)
def test_admin_includes_use_and_not_the_other_way_round(scope: Scope, needed: Scope, may: bool) -> None:
    assert ApiKey("a", HASH, scope).may(needed) is may
