"""What a client or a proxy sends again, because the HTTP replica died before it answered, is no second job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import E5_TINY
from tests.fine_tuning import pair_lines
from tests.keyed import ADMIN, bearer
from tests.service_process import Service


@pytest.fixture
def client(exposed: Service) -> Iterator[httpx.Client]:
    """Of a service in which jobs wait for ever; none is left behind."""
    with httpx.Client(base_url=exposed.url, headers=bearer(ADMIN), timeout=60) as client:
        yield client
        for job in client.get("/jobs").json()["jobs"]:
            client.post(f"/jobs/{job['job_id']}/cancel")
            client.delete(f"/jobs/{job['job_id']}")


def test_a_chosen_name_is_taken_even_for_the_same_order_and_the_refusal_names_the_job(client: httpx.Client) -> None:
    order = {"model_name": "again", "text_content": pair_lines(9)}
    first, second = (client.post("/fine-tune", json=order) for _ in range(2))
    assert (first.status_code, second.status_code, second.json()["code"]) == (200, 409, "conflict")
    assert first.json()["job_id"] in second.json()["detail"]
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_fine_tune_whose_name_the_service_makes_up_is_the_same_when_it_is_sent_again(client: httpx.Client) -> None:
    file = client.post(
        "/v1/files", files={"file": ("pairs.tsv", pair_lines(9).encode())}, data={"purpose": "fine-tune"}
    ).json()["id"]
    order: dict[str, Any] = {"model": E5_TINY, "training_file": file}
    first, second = (client.post("/v1/fine_tuning/jobs", json=order).json() for _ in range(2))
    client.delete(f"/v1/files/{file}")
    assert first["id"] == second["id"]
    assert [job["job_id"] for job in client.get("/jobs").json()["jobs"]] == [first["id"]]
