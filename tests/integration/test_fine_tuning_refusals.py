"""What is refused before anything is stored, and data that is odd or huge but right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import CROSS_ENCODER, E5_TINY
from tests.fine_tuning import asking, pair_lines
from tests.service_process import Service

MILLION = 1_000_000
GOOD: dict[str, Any] = {"model_name": "never-made", "base_model": E5_TINY, "text_content": pair_lines(4)}


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"base_model": "nobody"}, 404, "base_model: no model 'nobody'"),
        ({"base_model": "../models"}, 404, "base_model"),
        ({"base_model": "somebody/e5-large"}, 404, "base_model"),
        ({"base_model": CROSS_ENCODER}, 422, "is a reranker"),
        ({"model_name": "../escape"}, 422, "model_name"),
        ({"model_name": "a/b"}, 422, "model_name"),
        ({"model_name": ".hidden"}, 422, "model_name"),
        ({"model_name": "name\n"}, 422, "model_name"),
        ({"model_name": ""}, 422, "model_name"),
        ({"model_name": "n" * 101}, 422, "model_name"),
        ({"model_name": E5_TINY}, 409, "model_name"),
        ({"text_content": "\t"}, 422, "not one usable pair"),
        ({"text_content": ""}, 422, "not one usable pair"),
        ({"text_content": "no tab"}, 422, "number 1: not exactly one tab"),
        ({"text_content": "query\tpassage\n"}, 422, "header"),
        ({"text_content": "rotate logs\tlogrotate\n"}, 422, "at least two are needed"),
        ({"text_content": "rotate logs\tlogrotate\r\nrotate logs\tlogrotate\r\n"}, 422, "at least two are needed"),
        ({"text_content": "one\tsame\ntwo\tsame\n"}, 422, "two must differ in both"),
        ({"text_content": None}, 422, "text_content"),
        ({"batch_size": 1}, 422, "batch_size"),
        ({"epochs": 101}, 422, "epochs"),
        ({"learning_rate": 0}, 422, "learning_rate"),
        ({"epoch": 2}, 422, "epoch"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_can_not_be_trained_is_refused_with_the_reason(
    client: httpx.Client, change: dict[str, Any], status: int, words: str
) -> None:
    reply = client.post("/fine-tune", json=GOOD | change)
    assert reply.status_code == status
    assert words in json.dumps(reply.json()["detail"])


def test_four_bits_of_a_model_that_is_too_narrow_for_them_are_refused_and_never_replaced(client: httpx.Client) -> None:
    reply = client.post("/fine-tune-lora", json=GOOD)
    assert reply.status_code == 400
    assert "use_qlora: false" in reply.json()["detail"]


def test_a_refused_job_leaves_nothing_behind(client: httpx.Client, models_dir: Path) -> None:
    names = [job["model_name"] for job in client.get("/jobs", params={"limit": 100}).json()["jobs"]]
    assert GOOD["model_name"] not in names
    assert not (models_dir / GOOD["model_name"]).exists()
    unknown = client.get("/train-status/no-such-job")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "Job not found")


def test_windows_line_ends_end_lines_and_unicode_ones_do_not(client: httpx.Client, models_dir: Path) -> None:
    text = "first query\tone\u2028passage\r\nsecond\x85query\tanother \x0bpassage\r\n"
    reply = client.post("/fine-tune", json=GOOD | {"text_content": text}).json()
    assert (reply["accepted"], reply["ignored"]) == (2, 0)
    end(client, reply["job_id"])
    stored = stored_pairs(models_dir, reply["job_id"])
    assert [(pair["query"], pair["pos"]) for pair in stored] == [
        ("first query", ["one\u2028passage"]),
        ("second\x85query", ["another \x0bpassage"]),
    ]


def test_a_million_lines_are_all_kept_while_others_are_answered(
    service: Service, client: httpx.Client, models_dir: Path
) -> None:
    lines = "".join(f"q{i}\tp{i}\n" for i in range(MILLION))
    with asking(service.url) as meanwhile:
        reply = client.post("/fine-tune", json=GOOD | {"text_content": lines})
        assert reply.status_code == 200, reply.text
        end(client, reply.json()["job_id"])
    assert (reply.json()["accepted"], reply.json()["ignored"]) == (MILLION, 0)
    stored = stored_lines(models_dir, reply.json()["job_id"])
    last = json.loads(stored[-1])
    assert (len(stored), last["query"], last["pos"]) == (MILLION, f"q{MILLION - 1}", [f"p{MILLION - 1}"])
    assert meanwhile.failures == []
    assert meanwhile.good > 10


def end(client: httpx.Client, job_id: str) -> None:
    assert client.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"


def stored_pairs(models_dir: Path, job_id: str) -> list[dict[str, Any]]:
    """What the job would be trained on."""
    return [json.loads(line) for line in stored_lines(models_dir, job_id)]


def stored_lines(models_dir: Path, job_id: str) -> list[str]:
    """The same as it is stored: a line of JSON for each pair."""
    with (models_dir.parent / "jobs" / job_id / "pairs.jsonl").open(encoding="utf-8") as lines:
        return list(lines)
