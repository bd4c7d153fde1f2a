"""OpenAI's own Python client, from an upload to vectors of the model that was made from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import openai
import pytest
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob

from tests.conftest import E5_TINY
from tests.fine_tuning import cosine, forget, pair_lines, submit
from tests.service_process import STARTER, Service
from tests.unit.training.training_jobs import docstring_pairs

NAME = "tuned-by-openai"
TEXT = "logrotate rotates log files."
ENDED = ("succeeded", "failed", "cancelled")
NOBODYS = "file-00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Story:
    """What happened.

    Attributes:
        upload: The file.
        created: The job as it was answered at first.
        ended: The job in the end.
    """

    upload: FileObject
    created: FineTuningJob
    ended: FineTuningJob


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def json_lines(count: int) -> bytes:
    pairs = docstring_pairs(count)
    return "".join(json.dumps({"query": p.query, "pos": p.positives, "neg": []}) + "\n" for p in pairs).encode()


@pytest.fixture(scope="module")
def story(client: openai.OpenAI, http: httpx.Client) -> Iterator[Story]:
    upload = client.files.create(file=("pairs.jsonl", json_lines(24) + b'{"messages": []}\n'), purpose="fine-tune")
    created = client.fine_tuning.jobs.create(
        model=E5_TINY, training_file=upload.id, suffix=NAME, seed=7, metadata={"team": "search"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 20}},
        },
    )  # fmt: skip
    ended, deadline = created, time.monotonic() + 150
    while ended.status not in ENDED and time.monotonic() < deadline:
        time.sleep(0.3)
        ended = client.fine_tuning.jobs.retrieve(created.id)
    yield Story(upload, created, ended)
    forget(http, NAME, created.id)


def test_a_job_from_an_uploaded_file_succeeds_and_its_model_answers(client: openai.OpenAI, story: Story) -> None:
    assert (story.created.status, story.created.fine_tuned_model) == ("queued", None)
    ended = story.ended
    assert (ended.status, ended.fine_tuned_model, ended.error) == ("succeeded", NAME, None), ended
    assert (ended.model, ended.training_file, ended.seed, ended.metadata) == (
        E5_TINY, story.upload.id, 7, {"team": "search"},
    )  # fmt: skip
    assert ended.hyperparameters.to_dict() == {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 20}
    assert ended.finished_at is not None
    assert ended.created_at <= ended.finished_at
    made, base = (client.embeddings.create(model=m, input=TEXT).data[0].embedding for m in (NAME, E5_TINY))
    assert cosine(made, base) < 0.9999, "it has learnt something"
    assert client.models.retrieve(NAME).to_dict()["parent"] == E5_TINY


def test_lines_that_are_no_examples_are_counted_and_named(story: Story) -> None:
    told = story.created.to_dict()
    assert (told["accepted"], told["ignored"]) == (24, 1)
    (line,) = told["ignored_lines"]
    assert (line["line"], "has a field 'messages'" in line["reason"]) == (25, True)


def test_events_are_told_from_the_end_to_the_start_over_all_pages(client: openai.OpenAI, story: Story) -> None:
    events = list(client.fine_tuning.jobs.list_events(story.ended.id, limit=3))
    assert len(events) > 3
    assert "served as" in events[0].message
    assert [event.created_at for event in events] == sorted((event.created_at for event in events), reverse=True)
    assert len({event.id for event in events}) == len(events)


def test_the_checkpoint_of_a_finished_job_is_its_result(client: openai.OpenAI, story: Story) -> None:
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(story.ended.id)
    assert (checkpoint.fine_tuned_model_checkpoint, checkpoint.fine_tuning_job_id) == (NAME, story.ended.id)
    assert checkpoint.metrics.step == checkpoint.step_number > 0
    assert checkpoint.metrics.train_loss is not None
    assert "ndcg@10" in checkpoint.metrics.to_dict()


def test_another_job_by_lora_is_cancelled_and_listed_with_those_of_other_routes(
    client: openai.OpenAI, http: httpx.Client
) -> None:
    native = submit(http, model_name="never-made-1", base_model=E5_TINY, text_content=pair_lines(8))
    upload = client.files.create(file=("pairs.tsv", pair_lines(8).encode()), purpose="fine-tune")
    held_out = client.files.create(file=("held-out.jsonl", b'{"query": "q", "pos": ["p"]}\n'), purpose="fine-tune")
    lora = {"type": "lora", "lora": {"hyperparameters": {"n_epochs": "auto", "r": 4, "lora_alpha": 8}}}
    job = client.fine_tuning.jobs.create(
        model=E5_TINY, training_file=upload.id, validation_file=held_out.id, method=lora,  # type: ignore[arg-type]
    )  # fmt: skip
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.ConflictError, match="suffix: there is a model"):
        client.fine_tuning.jobs.create(model=E5_TINY, training_file=upload.id, suffix=STARTER)
    first = client.fine_tuning.jobs.list(limit=1)
    assert first.has_more
    listed = {each.id: each for each in first}
    assert list(listed)[:2] == [job.id, native]
    assert (listed[job.id].training_file, listed[job.id].validation_file) == (upload.id, held_out.id)
    assert listed[job.id].method.to_dict()["lora"]["hyperparameters"]["r"] == 4
    assert listed[native].training_file is None
    client.fine_tuning.jobs.cancel(native)
    for job_id, name in ((native, "never-made-1"), (job.id, "no-name")):
        forget(http, name, job_id)


def test_a_file_is_listed_read_and_deleted(client: openai.OpenAI) -> None:
    data = json_lines(2)
    upload = client.files.create(file=("two.jsonl", data), purpose="fine-tune")
    assert (upload.filename, upload.bytes, upload.purpose) == ("two.jsonl", len(data), "fine-tune")
    assert client.files.wait_for_processing(upload.id).status == "processed"
    assert next(iter(client.files.list(limit=1, purpose="fine-tune"))).id == upload.id, "the newest"
    assert client.files.content(upload.id).read() == data
    assert client.files.delete(upload.id).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="no file"):
            ask(upload.id)


def test_refusals_are_the_exceptions_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="training_file: no file"):
        client.fine_tuning.jobs.create(model=E5_TINY, training_file=NOBODYS)
    upload = client.files.create(file=("chat.jsonl", b'{"messages": []}\n'), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as refusal:
        client.fine_tuning.jobs.create(model=E5_TINY, training_file=upload.id)
    assert refusal.value.param == "training_file"
    with pytest.raises(openai.NotFoundError, match="no model"):
        pairs = client.files.create(file=("pairs.tsv", pair_lines(8).encode()), purpose="fine-tune")
        client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=pairs.id)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=b"q\tp\n", purpose="batch")
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-nobody")
