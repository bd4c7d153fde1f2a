"""A fine-tune of all weights as a client sees it: pairs in, progress, a served model, and everybody else answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from tests.conftest import E5_TINY
from tests.fine_tuning import Answers, Job, asking, cosine, forget, live_events, pair_lines, submit, wait_until_gone
from tests.service_process import STARTER, Service

NAME = "tuned-e5"
QUERY, PASSAGE = "which tool rotates log files?", "logrotate rotates the log files of a system.\u2028It runs at night."
ODD_LINES = ("no tab here", "two\ttabs\there", "\t", "  \tblank query", f"{QUERY}\t{PASSAGE}\r", f"{QUERY}\t{PASSAGE}")
TEXTS = [PASSAGE, "cron starts programs at fixed times", "a cake takes an hour in the oven"]
CLOSEST = 0.9999  # cosine, float32 on both sides


@dataclass(frozen=True)
class Story:
    """What happened.

    Attributes:
        reply: To the submission.
        events: What the job's live stream said.
        meanwhile: What another client got, from the submission to the end of the job.
        at_once: The first answers under the new name.
    """

    reply: Job
    events: list[tuple[str, Any]]
    meanwhile: Answers
    at_once: list[httpx.Response]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def story(service: Service, client: httpx.Client) -> Iterator[Story]:
    lines = pair_lines(40) + "\n".join(ODD_LINES) + "\n"
    shape = {"batch_size": 8, "epochs": 3, "learning_rate": 1e-3}
    body = {"model_name": NAME, "base_model": E5_TINY, "text_content": lines, **shape}
    with asking(service.url) as meanwhile:
        reply = client.post("/fine-tune", json=body).json()
        events = list(live_events(client, reply["job_id"]))
        at_once = ask_every_replica(service.url, {"text": QUERY, "model": NAME})
    yield Story(reply, events, meanwhile, at_once)
    forget(client, NAME, reply["job_id"])


def ask_every_replica(url: str, body: Job) -> list[httpx.Response]:
    """Sixteen connections, which are spread over two replicas of the ingress and those over two of the encoder."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: httpx.post(f"{url}/vectorize", json=body, timeout=60), range(16)))


@contextmanager
def an_adapter_on(base: str, folder: Path) -> Iterator[None]:
    """A folder that says so; that is all the service looks at before it loads one."""
    folder.mkdir()
    manifest = {"job_id": "j", "base": base, "family": "e5", "kind": "lora", "adapter": True}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        yield
    finally:
        shutil.rmtree(folder)


def test_the_reply_counts_what_is_used_and_names_what_is_not(story: Story) -> None:
    assert story.reply["status"] == "pending"
    assert (story.reply["accepted"], story.reply["ignored"]) == (41, 5)
    told = {line["line"]: line["reason"] for line in story.reply["ignored_lines"]}
    assert sorted(told) == [41, 42, 43, 44, 46]
    assert "one tab" in told[41]
    assert "one tab" in told[42]
    assert "blank" in told[43]
    assert "blank" in told[44]
    assert told[46] == "the same pair as in line 45"


def test_no_request_fails_while_a_model_is_trained_and_published(story: Story) -> None:
    print(f"{story.meanwhile.good} requests were answered during the job")
    assert story.meanwhile.failures == []
    assert story.meanwhile.good > 20


def test_progress_never_falls_and_the_stream_ends_with_the_job(story: Story) -> None:
    states = [data for kind, data in story.events if kind == "job"]
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    assert states[0]["status"] == "pending"
    assert "running" in {state["status"] for state in states}
    last = states[-1]
    assert (last["status"], last["progress"], last["error"]) == ("completed", 100, None)
    assert last["steps"] == last["total_steps"] == 3 * (last["train_pairs"] // 8)


def test_a_model_is_served_by_every_replica_as_soon_as_its_job_is_completed(story: Story) -> None:
    assert [reply.status_code for reply in story.at_once] == [200] * 16
    vectors = [reply.json()["vector"] for reply in story.at_once]
    assert min(cosine(vectors[0], vector) for vector in vectors) > CLOSEST


@pytest.mark.usefixtures("story")
def test_the_served_vectors_of_a_fine_tune_are_those_of_sentence_transformers(
    client: httpx.Client, models_dir: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models_dir / NAME), device="cpu")
    served = client.post("/vectorize-batch", json={"items": TEXTS, "model": NAME}).json()["vectors"]
    assert cosine(served, model.encode_document(TEXTS)) > CLOSEST
    base = client.post("/vectorize-batch", json={"items": TEXTS, "model": E5_TINY}).json()["vectors"]
    assert cosine(served, base) < CLOSEST, "it has learnt something"


def test_manifest_metrics_diary_log_and_curve_tell_the_same_story(
    client: httpx.Client, story: Story, models_dir: Path
) -> None:
    job_id = story.reply["job_id"]
    job = client.get(f"/jobs/{job_id}").json()
    manifest = json.loads((models_dir / NAME / "manifest.json").read_text())
    assert (manifest["job_id"], manifest["base"], manifest["kind"]) == (job_id, E5_TINY, "full")
    assert manifest["metrics"] == {"before": job["metrics_before"], "after": job["metrics_after"]}
    assert set(job["metrics_after"]) >= {"ndcg@10", "recall@1", "recall@10", "mrr@10"}
    shown = client.get(f"/models/{NAME}").json()
    assert (shown["base"], shown["kind"], shown["metrics"]) == (E5_TINY, "full", manifest["metrics"])

    diary = client.get(f"/jobs/{job_id}/events").json()["events"]
    assert diary == [data for kind, data in story.events if kind == "event"]
    assert [entry["id"] for entry in diary] == list(range(1, len(diary) + 1))
    assert diary[-1]["message"] == job["message"]
    assert "Running entrypoint" in client.get(f"/jobs/{job_id}/logs").text
    curve = client.get(f"/jobs/{job_id}/loss.svg")
    assert curve.headers["content-type"] == "image/svg+xml"
    assert ElementTree.fromstring(curve.text).tag.endswith("svg")


def test_a_name_belongs_to_its_model_until_that_is_deleted(
    client: httpx.Client, story: Story, models_dir: Path
) -> None:
    body = {"base_model": E5_TINY, "text_content": pair_lines(8)}
    for taken in (NAME, STARTER):
        refusal = client.post("/fine-tune", json=body | {"model_name": taken})
        assert (refusal.status_code, "there is a model" in refusal.json()["detail"]) == (409, True)
    refusal = client.delete(f"/models/{E5_TINY}")
    assert (refusal.status_code, "configuration" in refusal.json()["detail"]) == (409, True)

    child = submit(client, model_name="child", base_model=NAME, text_content=pair_lines(8))
    refusal = client.delete(f"/models/{NAME}")
    assert (refusal.status_code, child in refusal.json()["detail"]) == (409, True)
    assert client.post(f"/jobs/{child}/cancel").json()["status"] == "cancelled"
    with an_adapter_on(NAME, models_dir / "child"):
        refusal = client.delete(f"/models/{NAME}")
        assert (refusal.status_code, "child" in refusal.json()["detail"]) == (409, True)

    assert client.delete(f"/models/{NAME}").status_code == 204
    assert client.get(f"/models/{NAME}").status_code == 404
    wait_until_gone(client, NAME)
    again = submit(client, model_name=NAME, **body)
    assert client.post(f"/jobs/{again}/cancel").json()["status"] == "cancelled"
    assert client.get(f"/train-status/{story.reply['job_id']}").json()["status"] == "completed"
