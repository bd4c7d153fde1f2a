"""Bodies that break the schema or a limit: 422, with the field and the index in the message."""

from __future__ import annotations

import difflib
import json
import threading
from typing import Any

import httpx
import pytest

from serve_app.api import strict_json
from serve_app.domain.request_limits import MOST_TEXTS
from tests.unit.api.fake_inference import FakeInference

JSON = {"content-type": "application/json"}


async def refusal(client: httpx.AsyncClient, path: str, content: bytes, headers: dict[str, str] = JSON) -> str:
    """The message of a 422; anything else fails."""
    reply = await client.post(path, content=content, headers=headers)
    assert reply.status_code == 422, reply.text
    body = reply.json()
    assert sorted(body) == ["code", "detail"]
    assert body["code"] == "invalid_input"
    return str(body["detail"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "text: field required"),
        ({"text": ""}, "text: must not be empty or blank"),
        ({"text": " \t\n\u3000"}, "text: must not be empty or blank"),
        ({"text": "x" * 101}, "text: 101 characters, the limit is 100"),
        ({"text": 5}, "text: input should be a valid string"),
        ({"text": None}, "text: input should be a valid string"),
        ({"text": ["cats"]}, "text: input should be a valid string"),
        ({"text": "cats", "is_query": "yes"}, "is_query: input should be a valid boolean"),
        ({"text": "cats", "is_query": 1}, "is_query: input should be a valid boolean"),
        ({"text": "cats", "truncate": None}, "truncate: input should be a valid boolean"),
        ({"text": "cats", "model": 7}, "model: input should be a valid string"),
        ({"text": "cats", "isquery": True}, "isquery: extra inputs are not permitted"),
        ({"text": "cats", "items": ["dogs"]}, "items: extra inputs are not permitted"),
        ([], "body: input should be a valid dictionary"),
        ("cats", "body: input should be a valid dictionary"),
        (None, "body: "),
    ],
)
async def test_a_bad_single_text_is_refused_and_the_field_named(
    client: httpx.AsyncClient, inference: FakeInference, body: Any, message: str
) -> None:
    assert (await refusal(client, "/vectorize", json.dumps(body).encode())).startswith(message)
    assert inference.asked == []


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("cats", "items: input should be a list of strings, an object {id: text} or a list of {id, text}"),
        (5, "items: input should be a list of strings"),
        (None, "items: input should be a list of strings"),
        (["a", "b", 5], "items[2]: input should be a valid string"),
        (["a", {"id": "b", "text": "c"}], "items[1]: input should be a valid string"),
        (["a", " "], "items[1]: must not be empty or blank"),
        (["a", "b", "x" * 101], "items[2]: 101 characters, the limit is 100; split the text"),
        (["x"] * 6, "items: 6 texts, the limit is 5; send several requests"),
        ({"k": 5}, "items.k: input should be a valid string"),
        ({"<k>": 5}, "items.<k>: input should be a valid string"),
        ({"good": "a", "bad": ""}, "items['bad']: must not be empty or blank"),
        ({str(i): "x" for i in range(6)}, "items: 6 texts, the limit is 5"),
        ([{"id": "a", "text": "x"}, {"id": "b"}], "items[1].text: field required"),
        ([{"id": "a", "text": "x"}, {"text": "y"}], "items[1].id: field required"),
        ([{"id": "a", "text": "x"}, {"id": 7, "text": "y"}], "items[1].id: input should be a valid string"),
        ([{"id": "a", "text": "x"}, "y"], "items[1]: input should be a valid dictionary"),
        ([{"id": "a", "text": "x", "title": "y"}], "items[0].title: extra inputs are not permitted"),
        ([{"id": "a", "text": "x"}, {"id": "b", "text": "\n"}], "items[1].text: must not be empty or blank"),
        ([{"id": c, "text": "x"} for c in "aba"], "items[2].id: 'a' is also the id of items[0]"),
        ([{"id": str(i), "text": "x"} for i in range(6)], "items: 6 texts, the limit is 5"),
    ],
)
async def test_bad_items_are_refused_and_the_field_and_index_named(
    client: httpx.AsyncClient, inference: FakeInference, items: Any, message: str
) -> None:
    assert (await refusal(client, "/vectorize-batch", json.dumps({"items": items}).encode())).startswith(message)
    assert inference.asked == []


async def test_the_first_of_many_violations_are_named_and_all_counted(client: httpx.AsyncClient) -> None:
    message = await refusal(client, "/vectorize-batch", json.dumps({"items": [0] * 200}).encode())
    assert message.endswith("items[4]: input should be a valid string; and 195 more")


async def test_suggestions_are_computed_only_for_shown_violations(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    near = difflib.get_close_matches

    def counted(name: str, *args: Any, **more: Any) -> list[str]:
        compared.append(name)
        return near(name, *args, **more)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    names = {"txt": "a"} | {f"is_query{i}": 1 for i in range(9_000)}
    message = await refusal(client, "/vectorize", json.dumps(names).encode())
    assert "did you mean 'is_query'?" in message
    assert message.endswith("; and 8997 more")
    assert len(compared) <= 5


@pytest.mark.parametrize("path", ["/vectorize", "/vectorize-batch"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "body: field required"),
        (b"{", "JSON decode error"),
        (b'{"text": "cats",}', "JSON decode error"),
        (b'{"text": "caf\xe9"}', "body: not valid JSON in UTF-8, or nested too deeply"),
        (b"\xff\xfe\x00", "body: not valid JSON in UTF-8"),
        (b"[" * 100_000, "body: not valid JSON in UTF-8, or nested too deeply"),
        (b'{"a":' * 50_000, "body: not valid JSON in UTF-8, or nested too deeply"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "body: not valid JSON in UTF-8"),
    ],
    ids=lambda value: repr(value[:20]),
)
async def test_invalid_json_is_refused(client: httpx.AsyncClient, path: str, content: bytes, message: str) -> None:
    assert message in await refusal(client, path, content)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_numbers_that_json_does_not_have_are_refused_where_a_text_belongs(
    client: httpx.AsyncClient, number: str
) -> None:
    assert (
        await refusal(client, "/vectorize", f'{{"text": {number}}}'.encode()) == "text: input should be a valid string"
    )
    message = await refusal(client, "/vectorize-batch", f'{{"items": ["a", {number}]}}'.encode())
    assert message == "items[1]: input should be a valid string"


async def test_deep_nesting_that_json_can_read_is_refused_as_well(client: httpx.AsyncClient) -> None:
    nested = b'{"items": ' + b"[" * 400 + b"]" * 400 + b"}"
    assert await refusal(client, "/vectorize-batch", nested) == "items[0]: input should be a valid string"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("/vectorize", rb'{"text": "a \ud83d b"}', "text: holds half of a surrogate pair"),
        ("/vectorize", b'{"text": "a \xed\xa0\xbd b"}', "text: holds half of a surrogate pair"),  # as bytes
        ("/vectorize", rb'{"text": "a", "\ud83d": 1}', "body: "),
        ("/vectorize-batch", rb'{"items": ["a", "\udc00"]}', "items[1]: holds half of a surrogate pair"),
        ("/vectorize-batch", rb'{"items": {"\ud83d": "a"}}', r"items: the id '\ud83d': holds half of a surrogate pair"),
        ("/vectorize-batch", rb'{"items": {"\ud83d": 5}}', "items."),
        ("/vectorize-batch", rb'{"items": {"k": "\ud83d"}}', "items['k']: holds half of a surrogate pair"),
        ("/vectorize-batch", rb'{"items": [{"id": "\ud83d", "text": "a"}]}', "items[0].id: holds half of a surrogate"),
        ("/vectorize-batch", rb'{"items": [{"id": "k", "text": "\ud83d"}]}', "items[0].text: holds half of a surroga"),
    ],
)
async def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(
    client: httpx.AsyncClient, inference: FakeInference, path: str, content: bytes, message: str
) -> None:
    assert (await refusal(client, path, content)).startswith(message)
    assert inference.asked == []


async def test_a_whole_surrogate_pair_is_a_character(client: httpx.AsyncClient, inference: FakeInference) -> None:
    reply = await client.post("/vectorize", content=rb'{"text": "\ud83d\ude00"}', headers=JSON)
    assert reply.status_code == 200
    assert inference.asked[0].texts == ["😀"]


@pytest.mark.parametrize(
    ("headers", "was"), [({"content-type": "text/plain"}, "text/plain"), ({}, "absent")], ids=["other", "absent"]
)
async def test_json_under_another_content_type_is_refused_with_the_header_to_send(
    client: httpx.AsyncClient, headers: dict[str, str], was: str
) -> None:
    message = await refusal(client, "/vectorize", b'{"text": "cats"}', headers)
    assert message == f"body: send JSON with the header Content-Type: application/json (it was {was!r})"


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/vectorize-batch", b'{"items": {"a": "one", "b": "two", "a": "three"}}', "'a'"),
        ("/vectorize-batch", b'{"items": ["one"], "items": ["two"]}', "'items'"),
        ("/vectorize-batch", b'{"items": [{"id": "a", "text": "one", "text": "two"}]}', "'text'"),
        ("/vectorize", b'{"text": "one", "text": "one"}', "'text'"),
    ],
)
async def test_a_key_that_stands_twice_is_refused_because_one_text_would_be_lost(
    client: httpx.AsyncClient, path: str, body: bytes, name: str
) -> None:
    assert await refusal(client, path, body) == f"body: an object names {name} twice"


# ------------------------------------------------------------------ bodies that would hold up everybody


@pytest.mark.parametrize(("size", "aside"), [(1000, False), (strict_json._INLINE_BYTES + 1, True)])
async def test_a_large_body_is_read_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, size: int, aside: bool
) -> None:
    readers: set[int] = set()
    monkeypatch.setattr(strict_json, "_distinct", lambda pairs: readers.add(threading.get_ident()) or dict(pairs))
    reply = await client.post("/vectorize", content=b'{"text": "cats"' + b" " * size + b"}", headers=JSON)
    assert reply.status_code == 200
    assert (readers != {threading.get_ident()}) is aside


async def test_a_large_body_is_read_as_strictly_as_a_small_one(client: httpx.AsyncClient) -> None:
    blank = b" " * strict_json._INLINE_BYTES
    twice = await refusal(client, "/vectorize", b'{"text": "a", "text": "b"' + blank + b"}")
    assert twice == "body: an object names 'text' twice"
    assert "JSON decode error" in await refusal(client, "/vectorize", b'{"text": "a",' + blank + b"}")
    number = await refusal(client, "/vectorize", b'{"text": ' + blank + b"9" * 10_000 + b"}")
    assert number.startswith("body: not valid JSON in UTF-8")


@pytest.mark.parametrize(
    ("path", "field", "rest"),
    [
        ("/vectorize-batch", "items", {}),
        ("/rerank", "candidates", {"query": "a"}),
        ("/rerank", "documents", {"query": "a"}),
        ("/rerank", "texts", {"query": "a"}),
    ],
)
@pytest.mark.parametrize("text", ["a", 1])
async def test_a_list_without_end_is_refused_once_and_not_for_each_of_its_texts(
    client: httpx.AsyncClient, path: str, field: str, rest: dict[str, Any], text: Any
) -> None:
    content = json.dumps(rest | {field: [text] * (MOST_TEXTS + 1)}).encode()
    reply = await client.post(path, content=content, headers=JSON)
    assert reply.status_code == (400 if field in {"documents", "texts"} else 422)
    assert reply.json()["detail"] == f"{field}: list should have at most 10000 items after validation, not 10001"


async def test_an_object_with_too_many_names_is_refused_before_they_are_compared(client: httpx.AsyncClient) -> None:
    names = {"id": "a", "text": "b"} | {f"k{i}": 1 for i in range(MOST_TEXTS - 1)}
    expected = "body: an object with 10001 names, the limit is 10000"
    for value in (names, {"items": names}, {"items": [names]}):
        assert await refusal(client, "/vectorize-batch", json.dumps(value).encode()) == expected


async def test_the_first_of_many_invalid_records_is_named(client: httpx.AsyncClient) -> None:
    content = json.dumps({"items": [{"id": "a", "text": "b", "x": 1}] * 3}).encode()
    assert await refusal(client, "/vectorize-batch", content) == "items[0].x: extra inputs are not permitted"
