"""/fine-tune and /fine-tune-lora: parsed requests, ignored lines, validation before anything is stored."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.api.dialects.native.fine_tune_schemas import TrainingExample
from serve_app.api.jobs_protocol import ParsedFineTune
from serve_app.domain.errors import ConflictError, ModelNotFoundError, QueueFullError, ServiceError, StorageError
from serve_app.jobs.training_pairs import Example
from serve_app.jobs.training_spec import LoraSettings, TrainingKind
from tests.unit.api.fake_jobs import FakeJobs
from tests.unit.api.jobs_client import serving

LINES = "q1\tp1\nq2\tp2\n"
PAIRS = [Example("q1", ("p1",)), Example("q2", ("p2",))]


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
async def client(jobs: FakeJobs) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(jobs) as client:
        yield client


async def test_a_fine_tune_is_ordered_with_the_defaults_of_the_contract(
    client: httpx.AsyncClient, jobs: FakeJobs
) -> None:
    reply = await client.post("/fine-tune", json={"text_content": LINES, "model_name": "my-e5"})
    assert (reply.status_code, reply.json()) == (
        200,
        {
            "job_id": "job-1",
            "status": "pending",
            "model_name": "my-e5",
            "base_model": "default-e5",
            "accepted": 2,
            "ignored": 0,
            "ignored_lines": [],
        },
    )
    assert jobs.requests == [ParsedFineTune("my-e5", TrainingKind.FULL, PAIRS)]


async def test_a_lora_fine_tune_has_its_type_and_is_quantised_by_default(
    client: httpx.AsyncClient, jobs: FakeJobs
) -> None:
    body = {"text_content": LINES, "model_name": "my-e5"}
    reply = await client.post("/fine-tune-lora", json=body)
    assert (reply.json()["type"], reply.json()["status"]) == ("lora", "pending")
    own = {"r": 8, "lora_alpha": 8, "lora_dropout": 0, "use_qlora": False}
    await client.post("/fine-tune-lora", json=body | own)
    assert jobs.requests == [
        ParsedFineTune("my-e5", TrainingKind.QLORA, PAIRS, lora=LoraSettings(16, 32, 0.05)),
        ParsedFineTune("my-e5", TrainingKind.LORA, PAIRS, lora=LoraSettings(8, 8, 0.0)),
    ]


async def test_every_option_reaches_the_parsed_request(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    options: dict[str, Any] = {
        "base_model": "other-e5", "epochs": 3, "batch_size": 8, "learning_rate": 1e-4, "max_seq_length": 64,
        "eval_fraction": 0, "seed": 0,
    }  # fmt: skip
    reply = await client.post("/fine-tune", json={"text_content": LINES, "model_name": "my-e5", **options})
    assert reply.status_code == 200
    assert jobs.requests == [ParsedFineTune("my-e5", TrainingKind.FULL, PAIRS, **options)]


async def test_examples_are_taken_in_place_of_lines(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    examples = [{"query": "q1", "pos": ["p1", "p3"], "neg": ["n"]}, {"query": "q2", "pos": ["p2"]}]
    await client.post("/fine-tune", json={"examples": examples, "model_name": "my-e5"})
    assert jobs.requests[0].examples == [Example("q1", ("p1", "p3"), ("n",)), Example("q2", ("p2",))]


async def test_held_out_pairs_of_the_client_are_ordered_apart(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    body = {"text_content": LINES, "eval_text_content": "h\tp1\nno pair\n", "model_name": "my-e5"}
    reply = (await client.post("/fine-tune", json=body)).json()
    assert jobs.requests == [
        ParsedFineTune("my-e5", TrainingKind.FULL, PAIRS, ignored=1, held_out=[Example("h", ("p1",))])
    ]
    assert (reply["accepted"], reply["ignored"]) == (2, 1)
    assert reply["ignored_lines"] == [
        {"line": 2, "reason": "eval_text_content: not exactly one tab between query and passage"}
    ]


async def test_ignored_lines_are_counted_and_the_first_of_them_listed(
    client: httpx.AsyncClient, jobs: FakeJobs
) -> None:
    text = "no pair\r\nq1\tp1\r\n\tp\r\nq1\tp1\r\nq2\tp\u20282\r\n"
    reply = (await client.post("/fine-tune", json={"text_content": text, "model_name": "my-e5"})).json()
    assert (reply["accepted"], reply["ignored"]) == (2, 3)
    assert reply["ignored_lines"] == [
        {"line": 1, "reason": "not exactly one tab between query and passage"},
        {"line": 3, "reason": "query or passage is empty or blank"},
    ]
    assert jobs.requests[0].examples == [Example("q1", ("p1",)), Example("q2", ("p\u20282",))]


@pytest.mark.parametrize("name", ["a", "A", "0", "my.model_v-2", "x" * 100])
async def test_good_names_are_accepted(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.post("/fine-tune", json={"text_content": LINES, "model_name": name})).status_code == 200


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "_x", "a/b", "../a", "a b", "a\n", "ä", "x" * 101, "a\u0000", 5, None]
)
async def test_bad_names_are_refused(client: httpx.AsyncClient, jobs: FakeJobs, name: Any) -> None:
    reply = await client.post("/fine-tune", json={"text_content": LINES, "model_name": name})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("model_name: ")
    assert jobs.requests == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"text_content": None}, "text_content: send either text_content or examples"),
        ({"examples": [{"query": "q", "pos": ["p"]}]}, "text_content: send either text_content or examples"),
        ({"text_content": ""}, "text_content: not one usable pair"),
        ({"text_content": "x"}, "text_content: not one usable pair of query and passage (number 1: not exactly one"),
        ({"text_content": "q\tp"}, "text_content: one usable pair; at least two"),
        ({"text_content": "q\tp\nq\tp\n"}, "text_content: one usable pair; at least two"),
        ({"text_content": "q\tp\nq\tr"}, "text_content: all pairs have the same query or the same passage"),
        ({"text_content": "q\tp\n" * 7}, "text_content: 7 examples, the limit is 6"),
        ({"text_content": 5}, "text_content: input should be a valid string"),
        ({"text_content": "a\tb\nc\t" + "d" * 51}, "text_content: one usable pair"),
        ({"eval_text_content": ""}, "eval_text_content: not one usable pair"),
        ({"eval_text_content": "x"}, "eval_text_content: not one usable pair of query and passage (number 1: "),
        ({"eval_text_content": "q\tp\n" * 7}, "eval_text_content: 7 examples, the limit is 6"),
        (
            {"eval_text_content": "q1\tother"},
            "eval_text_content: no training pairs remain after removing the queries that are held out",
        ),
        ({"epochs": 0}, "epochs: "),
        ({"epochs": 11}, "epochs: 11, the limit is 10"),
        ({"epochs": 1.5}, "epochs: "),
        ({"epochs": True}, "epochs: "),
        ({"batch_size": 1}, "batch_size: must be 2 or more; a batch of one has no negatives"),
        ({"batch_size": -1}, "batch_size: must be 2 or more"),
        ({"batch_size": 65}, "batch_size: 65, the limit is 64"),
        ({"learning_rate": 0}, "learning_rate: "),
        ({"learning_rate": 2}, "learning_rate: "),
        ({"max_seq_length": 7}, "max_seq_length: "),
        ({"max_seq_length": 513}, "max_seq_length: 513, the limit is 512"),
        ({"eval_fraction": -0.1}, "eval_fraction: "),
        ({"eval_fraction": 0.51}, "eval_fraction: "),
        ({"seed": -1}, "seed: "),
        ({"epoch": 3}, "epoch: extra inputs are not permitted"),
        ({"r": 8}, "r: extra inputs are not permitted"),
    ],
)
async def test_invalid_values_are_refused_before_anything_is_stored(
    client: httpx.AsyncClient, jobs: FakeJobs, more: dict[str, Any], message: str
) -> None:
    reply = await client.post("/fine-tune", json={"text_content": LINES, "model_name": "my-e5"} | more)
    assert reply.status_code == 422, reply.text
    assert reply.json()["detail"].startswith(message)
    assert reply.json()["code"] == "invalid_input"
    assert jobs.requests == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"r": 0}, "r: "),
        ({"r": 33}, "r: 33, the limit is 32"),
        ({"lora_alpha": 0}, "lora_alpha: "),
        ({"lora_dropout": 1}, "lora_dropout: "),
        ({"lora_dropout": -0.1}, "lora_dropout: "),
        ({"use_qlora": "yes"}, "use_qlora: "),
    ],
)
async def test_invalid_adapters_are_refused(
    client: httpx.AsyncClient, jobs: FakeJobs, more: dict[str, Any], message: str
) -> None:
    reply = await client.post("/fine-tune-lora", json={"text_content": LINES, "model_name": "my-e5"} | more)
    assert (reply.status_code, reply.json()["detail"].startswith(message)) == (422, True)
    assert jobs.requests == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("field", ["learning_rate", "eval_fraction"])
async def test_numbers_that_json_does_not_have_are_refused(client: httpx.AsyncClient, field: str, number: str) -> None:
    body = f'{{"model_name": "m", "text_content": "a\\tb\\nc\\td", "{field}": {number}}}'
    reply = await client.post("/fine-tune", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["detail"].startswith(field)) == (422, True)


async def test_a_key_that_stands_twice_is_refused(client: httpx.AsyncClient) -> None:
    body = '{"model_name": "m", "text_content": "a\\tb", "text_content": "c\\td"}'
    reply = await client.post("/fine-tune", content=body, headers={"content-type": "application/json"})
    assert reply.json()["detail"] == "body: an object names 'text_content' twice"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConflictError("model_name: taken"), 409, "conflict"),
        (ModelNotFoundError("base_model: none"), 404, "model_not_found"),
        (QueueFullError("too many", retry_after_s=60.0), 429, "queue_full"),
        (StorageError("the disk is full"), 503, "storage_failed"),
    ],
)
async def test_an_error_of_the_jobs_service_reaches_the_client(
    client: httpx.AsyncClient, jobs: FakeJobs, error: ServiceError, status: int, code: str
) -> None:
    jobs.error = error
    reply = await client.post("/fine-tune", json={"text_content": LINES, "model_name": "my-e5"})
    assert (reply.status_code, reply.json()) == (status, {"detail": error.message, "code": code})


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("q", "examples[1]: input should be a valid dictionary"),
        (None, "examples[1]: input should be a valid dictionary"),
        ({"query": "q"}, "examples[1].pos: field required"),
        ({"query": 5, "pos": ["p"]}, "examples[1].query: input should be a valid string"),
        ({"query": "q", "pos": "p"}, "examples[1].pos: input should be a valid list"),
        ({"query": "q", "pos": ["p", 5]}, "examples[1].pos[1]: input should be a valid string"),
        ({"query": "q", "pos": ["p"], "negs": []}, "examples[1]: has a field 'negs'; it is called 'neg' here"),
        ({"query": "q", "passage": "p"}, "examples[1]: has a field 'passage'; it is called 'pos' here"),
    ],
)
async def test_an_example_that_is_none_is_named(
    client: httpx.AsyncClient, jobs: FakeJobs, example: Any, message: str
) -> None:
    examples = [{"query": "q", "pos": ["p"]}, example, 7]
    reply = await client.post("/fine-tune", json={"model_name": "my-e5", "examples": examples})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_input")
    assert reply.json()["detail"].startswith(message)
    assert jobs.requests == []


async def test_examples_are_checked_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkers: set[int] = set()
    check = TrainingExample.model_validate

    def noted(given: Any) -> TrainingExample:
        checkers.add(threading.get_ident())
        return check(given)

    monkeypatch.setattr(TrainingExample, "model_validate", noted)
    examples = [{"query": "q1", "pos": ["p1"]}, {"query": "q2", "pos": ["p2"]}]
    assert (await client.post("/fine-tune", json={"model_name": "m", "examples": examples})).status_code == 200
    assert checkers
    assert threading.get_ident() not in checkers


async def test_the_schema_describes_an_example(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    shown = schemas["FineTuneRequest"]["properties"]["examples"]["anyOf"][0]["items"]
    assert sorted(shown["properties"]) == ["neg", "pos", "query"]
    assert shown["required"] == ["query", "pos"]
