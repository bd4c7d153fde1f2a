"""The command-line client, against a scripted service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from training import submit

ACCEPTED = {"job_id": "j1", "accepted": 2, "ignored": 1, "ignored_lines": [{"line": 3, "reason": "no tab"}]}
METRICS = {"ndcg@10": 0.5, "recall@1": 0.4, "recall@10": 0.6, "mrr@10": 0.45, "queries": 7, "documents": 70}
RUNNING: dict[str, Any] = {
    "status": "running", "progress": 40.0, "message": "step 4 of 10", "pending_reason": None, "seconds_left": 61.0,
    "error": None, "metrics_before": METRICS, "metrics_after": None,
}  # fmt: skip
COMPLETED = RUNNING | {
    "status": "completed", "progress": 100.0, "message": "served as 'mine'", "seconds_left": None,
    "metrics_after": METRICS | {"ndcg@10": 0.625},
}  # fmt: skip
EVENTS = [
    {"id": 1, "level": "warning", "message": "quotation marks surround 3 queries"},
    {"id": 2, "level": "info", "message": "measuring the base"},
    {"id": 3, "level": "warning", "message": "served as 'mine', but it is WORSE"},
]
FAILED = RUNNING | {"status": "failed", "error": "the disk is full"}


class FakeService:
    """Answers the statuses one after the other; remembers what was sent."""

    def __init__(self, *statuses: Any) -> None:
        self.statuses = list(statuses)
        self.sent: list[tuple[str, Any]] = []
        self.keys: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("authorization"))
        if request.method == "POST":
            self.sent.append((request.url.path, json.loads(request.content)))
            return httpx.Response(200, json=ACCEPTED)
        if request.url.path.endswith("/events"):
            return httpx.Response(200, json={"events": EVENTS})
        answer = self.statuses.pop(0)
        return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(200, json=answer)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.tsv"
    path.write_text("a\tb\nc\td\nbroken\n", encoding="utf-8")
    return str(path)


def run(monkeypatch: pytest.MonkeyPatch, service: Any, *arguments: str) -> int:
    client = httpx.Client
    monkeypatch.setattr(
        submit.httpx, "Client", lambda **options: client(**options, transport=httpx.MockTransport(service))
    )
    monkeypatch.setattr(submit.time, "sleep", lambda _: None)
    return submit.main(list(arguments))


def test_options_that_are_not_given_are_left_to_the_service(monkeypatch: pytest.MonkeyPatch, pairs: str) -> None:
    service = FakeService()
    assert run(monkeypatch, service, pairs, "--model-name", "mine", "--kind", "full") == 0
    assert service.sent == [("/fine-tune", {"model_name": "mine", "text_content": "a\tb\nc\td\nbroken\n"})]


@pytest.mark.parametrize(("kind", "use_qlora"), [("lora", False), ("qlora", True)])
def test_every_option_reaches_the_service(
    monkeypatch: pytest.MonkeyPatch, pairs: str, kind: str, use_qlora: bool
) -> None:
    service = FakeService()
    options = ["--kind", kind, "--base-model", "e5", "--epochs", "2", "--learning-rate", "1e-4", "--api-key", "secret"]
    run(monkeypatch, service, pairs, "--model-name", "mine", *options)
    path, body = service.sent[0]
    assert (path, body["use_qlora"], body["base_model"]) == ("/fine-tune-lora", use_qlora, "e5")
    assert (body["epochs"], body["learning_rate"]) == (2, 1e-4)
    assert service.keys == ["Bearer secret"]


def test_a_watched_job_ends_with_the_table(
    monkeypatch: pytest.MonkeyPatch, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = FakeService(RUNNING, 503, COMPLETED)
    assert run(monkeypatch, service, pairs, "--model-name", "mine", "--watch") == 0
    out = capsys.readouterr().out
    assert "line 3: no tab" in out
    assert "ndcg@10        0.500   0.625   +0.125" in out
    assert "7 queries, 70 documents" in out
    assert "warning: quotation marks surround 3 queries\n" in out
    assert "measuring the base" not in out
    assert "WORSE" not in out, "it is the job's message"


def test_the_table_has_a_row_for_each_head_that_was_measured() -> None:
    before, after = ({**METRICS, "groups": 5, "sparse_ndcg@10": value} for value in (0.25, 0.2))
    assert "sparse_ndcg@10    0.250   0.200   -0.050" in submit.table(before, after)
    assert submit.table(before, after).endswith("7 queries in 5 groups, 70 documents")


def test_a_failed_job_prints_its_reason_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, FakeService(FAILED), pairs, "--model-name", "mine", "--watch") == 1
    assert "the disk is full" in capsys.readouterr().out


def test_a_read_only_service_names_the_one_that_accepts_jobs(
    monkeypatch: pytest.MonkeyPatch, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = {"detail": "the fine-tuning jobs of this folder are managed by service A", "code": "jobs_read_only"}
    assert run(monkeypatch, lambda _: httpx.Response(503, json=reply), pairs, "--model-name", "mine") == 1
    assert capsys.readouterr().err == f"not submitted: 503: {reply['detail']}\n"


def test_a_rate_limited_client_waits(
    monkeypatch: pytest.MonkeyPatch, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, FakeService(RUNNING, 429, 429, COMPLETED), pairs, "--model-name", "mine", "--watch") == 0
    assert "served as 'mine'" in capsys.readouterr().out


def test_a_rejected_request_is_reported(
    monkeypatch: pytest.MonkeyPatch, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, FakeService(RUNNING, 404), pairs, "--model-name", "mine", "--watch") == 1
    assert "lost the connection to job j1, which continues: 404" in capsys.readouterr().err


def test_an_error_is_shown_in_the_words_of_the_service(
    monkeypatch: pytest.MonkeyPatch, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(409, json={"detail": "a model named 'mine' exists"})

    assert run(monkeypatch, refuse, pairs, "--model-name", "mine") == 1
    assert "409: a model named 'mine' exists" in capsys.readouterr().err
